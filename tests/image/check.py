"""Builds the image's root as the Dockerfile does, around a given binary, and runs that in it as a container would be run.

    unshare --mount --net python3 tests/image/check.py BINARY

As root on Debian, in namespaces of its own; scripts/image makes them.
"""

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import container
import dockerfile
import elsewhere

REPOSITORY = Path(__file__).resolve().parents[2]
LARGEST_MB = 40
CA_ROOTS = "etc/ssl/certs/ca-certificates.crt"


def say(text):
    print(f"image: {text}", flush=True)


def build(stages, binary, folder):
    """Carries out what the Dockerfile runs after `cargo build`, on this host, and returns the root."""
    final = stages[-1]
    assert final.base == "scratch", final.base
    [(source, wanted)] = dockerfile.copies(final)
    results = {path for stage in stages if stage.base == "scratch" for _, path in dockerfile.copies(stage)}
    runs = next(stage for stage in stages if stage.name == source).all("RUN")
    built = next(number for number, run in enumerate(runs) if run.startswith("cargo build "))
    for option in ("--release", "--locked", "--no-default-features", "--bin stream-manager"):
        assert option in runs[built], f"{runs[built]}: no {option}"
    (folder / "target/release").mkdir(parents=True)
    shutil.copy(binary, folder / "target/release/stream-manager")
    for allowed in dockerfile.context(REPOSITORY / ".dockerignore"):
        (folder / allowed).parent.mkdir(parents=True, exist_ok=True)
        (folder / allowed).symlink_to(REPOSITORY / allowed)
    for run in runs[built + 1 :]:
        for path in results:
            run = re.sub(rf"(?<![^\s=]){re.escape(path)}(?=[/\s]|$)", f"{folder}{path}", run)
        subprocess.run(["bash", "-euo", "pipefail", "-c", run], cwd=folder, check=True)
    return Path(f"{folder}{wanted}")


class Image:
    """The root with what the final stage says of it."""

    def __init__(self, root, stage):
        self.root = root
        self.environment = dockerfile.environment(stage)
        self.user, self.group = map(int, stage.only("USER").split(":"))
        self.entry_point = dockerfile.command(stage.only("ENTRYPOINT"))
        health = re.fullmatch(r"(?:--\S+ )*CMD (\[.*\])", stage.only("HEALTHCHECK"))
        assert health, "HEALTHCHECK needs an exec form: there is no shell"
        self.health = dockerfile.command(health[1])
        self.stop_signal = signal.Signals[stage.only("STOPSIGNAL")]

    def start(self, words, settings):
        # As an engine sets it, and nothing of this host.
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/"}
        return container.start(self.root, self.user, self.group, words, environment | self.environment | settings)

    def run(self, words, settings=None):
        process = self.start(words, settings or {})
        output, errors = process.communicate(timeout=30)
        return process.returncode, output, errors


def ask(port, path, body=None):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=body)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as answer:
        return answer.code, answer.read().decode()


def until(wanted, port, path, process):
    for _ in range(100):
        try:
            if ask(port, path)[0] == wanted:
                return
        except OSError:
            pass
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.kill()
    raise AssertionError(f"{path} never answered {wanted}: {process.stderr.read()}")


def end(image, process):
    process.send_signal(image.stop_signal)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, (process.returncode, errors)
    return errors


def main(binary):
    stages = dockerfile.read(REPOSITORY / "Dockerfile")
    toolchain = tomllib.loads((REPOSITORY / "rust-toolchain.toml").read_text())["toolchain"]["channel"]
    assert stages[0].base.startswith(f"rust:{toolchain}-"), f"{stages[0].base}, but the toolchain is {toolchain}"
    workflow = (REPOSITORY / ".github/workflows/ci.yml").read_text()
    assert "@sha256:" in stages[0].base and f"image: {stages[0].base}\n" in workflow, f"{stages[0].base}, but ci.yml has another"

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Whoever runs in the root must come through here.
        folder.chmod(0o755)
        root = build(stages, binary, folder)
        size = sum(file.stat().st_size for file in root.rglob("*") if file.is_file())
        for file in sorted(root.rglob("*")):
            if file.is_file():
                say(f"{file.stat().st_size:>10} /{file.relative_to(root)}")
        say(f"{size / 1000**2:.1f} MB in all")
        if "debug" in binary.parts:
            say(f"that is not held to {LARGEST_MB} MB: it is not the binary that the image has")
        else:
            assert size < LARGEST_MB * 1000**2, f"more than {LARGEST_MB} MB"

        container.loopback_up()
        with container.sealed(root, f"127.0.0.1 localhost\n127.0.0.1 {elsewhere.NAME}\n"):
            image = Image(root, stages[-1])
            commands(image)
            serving(image, stages[-1])
            tls(image, folder)


