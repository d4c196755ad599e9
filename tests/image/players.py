"""Simulated players that use the service through a proxy. Each player has its own user, and retries requests that fail."""

import collections
import http.client
import json
import random
import threading
import time
import uuid

# A player may retry these results, because an instance may have stopped during the request.
RETRYABLE = {502, 503, 504, "no response"}
MAX_ATTEMPTS = 20


class Players:
    def __init__(self, port, number):
        self.port = port
        self.results = collections.Counter()
        self.errors = []
        self.max_latency_s = 0.0
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.play, daemon=True) for _ in range(number)]
        for thread in self.threads:
            thread.start()

    def take_results(self):
        """Returns the results since the last call."""
        taken, self.results = self.results, collections.Counter()
        return taken

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self.threads), "a player did not stop within 60 s"

    def play(self):
        user = f"failover-{uuid.uuid4()}"
        try:
            while not self.stopping.is_set():
                key = {"Idempotency-Key": str(uuid.uuid4())}
                stream = json.loads(self.call("start", "POST", f"/v1/users/{user}/streams", {200, 201}, key))
                path = f"/v1/users/{user}/streams/{stream['streamId']}"
                for _ in range(8):
                    self.stopping.wait(random.uniform(0.0, 0.05))
                    self.call("heartbeat", "POST", f"{path}/heartbeat", {200})
                self.call("stop", "DELETE", path, {204})
            count = json.loads(self.call("count", "GET", f"/v1/users/{user}/streams/count", {200}))["count"]
            assert count == 0, f"{count} streams are still live"
        except Exception as error:
            self.errors.append(f"{user}: {error!r}")

    def call(self, operation, method, path, expected, headers=None):
        for _ in range(MAX_ATTEMPTS):
            sent = time.monotonic()
            status, body = self.send(method, path, headers or {})
            self.max_latency_s = max(self.max_latency_s, time.monotonic() - sent)
            self.results[operation, status] += 1
            if status in expected:
                return body
            assert status in RETRYABLE, f"{operation}: {status} {body[:300]}"
            time.sleep(0.1)
        raise AssertionError(f"{operation}: failed {MAX_ATTEMPTS} times")

    def send(self, method, path, headers):
        # Each thread has its own connection, which it keeps open.
        thread = threading.current_thread()
        try:
            if getattr(thread, "connection", None) is None:
                thread.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
            thread.connection.request(method, path, headers=headers)
            response = thread.connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            thread.connection = None
            return "no response", b""
