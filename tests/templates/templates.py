"""Loads the CloudFormation templates, and the code, migrations and settings that the tests compare them with."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import botocore.session
import yaml

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "deploy/aws"
BINARY = ROOT / "target/debug/stream-manager"
PREFIX = "STREAM_MANAGER__"

# Maps the SDK methods for the items of a transaction to IAM actions. A transaction needs the action of each of its items.
TRANSACTION_ACTIONS = {
    "put": "PutItem",
    "update": "UpdateItem",
    "delete": "DeleteItem",
    "condition_check": "ConditionCheckItem",
}


class Loader(yaml.SafeLoader):
    """Converts the short form of functions to `{"Fn::Name": ...}`."""

    def compose_node(self, parent, index):
        assert not self.check_event(yaml.AliasEvent), f"CloudFormation does not support YAML aliases: {self.peek_event()}"
        return super().compose_node(parent, index)


def construct_function(loader, name, node):
    value = getattr(loader, f"construct_{node.id}")(node, **({} if node.id == "scalar" else {"deep": True}))
    if name == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {name if name in ("Ref", "Condition") else f"Fn::{name}": value}


Loader.add_multi_constructor("!", construct_function)


def template(name):
    return yaml.load((TEMPLATES / f"{name}.yaml").read_text(), Loader)


def failed_assertions(service, parameters):
    """Evaluates the template's Rules for these parameters, because moto ignores Rules."""
    values = {name: parameters.get(name, parameter.get("Default")) for name, parameter in service["Parameters"].items()}

    def evaluate(expression):
        if not isinstance(expression, dict):
            return expression
        [(name, arguments)] = expression.items()
        if name == "Ref":
            return values[arguments]
        arguments = [evaluate(argument) for argument in arguments]
        match name:
            case "Fn::Equals":
                return arguments[0] == arguments[1]
            case "Fn::Not":
                return not arguments[0]
            case "Fn::And":
                return all(arguments)
            case "Fn::Or":
                return any(arguments)
        raise AssertionError(name)

    return [
        assertion["AssertDescription"]
        for rule in service["Rules"].values()
        if evaluate(rule["RuleCondition"])
        for assertion in rule["Assertions"]
        if not evaluate(assertion["Assert"])
    ]


def source_files():
    """Returns the text of each source file without its tests, by path."""
    files = (ROOT / "src").rglob("*.rs")
    return {str(path.relative_to(ROOT)): path.read_text().split("#[cfg(test)]")[0] for path in files}


def uses_dynamodb(path):
    """Whether a source file may send requests to DynamoDB."""
    return path.startswith("src/store/dynamodb") or path == "src/migrate.rs"


def called_operations(code):
    """Returns the DynamoDB operations whose SDK methods the code calls."""
    model = botocore.session.get_session().get_service_model("dynamodb")
    methods = {re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower(): name for name in model.operation_names}
    return {methods[name] for name in re.findall(r"\.(\w+)\(\)", code) if name in methods}


# The code in this file runs only with the embedded store, so it needs no IAM permissions.
EMBEDDED_ONLY = "src/store/dynamodb/live_streams.rs"


def store_code():
    """Returns the code of the store that sends requests to DynamoDB."""
    files = source_files().items()
    return "".join(text for path, text in files if path.startswith("src/store/dynamodb") and path != EMBEDDED_ONLY)


def store_operations():
    return called_operations(store_code())


def migrate_operations(entry):
    """Returns the operations that a function in src/migrate.rs calls, directly or through other functions of the file."""
    code = source_files()["src/migrate.rs"]
    bodies = dict(re.findall(r"^(?:pub )?(?:async )?fn (\w+).*?\{\n(.*?)^\}", code, re.DOTALL | re.MULTILINE))
    reached, pending = set(), {entry}
    while pending:
        name = pending.pop()
        reached.add(name)
        pending |= {other for other in bodies if re.search(rf"\b{other}\(", bodies[name])} - reached
    return set().union(*(called_operations(bodies[name]) for name in reached))


def iam_actions(operations):
    """Returns the IAM actions that the operations need."""
    if "TransactWriteItems" not in operations:
        return set(operations)
    items = re.findall(r"TransactWriteItem::builder\(\)\s*\.(\w+)\(", store_code())
    assert items, "found no code that builds a transaction"
    return operations - {"TransactWriteItems"} | {TRANSACTION_ACTIONS[item] for item in items}


def migration(number):
    [path] = (ROOT / "migrations").glob(f"{number:04}_*.json")
    return json.loads(path.read_text())


def settings(environment):
    """Returns the service's settings with only these environment variables."""
    command = subprocess.run([BINARY, "check-config"], env=environment, capture_output=True, text=True)
    assert command.returncode == 0, command.stderr
    return tomllib.loads(command.stdout)
