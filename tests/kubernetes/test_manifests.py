"""Validates the manifests with the schemas of Kubernetes, and compares them with the service's settings, ports and paths."""

import re
import socket
import subprocess
import time
import unittest
import urllib.error
import urllib.request

import kubernetes_validate
import yaml
from manifests import BINARY, MANIFESTS, PREFIX, ROOT, check_config, container, environment, manifest, manifests, settings

# Oldest Kubernetes version that the manifests support. The newest supported version is the newest one that the validator supports.
OLDEST_VERSION = "1.30"


class Schemas(unittest.TestCase):
    def test_manifests_match_the_strict_schemas(self):
        for version in (OLDEST_VERSION, kubernetes_validate.latest_version()):
            for path, each in manifests():
                with self.subTest(path=path.name, kind=each["kind"], version=version):
                    used = kubernetes_validate.validate(each, version, strict=True)
                    self.assertEqual(used, ".".join(version.split(".")[:2]), "the validator has no schemas of this version")

    def test_schemas_refuse_misspelt_fields(self):
        deployment = manifest("Deployment")
        pod = deployment["spec"]["template"]["spec"]
        pod["enableServiceLink"] = pod.pop("enableServiceLinks")
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(deployment, OLDEST_VERSION, strict=True)


class Manifests(unittest.TestCase):
    def setUp(self):
        self.deployment = manifest("Deployment")
        self.pod = self.deployment["spec"]["template"]
        self.container = container(self.deployment)
        self.environment = environment(self.deployment)
        self.ports = {port["name"]: port["containerPort"] for port in self.container["ports"]}
        self.probes = [self.container[name]["httpGet"] for name in ("readinessProbe", "livenessProbe")]

    def test_every_variable_is_a_setting(self):
        settings(self.environment)
        for name in self.environment:
            misspelt = {f"{key}X" if key == name else key: value for key, value in self.environment.items()}
            self.assertNotEqual(check_config(misspelt).returncode, 0, name)

    def test_commented_variables_are_settings(self):
        text = (MANIFESTS / "deployment.yaml").read_text()
        lines = re.findall(r"^ +# ((?:- \{name:|- name:|  valueFrom:).*)$", text, re.MULTILINE)
        commented = yaml.safe_load("\n".join(lines))
        self.assertEqual(len(commented), 4)
        settings(self.environment | {variable["name"]: variable.get("value", "x" * 32) for variable in commented})

    def test_job_migrates_the_table_of_the_service(self):
        job = manifest("Job", "stream-manager-migrate")
        variables = environment(job)
        self.assertEqual(settings(variables)["store"]["kind"], "dynamodb")
        self.assertEqual(variables, {name: self.environment[name] for name in variables})
        self.assertEqual(container(job)["args"], ["migrate"])

    def test_ports_are_those_of_the_settings(self):
        server = settings(self.environment)["server"]
        self.assertEqual(server["bind"], f"0.0.0.0:{self.ports['http']}")
        self.assertEqual(server["management_bind"], f"0.0.0.0:{self.ports['metrics']}")
        self.assertEqual(self.pod["metadata"]["annotations"]["prometheus.io/port"], str(self.ports["metrics"]))
        used = [port["targetPort"] for port in manifest("Service")["spec"]["ports"]]
        used += [port["port"] for rule in manifest("NetworkPolicy")["spec"]["ingress"] for port in rule["ports"]]
        used += [probe["port"] for probe in self.probes]
        self.assertEqual(set(used), set(self.ports))

    def test_probes_and_metrics_answer(self):
        public, management = free_ports(2)
        variables = {name: value for name, value in self.environment.items() if not name.startswith(f"{PREFIX}AUTH__")}
        overrides = {
            "SERVER__BIND": f"127.0.0.1:{public}",
            "SERVER__MANAGEMENT_BIND": f"127.0.0.1:{management}",
            "SERVER__DEREGISTRATION_S": "0",
            "STORE__KIND": "memory",
        }
        variables |= {f"{PREFIX}{name}": value for name, value in overrides.items()}
        service = subprocess.Popen([BINARY], env=variables, stderr=subprocess.DEVNULL)
        try:
            urls = [f"http://127.0.0.1:{public}{probe['path']}" for probe in self.probes]
            urls.append(f"http://127.0.0.1:{management}{self.pod['metadata']['annotations']['prometheus.io/path']}")
            for url in urls:
                self.assertEqual(status(service, url), 200, url)
        finally:
            service.terminate()
            self.assertEqual(service.wait(30), 0)

    def test_grace_period_exceeds_the_shutdown(self):
        server = settings(self.environment)["server"]
        # The service needs 1 s for the last responses and 2 s for traces.
        needed = server["deregistration_s"] + server["drain_s"] + 3
        self.assertGreater(self.pod["spec"]["terminationGracePeriodSeconds"], needed)

    def test_references_between_manifests_exist(self):
        labels = self.pod["metadata"]["labels"].items()
        selectors = [
            self.deployment["spec"]["selector"]["matchLabels"],
            manifest("Service")["spec"]["selector"],
            manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
            manifest("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        ]
        selectors += [each["labelSelector"]["matchLabels"] for each in self.pod["spec"]["topologySpreadConstraints"]]
        job = manifest("Job", "stream-manager-migrate")["spec"]["template"]
        for selector in selectors:
            self.assertLessEqual(selector.items(), labels)
            self.assertFalse(selector.items() <= job["metadata"]["labels"].items(), "the selector must not select the pod of the job")
        target = manifest("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
        self.assertEqual(target, {key: self.deployment[key] for key in ("apiVersion", "kind")} | {"name": "stream-manager"})
        self.assertNotIn("replicas", self.deployment["spec"], "kubectl apply would undo the scaling")
        for pod in (self.pod, job):
            manifest("ServiceAccount", pod["spec"]["serviceAccountName"])

    def test_pods_run_with_least_privileges(self):
        user = int(re.search(r"^USER (\d+):\1$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[1])
        job = manifest("Job", "stream-manager-migrate")
        for workload in (self.deployment, job):
            pod = workload["spec"]["template"]["spec"]
            expected = {"runAsNonRoot": True, "runAsUser": user, "runAsGroup": user, "seccompProfile": {"type": "RuntimeDefault"}}
            self.assertEqual(pod["securityContext"], expected)
            self.assertIs(pod["automountServiceAccountToken"], False)
            self.assertIs(pod["enableServiceLinks"], False)
            expected = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
            self.assertEqual(container(workload)["securityContext"], expected)
            self.assertEqual(container(workload)["image"], self.container["image"])

    def test_documentation_names_every_file_and_every_value_to_replace(self):
        document = (ROOT / "docs/KUBERNETES.md").read_text()
        for path, _ in manifests():
            self.assertIn(f"`{path.name}`" if path.parent.name == "kubernetes" else f"`{path.parent.name}/{path.name}`", document)
        for name, value in self.environment.items():
            if "example.com" in value or name.endswith(("REGION", "TABLE")):
                self.assertIn(name.removeprefix(PREFIX), document)


def free_ports(number):
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def status(service, url):
    """Requests the URL until it succeeds, the service ends or 30 s pass. Returns the last status, or the error if there was no response."""
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return response.status
        except urllib.error.HTTPError as error:
            result = error.code
        except OSError as error:
            result = error
        if time.monotonic() > deadline or service.poll() is not None:
            return result
        time.sleep(0.1)


if __name__ == "__main__":
    unittest.main()
