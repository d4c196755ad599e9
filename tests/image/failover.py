"""Runs the services of compose.yaml as processes in a network namespace, and stops instances while simulated players use them.

    unshare --mount --net --pid --fork --kill-child --mount-proc python3 tests/image/failover.py BINARY

scripts/test-failover creates the namespaces and calls this program.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import container
import dockerfile
import players

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGURATION = REPOSITORY / "deploy/compose"
PROXY_PORT, PROMETHEUS_PORT = 8081, 9090
PROXY = f"http://127.0.0.1:{PROXY_PORT}"
# The host names of compose.yaml, each with its own loopback address. The emulator listens only on 127.0.0.1.
ADDRESSES = {"dynamodb": "127.0.0.1", "stream-manager-1": "127.0.0.11", "stream-manager-2": "127.0.0.12"}
SUCCESS = {200, 201, 204}


def log(text):
    print(f"failover: {text}", flush=True)


def get(url):
    with urllib.request.urlopen(url, timeout=5) as response:
        return response.read().decode()


def wait_until(description, url, condition=lambda _: True):
    for _ in range(150):
        try:
            if condition(get(url)):
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"{description}: not within 30 s")


class Services:
    def __init__(self, binary, folder):
        self.binary, self.folder = binary, folder
        self.processes, self.instances = [], {}
        services = json.loads((REPOSITORY / "target/compose/compose.json").read_text())["services"]
        image = dockerfile.environment(dockerfile.read(REPOSITORY / "Dockerfile")[-1])
        self.settings = {name: image | service["environment"] for name, service in services.items()
                         if name == "migrate" or name.startswith("stream-manager-")}

    def start(self, name, *command, **environment):
        # Log to files, because a full pipe would block the process.
        output = open(self.folder / f"{name}.log", "a")
        process = subprocess.Popen(command, stdout=output, stderr=output, env={"PATH": os.environ["PATH"]} | environment)
        self.processes.append(process)
        return process

    def start_instance(self, name):
        # Containers bind to all interfaces. Here each instance binds to its own loopback address.
        settings = {key: value.replace("0.0.0.0", ADDRESSES[name]) for key, value in self.settings[name].items()}
        self.instances[name] = self.start(name, self.binary, **settings)

    def start_all(self):
        self.start("dynamodb", REPOSITORY / "scripts/ministack", "8000", STATE_DIR=str(self.folder / "state"))
        wait_until("DynamoDB emulator", "http://dynamodb:8000/_ministack/health")
        subprocess.run([self.binary, "migrate"], env=self.settings["migrate"], check=True)
        for name in ("stream-manager-1", "stream-manager-2"):
            self.start_instance(name)
            wait_until(name, f"http://{name}:8080/health/ready")

        # Remove the resolver, which tracks the addresses of containers. Here the names are in /etc/hosts.
        configuration = (CONFIGURATION / "haproxy.cfg").read_text()
        configuration, changes = re.subn(" resolvers containers init-addr libc,none", "", configuration)
        assert changes == 1
        (self.folder / "haproxy.cfg").write_text(configuration)
        libraries = os.environ.get("HAPROXY_LIBRARIES", "")
        self.start("haproxy", "haproxy", "-db", "-f", self.folder / "haproxy.cfg", LD_LIBRARY_PATH=libraries)
        wait_until("proxy", f"{PROXY}/health/ready")

        for file in (CONFIGURATION / "prometheus.yml", REPOSITORY / "deploy/prometheus/alerts.yml"):
            shutil.copy(file, self.folder)
        self.start("prometheus", "prometheus", f"--config.file={self.folder}/prometheus.yml",
                   f"--storage.tsdb.path={self.folder}/prometheus", f"--web.listen-address=127.0.0.1:{PROMETHEUS_PORT}")
        wait_until("Prometheus", f"http://127.0.0.1:{PROMETHEUS_PORT}/-/ready")
        assert "<html" in get(f"{PROXY}/demo")

    def stop_all(self):
        for process in self.processes:
            process.kill()
            process.wait()

    def wait_for_targets(self, number):
        def condition(text):
            return [sample["value"][1] for sample in json.loads(text)["data"]["result"]].count("1") == number

        query = "query?query=up%7Bjob%3D%22stream-manager%22%7D"
        wait_until(f"{number} Prometheus targets", f"http://127.0.0.1:{PROMETHEUS_PORT}/api/v1/{query}", condition)


def main(binary):
    container.mount("none", "/", container.RECURSIVE | container.PRIVATE)
    container.enable_loopback()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hosts = folder / "hosts"
        hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in ADDRESSES.items()))
        container.mount(hosts, "/etc/hosts", container.BIND)
        services = Services(binary, folder)
        try:
            test_failover(services)
        except BaseException:
            for file in sorted(folder.glob("*.log")):
                log(f"end of {file.name}:\n{file.read_text()[-2000:]}")
            raise
        finally:
            # Stop the processes before the folder is removed, because they use it.
            services.stop_all()


def test_failover(services):
    services.start_all()
    services.wait_for_targets(2)
    log("both instances run behind the proxy, and Prometheus scrapes both")
    run_end_to_end_collection()
    log("the end-to-end collection passes through the proxy")

    first, second = "stream-manager-1", "stream-manager-2"
    load = players.Players(PROXY_PORT, 100)
    time.sleep(3)
    services.instances[first].kill()
    log(f"killed {first}")
    services.wait_for_targets(1)
    run_end_to_end_collection()
    log("the end-to-end collection passes with one instance")
    services.start_instance(first)
    services.wait_for_targets(2)
    time.sleep(2)
    log_results(load, load.take_results())

    services.instances[second].terminate()
    assert services.instances[second].wait(30) == 0
    log(f"stopped {second} with SIGTERM, while {first} was running again")
    time.sleep(2)
    load.stop()
    results = load.take_results()
    log_results(load, results)
    assert not load.errors, load.errors[:5]
    failed = [result for result in results if result[1] not in SUCCESS]
    assert not failed, f"requests failed during a graceful shutdown: {failed}"


def run_end_to_end_collection():
    subprocess.run([REPOSITORY / "scripts/e2e", PROXY], check=True, stdout=subprocess.DEVNULL)


def log_results(load, results):
    for (operation, status), number in sorted(results.items(), key=str):
        log(f"{number:>7} {operation} {status}")
    log(f"maximum latency so far: {load.max_latency_s:.2f} s")


if __name__ == "__main__":
    main(str(Path(sys.argv[1]).resolve()))
