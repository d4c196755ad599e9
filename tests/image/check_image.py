"""Builds the image's root file system around a binary, as the Dockerfile does, and runs the binary in it like a container.

    unshare --mount --net python3 tests/image/check_image.py BINARY

scripts/check-image creates the namespaces and calls this program. Requires root and Debian.
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
import private_ca_server

REPOSITORY = Path(__file__).resolve().parents[2]
MAX_SIZE_MB = 40
CA_CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
NO_AUTHENTICATION = {"STREAM_MANAGER__AUTH__MODE": "none"}


def log(text):
    print(f"image: {text}", flush=True)


def build(stages, binary, folder):
    """Runs the Dockerfile's commands after `cargo build` on this host, and returns the root of the final stage."""
    final = stages[-1]
    assert final.base == "scratch", final.base
    [(source, image_root)] = dockerfile.copies(final)
    outputs = {path for stage in stages if stage.base == "scratch" for _, path in dockerfile.copies(stage)}
    build_stage = next(stage for stage in stages if stage.name == source)
    assert "BUILD_REVISION=${REVISION}" in build_stage.all("ENV"), "the Dockerfile does not set BUILD_REVISION for the build"
    commands = build_stage.all("RUN")
    build_step = next(number for number, command in enumerate(commands) if command.startswith("cargo build "))
    for option in ("--profile dist", "--locked", "--no-default-features", "--bin stream-manager"):
        assert option in commands[build_step], f"{commands[build_step]}: no {option}"
    (folder / "target/dist").mkdir(parents=True)
    shutil.copy(binary, folder / "target/dist/stream-manager")
    for included in dockerfile.build_context(REPOSITORY / ".dockerignore"):
        (folder / included).parent.mkdir(parents=True, exist_ok=True)
        (folder / included).symlink_to(REPOSITORY / included)
    for command in commands[build_step + 1 :]:
        for path in outputs:
            command = re.sub(rf"(?<![^\s=]){re.escape(path)}(?=[/\s]|$)", f"{folder}{path}", command)
        subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=folder, check=True)
    return Path(f"{folder}{image_root}")


class Image:
    """The root file system with the metadata of the Dockerfile's final stage."""

    def __init__(self, root, stage):
        self.root = root
        self.environment = dockerfile.environment(stage)
        self.user, self.group = map(int, stage.only("USER").split(":"))
        self.entry_point = dockerfile.exec_form(stage.only("ENTRYPOINT"))
        health = re.fullmatch(r"(?:--\S+ )*CMD (\[.*\])", stage.only("HEALTHCHECK"))
        assert health, "HEALTHCHECK must use the exec form, because the image has no shell"
        self.health_check = dockerfile.exec_form(health[1])
        self.stop_signal = signal.Signals[stage.only("STOPSIGNAL")]

    def start(self, command, settings):
        # Set the variables that a container engine sets. Do not pass on variables of this host.
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/"}
        environment |= self.environment | settings
        return container.start(self.root, self.user, self.group, command, environment)

    def run(self, command, settings=None):
        process = self.start(command, settings or {})
        output, errors = process.communicate(timeout=30)
        return process.returncode, output, errors

    def stop(self, process):
        """Sends the stop signal, requires exit code 0, and returns the log."""
        process.send_signal(self.stop_signal)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, (process.returncode, errors)
        return errors


