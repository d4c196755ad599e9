"""The templates say what the code, the migrations and the documents say."""

import math
import re
import unittest

from templates import ROOT, TEMPLATES, actions, migrate_operations, migration, refusals, settings, store_operations, template


class Templates(unittest.TestCase):
    def setUp(self):
        self.table = template("table")
        self.service = template("service")
        self.resources = self.service["Resources"]
        self.task_definition = self.resources["TaskDefinition"]["Properties"]

    def test_the_role_may_do_what_the_code_calls_and_nothing_else(self):
        [policy] = self.resources["TaskRole"]["Properties"]["Policies"]
        statement, key = policy["PolicyDocument"]["Statement"]
        self.assertEqual(list(key), ["Fn::If"])
        needed = actions(store_operations() | migrate_operations("check"))
        self.assertEqual(statement["Action"], sorted(f"dynamodb:{action}" for action in needed))
        self.assertEqual(self.task_definition["TaskRoleArn"], {"Fn::GetAtt": ["TaskRole", "Arn"]})
        arn = "arn:${AWS::Partition}:dynamodb:${AWS::Region}:${AWS::AccountId}:table/${TableName}"
        self.assertEqual(statement["Resource"], {"Fn::Sub": arn})

    def test_no_other_part_of_the_code_asks_dynamodb(self):
        sending = {str(path.relative_to(ROOT)) for path in (ROOT / "src").rglob("*.rs") if ".send()" in path.read_text()}
        # That one asks the issuer of tokens for keys.
        self.assertEqual(sending, {"src/migrate.rs", "src/store/dynamodb.rs", "src/http/auth/keyring.rs"})

    def test_the_operators_guide_lists_the_same_actions_and_those_of_migrate(self):
        text = " ".join((ROOT / "docs/OPERATIONS.md").read_text().split())
        role, migrate = re.search(r"The task role needs (.*?) on the table; `migrate` also needs (.*?)\.", text).groups()
        names = lambda part: {name.removeprefix("dynamodb:") for name in re.findall(r"`([\w:]+)`", part)}
        self.assertEqual(names(role), actions(store_operations() | migrate_operations("check")))
        self.assertEqual(names(migrate), migrate_operations("migrate") - migrate_operations("check"))

    def test_the_table_is_the_one_that_the_migrations_make(self):
        made = migration(1) | migration(2)
        table = self.table["Resources"]["Table"]["Properties"]
        for key in ("AttributeDefinitions", "KeySchema", "BillingMode", "TimeToLiveSpecification"):
            self.assertEqual(table[key], made.pop(key), key)
        for templates in (self.table, self.service):
            self.assertEqual(templates["Parameters"]["TableName"]["Default"], made["TableName"])
        self.assertEqual(list(made), ["TableName"], "a migration that the template does not have")
        self.assertEqual(len(list((ROOT / "migrations").glob("*.json"))), 2, "a migration that the template does not have")

    def test_who_waits_for_whom_waits_longer(self):
        [container] = self.task_definition["ContainerDefinitions"]
        # None of these timings is a parameter, so they are the same in every deployment.
        fixed = {each["Name"]: each["Value"] for each in container["Environment"] if isinstance(each["Value"], str)}
        server = settings(fixed)["server"]
        seconds = lambda name, kind, key: int(
            {each["Key"]: each["Value"] for each in self.resources[name]["Properties"][kind]}[f"{key}.timeout_seconds"]
        )
        self.assertLess(seconds("LoadBalancer", "LoadBalancerAttributes", "idle_timeout"), server["header_read_timeout_s"])
        delay = seconds("TargetGroup", "TargetGroupAttributes", "deregistration_delay")
        self.assertGreater(delay, server["request_timeout_s"])
        # One second for the last answers, two for traces.
        self.assertGreater(container["StopTimeout"], server["deregistration_s"] + server["drain_s"] + 3)

    def test_a_number_may_be_what_its_setting_may_be(self):
        [container] = self.task_definition["ContainerDefinitions"]
        variables = {
            each["Name"]: self.service["Parameters"][each["Value"]["Ref"]]
            for each in container["Environment"]
            if isinstance(each["Value"], dict) and self.service["Parameters"].get(each["Value"].get("Ref"), {}).get("Type") == "Number"
        }
        self.assertEqual(len(variables), 5)
        for end, beyond in (("MinValue", -1), ("MaxValue", 1)):
            # Together, since a heartbeat's interval goes by the lease's duration.
            all_at_end = {name: str(parameter[end]) for name, parameter in variables.items()}
            settings(all_at_end)
            for name, parameter in variables.items():
                with self.assertRaises(AssertionError, msg=f"{name}: {end}"):
                    settings(all_at_end | {name: str(parameter[end] + beyond)})

    def test_a_task_has_a_worker_for_each_cpu_that_it_may_use(self):
        [container] = self.task_definition["ContainerDefinitions"]
        variables = {each["Name"]: each["Value"] for each in container["Environment"]}
        by_size = lambda key: {"Fn::FindInMap": ["TaskSizes", {"Ref": "TaskSize"}, key]}
        self.assertEqual(self.task_definition["Cpu"], by_size("Cpu"))
        self.assertEqual(variables["STREAM_MANAGER__SERVER__WORKER_THREADS"], by_size("Threads"))
        for name, size in self.service["Mappings"]["TaskSizes"].items():
            self.assertEqual(int(size["Threads"]), math.ceil(int(size["Cpu"]) / 1024), name)

    def test_a_template_is_small_enough_to_be_sent_without_a_bucket(self):
        for path in TEMPLATES.glob("*.yaml"):
            self.assertLess(path.stat().st_size, 51_200, path)

    def test_the_table_outlives_its_stack_and_mistakes(self):
        table = self.table["Resources"]["Table"]
        self.assertEqual((table["DeletionPolicy"], table["UpdateReplacePolicy"]), ("Retain", "Retain"))
        self.assertEqual(table["Properties"]["DeletionProtectionEnabled"], {"Ref": "DeletionProtection"})
        self.assertEqual(self.table["Parameters"]["DeletionProtection"]["Default"], "true")
        self.assertTrue(table["Properties"]["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"])

    def test_the_alarms_look_at_each_operation_of_a_verb(self):
        metrics = self.resources["TableErrorsAlarm"]["Properties"]["Metrics"]
        dimensions = [each for metric in metrics for each in metric.get("MetricStat", {}).get("Metric", {}).get("Dimensions", [])]
        operations = {each["Value"] for each in dimensions if each["Name"] == "Operation"}
        self.assertEqual(operations, store_operations())

    def test_what_must_not_be_combined_is_refused(self):
        jwt = {"AuthIssuer": "https://login.example.com/", "AuthAudience": "streams", "AuthJwksUrl": "https://login.example.com/keys"}
        secret = {**jwt, "AuthJwksUrl": "", "AuthSecretArn": "arn:…"}
        none, outside = {"AuthMode": "none"}, {"Scheme": "internet-facing"}
        for allowed in (jwt, jwt | outside, secret | outside, none):
            self.assertEqual(refusals(self.service, allowed), [], allowed)
        for refused, why in (
            (none | outside, "An internet-facing load balancer needs AuthMode jwt."),
            (jwt | {"AuthIssuer": ""}, "AuthMode jwt needs AuthIssuer."),
            (jwt | {"AuthAudience": ""}, "AuthMode jwt needs AuthAudience."),
            (jwt | {"AuthJwksUrl": ""}, "AuthMode jwt needs one of AuthJwksUrl and AuthSecretArn."),
            (secret | jwt, "AuthMode jwt needs one of AuthJwksUrl and AuthSecretArn."),
            (none | {"AuthIssuer": "x"}, "AuthIssuer, AuthAudience, AuthJwksUrl and AuthSecretArn are for AuthMode jwt."),
        ):
            self.assertEqual(refusals(self.service, refused), [why], refused)

    def test_an_image_is_named_by_its_digest(self):
        pattern = self.service["Parameters"]["Image"]["AllowedPattern"]
        repository = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/video/stream-manager"
        self.assertTrue(re.fullmatch(pattern, f"{repository}@sha256:{'0' * 64}"))
        for refused in (repository, f"{repository}:latest", f"ghcr.io/a/b@sha256:{'0' * 64}", f"{repository}@sha256:0"):
            self.assertFalse(re.fullmatch(pattern, refused), refused)

    def test_the_script_that_deploys_calls_things_as_the_template_does(self):
        script = (ROOT / "scripts/deploy").read_text()
        named = dict(re.findall(r"^(\w+_(?:parameter|pattern|output))='?([^'\n]+)'?$", script, re.MULTILINE))
        [container] = self.task_definition["ContainerDefinitions"]
        variables = {each["Name"]: each["Value"] for each in container["Environment"]}
        self.assertEqual(container["Image"], {"Ref": named.pop("image_parameter")})
        self.assertEqual(variables["STREAM_MANAGER__DYNAMODB__TABLE"], {"Ref": named.pop("table_parameter")})
        self.assertEqual(variables["STREAM_MANAGER__RATE__STARTS_PER_MINUTE"], {"Ref": named.pop("starts_parameter")})
        self.assertEqual(self.service["Parameters"]["Image"]["AllowedPattern"], named.pop("image_pattern"))
        self.assertIn(named.pop("url_output"), self.service["Outputs"])
        self.assertEqual(named, {})

    def test_every_parameter_is_explained_grouped_and_in_the_documents(self):
        document = (ROOT / "docs/DEPLOYMENT.md").read_text()
        known = set()
        for each in (self.table, self.service):
            groups = each["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
            grouped = [name for group in groups for name in group["Parameters"]]
            self.assertEqual(sorted(grouped), sorted(each["Parameters"]))
            known |= set(grouped)
            for name, parameter in each["Parameters"].items():
                self.assertTrue(parameter["Description"], name)
                self.assertEqual("AllowedPattern" in parameter, "ConstraintDescription" in parameter, name)
                self.assertIn(f"`{name}`", document)
        self.assertEqual(set(re.findall(r"\b([A-Z][a-z]\w*)=", document)) - known, set())

    def test_the_documents_name_outputs_and_services_that_the_template_has(self):
        told = set(re.findall(r"\$\(told (\w+)\)", (ROOT / "docs/OPERATIONS.md").read_text()))
        self.assertEqual(told, {"ClusterName", "ListenerArn", "ServiceName"})
        self.assertLessEqual(told, set(self.service["Outputs"]))
        services = re.findall(r"^\| `(AWS::\w+)` \|", (ROOT / "docs/RELEASING.md").read_text(), re.MULTILINE)
        self.assertEqual(sorted(services), sorted({resource["Type"].rsplit("::", 1)[0] for resource in self.resources.values()}))

    def test_every_alarm_is_in_the_documents(self):
        document = (ROOT / "docs/DEPLOYMENT.md").read_text()
        telling = {name for name, resource in self.resources.items() if "AlarmActions" in resource["Properties"]}
        self.assertEqual(set(re.findall(r"^\| `(\w+Alarm)`", document, re.MULTILINE)), telling)


if __name__ == "__main__":
    unittest.main()
