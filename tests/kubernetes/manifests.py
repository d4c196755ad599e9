"""Loads the manifests in deploy/kubernetes, and runs the service's binary with the environment of a container."""

import subprocess
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "deploy/kubernetes"
BINARY = ROOT / "target/debug/stream-manager"
PREFIX = "STREAM_MANAGER__"


class Loader(yaml.SafeLoader):
    """Refuses repeated keys, as the Kubernetes API server does. Other YAML loaders keep only the last value of a repeated key."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key) for key, _ in node.value]
        repeated = {key for key in keys if keys.count(key) > 1}
        if repeated:
            raise yaml.constructor.ConstructorError(problem=f"repeated keys: {repeated}", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def manifests():
    """Returns (path, manifest) for each manifest."""
    paths = sorted(MANIFESTS.rglob("*.yaml"))
    return [(path, manifest) for path in paths for manifest in yaml.load_all(path.read_text(), Loader)]


def manifest(kind, name="stream-manager"):
    [found] = [each for _, each in manifests() if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def container(workload):
    [found] = workload["spec"]["template"]["spec"]["containers"]
    return found


def environment(workload):
    return {variable["name"]: variable["value"] for variable in container(workload)["env"]}


def check_config(variables):
    return subprocess.run([BINARY, "check-config"], env=variables, capture_output=True, text=True)


def settings(variables):
    """Returns the settings of a service that has only these environment variables."""
    command = check_config(variables)
    assert command.returncode == 0, command.stderr
    return tomllib.loads(command.stdout)