def request(port, path, body=None):
    call = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=body)
    try:
        with urllib.request.urlopen(call, timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as response:
        return response.code, response.read().decode()


def wait_for_status(status, port, path, process):
    for _ in range(100):
        try:
            if request(port, path)[0] == status:
                return
        except OSError:
            pass
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.kill()
    raise AssertionError(f"{path} never returned {status}: {process.stderr.read()}")


def main(binary):
    stages = dockerfile.read(REPOSITORY / "Dockerfile")
    toolchain = tomllib.loads((REPOSITORY / "rust-toolchain.toml").read_text())["toolchain"]["channel"]
    base = stages[0].base
    assert base.startswith(f"rust:{toolchain}-"), f"the Dockerfile uses {base}, but rust-toolchain.toml has {toolchain}"
    workflow = (REPOSITORY / ".github/workflows/ci.yml").read_text()
    assert "@sha256:" in base and f"image: {base}\n" in workflow, f"the Dockerfile uses {base}, but ci.yml uses another image"

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # The unprivileged user of the image must be able to traverse this folder.
        folder.chmod(0o755)
        root = build(stages, binary, folder)
        check_size(root, binary)
        container.enable_loopback()
        with container.read_only(root, f"127.0.0.1 localhost\n127.0.0.1 {private_ca_server.NAME}\n"):
            image = Image(root, stages[-1])
            check_commands(image)
            check_server(image, stages[-1])
            check_tls(image, folder)


def check_size(root, binary):
    files = [file for file in sorted(root.rglob("*")) if file.is_file()]
    for file in files:
        log(f"{file.stat().st_size:>10} /{file.relative_to(root)}")
    size = sum(file.stat().st_size for file in files)
    log(f"total size: {size / 1000**2:.1f} MB")
    if "dist" in binary.parts:
        assert size < MAX_SIZE_MB * 1000**2, f"the image is larger than {MAX_SIZE_MB} MB"
    else:
        log(f"the limit of {MAX_SIZE_MB} MB applies only to a binary from target/dist")


def check_commands(image):
    package = tomllib.loads((REPOSITORY / "Cargo.toml").read_text())["package"]
    code, output, errors = image.run([*image.entry_point, "--version"])
    assert (code, output) == (0, f"stream-manager {package['version']}\n"), (code, output, errors)

    for command in ([], ["check-config"]):
        code, _, errors = image.run([*image.entry_point, *command])
        assert code == 1 and "auth.mode is not set" in errors, (code, errors)
    log("without auth.mode, the start fails with an error message")

    code, output, errors = image.run([*image.entry_point, "check-config"], NO_AUTHENTICATION)
    assert code == 0, errors
    settings = tomllib.loads(output)
    for name, value in image.environment.items():
        _, section, key = name.lower().split("__")
        actual = settings[section][key]
        assert str(actual) == value, f"the image sets {name}={value}, but {section}.{key} = {actual}"
    log("the version is correct, and the settings of the image are in effect")

    code, _, errors = image.run(image.entry_point, NO_AUTHENTICATION)
    assert code == 1 and "region" in errors, (code, errors)
    log("without an AWS region, the start fails with an error message")


def check_server(image, stage):
    ports = stage.only("EXPOSE").split()
    settings = NO_AUTHENTICATION | {"STREAM_MANAGER__STORE__KIND": "memory", "STREAM_MANAGER__SERVER__DEREGISTRATION_S": "0"}
    binds = [image.environment[f"STREAM_MANAGER__SERVER__{name}"] for name in ("BIND", "MANAGEMENT_BIND")]
    assert binds == [f"0.0.0.0:{port}" for port in ports], (binds, ports)
    process = image.start(image.entry_point, settings)
    wait_for_status(200, ports[0], "/health/ready", process)
    users, groups, capabilities, no_new_privileges = container.credentials(process.pid)
    assert set(users) == {str(image.user)} and image.user != 0 and not groups, (users, groups)
    assert capabilities == {"0" * 16} and no_new_privileges == "1", (capabilities, no_new_privileges)
    assert request(ports[0], "/v1/users/ann/streams", b"")[0] == 201
    assert "stream_manager_starts_total" in request(ports[1], "/metrics")[1]
    code, output, errors = image.run(image.health_check)
    assert (code, output) == (0, "ok\n"), (code, output, errors)
    lines = [json.loads(line) for line in image.stop(process).splitlines()]
    assert lines, "the log is empty"
    code, output, errors = image.run(image.health_check)
    assert code == 1 and not output and errors, (code, output, errors)
    log(f"the service runs as user {image.user} without capabilities, and {image.stop_signal.name} stops it with exit code 0")


def check_tls(image, folder):
    """Checks that the service trusts exactly the CA certificates in the image, for JWKS and for DynamoDB."""
    private_ca_server.create_certificates(folder)
    server = private_ca_server.Server(folder)
    url = f"https://{private_ca_server.NAME}:{private_ca_server.PORT}"
    jwks = {
        "STREAM_MANAGER__STORE__KIND": "memory", "STREAM_MANAGER__SERVER__DEREGISTRATION_S": "0",
        "STREAM_MANAGER__AUTH__MODE": "jwt", "STREAM_MANAGER__AUTH__ISSUER": "test",
        "STREAM_MANAGER__AUTH__AUDIENCE": "test", "STREAM_MANAGER__AUTH__JWKS_URL": f"{url}/keys",
    }
    dynamodb = {
        "STREAM_MANAGER__DYNAMODB__ENDPOINT_URL": url, "AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    port = image.environment["STREAM_MANAGER__SERVER__BIND"].rpartition(":")[2]

    process = image.start(image.entry_point, jwks)
    wait_for_status(503, port, "/health/ready", process)
    code, _, errors = image.run([*image.entry_point, "migrate"], dynamodb)
    assert code == 1, errors
    output = image.stop(process)
    assert "UnknownIssuer" in output or "certificate" in output, output
    assert not server.requests, server.requests
    log("rejects a server certificate of an unknown CA")

    trusted = folder / "trusted.pem"
    trusted.write_text((image.root / CA_CERTIFICATES).read_text() + (folder / "ca.pem").read_text())
    container.bind_file(trusted, image.root, CA_CERTIFICATES)
    process = image.start(image.entry_point, jwks)
    wait_for_status(200, port, "/health/ready", process)
    image.stop(process)
    code, _, errors = image.run([*image.entry_point, "migrate"], dynamodb)
    assert code == 1 and "AccessDenied" in errors, (code, errors)
    assert server.requests[0] == "/keys" and "DynamoDB_20120810.DescribeTable" in server.requests, server.requests
    log(f"resolves host names and trusts the CA certificates in /{CA_CERTIFICATES}, for JWKS and for DynamoDB")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
