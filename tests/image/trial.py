"""What compose.yaml arranges, as processes on the loopback of a network namespace: two instances on a stand-in for DynamoDB,
the proxy, Prometheus; then players, while instances go and come.

    unshare --mount --net --pid --fork --kill-child --mount-proc python3 tests/image/trial.py BINARY

scripts/trial calls it.
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
COMPOSE = REPOSITORY / "deploy/compose"
PROXY_PORT, PROMETHEUS_PORT = 8081, 9090
# Names as compose gives them, each with an address of its own; the stand-in takes only this one.
ADDRESSES = {"dynamodb": "127.0.0.1", "stream-manager-1": "127.0.0.11", "stream-manager-2": "127.0.0.12"}


def say(text):
    print(f"trial: {text}", flush=True)


def get(address):
    with urllib.request.urlopen(address, timeout=5) as answer:
        return answer.read().decode()


def until(what, address, holds=lambda _: True):
    for _ in range(150):
        try:
            if holds(get(address)):
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"{what}: not within 30 s")


class Trial:
    def __init__(self, binary, folder):
        self.binary, self.folder = binary, folder
        self.started, self.instances = [], {}
        services = json.loads((REPOSITORY / "target/compose/compose.json").read_text())["services"]
        image = dockerfile.environment(dockerfile.read(REPOSITORY / "Dockerfile")[-1])
        self.settings = {name: image | service["environment"] for name, service in services.items()
                         if name == "migrate" or name.startswith("stream-manager-")}

    def start(self, name, *words, **environment):
        # Files, not pipes: nobody reads along.
        log = open(self.folder / f"{name}.log", "a")
        process = subprocess.Popen(words, stdout=log, stderr=log, env={"PATH": os.environ["PATH"]} | environment)
        self.started.append(process)
        return process

    def instance(self, name):
        # In a container it has the address for itself; here each listens on its own.
        settings = {key: value.replace("0.0.0.0", ADDRESSES[name]) for key, value in self.settings[name].items()}
        self.instances[name] = self.start(name, self.binary, **settings)

    def up(self):
        self.start("dynamodb", REPOSITORY / "scripts/ministack", "8000", STATE_DIR=str(self.folder / "state"))
        until("the stand-in for DynamoDB", "http://dynamodb:8000/_ministack/health")
        subprocess.run([self.binary, "migrate"], env=self.settings["migrate"], check=True)
        for name in ("stream-manager-1", "stream-manager-2"):
            self.instance(name)
            until(name, f"http://{name}:8080/health/ready")

        # Names come from /etc/hosts here, and not from a resolver that follows containers.
        config, changes = re.subn(" resolvers containers init-addr libc,none", "", (COMPOSE / "haproxy.cfg").read_text())
        assert changes == 1
        (self.folder / "haproxy.cfg").write_text(config)
        libraries = os.environ.get("HAPROXY_LIBRARIES", "")
        self.start("haproxy", "haproxy", "-db", "-f", self.folder / "haproxy.cfg", LD_LIBRARY_PATH=libraries)
        until("the proxy", f"http://127.0.0.1:{PROXY_PORT}/health/ready")

        for file in (COMPOSE / "prometheus.yml", REPOSITORY / "deploy/prometheus/alerts.yml"):
            shutil.copy(file, self.folder)
        self.start("prometheus", "prometheus", f"--config.file={self.folder}/prometheus.yml",
                   f"--storage.tsdb.path={self.folder}/prometheus", f"--web.listen-address=127.0.0.1:{PROMETHEUS_PORT}")
        until("Prometheus", f"http://127.0.0.1:{PROMETHEUS_PORT}/-/ready")
        assert "<html" in get(f"http://127.0.0.1:{PROXY_PORT}/demo")

    def targets_up(self, number):
        def holds(text):
            return [each["value"][1] for each in json.loads(text)["data"]["result"]].count("1") == number

        query = "query?query=up%7Bjob%3D%22stream-manager%22%7D"
        until(f"{number} targets", f"http://127.0.0.1:{PROMETHEUS_PORT}/api/v1/{query}", holds)


def main(binary):
    container.mount("none", "/", container.RECURSIVE | container.PRIVATE)
    container.loopback_up()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hosts = folder / "hosts"
        hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{at} {name}\n" for name, at in ADDRESSES.items()))
        container.mount(hosts, "/etc/hosts", container.BIND)
        trial = Trial(binary, folder)
        try:
            through(trial)
        except BaseException:
            for log in sorted(folder.glob("*.log")):
                say(f"the end of {log.name}:\n{log.read_text()[-2000:]}")
            raise
        finally:
            # Before their folder goes.
            for process in trial.started:
                process.kill()
                process.wait()


def through(trial):
    trial.up()
    trial.targets_up(2)
    say("both instances are behind the proxy, and Prometheus sees both")
    url = f"http://127.0.0.1:{PROXY_PORT}"
    subprocess.run([REPOSITORY / "scripts/e2e", url], check=True, stdout=subprocess.DEVNULL)
    say("scripts/e2e went through the proxy")

    one, two = "stream-manager-1", "stream-manager-2"
    watching = players.Players(PROXY_PORT, 100)
    time.sleep(3)
    trial.instances[one].kill()
    say(f"{one} was killed")
    trial.targets_up(1)
    subprocess.run([REPOSITORY / "scripts/e2e", url], check=True, stdout=subprocess.DEVNULL)
    say("scripts/e2e went through what is left")
    trial.instance(one)
    trial.targets_up(2)
    time.sleep(2)
    tell(watching, watching.take())
    trial.instances[two].terminate()
    assert trial.instances[two].wait(30) == 0
    say(f"{two} ended by SIGTERM, while {one} was back")
    time.sleep(2)
    watching.end()
    answers = watching.take()
    tell(watching, answers)
    assert not watching.wrong, watching.wrong[:5]
    repeated = [answer for answer in answers if answer.split()[1] not in ("200", "201", "204")]
    assert not repeated, f"an orderly end was noticed: {repeated}"


def tell(watching, answers):
    for answer, times in sorted(answers.items()):
        say(f"{times:>7} {answer}")
    say(f"the longest answer so far took {watching.longest_s:.2f} s")


if __name__ == "__main__":
    main(str(Path(sys.argv[1]).resolve()))
