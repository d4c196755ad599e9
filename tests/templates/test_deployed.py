"""The templates deployed on moto, a stand-in for AWS, and the service run on the table, role and environment that came out.

Moto makes what it knows and passes over the rest: it evaluates neither Rules nor AllowedPattern, runs no container, and takes no
alarm, metric filter, bucket policy, scaling, TTL or point-in-time recovery from a template, no attribute of a load balancer, no
role and no size of a task. Those are held by cfn-lint, by checkov and by test_templates.py alone.
"""

import ast
import base64
import fnmatch
import hashlib
import hmac
import json
import logging
import re
import secrets
import signal
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request
import warnings

import boto3
from gate import Gate
from moto.server import ThreadedMotoServer
from templates import BINARY, PREFIX, TEMPLATES, settings, template

REGION = "eu-central-1"
ACCOUNT = "123456789012"
IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/video/stream-manager@sha256:{'0' * 64}"
TABLE = "streams-of-test"
ISSUER, AUDIENCE = "https://login.example.com/", "https://streams.example.com"


class Deployed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # What it passes over, it says: see above.
        warnings.simplefilter("ignore")
        logging.disable()
        moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        moto.start()
        cls.addClassCleanup(moto.stop)
        cls.endpoint = "http://{}:{}".format(*moto.get_host_and_port())
        session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=REGION)
        cls.aws = staticmethod(lambda service: session.client(service, endpoint_url=cls.endpoint))
        cls.secret = secrets.token_hex(32)
        network = cls.aws("ec2")
        vpc = network.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        zones = [zone["ZoneName"] for zone in network.describe_availability_zones()["AvailabilityZones"][:2]]
        subnets = ",".join(
            network.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{n}.0/24", AvailabilityZone=zone)["Subnet"]["SubnetId"]
            for n, zone in enumerate(zones)
        )
        parameters = {
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
        }
        cls.parameters = parameters
        cls.stack("table", {"TableName": TABLE})
        # Moto knows TTL as a request, and not in a template, and leaves "true" a text.
        ttl = template("table")["Resources"]["Table"]["Properties"]["TimeToLiveSpecification"]
        cls.aws("dynamodb").update_time_to_live(TableName=TABLE, TimeToLiveSpecification=ttl)
        assert cls.aws("dynamodb").describe_table(TableName=TABLE)["Table"]["DeletionProtectionEnabled"] == "true"
        cls.aws("dynamodb").update_table(TableName=TABLE, DeletionProtectionEnabled=True)
        cls.outputs = cls.stack("service", parameters)
        [definition] = cls.aws("ecs").list_task_definitions()["taskDefinitionArns"]
        cls.task = cls.aws("ecs").describe_task_definition(taskDefinition=definition)["taskDefinition"]
        [cls.container] = cls.task["containerDefinitions"]
        cls.environment = {each["name"]: each["value"] for each in cls.container["environment"]}
        # As ECS does at the start of a task, with the rights of the execution role.
        for each in cls.container["secrets"]:
            assert each["valueFrom"] == parameters["AuthSecretArn"]
            value = cls.aws("secretsmanager").get_secret_value(SecretId=each["valueFrom"])["SecretString"]
            cls.environment[each["name"]] = value

    @classmethod
    def stack(cls, name, parameters):
        cloudformation, given = cls.aws("cloudformation"), template(name)["Parameters"]
        for key, value in parameters.items():
            assert re.fullmatch(given[key].get("AllowedPattern", ".*"), value), (key, value)
        cloudformation.create_stack(
            StackName=f"stream-manager-{name}",
            TemplateBody=(TEMPLATES / f"{name}.yaml").read_text(),
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        )
        [stack] = cloudformation.describe_stacks(StackName=f"stream-manager-{name}")["Stacks"]
        assert stack["StackStatus"] == "CREATE_COMPLETE", stack
        return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}

    def policy(self, logical_id):
        iam = self.aws("iam")
        [role] = [each["RoleName"] for each in iam.list_roles()["Roles"] if f"-{logical_id}-" in each["RoleName"]]
        [policy] = iam.list_role_policies(RoleName=role)["PolicyNames"]
        document = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
        # Moto keeps one from a template as Python prints it, with None for AWS::NoValue.
        return [statement for statement in ast.literal_eval(document)["Statement"] if statement]

    def test_the_table_has_its_keys_and_its_ttl(self):
        dynamodb = self.aws("dynamodb")
        table = dynamodb.describe_table(TableName=TABLE)["Table"]
        self.assertEqual([key["AttributeName"] for key in table["KeySchema"]], ["userName", "record"])
        self.assertEqual(table["BillingModeSummary"]["BillingMode"], "PAY_PER_REQUEST")
        ttl = dynamodb.describe_time_to_live(TableName=TABLE)["TimeToLiveDescription"]
        self.assertEqual((ttl["TimeToLiveStatus"], ttl["AttributeName"]), ("ENABLED", "ttl"))

    def test_the_task_runs_with_nothing_that_it_does_not_need(self):
        container = self.container
        self.assertEqual(container["image"], IMAGE)
        self.assertTrue(container["readonlyRootFilesystem"])
        self.assertEqual((container["user"], container["privileged"]), ("65532:65532", False))
        self.assertEqual(container["linuxParameters"], {"capabilities": {"drop": ["ALL"]}})
        self.assertEqual(container["healthCheck"]["command"], ["CMD", "/stream-manager", "healthcheck"])

    def test_every_variable_is_a_setting_and_arrives(self):
        sections = settings(self.environment)
        for name, value in self.environment.items():
            section, key = name.removeprefix(PREFIX).lower().split("__")
            if value and key != "hs256_secret":
                found = sections[section][key]
                self.assertEqual(",".join(found) if isinstance(found, list) else str(found), value, name)
        self.assertEqual((sections["server"]["bind"], sections["store"]["kind"]), ("0.0.0.0:8080", "dynamodb"))
        self.assertEqual((sections["limits"]["streams_per_user"], sections["dynamodb"]["table"]), (2, TABLE))
        self.assertGreater(sections["rate"]["starts_per_minute"], 0)
        # ECS puts out what is empty, too: a task without tokens must not be stopped by it.
        settings({k: v for k, v in self.environment.items() if "AUTH" not in k} | {f"{PREFIX}AUTH__ISSUER": ""})

    def test_what_comes_in_goes_to_the_ready_tasks(self):
        balancing = self.aws("elbv2")
        [balancer] = balancing.describe_load_balancers()["LoadBalancers"]
        [group] = balancing.describe_target_groups()["TargetGroups"]
        self.assertEqual(balancer["Scheme"], "internet-facing")
        self.assertEqual((group["HealthCheckPath"], group["Port"], group["TargetType"]), ("/health/ready", 8080, "ip"))
        self.assertEqual(self.container["portMappings"][0]["containerPort"], group["Port"])

    def test_plain_http_is_redirected_and_nothing_else(self):
        balancing = self.aws("elbv2")
        [balancer] = balancing.describe_load_balancers()["LoadBalancers"]
        listeners = balancing.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]
        by_port = {listener["Port"]: listener for listener in listeners}
        self.assertEqual(set(by_port), {80, 443})
        [action] = by_port[80]["DefaultActions"]
        self.assertEqual((action["Type"], action["RedirectConfig"]["Protocol"]), ("redirect", "HTTPS"))
        self.assertEqual(by_port[443]["Protocol"], "HTTPS")

    def test_the_execution_role_reaches_one_repository_one_log_and_one_secret(self):
        statements = self.policy("ExecutionRole")
        resources = {statement["Resource"] for statement in statements if statement["Resource"] != "*"}
        repository = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/video/stream-manager"
        self.assertLessEqual({repository, self.parameters["AuthSecretArn"]}, resources)
        self.assertEqual(len(resources), 3, resources)
        [everywhere] = [statement for statement in statements if statement["Resource"] == "*"]
        self.assertEqual(everywhere["Action"], "ecr:GetAuthorizationToken")

    def test_the_service_runs_on_what_was_made_and_needs_every_right_that_it_has(self):
        statements = self.policy("TaskRole")
        gate = Gate(self.endpoint, statements, f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/*")
        self.addCleanup(gate.shutdown)
        with Service(self.environment, gate) as service:
            self.assertEqual(service.run("healthcheck"), "ok\n")
            # Made by the template, so there is nothing to do, and nothing that the role could not do.
            self.assertIn("is up to date, nothing was changed", service.run("migrate"))
            everything(self, service, self.token())
            # Before the clock is wrong, since tokens and leases go by the host's.
            gate.clock_ahead_s = 3600
            service.get("/v1/users/ann/streams/count", self.token())
        allowed = {action for statement in statements for action in statement["Action"]}
        self.assertEqual(gate.used, allowed)
        for name in ("DenialsFilter", "ClockFilter"):
            self.assertTrue(any(matches(filter_of(name), line) for line in service.log), (name, service.log))
        # Neither counts what is no denial and no clock.
        self.assertEqual(sum(matches(filter_of("DenialsFilter"), line) for line in service.log), 1)

    def token(self):
        part = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=")
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "test", "exp": int(time.time()) + 600, "scope": "streams:admin"}
        signed = b".".join(part(json.dumps(each).encode()) for each in ({"alg": "HS256"}, claims))
        return (signed + b"." + part(hmac.digest(self.secret.encode(), signed, hashlib.sha256))).decode()


def everything(test, service, token):
    """Each verb, and each way that a start can go."""
    streams = "/v1/users/ann/streams"
    start = lambda **body: service.post(streams, token, body)
    first = start()[1]["streamId"]
    test.assertEqual(service.post(f"{streams}/{first}/heartbeat", token)[0], 200)
    test.assertEqual(service.get(f"{streams}/{first}", token)[0], 200)
    second = start(deviceId="tv")[1]["streamId"]
    status, replaced = start(deviceId="tv")
    test.assertEqual((status, replaced["ended"]), (201, [second]))
    test.assertEqual(start()[0], 409)
    test.assertEqual(service.call("DELETE", f"{streams}/{first}?evict=true", token)[0], 204)
    test.assertEqual(service.call("DELETE", f"{streams}/{replaced['streamId']}", token)[0], 204)
    test.assertEqual(service.get(f"{streams}/count", token)[1]["count"], 0)
    test.assertEqual(service.call("PUT", "/v1/users/ann/limit", token, {"limit": 5})[0], 200)
    test.assertEqual(service.get("/v1/users/ann/limit", token)[1]["limit"], 5)
    test.assertEqual(service.call("DELETE", "/v1/users/ann/limit", token)[0], 204)
    test.assertEqual(service.get(streams, "no token")[0], 401)


def filter_of(name):
    return template("service")["Resources"][name]["Properties"]["FilterPattern"]


def matches(pattern, line):
    """CloudWatch's pattern for one field of JSON, as far as the templates go."""
    field, value = re.fullmatch(r'\{ \$\.(\w+) = "([^"\\]*)" \}', pattern).groups()
    return fnmatch.fnmatchcase(str(json.loads(line).get(field)), value)


class Service:
    """The binary as ECS would start it, but on loopback, and with DynamoDB behind the gate."""

    def __init__(self, environment, gate):
        self.port = free_port()
        self.environment = environment | {
            f"{PREFIX}SERVER__BIND": f"127.0.0.1:{self.port}",
            f"{PREFIX}SERVER__MANAGEMENT_BIND": "127.0.0.1:0",
            f"{PREFIX}SERVER__DEREGISTRATION_S": "0",
            f"{PREFIX}DYNAMODB__ENDPOINT_URL": gate.url,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{gate.url}/credentials",
        }
        self.lines = tempfile.TemporaryFile("w+")

    def __enter__(self):
        self.process = subprocess.Popen([BINARY], env=self.environment, stderr=self.lines)
        for _ in range(100):
            if self.process.poll() is not None:
                break
            try:
                if self.get("/health/ready")[0] == 200:
                    return self
            except OSError:
                pass
            time.sleep(0.1)
        self.__exit__()
        raise AssertionError(f"not ready: {self.log[-3:]}")

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        self.lines.seek(0)
        self.log = self.lines.read().splitlines()

    def run(self, command):
        done = subprocess.run([BINARY, command], env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, path, token=None):
        return self.call("GET", path, token)

    def post(self, path, token, body=None):
        return self.call("POST", path, token, body)

    def call(self, method, path, token=None, body=None):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.loads(answer.read() or "null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or "null")


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


if __name__ == "__main__":
    unittest.main()