def commands(image):
    package = tomllib.loads((REPOSITORY / "Cargo.toml").read_text())["package"]
    code, output, errors = image.run([*image.entry_point, "--version"])
    assert (code, output) == (0, f"stream-manager {package['version']}\n"), (code, output, errors)

    code, output, errors = image.run([*image.entry_point, "check-config"])
    assert code == 0, errors
    shown = tomllib.loads(output)
    for name, value in image.environment.items():
        _, section, key = name.lower().split("__")
        assert str(shown[section][key]) == value, f"{name}={value}, but {section}.{key} = {shown[section][key]}"
    say("prints its version, and the settings that the image sets are in force")

    code, _, errors = image.run(image.entry_point)
    assert code == 1 and "no AWS region" in errors, (code, errors)
    say("without a region it says so, and ends")


def serving(image, stage):
    ports = stage.only("EXPOSE").split()
    settings = {"STREAM_MANAGER__STORE__KIND": "memory", "STREAM_MANAGER__SERVER__DEREGISTRATION_S": "0"}
    binds = [image.environment[f"STREAM_MANAGER__SERVER__{name}"] for name in ("BIND", "MANAGEMENT_BIND")]
    assert binds == [f"0.0.0.0:{port}" for port in ports], (binds, ports)
    process = image.start(image.entry_point, settings)
    until(200, ports[0], "/health/ready", process)
    user, groups, capabilities, no_new_privileges = container.privileges(process.pid)
    assert set(user) == {str(image.user)} and image.user != 0 and not groups, (user, groups)
    assert capabilities == {"0" * 16} and no_new_privileges == "1", (capabilities, no_new_privileges)
    assert ask(ports[0], "/v1/users/ann/streams", b"")[0] == 201
    assert "stream_manager_starts_total" in ask(ports[1], "/metrics")[1]
    code, output, errors = image.run(image.health)
    assert (code, output) == (0, "ok\n"), (code, output, errors)
    log = end(image, process)
    lines = [json.loads(line) for line in log.splitlines()]
    assert lines, "no log"
    code, _, errors = image.run(image.health)
    assert code == 1 and "no answer" in errors, (code, errors)
    say(f"serves as user {image.user} without a capability on a read-only root, {image.stop_signal.name} ends it with 0")


def tls(image, folder):
    """The roots in the image are the ones that count, for keys and for DynamoDB."""
    elsewhere.certificates(folder)
    server = elsewhere.Elsewhere(folder)
    address = f"https://{elsewhere.NAME}:{elsewhere.PORT}"
    keys = {
        "STREAM_MANAGER__STORE__KIND": "memory", "STREAM_MANAGER__SERVER__DEREGISTRATION_S": "0",
        "STREAM_MANAGER__AUTH__MODE": "jwt", "STREAM_MANAGER__AUTH__ISSUER": "test",
        "STREAM_MANAGER__AUTH__AUDIENCE": "test", "STREAM_MANAGER__AUTH__JWKS_URL": f"{address}/keys",
    }
    aws = {
        "STREAM_MANAGER__DYNAMODB__ENDPOINT_URL": address, "AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    port = image.environment["STREAM_MANAGER__SERVER__BIND"].rpartition(":")[2]

    process = image.start(image.entry_point, keys)
    until(503, port, "/health/ready", process)
    code, _, errors = image.run([*image.entry_point, "migrate"], aws)
    assert code == 1, errors
    log = end(image, process)
    assert "UnknownIssuer" in log or "certificate" in log, log
    assert not server.asked, server.asked
    say("trusts no certificate of an unknown CA")

    known = folder / "roots.pem"
    known.write_text((image.root / CA_ROOTS).read_text() + (folder / "ca.pem").read_text())
    container.lay_over(known, image.root, CA_ROOTS)
    process = image.start(image.entry_point, keys)
    until(200, port, "/health/ready", process)
    end(image, process)
    code, _, errors = image.run([*image.entry_point, "migrate"], aws)
    assert code == 1 and "AccessDenied" in errors, (code, errors)
    assert server.asked[0] == "/keys" and "DynamoDB_20120810.DescribeTable" in server.asked, server.asked
    say(f"finds a host by its name and trusts the roots in /{CA_ROOTS}: for keys, and for DynamoDB")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
