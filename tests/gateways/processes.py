"""Starts instances and gateways in a network namespace that scripts/test-gateways has created."""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SERVICE = os.environ.get("SERVICE", REPOSITORY / "target/debug/stream-manager")
CONFIGURATIONS = REPOSITORY / "deploy/gateways"
GATEWAY = ("127.0.0.1", 443)
# The addresses of stream-manager-1 and stream-manager-2 in /etc/hosts.
ADDRESSES = [("127.0.0.11", 8080), ("127.0.0.12", 8080)]
START_S = 30

NGINX = "user root;\ndaemon off;\nworker_processes 1;\npid {folder}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{paths}\ninclude {file};\n}}\n"
NGINX_PATHS = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]


def listens(address):
    try:
        socket.create_connection(address, timeout=1).close()
        return True
    except OSError:
        return False


def wait_until(description, condition, seconds=START_S):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{description}: not within {seconds} s")
        time.sleep(0.05)


class Process:
    def __init__(self, command, address, environment=None):
        # Use a file, because a full pipe would block the process.
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        try:
            wait_until(f"{command[0]} listens", lambda: self.check() or listens(address))
        except BaseException:
            self.stop(signal.SIGKILL)
            raise

    def check(self):
        if self.process.poll() is not None:
            self.log.seek(0)
            raise AssertionError(f"exited with {self.process.returncode}: {self.log.read().decode()[-2000:]}")

    def stop(self, with_signal=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        try:
            self.process.wait(START_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.log.close()


def instance(index, **settings):
    """Starts a real instance with its own in-memory store."""
    host, port = ADDRESSES[index]
    settings = {"SERVER__BIND": f"{host}:{port}", "SERVER__MANAGEMENT_BIND": f"{host}:0", "STORE__KIND": "memory", **settings}
    environment = {f"STREAM_MANAGER__{name}": value for name, value in settings.items()}
    return Process([SERVICE], (host, port), environment | {"PATH": os.environ["PATH"]})


def gateway(name):
    """Starts nginx, haproxy or envoy with its configuration in deploy/gateways."""
    if name == "nginx":
        folder = tempfile.mkdtemp(dir=os.environ["FOLDER"])
        paths = "\n".join(f"{path}_temp_path {folder}/{path};" for path in NGINX_PATHS)
        file = Path(folder) / "nginx.conf"
        file.write_text(NGINX.format(folder=folder, paths=paths, file=CONFIGURATIONS / "nginx.conf"))
        command = ["nginx", "-e", "stderr", "-c", str(file)]
    elif name == "haproxy":
        command = ["haproxy", "-f", str(CONFIGURATIONS / "haproxy.cfg")]
    else:
        command = [os.environ["ENVOY"], "-c", str(CONFIGURATIONS / "envoy.yaml"), "--concurrency", "1", "--disable-hot-restart",
                   "--log-level", "warning"]
    return Process(command, GATEWAY)


class FakeInstance:
    """Records the requests that an instance receives. Sends `reply`, or closes the connection if `reply` is None.

    Health checks get a 200 response and are not recorded. `connections` and `open_connections` omit connections with only health checks.
    """

    def __init__(self, index, reply):
        self.reply, self.requests, self.connections, self.open_connections = reply, [], 0, 0
        self.lock = threading.Lock()
        self.listener = socket.create_server(ADDRESSES[index])
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        counted = []
        # HAProxy resets the connections of its health checks.
        with contextlib.suppress(ConnectionResetError):
            self.exchange(connection, counted)
        with self.lock:
            self.open_connections -= len(counted)

    def exchange(self, connection, counted):
        with connection, connection.makefile("rb") as file:
            while True:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    line = file.readline()
                    if not line:
                        return
                    head += line
                lines = head.decode("latin-1").split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
                body = file.read(int(headers.get("content-length", 0)))
                method, path, version = lines[0].split(" ")
                if path == "/health/ready":
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    continue
                with self.lock:
                    self.requests.append((method, path, version, headers, body))
                    if not counted:
                        counted.append(True)
                        self.connections += 1
                        self.open_connections += 1
                if self.reply is None:
                    return
                connection.sendall(self.reply)

    def received(self, method, end):
        with self.lock:
            return sum(request[0] == method and request[1].endswith(end) for request in self.requests)

    def stop(self):
        # Wake up the thread that waits in accept().
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
