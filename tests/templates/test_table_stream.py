"""Deploys the table with its stream and the pipe on the AWS emulator ministack, and checks which changes pass the pipe's filter.

The service makes the changes. Ministack does not send records from a pipe to an event bus, does not evaluate a pipe's filter, and writes no
record for a deletion by TTL. Therefore, the tests read the stream themselves, evaluate the filter with TestEventPattern, and add to a
record what AWS documents for a deletion by TTL. Only cfn-lint and checkov check the rest, such as keys, the alarms' metrics and retries.
"""

import json
import os
import re
import signal
import subprocess
import tempfile
import time
import unittest

import boto3
from iam_proxy import IamProxy
from service import Service, free_port
from templates import PREFIX, ROOT, TEMPLATES, template

REGION = "eu-central-1"
TABLE = "test-streams"
SERVICES = "cloudformation,cloudwatch,dynamodbstreams,events,iam,pipes,sqs,sts"
# How a record shows that TTL deleted the item.
DELETED_BY_TTL = {"type": "Service", "principalId": "dynamodb.amazonaws.com"}


class TableStream(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        port = free_port()
        cls.endpoint = f"http://127.0.0.1:{port}"
        environment = os.environ | {"SERVICES": SERVICES, "STATE_DIR": folder.name, "LOG_LEVEL": "ERROR"}
        ministack = subprocess.Popen([ROOT / "scripts/ministack", str(port)], env=environment)
        cls.addClassCleanup(ministack.wait, 30)
        cls.addClassCleanup(ministack.send_signal, signal.SIGTERM)
        session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=REGION)
        cls.aws = staticmethod(lambda service: session.client(service, endpoint_url=cls.endpoint))
        wait_until(lambda: accepts_requests(cls.aws("dynamodb")))
        # An update of the table's stack switches the stream on, as docs/TABLE-STREAM.md describes.
        assert "StreamArn" not in cls.deploy("table", TableName=TABLE)
        cls.stream_arn = cls.deploy("table", TableName=TABLE, StreamEnabled="true")["StreamArn"]
        # Ministack ignores TTL in a template, and stores deletion protection as the text "true". Set both with requests.
        ttl = template("table")["Resources"]["Table"]["Properties"]["TimeToLiveSpecification"]
        cls.aws("dynamodb").update_time_to_live(TableName=TABLE, TimeToLiveSpecification=ttl)
        cls.aws("dynamodb").update_table(TableName=TABLE, DeletionProtectionEnabled=True)
        cls.outputs = cls.deploy("table-stream", StreamArn=cls.stream_arn)
        cls.ids = cls.end_streams()
        cls.records = cls.read_stream()
        cls.sent = [record for record in cls.records if cls.passes_filter(record)]

    @classmethod
    def deploy(cls, name, **parameters):
        """Creates or updates a stack, and returns its outputs."""
        cloudformation, stack, declared = cls.aws("cloudformation"), f"stream-manager-{name}", template(name)["Parameters"]
        for key, value in parameters.items():
            assert re.fullmatch(declared[key].get("AllowedPattern", ".*"), value), (key, value)
        stacks = [each["StackName"] for each in cloudformation.describe_stacks()["Stacks"]]
        operation = cloudformation.update_stack if stack in stacks else cloudformation.create_stack
        operation(
            StackName=stack,
            TemplateBody=(TEMPLATES / f"{name}.yaml").read_text(),
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        )

        def state():
            [found] = cloudformation.describe_stacks(StackName=stack)["Stacks"]
            assert "ROLLBACK" not in found["StackStatus"] and "FAILED" not in found["StackStatus"], found
            return found if found["StackStatus"].endswith("_COMPLETE") else None

        return {output["OutputKey"]: output["OutputValue"] for output in wait_until(state).get("Outputs", [])}

    @classmethod
    def end_streams(cls):
        """Ends a stream in each way except by TTL. Returns the id of each stream by the way in which it ended."""
        settings = {
            "STORE__KIND": "dynamodb",
            "DYNAMODB__TABLE": TABLE,
            "DYNAMODB__REGION": REGION,
            "AUTH__MODE": "none",
            "LEASE__DURATION_S": "4",
            "LEASE__HEARTBEAT_INTERVAL_S": "1",
        }
        allow_all = {"Effect": "Allow", "Action": ["dynamodb:*"], "Resource": "*"}
        iam_proxy = IamProxy(cls.endpoint, [allow_all], "*")
        cls.addClassCleanup(iam_proxy.server_close)
        cls.addClassCleanup(iam_proxy.shutdown)
        user = "/v1/users/ann"
        with Service({f"{PREFIX}{name}": value for name, value in settings.items()}, iam_proxy) as service:
            start = lambda **body: service.post(f"{user}/streams", None, body)[1]["streamId"]
            ids = {"stopped": start()}
            assert service.post(f"{user}/streams/{ids['stopped']}/heartbeat", None)[0] == 200
            assert service.call("DELETE", f"{user}/streams/{ids['stopped']}")[0] == 204
            ids["replaced"] = start(deviceId="tv")
            ids["evicted"] = start(deviceId="tv")
            assert service.call("DELETE", f"{user}/streams/{ids['evicted']}?evict=true")[0] == 204
            assert service.call("PUT", f"{user}/limit", None, {"limit": 5})[0] == 200
            ids["expired"] = start()
            wait_until(lambda: service.get(f"{user}/streams/count")[1]["count"] == 0)
            # A start that reads the user's streams deletes the expired lease.
            ids["erased"] = start(deviceId="tv")
            assert service.call("DELETE", user)[0] == 204
        # TTL later deletes the counter of the erased user.
        cls.aws("dynamodb").delete_item(TableName=TABLE, Key={"userName": {"S": "ann"}, "record": {"S": "counter"}})
        return ids

    @classmethod
    def read_stream(cls):
        """Returns the records of the stream in the form in which a pipe sends them."""
        streams = cls.aws("dynamodbstreams")
        records = []
        for shard in streams.describe_stream(StreamArn=cls.stream_arn)["StreamDescription"]["Shards"]:
            position = {"ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
            iterator = streams.get_shard_iterator(StreamArn=cls.stream_arn, **position)["ShardIterator"]
            records += streams.get_records(ShardIterator=iterator)["Records"]
        for record in records:
            change = record["dynamodb"]
            change["ApproximateCreationDateTime"] = int(change["ApproximateCreationDateTime"].timestamp())
        return records

    @classmethod
    def passes_filter(cls, record):
        source = template("table-stream")["Resources"]["Pipe"]["Properties"]["SourceParameters"]
        patterns = [json.loads(each["Pattern"]) for each in source["FilterCriteria"]["Filters"]]
        return any(cls.matches({"detail": pattern}, record) for pattern in patterns)

    @classmethod
    def matches(cls, pattern, record):
        """Whether a rule with this pattern matches the event with this record."""
        target = template("table-stream")["Resources"]["Pipe"]["Properties"]["TargetParameters"]["EventBridgeEventBusParameters"]
        event = {"id": "1", "account": "1", "region": REGION, "time": "2026-01-01T00:00:00Z", "resources": []}
        event |= {"source": target["Source"], "detail-type": target["DetailType"], "detail": record}
        result = cls.aws("events").test_event_pattern(EventPattern=json.dumps(pattern), Event=json.dumps(event))
        return result["Result"]

    def sent_record(self, way):
        [record] = [each for each in self.sent if stream_id(each) == self.ids[way]]
        return record

    def test_pipe_connects_the_stream_with_the_bus(self):
        pipe = self.aws("pipes").describe_pipe(Name=self.outputs["PipeName"])
        bus = self.aws("events").describe_event_bus(Name=self.outputs["EventBusName"])
        self.assertEqual((pipe["Source"], pipe["Target"], pipe["CurrentState"]), (self.stream_arn, bus["Arn"], "RUNNING"))
        self.assertIn("-PipeRole-", pipe["RoleArn"])
        attributes = self.aws("sqs").get_queue_attributes(QueueUrl=self.outputs["DeadLetterQueueUrl"], AttributeNames=["All"])
        self.assertEqual(attributes["Attributes"]["MessageRetentionPeriod"], str(14 * 24 * 3600))
        alarms = self.aws("cloudwatch").describe_alarms()["MetricAlarms"]
        self.assertEqual({alarm["Namespace"] for alarm in alarms}, {"AWS/EventBridge/Pipes", "AWS/SQS"})

    def test_each_end_passes_the_filter_once(self):
        # The order is that of the changes.
        self.assertEqual([stream_id(record) for record in self.sent], list(self.ids.values()))

    def test_other_changes_do_not_pass_the_filter(self):
        dropped = [record for record in self.records if record not in self.sent]
        counter = [record for record in dropped if record["dynamodb"]["Keys"]["record"]["S"] == "counter"]
        starts = [record for record in dropped if record["eventName"] == "INSERT" and record not in counter]
        heartbeats = [record for record in dropped if record["eventName"] == "MODIFY" and record not in counter]
        deleted = [stream_id(record) for record in dropped if record["eventName"] == "REMOVE" and record not in counter]
        self.assertEqual({record["eventName"] for record in counter}, {"INSERT", "MODIFY", "REMOVE"})
        self.assertEqual({stream_id(record) for record in starts}, set(self.ids.values()))
        self.assertEqual([stream_id(record) for record in heartbeats], [self.ids["stopped"]])
        # The erasure deletes the leases whose ends the bus has already received.
        self.assertEqual(set(deleted), {self.ids["replaced"], self.ids["evicted"]})

    def test_records_show_how_a_stream_ended(self):
        for way in ("evicted", "replaced"):
            self.assertEqual(self.sent_record(way)["dynamodb"]["NewImage"]["endReason"]["S"], way)
        for way, before_expiry in (("stopped", True), ("erased", True), ("expired", False)):
            change = self.sent_record(way)["dynamodb"]
            self.assertNotIn("NewImage", change)
            expires_at_ms = int(change["OldImage"]["expiresAt"]["N"])
            self.assertEqual(change["ApproximateCreationDateTime"] * 1000 < expires_at_ms - 1000, before_expiry, way)

    def test_documented_rule_matches_only_deletions_by_ttl(self):
        document = (ROOT / "docs/TABLE-STREAM.md").read_text()
        pattern = json.loads(re.search(r"--event-pattern '(.*?)'", document, re.DOTALL)[1])
        record = self.sent_record("expired")
        self.assertFalse(self.matches(pattern, record))
        by_ttl = record | {"userIdentity": DELETED_BY_TTL}
        self.assertTrue(self.passes_filter(by_ttl))
        self.assertTrue(self.matches(pattern, by_ttl))

    def test_parameter_stops_the_pipe(self):
        self.addCleanup(self.deploy, "table-stream", StreamArn=self.stream_arn)
        self.deploy("table-stream", StreamArn=self.stream_arn, PipeState="STOPPED")
        self.assertEqual(self.aws("pipes").describe_pipe(Name=self.outputs["PipeName"])["CurrentState"], "STOPPED")


def stream_id(record):
    return record["dynamodb"]["Keys"]["record"]["S"].removeprefix("stream#")


def accepts_requests(dynamodb):
    try:
        return dynamodb.list_tables()
    except Exception:
        return None


def wait_until(result):
    """Returns the first true result within 30 s."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = result()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("not within 30 s")


if __name__ == "__main__":
    unittest.main()
