"""Reads the templates, and what they are compared with: the code's requests, the migrations, the settings in force."""

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

# What IAM asks for is not the operation but each part of it.
PARTS_OF_TRANSACTION = {
    "put": "PutItem",
    "update": "UpdateItem",
    "delete": "DeleteItem",
    "condition_check": "ConditionCheckItem",
}


class Loader(yaml.SafeLoader):
    """Short forms of functions as `{"Fn::Name": ...}`, as CloudFormation takes them."""

    def compose_node(self, parent, index):
        # CloudFormation refuses them.
        assert not self.check_event(yaml.AliasEvent), self.peek_event()
        return super().compose_node(parent, index)


def function(loader, name, node):
    value = getattr(loader, f"construct_{node.id}")(node, **({} if node.id == "scalar" else {"deep": True}))
    if name == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {name if name in ("Ref", "Condition") else f"Fn::{name}": value}


Loader.add_multi_constructor("!", function)


def template(name):
    return yaml.load((TEMPLATES / f"{name}.yaml").read_text(), Loader)


def refusals(service, given):
    """What CloudFormation's Rules say to these parameters, which no stand-in looks at."""
    values = {name: given.get(name, parameter.get("Default")) for name, parameter in service["Parameters"].items()}

    def evaluate(expression):
        if not isinstance(expression, dict):
            return expression
        [(name, inner)] = expression.items()
        if name == "Ref":
            return values[inner]
        inner = [evaluate(each) for each in inner]
        match name:
            case "Fn::Equals":
                return inner[0] == inner[1]
            case "Fn::Not":
                return not inner[0]
            case "Fn::And":
                return all(inner)
            case "Fn::Or":
                return any(inner)
        raise AssertionError(name)

    return [
        assertion["AssertDescription"]
        for rule in service["Rules"].values()
        if evaluate(rule["RuleCondition"])
        for assertion in rule["Assertions"]
        if not evaluate(assertion["Assert"])
    ]


def rust(path):
    """A source file without its tests."""
    return (ROOT / path).read_text().split("#[cfg(test)]")[0]


def called(code):
    """The operations of DynamoDB that some code calls, by the names of the SDK's methods."""
    model = botocore.session.get_session().get_service_model("dynamodb")
    methods = {re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower(): name for name in model.operation_names}
    return {methods[name] for name in re.findall(r"\.(\w+)\(\)", code) if name in methods}


def store_operations():
    sources = ["src/store/dynamodb.rs", *(f"src/store/dynamodb/{path.name}" for path in (ROOT / "src/store/dynamodb").glob("*.rs"))]
    return set().union(*(called(rust(source)) for source in sources))


def migrate_operations(entry):
    """What src/migrate.rs calls from one of its functions on."""
    bodies = dict(re.findall(r"^(?:pub )?(?:async )?fn (\w+).*?\{\n(.*?)^\}", rust("src/migrate.rs"), re.DOTALL | re.MULTILINE))
    reached, open_ends = set(), {entry}
    while open_ends:
        name = open_ends.pop()
        reached.add(name)
        open_ends |= {other for other in bodies if re.search(rf"\b{other}\(", bodies[name])} - reached
    return set().union(*(called(bodies[name]) for name in reached))


def actions(operations):
    """What IAM asks for."""
    if "TransactWriteItems" not in operations:
        return set(operations)
    parts = re.findall(r"TransactWriteItem::builder\(\)\s*\.(\w+)\(", rust("src/store/dynamodb/writes.rs"))
    assert parts, "no transaction is built"
    return operations - {"TransactWriteItems"} | {PARTS_OF_TRANSACTION[part] for part in parts}


def migration(number):
    [path] = (ROOT / "migrations").glob(f"{number:04}_*.json")
    return json.loads(path.read_text())


def settings(environment):
    """The settings in force with this environment alone, as the service itself says."""
    command = subprocess.run([BINARY, "check-config"], env=environment, capture_output=True, text=True)
    assert command.returncode == 0, command.stderr
    return tomllib.loads(command.stdout)
