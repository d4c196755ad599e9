"""Runs the service's binary with the environment of a task, on loopback and with DynamoDB behind the IAM proxy."""

import json
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

from templates import BINARY, PREFIX


class Service:
    def __init__(self, environment, iam_proxy):
        self.port = free_port()
        self.environment = environment | {
            f"{PREFIX}SERVER__BIND": f"127.0.0.1:{self.port}",
            f"{PREFIX}SERVER__MANAGEMENT_BIND": "127.0.0.1:0",
            f"{PREFIX}SERVER__DEREGISTRATION_S": "0",
            f"{PREFIX}DYNAMODB__ENDPOINT_URL": iam_proxy.url,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{iam_proxy.url}/credentials",
        }
        self.output = tempfile.TemporaryFile("w+")
        # With EventsSink stdout, the service writes events to its standard output.
        self.event_output = tempfile.TemporaryFile("w+")

    def __enter__(self):
        self.process = subprocess.Popen([BINARY], env=self.environment, stdout=self.event_output, stderr=self.output)
        for _ in range(100):
            if self.process.poll() is not None:
                break
            try:
                if self.get("/health/ready")[0] == 200:
                    return self
            except OSError:
                pass
            time.sleep(0.1)
        self.__exit__()
        raise AssertionError(f"the service did not become ready: {self.log[-3:]}")

    def __exit__(self, *_):
        """Stops the service, and sets `log` to the lines of its log, and `events` to its events."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        self.log, events = [read_lines(output) for output in (self.output, self.event_output)]
        self.events = [json.loads(line) for line in events if line.strip()]

    def run(self, command):
        process = subprocess.run([BINARY, command], env=self.environment, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
        return process.stdout

    def get(self, path, token=None):
        return self.call("GET", path, token)

    def post(self, path, token, body=None):
        return self.call("POST", path, token, body)

    def call(self, method, path, token=None, body=None):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, json.loads(response.read() or "null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or "null")


def read_lines(file):
    with file:
        file.seek(0)
        return file.read().splitlines()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
