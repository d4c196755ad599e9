"""Compares the templates with the code, the migrations, the settings and the documentation."""

import json
import math
import re
import unittest

from metric_filters import metric_sum
from templates import (
    PREFIX,
    ROOT,
    TEMPLATES,
    failed_assertions,
    iam_actions,
    migrate_operations,
    migration,
    settings,
    source_files,
    store_operations,
    template,
    uses_dynamodb,
)


class Templates(unittest.TestCase):
    def setUp(self):
        self.table = template("table")
        self.table_stream = template("table-stream")
        self.service = template("service")
        self.resources = self.service["Resources"]
        self.task_definition = self.resources["TaskDefinition"]["Properties"]
        [self.container] = self.task_definition["ContainerDefinitions"]
        self.variables = {variable["Name"]: variable["Value"] for variable in self.container["Environment"]}

    def test_task_role_allows_exactly_the_operations_of_the_code(self):
        [policy] = self.resources["TaskRole"]["Properties"]["Policies"]
        statement, key_statement = policy["PolicyDocument"]["Statement"]
        self.assertEqual(list(key_statement), ["Fn::If"])
        needed = iam_actions(store_operations() | migrate_operations("check"))
        self.assertEqual(statement["Action"], sorted(f"dynamodb:{action}" for action in needed))
        self.assertEqual(self.task_definition["TaskRoleArn"], {"Fn::GetAtt": ["TaskRole", "Arn"]})
        arn = "arn:${AWS::Partition}:dynamodb:${AWS::Region}:${AWS::AccountId}:table/${TableName}"
        self.assertEqual(statement["Resource"], {"Fn::Sub": arn})

    def test_only_the_store_and_migrate_call_dynamodb(self):
        callers = {path for path, code in source_files().items() if ".send()" in code and "dynamodb" in code}
        self.assertTrue(callers)
        self.assertEqual({path for path in callers if not uses_dynamodb(path)}, set())

    def test_table_matches_the_migrations(self):
        expected = migration(1) | migration(2)
        table = self.table["Resources"]["Table"]["Properties"]
        for key in ("AttributeDefinitions", "KeySchema", "BillingMode", "TimeToLiveSpecification"):
            self.assertEqual(table[key], expected.pop(key), key)
        for each in (self.table, self.service):
            self.assertEqual(each["Parameters"]["TableName"]["Default"], expected["TableName"])
        self.assertEqual(list(expected), ["TableName"], "the template lacks a migration")
        self.assertEqual(len(list((ROOT / "migrations").glob("*.json"))), 2, "the template lacks a migration")

    def test_timeouts_exceed_the_timeouts_that_they_contain(self):
        # None of these timeouts is a parameter, so every deployment has these values. The authentication mode is a
        # parameter, so the test sets it.
        fixed = {name: value for name, value in self.variables.items() if isinstance(value, str)}
        fixed[f"{PREFIX}AUTH__MODE"] = "none"
        server = settings(fixed)["server"]

        def timeout(resource, attributes, name):
            values = {each["Key"]: each["Value"] for each in self.resources[resource]["Properties"][attributes]}
            return int(values[f"{name}.timeout_seconds"])

        idle_timeout = timeout("LoadBalancer", "LoadBalancerAttributes", "idle_timeout")
        self.assertLess(idle_timeout, server["header_read_timeout_s"])
        deregistration_delay = timeout("TargetGroup", "TargetGroupAttributes", "deregistration_delay")
        self.assertGreater(deregistration_delay, server["request_timeout_s"])
        # The service needs 1 s for the last responses and 2 s for traces.
        self.assertGreater(self.container["StopTimeout"], server["deregistration_s"] + server["drain_s"] + 3)

    def test_number_parameters_have_the_bounds_of_their_settings(self):
        parameters = self.service["Parameters"]
        references = {name: value["Ref"] for name, value in self.variables.items() if isinstance(value, dict) and "Ref" in value}
        numbers = {
            name: parameters[parameter]
            for name, parameter in references.items()
            if parameters.get(parameter, {}).get("Type") == "Number"
        }
        self.assertEqual(len(numbers), 5)
        for bound, beyond in (("MinValue", -1), ("MaxValue", 1)):
            # Set all parameters, because the bounds of the heartbeat interval depend on the lease duration.
            at_bound = {name: str(parameter[bound]) for name, parameter in numbers.items()}
            settings(at_bound)
            for name, parameter in numbers.items():
                with self.assertRaises(AssertionError, msg=f"{name}: {bound}"):
                    settings(at_bound | {name: str(parameter[bound] + beyond)})

    def test_worker_threads_match_the_cpus_of_the_task(self):
        by_size = lambda key: {"Fn::FindInMap": ["TaskSizes", {"Ref": "TaskSize"}, key]}
        self.assertEqual(self.task_definition["Cpu"], by_size("Cpu"))
        self.assertEqual(self.variables["STREAM_MANAGER__SERVER__WORKER_THREADS"], by_size("Threads"))
        for name, size in self.service["Mappings"]["TaskSizes"].items():
            self.assertEqual(int(size["Threads"]), math.ceil(int(size["Cpu"]) / 1024), name)

    def test_templates_need_no_s3_bucket(self):
        for path in TEMPLATES.glob("*.yaml"):
            self.assertLess(path.stat().st_size, 51_200, path)

    def test_table_is_protected_from_deletion(self):
        table = self.table["Resources"]["Table"]
        self.assertEqual((table["DeletionPolicy"], table["UpdateReplacePolicy"]), ("Retain", "Retain"))
        self.assertEqual(table["Properties"]["DeletionProtectionEnabled"], {"Ref": "DeletionProtection"})
        self.assertEqual(self.table["Parameters"]["DeletionProtection"]["Default"], "true")
        self.assertTrue(table["Properties"]["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"])

    def test_stream_is_off_by_default(self):
        self.assertEqual(self.table["Parameters"]["StreamEnabled"]["Default"], "false")
        both_images = {"StreamViewType": "NEW_AND_OLD_IMAGES"}
        specification = self.table["Resources"]["Table"]["Properties"]["StreamSpecification"]
        self.assertEqual(specification, {"Fn::If": ["HasStream", both_images, {"Ref": "AWS::NoValue"}]})
        self.assertEqual(self.table["Conditions"]["HasStream"], {"Fn::Equals": [{"Ref": "StreamEnabled"}, "true"]})

    def test_pipe_role_can_only_read_the_stream_and_send(self):
        [policy] = self.table_stream["Resources"]["PipeRole"]["Properties"]["Policies"]
        *statements, key_statement = policy["PolicyDocument"]["Statement"]
        self.assertEqual(key_statement["Fn::If"][1]["Action"], "kms:Decrypt")
        allowed = {json.dumps(statement["Resource"]): statement["Action"] for statement in statements}
        read = ["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:ListStreams"]
        expected = {
            '{"Ref": "StreamArn"}': read,
            '{"Fn::GetAtt": ["DeadLetters", "Arn"]}': "sqs:SendMessage",
            '{"Fn::GetAtt": ["Bus", "Arn"]}': "events:PutEvents",
        }
        self.assertEqual(allowed, expected)

    def test_pipe_gives_up_before_the_stream_deletes_records(self):
        pipe = self.table_stream["Resources"]["Pipe"]["Properties"]
        source = pipe["SourceParameters"]["DynamoDBStreamParameters"]
        # The dead-letter queue receives only positions, so operators need time to read the records. The stream keeps them for 24 hours.
        self.assertLessEqual(source["MaximumRecordAgeInSeconds"], 24 * 3600 / 2)
        self.assertEqual(source["DeadLetterConfig"], {"Arn": {"Fn::GetAtt": ["DeadLetters", "Arn"]}})
        self.assertTrue(self.table_stream["Resources"]["DeadLetters"]["Properties"]["SqsManagedSseEnabled"])

    def test_table_errors_alarm_covers_every_store_operation(self):
        metrics = self.resources["TableErrorsAlarm"]["Properties"]["Metrics"]
        dimensions = [each for metric in metrics for each in metric.get("MetricStat", {}).get("Metric", {}).get("Dimensions", [])]
        operations = {each["Value"] for each in dimensions if each["Name"] == "Operation"}
        self.assertEqual(operations, store_operations())

    def test_denial_metric_includes_suppressed_denials(self):
        def denied(suppressed):
            return {"level": "INFO", "event": "start_denied", "message": "start denied", "limit": 3, "count": 3, "suppressed": suppressed}

        other = {"level": "INFO", "event": "streams_evicted", "suppressed": 9}
        lines = [json.dumps(line) for line in (denied(0), denied(4), other, denied(0))]
        self.assertEqual(metric_sum(self.resources, "StartsDenied", lines), 7)

    def test_event_losses_are_counted_if_events_are_on(self):
        names = ("events_dropped", "start_denied", "events_not_flushed")
        lines = [json.dumps({"level": "WARN", "event": name}) for name in names]
        self.assertEqual(metric_sum(self.resources, "EventLossesLogged", lines), 2)
        self.assertEqual(self.service["Conditions"]["HasEvents"], {"Fn::Equals": [{"Ref": "EventsSink"}, "stdout"]})
        for name in ("EventsFilter", "EventsAlarm"):
            self.assertEqual(self.resources[name]["Condition"], "HasEvents")

    def test_invalid_combinations_of_parameters_are_rejected(self):
        jwt = {"AuthIssuer": "https://login.example.com/", "AuthAudience": "streams", "AuthJwksUrl": "https://login.example.com/keys"}
        secret = {**jwt, "AuthJwksUrl": "", "AuthSecretArn": "arn:…"}
        none, internet_facing = {"AuthMode": "none"}, {"Scheme": "internet-facing"}
        events = {"EventsSink": "stdout", "EventsSecretArn": "arn:…"}
        other_events = events | {"EventsSecretArn": "arn:…2"}
        for valid in (jwt, jwt | internet_facing, secret | internet_facing, none, jwt | events, secret | other_events):
            self.assertEqual(failed_assertions(self.service, valid), [], valid)
        for invalid, reason in (
            (none | internet_facing, "An internet-facing load balancer requires AuthMode jwt."),
            (jwt | {"AuthIssuer": ""}, "AuthMode jwt requires AuthIssuer."),
            (jwt | {"AuthAudience": ""}, "AuthMode jwt requires AuthAudience."),
            (jwt | {"AuthJwksUrl": ""}, "AuthMode jwt requires exactly one of AuthJwksUrl and AuthSecretArn."),
            (secret | jwt, "AuthMode jwt requires exactly one of AuthJwksUrl and AuthSecretArn."),
            (none | {"AuthIssuer": "x"}, "AuthIssuer, AuthAudience, AuthJwksUrl and AuthSecretArn require AuthMode jwt."),
            (jwt | {"EventsSink": "stdout"}, "EventsSink stdout requires EventsSecretArn."),
            (secret | events, "EventsSecretArn must differ from AuthSecretArn."),
        ):
            self.assertEqual(failed_assertions(self.service, invalid), [reason], invalid)

    def test_image_must_be_an_ecr_digest(self):
        pattern = self.service["Parameters"]["Image"]["AllowedPattern"]
        repository = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/video/stream-manager"
        self.assertTrue(re.fullmatch(pattern, f"{repository}@sha256:{'0' * 64}"))
        for invalid in (repository, f"{repository}:latest", f"ghcr.io/a/b@sha256:{'0' * 64}", f"{repository}@sha256:0"):
            self.assertFalse(re.fullmatch(pattern, invalid), invalid)

    def test_deploy_script_uses_names_of_the_template(self):
        script = (ROOT / "scripts/deploy").read_text()
        names = dict(re.findall(r"^(\w+_(?:parameter|pattern|output))='?([^'\n]+)'?$", script, re.MULTILINE))
        self.assertEqual(self.container["Image"], {"Ref": names.pop("image_parameter")})
        self.assertEqual(self.variables["STREAM_MANAGER__DYNAMODB__TABLE"], {"Ref": names.pop("table_parameter")})
        self.assertEqual(self.variables["STREAM_MANAGER__RATE__STARTS_PER_MINUTE"], {"Ref": names.pop("starts_parameter")})
        self.assertEqual(self.service["Parameters"]["Image"]["AllowedPattern"], names.pop("image_pattern"))
        self.assertIn(names.pop("url_output"), self.service["Outputs"])
        self.assertEqual(names, {})

    def test_every_parameter_is_grouped_and_documented(self):
        document = (ROOT / "docs/DEPLOYMENT.md").read_text()
        known = set()
        for each in (self.table, self.table_stream, self.service):
            groups = each["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
            grouped = [name for group in groups for name in group["Parameters"]]
            self.assertEqual(sorted(grouped), sorted(each["Parameters"]))
            known |= set(grouped)
            for name, parameter in each["Parameters"].items():
                self.assertTrue(parameter["Description"], name)
                self.assertEqual("AllowedPattern" in parameter, "ConstraintDescription" in parameter, name)
                self.assertIn(f"`{name}`", document)
        self.assertEqual(set(re.findall(r"\b([A-Z][a-z]\w*)=", document)) - known, set())

    def test_documented_outputs_exist(self):
        text = "".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
        # A shell function in the documentation prints an output: $(FUNCTION ClusterName)
        outputs = set(re.findall(r"\$\(\w+ ([A-Z][a-z]\w+)\)", text))
        self.assertTrue(outputs)
        self.assertLessEqual(outputs, set(self.service["Outputs"]))

    def test_permissions_of_cloudformation_are_documented(self):
        documented = re.findall(r"^\| `(AWS::\w+)` \|", (ROOT / "docs/RELEASING.md").read_text(), re.MULTILINE)
        self.assertEqual(sorted(documented), sorted({resource["Type"].rsplit("::", 1)[0] for resource in self.resources.values()}))

    def test_every_notifying_alarm_is_documented(self):
        for document, each in (("DEPLOYMENT", self.service), ("TABLE-STREAM", self.table_stream)):
            resources = each["Resources"].items()
            notifying = {name for name, resource in resources if "AlarmActions" in resource["Properties"]}
            text = (ROOT / f"docs/{document}.md").read_text()
            self.assertEqual(set(re.findall(r"^\| `(\w+Alarm)`", text, re.MULTILINE)), notifying)


if __name__ == "__main__":
    unittest.main()
