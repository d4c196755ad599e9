#!/usr/bin/env python3
"""The parts of the AWS CLI that scripts/deploy uses, on stacks in a file: strict in what it takes, and it deploys nothing.

STACKS is the file. A change set that has a parameter BROKEN fails, as a service does that never gets steady. FOLDER/ecr lists the
digests that are in ECR.
"""

import argparse
import json
import os
import re
import sys
from pathlib import Path

STACKS = Path(os.environ["STACKS"])


def declared(template, section):
    found = re.search(rf"^{section}:\n((?:  .*\n)+)", template, flags=re.MULTILINE)
    return dict(re.findall(r"^  (\w+): \{(.*)\}$", found[1], flags=re.MULTILINE)) if found else {}


def deploy(stacks, given):
    template = Path(given.template_file).read_text()
    overrides = dict(override.split("=", 1) for override in given.parameter_overrides)
    old = stacks.get(given.stack_name, {"parameters": {}})
    parameters = {}
    for name, how in declared(template, "Parameters").items():
        default = re.search(r"Default: (\S+)$", how)
        kept = old["parameters"].get(name, default and default[1])
        parameters[name] = overrides.get(name, kept)
        if parameters[name] is None:
            sys.exit(f"Parameters: [{name}] must have values")
    # The real one would take them for the value.
    assert "****" not in overrides.values(), overrides
    if "BROKEN" in overrides.values():
        sys.exit(f"Failed to create/update the stack {given.stack_name}")
    status = "UPDATE_COMPLETE" if given.stack_name in stacks else "CREATE_COMPLETE"
    stacks[given.stack_name] = {"template": template, "parameters": parameters, "status": status}


def describe(stacks, given):
    if given.stack_name not in stacks:
        sys.exit(f"An error occurred (ValidationError): Stack with id {given.stack_name} does not exist")
    stack = stacks[given.stack_name]
    outputs = {name: re.fullmatch(r"Value: (\S+)", how)[1] for name, how in declared(stack["template"], "Outputs").items()}
    pairs = lambda kind, values: [{f"{kind}Key": name, f"{kind}Value": value} for name, value in values.items()]
    shown = {name: "****" if name == "Hidden" else value for name, value in stack["parameters"].items()}
    told = {"StackStatus": stack["status"], "Parameters": pairs("Parameter", shown), "Outputs": pairs("Output", outputs)}
    print(json.dumps({"Stacks": [told]}))


def describe_images(words):
    action = argparse.ArgumentParser(allow_abbrev=False)
    for option in ("--registry-id", "--repository-name", "--image-ids"):
        action.add_argument(option, required=True)
    given = action.parse_args(words)
    assert (given.registry_id, given.repository_name) == ("123456789012", "video/stream-manager"), given
    images = Path(os.environ["FOLDER"]) / "ecr"
    if not images.exists() or given.image_ids.removeprefix("imageDigest=") not in images.read_text().split():
        sys.exit("An error occurred (ImageNotFoundException) when calling the DescribeImages operation")
    print("{}")


def main():
    words = sys.argv[1:]
    if words == ["configure", "get", "region"]:
        return print("eu-central-1")
    if words == ["ecr", "get-login-password"]:
        return print("password")
    if words[:2] == ["ecr", "describe-images"]:
        return describe_images(words[2:])
    assert words[0] == "cloudformation", words
    actions = {name: argparse.ArgumentParser(name, allow_abbrev=False) for name in ("deploy", "describe-stacks", "get-template")}
    for action in actions.values():
        action.add_argument("--stack-name", required=True)
    actions["deploy"].add_argument("--template-file", required=True)
    actions["deploy"].add_argument("--capabilities", choices=["CAPABILITY_IAM"])
    actions["deploy"].add_argument("--no-fail-on-empty-changeset", action="store_true")
    actions["deploy"].add_argument("--role-arn")
    actions["deploy"].add_argument("--parameter-overrides", nargs="+", default=[])
    actions["describe-stacks"].add_argument("--output", choices=["json"])
    actions["get-template"].add_argument("--template-stage", choices=["Original"])
    actions["get-template"].add_argument("--query", choices=["TemplateBody"])
    actions["get-template"].add_argument("--output", choices=["text"])
    given = actions[words[1]].parse_args(words[2:])
    stacks = json.loads(STACKS.read_text()) if STACKS.exists() else {}
    if words[1] == "deploy":
        deploy(stacks, given)
        STACKS.write_text(json.dumps(stacks))
    elif words[1] == "describe-stacks":
        describe(stacks, given)
    else:
        print(stacks[given.stack_name]["template"], end="")


main()
