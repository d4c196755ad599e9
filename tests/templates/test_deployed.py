"""Deploys the templates on the AWS emulator moto, and runs the service on the resulting table, role and environment.

Moto ignores what it does not support: Rules and AllowedPattern, containers, alarms, metric filters, bucket policies, scaling, TTL and
point-in-time recovery in templates, load balancer attributes, and the role and size of a task. Only cfn-lint, checkov and
test_templates.py check these features.
"""

import ast
import base64
import hashlib
import hmac
import json
import logging
import re
import secrets
import time
import unittest
import warnings

import boto3
from iam_proxy import IamProxy
from metric_filters import metric_sum
from moto.server import ThreadedMotoServer
from service import Service
from templates import PREFIX, TEMPLATES, settings, template

REGION = "eu-central-1"
ACCOUNT = "123456789012"
IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/video/stream-manager@sha256:{'0' * 64}"
TABLE = "test-streams"
ISSUER, AUDIENCE = "https://login.example.com/", "https://streams.example.com"


class Deployed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # Moto warns about everything that it ignores.
        warnings.simplefilter("ignore")
        logging.disable()
        moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        moto.start()
        cls.addClassCleanup(moto.stop)
        cls.endpoint = "http://{}:{}".format(*moto.get_host_and_port())
        session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=REGION)
        cls.aws = staticmethod(lambda service: session.client(service, endpoint_url=cls.endpoint))
        cls.secret = secrets.token_hex(32)
        cls.deploy_table()
        cls.parameters = cls.create_parameters()
        cls.deploy_stack("service", cls.parameters)
        [definition] = cls.aws("ecs").list_task_definitions()["taskDefinitionArns"]
        task = cls.aws("ecs").describe_task_definition(taskDefinition=definition)["taskDefinition"]
        [cls.container] = task["containerDefinitions"]
        cls.environment = {variable["name"]: variable["value"] for variable in cls.container["environment"]}
        # ECS would resolve the secrets when it starts a task. Moto starts no tasks, so resolve them here.
        for variable in cls.container["secrets"]:
            value = cls.aws("secretsmanager").get_secret_value(SecretId=variable["valueFrom"])["SecretString"]
            cls.environment[variable["name"]] = value

    @classmethod
    def deploy_table(cls):
        cls.deploy_stack("table", {"TableName": TABLE})
        dynamodb = cls.aws("dynamodb")
        # Moto ignores TTL in a template, and stores deletion protection as the text "true". Set both with requests.
        ttl = template("table")["Resources"]["Table"]["Properties"]["TimeToLiveSpecification"]
        dynamodb.update_time_to_live(TableName=TABLE, TimeToLiveSpecification=ttl)
        assert dynamodb.describe_table(TableName=TABLE)["Table"]["DeletionProtectionEnabled"] == "true"
        dynamodb.update_table(TableName=TABLE, DeletionProtectionEnabled=True)

    @classmethod
    def create_parameters(cls):
        network = cls.aws("ec2")
        vpc = network.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        zones = [zone["ZoneName"] for zone in network.describe_availability_zones()["AvailabilityZones"][:2]]
        subnets = ",".join(
            network.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{n}.0/24", AvailabilityZone=zone)["Subnet"]["SubnetId"]
            for n, zone in enumerate(zones)
        )
        return {
            "Image": IMAGE,
            "VpcId": vpc,
            "TaskSubnets": subnets,
            "LoadBalancerSubnets": subnets,
            "DynamoDbRouteTables": network.describe_route_tables()["RouteTables"][0]["RouteTableId"],
            "DomainName": "streams.example.com",
            "CertificateArn": cls.aws("acm").request_certificate(DomainName="streams.example.com")["CertificateArn"],
            "Scheme": "internet-facing",
            "AuthIssuer": ISSUER,
            "AuthAudience": AUDIENCE,
            "AuthSecretArn": cls.aws("secretsmanager").create_secret(Name="streams", SecretString=cls.secret)["ARN"],
            "TableName": TABLE,
            "AlarmTopicArn": cls.aws("sns").create_topic(Name="alarms")["TopicArn"],
            "StreamsPerUser": "2",
            "LimitRules": json.dumps([{"name": "one UHD stream", "max": 1, "labels": {"quality": "uhd"}}]),
            "EventsSink": "stdout",
            "EventsSecretArn": cls.aws("secretsmanager").create_secret(Name="events", SecretString=secrets.token_hex(32))["ARN"],
            "AllowedOrigins": "https://tv.example.com,capacitor://localhost",
            "AllowedHeaders": "sentry-trace,b3",
        }

    @classmethod
    def deploy_stack(cls, name, parameters):
        cloudformation, declared = cls.aws("cloudformation"), template(name)["Parameters"]
        for key, value in parameters.items():
            assert re.fullmatch(declared[key].get("AllowedPattern", ".*"), value), (key, value)
        cloudformation.create_stack(
            StackName=f"stream-manager-{name}",
            TemplateBody=(TEMPLATES / f"{name}.yaml").read_text(),
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        )
        [stack] = cloudformation.describe_stacks(StackName=f"stream-manager-{name}")["Stacks"]
        assert stack["StackStatus"] == "CREATE_COMPLETE", stack

    def policy_statements(self, logical_id):
        iam = self.aws("iam")
        [role] = [role["RoleName"] for role in iam.list_roles()["Roles"] if f"-{logical_id}-" in role["RoleName"]]
        [policy] = iam.list_role_policies(RoleName=role)["PolicyNames"]
        document = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
        # Moto returns a policy from a template as a Python literal, with None for AWS::NoValue.
        return [statement for statement in ast.literal_eval(document)["Statement"] if statement]

    def test_table_has_keys_and_ttl(self):
        dynamodb = self.aws("dynamodb")
        table = dynamodb.describe_table(TableName=TABLE)["Table"]
        self.assertEqual([key["AttributeName"] for key in table["KeySchema"]], ["userName", "record"])
        self.assertEqual(table["BillingModeSummary"]["BillingMode"], "PAY_PER_REQUEST")
        ttl = dynamodb.describe_time_to_live(TableName=TABLE)["TimeToLiveDescription"]
        self.assertEqual((ttl["TimeToLiveStatus"], ttl["AttributeName"]), ("ENABLED", "ttl"))

    def test_container_has_no_privileges(self):
        container = self.container
        self.assertEqual(container["image"], IMAGE)
        self.assertTrue(container["readonlyRootFilesystem"])
        self.assertEqual((container["user"], container["privileged"]), ("65532:65532", False))
        self.assertEqual(container["linuxParameters"], {"capabilities": {"drop": ["ALL"]}})
        self.assertEqual(container["healthCheck"]["command"], ["CMD", "/stream-manager", "healthcheck"])

    def test_every_variable_sets_its_setting(self):
        sections = settings(self.environment)
        for name, value in self.environment.items():
            section, key = name.removeprefix(PREFIX).lower().split("__")
            if key == "rules":
                [expected], [actual] = json.loads(value), sections[section][key]
                self.assertLessEqual(expected.items(), actual.items(), name)
            elif value and key not in ("hs256_secret", "hash_key"):
                actual = sections[section][key]
                self.assertEqual(",".join(actual) if isinstance(actual, list) else str(actual), value, name)
        self.assertEqual((sections["server"]["bind"], sections["store"]["kind"]), ("0.0.0.0:8080", "dynamodb"))
        self.assertEqual((sections["limits"]["streams_per_user"], sections["dynamodb"]["table"]), (2, TABLE))
        self.assertGreater(sections["rate"]["starts_per_minute"], 0)

    def test_service_accepts_empty_variables(self):
        # If a parameter is empty, ECS sets an empty variable.
        environment = {name: value for name, value in self.environment.items() if "AUTH" not in name}
        settings(environment | {f"{PREFIX}AUTH__MODE": "none", f"{PREFIX}AUTH__ISSUER": ""})

    def test_load_balancer_forwards_to_ready_tasks(self):
        balancing = self.aws("elbv2")
        [balancer] = balancing.describe_load_balancers()["LoadBalancers"]
        [group] = balancing.describe_target_groups()["TargetGroups"]
        self.assertEqual(balancer["Scheme"], "internet-facing")
        self.assertEqual((group["HealthCheckPath"], group["Port"], group["TargetType"]), ("/health/ready", 8080, "ip"))
        self.assertEqual(self.container["portMappings"][0]["containerPort"], group["Port"])

    def test_http_redirects_to_https(self):
        balancing = self.aws("elbv2")
        [balancer] = balancing.describe_load_balancers()["LoadBalancers"]
        listeners = balancing.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]
        by_port = {listener["Port"]: listener for listener in listeners}
        self.assertEqual(set(by_port), {80, 443})
        [action] = by_port[80]["DefaultActions"]
        self.assertEqual((action["Type"], action["RedirectConfig"]["Protocol"]), ("redirect", "HTTPS"))
        self.assertEqual(by_port[443]["Protocol"], "HTTPS")

    def test_execution_role_is_limited_to_its_resources(self):
        statements = self.policy_statements("ExecutionRole")
        resources = {statement["Resource"] for statement in statements if statement["Resource"] != "*"}
        repository = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/video/stream-manager"
        self.assertLessEqual({repository, self.parameters["AuthSecretArn"], self.parameters["EventsSecretArn"]}, resources)
        # The four resources are the repository, the two secrets and the log group.
        self.assertEqual(len(resources), 4, resources)
        [unlimited] = [statement for statement in statements if statement["Resource"] == "*"]
        self.assertEqual(unlimited["Action"], "ecr:GetAuthorizationToken")

    def test_service_works_with_the_task_role(self):
        statements = self.policy_statements("TaskRole")
        iam_proxy = IamProxy(self.endpoint, statements, f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/*")
        self.addCleanup(iam_proxy.shutdown)
        with Service(self.environment, iam_proxy) as service:
            self.assertEqual(service.run("healthcheck"), "ok\n")
            # `migrate` succeeds although the task role may not change the schema, because the template has created the whole schema.
            service.run("migrate")
            call_every_operation(self, service, self.create_token())
            # Simulate clock skew last, because it affects tokens and leases.
            iam_proxy.clock_skew_s = 3600
            service.get("/v1/users/ann/streams/count", self.create_token())
        allowed = {action for statement in statements for action in statement["Action"]}
        self.assertEqual(iam_proxy.used_actions, allowed, "the role allows an action that the service does not use")
        resources = template("service")["Resources"]
        self.assertEqual(metric_sum(resources, "StartsDenied", service.log), 1, service.log)
        self.assertGreater(metric_sum(resources, "ClockSkewDetected", service.log), 0, service.log)
        denied = [event for event in service.events if event["type"] == "stream-manager.stream.denied"]
        self.assertEqual(len(denied), 1, service.events)
        self.assertNotIn("ann", {event["subject"] for event in service.events})

    def create_token(self):
        base64url = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=")
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "test", "exp": int(time.time()) + 600, "scope": "streams:admin"}
        signed = b".".join(base64url(json.dumps(part).encode()) for part in ({"alg": "HS256"}, claims))
        return (signed + b"." + base64url(hmac.digest(self.secret.encode(), signed, hashlib.sha256))).decode()


def call_every_operation(test, service, token):
    """Calls every operation, with a start for each outcome. Exactly one start is denied."""
    streams = "/v1/users/ann/streams"
    start = lambda **body: service.post(streams, token, body)
    first = start()[1]["streamId"]
    test.assertEqual(service.post(f"{streams}/{first}/heartbeat", token)[0], 200)
    test.assertEqual(service.get(f"{streams}/{first}", token)[0], 200)
    second = start(deviceId="tv")[1]["streamId"]
    status, replacement = start(deviceId="tv")
    test.assertEqual((status, replacement["ended"]), (201, [second]))
    test.assertEqual(start()[0], 409)
    test.assertEqual(service.call("DELETE", f"{streams}/{first}?evict=true", token)[0], 204)
    test.assertEqual(service.call("DELETE", f"{streams}/{replacement['streamId']}", token)[0], 204)
    test.assertEqual(service.get(f"{streams}/count", token)[1]["count"], 0)
    test.assertEqual(service.call("PUT", "/v1/users/ann/limit", token, {"limit": 5})[0], 200)
    test.assertEqual(service.get("/v1/users/ann/limit", token)[1]["limit"], 5)
    test.assertEqual(service.call("DELETE", "/v1/users/ann/limit", token)[0], 204)
    test.assertEqual(service.get(streams, "no token")[0], 401)


if __name__ == "__main__":
    unittest.main()
