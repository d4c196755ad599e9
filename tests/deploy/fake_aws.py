#!/usr/bin/env python3
"""A fake AWS CLI with the commands that scripts/deploy uses. It rejects unknown options, keeps stacks in the file $STACKS and deploys
nothing.

A deployment with the parameter value BROKEN fails, as if the ECS service never became stable. $FOLDER/ecr lists
the digests of the images in ECR.
"""

import argparse
import json
import os
import re
import sys
from pathlib import Path

STACKS = Path(os.environ["STACKS"])


def declarations(template, section):
    """Returns the text of each declaration in a section of the template, by name."""
    found = re.search(rf"^{section}:\n((?:  .*\n)+)", template, flags=re.MULTILINE)
    return dict(re.findall(r"^  (\w+): \{(.*)\}$", found[1], flags=re.MULTILINE)) if found else {}


def deploy(stacks, options):
    template = Path(options.template_file).read_text()
    overrides = dict(override.split("=", 1) for override in options.parameter_overrides)
    old = stacks.get(options.stack_name, {"parameters": {}})
    parameters = {}
    for name, declaration in declarations(template, "Parameters").items():
        default = re.search(r"Default: (\S+)$", declaration)
        previous = old["parameters"].get(name, default and default[1])
        parameters[name] = overrides.get(name, previous)
        if parameters[name] is None:
            sys.exit(f"Parameters: [{name}] must have values")
    # CloudFormation would store the asterisks as the value of a NoEcho parameter.
    assert "****" not in overrides.values(), overrides
    if "BROKEN" in overrides.values():
        sys.exit(f"Failed to create/update the stack {options.stack_name}")
    status = "UPDATE_COMPLETE" if options.stack_name in stacks else "CREATE_COMPLETE"
    stacks[options.stack_name] = {"template": template, "parameters": parameters, "status": status}


def describe_stacks(stacks, options):
    if options.stack_name not in stacks:
        sys.exit(f"An error occurred (ValidationError): Stack with id {options.stack_name} does not exist")
    stack = stacks[options.stack_name]
    outputs = {
        name: re.fullmatch(r"Value: (\S+)", declaration)[1]
        for name, declaration in declarations(stack["template"], "Outputs").items()
    }
    pairs = lambda kind, values: [{f"{kind}Key": name, f"{kind}Value": value} for name, value in values.items()]
    parameters = {name: "****" if name == "Hidden" else value for name, value in stack["parameters"].items()}
    description = {
        "StackStatus": stack["status"],
        "Parameters": pairs("Parameter", parameters),
        "Outputs": pairs("Output", outputs),
    }
    print(json.dumps({"Stacks": [description]}))


def describe_images(arguments):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for option in ("--registry-id", "--repository-name", "--image-ids"):
        parser.add_argument(option, required=True)
    options = parser.parse_args(arguments)
    assert (options.registry_id, options.repository_name) == ("123456789012", "video/stream-manager"), options
    images = Path(os.environ["FOLDER"]) / "ecr"
    if not images.exists() or options.image_ids.removeprefix("imageDigest=") not in images.read_text().split():
        sys.exit("An error occurred (ImageNotFoundException) when calling the DescribeImages operation")
    print("{}")


def main():
    arguments = sys.argv[1:]
    if arguments == ["configure", "get", "region"]:
        return print("eu-central-1")
    if arguments == ["ecr", "get-login-password"]:
        return print("password")
    if arguments[:2] == ["ecr", "describe-images"]:
        return describe_images(arguments[2:])
    assert arguments[0] == "cloudformation", arguments
    commands = ("deploy", "describe-stacks", "get-template")
    parsers = {command: argparse.ArgumentParser(command, allow_abbrev=False) for command in commands}
    for parser in parsers.values():
        parser.add_argument("--stack-name", required=True)
    parsers["deploy"].add_argument("--template-file", required=True)
    parsers["deploy"].add_argument("--capabilities", choices=["CAPABILITY_IAM"])
    parsers["deploy"].add_argument("--no-fail-on-empty-changeset", action="store_true")
    parsers["deploy"].add_argument("--role-arn")
    parsers["deploy"].add_argument("--parameter-overrides", nargs="+", default=[])
    parsers["describe-stacks"].add_argument("--output", choices=["json"])
    parsers["get-template"].add_argument("--template-stage", choices=["Original"])
    parsers["get-template"].add_argument("--query", choices=["TemplateBody"])
    parsers["get-template"].add_argument("--output", choices=["text"])
    command = arguments[1]
    options = parsers[command].parse_args(arguments[2:])
    stacks = json.loads(STACKS.read_text()) if STACKS.exists() else {}
    if command == "deploy":
        deploy(stacks, options)
        STACKS.write_text(json.dumps(stacks))
    elif command == "describe-stacks":
        describe_stacks(stacks, options)
    else:
        print(stacks[options.stack_name]["template"], end="")


main()
