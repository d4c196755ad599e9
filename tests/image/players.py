"""Players that start, go on and stop through a proxy, each for a user of its own, and repeat what got no good answer."""

import collections
import http.client
import json
import random
import threading
import time
import uuid

# What may be met where an instance dies over a request; a player repeats it.
AGAIN = {502, 503, 504, "gone"}


class Players:
    def __init__(self, port, number):
        self.port = port
        self.answers = collections.Counter()
        self.wrong = []
        self.longest_s = 0.0
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.play, daemon=True) for _ in range(number)]
        for thread in self.threads:
            thread.start()

    def take(self):
        """The answers since the last time."""
        taken, self.answers = self.answers, collections.Counter()
        return taken

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self.threads), "a player hangs"

    def play(self):
        user = f"trial-{uuid.uuid4()}"
        try:
            while not self.stop.is_set():
                key = {"Idempotency-Key": str(uuid.uuid4())}
                stream = json.loads(self.call("start", "POST", f"/v1/users/{user}/streams", {200, 201}, key))
                path = f"/v1/users/{user}/streams/{stream['streamId']}"
                for _ in range(8):
                    self.stop.wait(random.uniform(0.0, 0.05))
                    self.call("heartbeat", "POST", f"{path}/heartbeat", {200})
                self.call("stop", "DELETE", path, {204})
            count = json.loads(self.call("count", "GET", f"/v1/users/{user}/streams/count", {200}))["count"]
            assert count == 0, f"{count} streams are left"
        except Exception as error:
            self.wrong.append(f"{user}: {error!r}")

    def call(self, verb, method, path, good, headers=None):
        for attempt in range(20):
            begun = time.monotonic()
            status, body = self.send(method, path, headers or {})
            self.longest_s = max(self.longest_s, time.monotonic() - begun)
            self.answers[f"{verb} {status}"] += 1
            if status in good:
                return body
            assert status in AGAIN, f"{verb}: {status} {body[:300]}"
            time.sleep(0.1)
        raise AssertionError(f"{verb}: no good answer in 20 attempts")

    def send(self, method, path, headers):
        held = threading.current_thread()
        try:
            if getattr(held, "to_proxy", None) is None:
                held.to_proxy = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
            held.to_proxy.request(method, path, headers=headers)
            answer = held.to_proxy.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            held.to_proxy = None
            return "gone", b""
