"""Tests nginx, HAProxy and Envoy with the configurations in deploy/gateways, in front of real and fake instances.

scripts/test-gateways creates the network namespace and the certificate, and runs this program.
"""

import http.client
import os
import subprocess
import threading
import time
import unittest
import uuid
from collections import Counter

from checks import Checks
from client import Client, user_path
from processes import ADDRESSES, FakeInstance, gateway, instance, wait_until

URL = os.environ["GATEWAY"]
GATEWAYS = os.environ.get("GATEWAYS", "nginx haproxy envoy").split()
# Default of server.header_read_timeout_s.
IDLE_TIMEOUT_S = 75
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Gateway:
    """Tests of one gateway. `name` is set by `load_tests`."""

    name = ""

    def run_gateway(self):
        started = gateway(self.name)
        self.addCleanup(started.stop)
        return started

    def run_instance(self, index, **settings):
        started = instance(index, **settings)
        self.addCleanup(started.stop)
        host, port = ADDRESSES[index]
        client = Client(f"http://{host}:{port}")
        wait_until("the instance is ready", lambda: client.send("GET", "/health/ready").status == 200)
        client.close()
        return started

    def run_fake(self, index, reply):
        started = FakeInstance(index, reply)
        self.addCleanup(started.stop)
        return started

    def new_client(self):
        client = Client(URL)
        self.addCleanup(client.close)
        return client

    def wait_for(self, client, status, path="/health/live"):
        wait_until(f"{self.name} responds {status}", lambda: client.send("GET", path).status == status)


class Passing(Gateway, Checks):
    """Runs checks.py with one real instance. The other instance does not run, and no client may notice this."""

    def setUp(self):
        super().setUp()
        self.run_instance(0, SERVER__DEREGISTRATION_S="0")
        self.run_gateway()
        self.wait_for(self.client, 200)

    def test_http_2_clients_are_served(self):
        output = subprocess.run(
            ["curl", "--silent", "--http2", "--cacert", os.environ["CA_FILE"], "--write-out", "%{http_version} %{http_code}",
             "--output", "/dev/null", "--request", "POST", URL + user_path(self.user("a/b"))],
            capture_output=True, text=True, check=True, timeout=30).stdout
        self.assertEqual(output, "2 201")


class Recorded(Gateway, unittest.TestCase):
    """Tests the requests that an instance receives, and the responses that clients receive."""

    def test_requests_arrive_as_they_were_sent(self):
        fake = self.run_fake(0, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        self.run_gateway()
        client = self.new_client()
        self.wait_for(client, 200)
        path = user_path("a/../b %2F+;é//c", "/streams")
        headers = {"X-Request-Id": "client-7", "traceparent": TRACEPARENT, "Idempotency-Key": "play-1", "Authorization": "Bearer x.y.z",
                   "Content-Type": "application/json"}
        client.send("POST", path, headers, b'{"deviceId":"tv"}')
        method, received, version, received_headers, body = fake.requests[-1]
        self.assertEqual((method, received, version, body), ("POST", path, "HTTP/1.1", b'{"deviceId":"tv"}'))
        for name, value in headers.items():
            # Envoy changes `traceparent` only if tracing is configured.
            self.assertEqual(received_headers[name.lower()], value, name)
        self.assertTrue(received_headers["host"].startswith("streams.example.com"), received_headers)
        client.send("GET", path + "?evict=true&x=%2F")
        self.assertEqual(fake.requests[-1][1], path + "?evict=true&x=%2F")

    def test_every_status_passes_with_its_body(self):
        problem = b'{"code":"x",  "detail":"spaces stay"}'
        fake = self.run_fake(0, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.run_gateway()
        client = self.new_client()
        self.wait_for(client, 200)
        for status in (201, 400, 401, 403, 404, 405, 409, 410, 413, 415, 422, 429, 500, 503):
            fake.reply = (f"HTTP/1.1 {status} X\r\nContent-Type: application/problem+json\r\nRetry-After: 7\r\nLocation: /v1/users/a%2Fb\r\n"
                          f"X-Request-Id: r-{status}\r\nWWW-Authenticate: Bearer\r\nContent-Length: {len(problem)}\r\n\r\n").encode() + problem
            before = fake.received("POST", "/streams")
            response = client.send("POST", user_path("ann"))
            self.assertEqual((response.status, response.content), (status, problem))
            for name, value in (("Content-Type", "application/problem+json"), ("Retry-After", "7"), ("Location", "/v1/users/a%2Fb"),
                                ("X-Request-Id", f"r-{status}"), ("WWW-Authenticate", "Bearer")):
                self.assertEqual(response.headers[name], value, status)
            self.assertEqual(fake.received("POST", "/streams"), before + 1, "a start is sent once")

    def test_connections_to_instances_are_reused(self):
        fake = self.run_fake(0, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.run_gateway()
        client = self.new_client()
        self.wait_for(client, 200)
        before = fake.connections
        for _ in range(300):
            self.assertEqual(client.send("POST", user_path("ann")).status, 200)
        self.assertLess(fake.connections - before, 10)


    def test_idle_connections_are_closed_before_the_service_closes_them(self):
        if self.name == "haproxy":
            self.skipTest("HAProxy has no such setting")
        fake = self.run_fake(0, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.run_gateway()
        self.wait_for(self.new_client(), 200)
        self.assertGreater(fake.open_connections, 0)
        wait_until("the gateway closes its idle connections", lambda: fake.open_connections == 0, IDLE_TIMEOUT_S - 5)


class Failing(Gateway, unittest.TestCase):
    """Tests instances that close connections, restart or die."""

    def test_a_start_is_not_repeated_on_another_instance(self):
        dying, good = self.run_fake(0, None), self.run_fake(1, b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        self.run_gateway()
        client = self.new_client()
        # Clients must not be able to enable retries with the headers of Envoy.
        headers = {"X-Envoy-Retry-On": "reset,5xx", "X-Envoy-Max-Retries": "3"}
        sent = created = 0

        def start():
            nonlocal sent, created
            sent += 1
            try:
                created += client.send("POST", user_path("ann"), headers).status == 201
            except (OSError, http.client.HTTPException):
                pass
            return dying.received("POST", "/streams") > 0

        wait_until("a start reached the dying instance", start)
        self.assertEqual(dying.received("POST", "/streams") + good.received("POST", "/streams"), sent)
        self.assertEqual(good.received("POST", "/streams"), created)

    def test_heartbeats_stops_and_reads_are_repeated(self):
        dying, good = self.run_fake(0, None), self.run_fake(1, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.run_gateway()
        client = self.new_client()
        self.wait_for(client, 200)
        stream = user_path("a/b", f"/streams/{uuid.uuid4()}")
        for method, path in (("POST", f"{stream}/heartbeat"), ("POST", f"{stream}/stop"), ("DELETE", stream), ("GET", stream)):
            with self.subTest(method + path[-10:]):

                def send(method=method, path=path):
                    self.assertEqual(client.send(method, path).status, 200)
                    return dying.received(method, path) > 0

                wait_until("a request reached the dying instance", send)
                self.assertGreater(good.received(method, path), 0)

    def test_connections_that_the_service_has_closed_are_not_used(self):
        for index in range(2):
            self.run_instance(index, SERVER__HEADER_READ_TIMEOUT_S="1", SERVER__DEREGISTRATION_S="0")
        self.run_gateway()
        client, starts, others = self.new_client(), Counter(), Counter()
        self.wait_for(client, 200)
        for _ in range(2):
            for _ in range(10):
                send_requests(client, starts, others)
            time.sleep(3)
        for _ in range(10):
            send_requests(client, starts, others)
        self.assertEqual((set(starts), set(others)), ({201}, {200, 204, 404}))

    def test_a_graceful_restart_causes_no_error(self):
        settings = {"SERVER__DEREGISTRATION_S": "3"}
        first, _ = self.run_instance(0, **settings), self.run_instance(1, **settings)
        self.run_gateway()
        self.wait_for(self.new_client(), 200)
        done, starts, others = threading.Event(), Counter(), Counter()

        def load():
            client = Client(URL)
            while not done.is_set():
                send_requests(client, starts, others)
            client.close()

        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            time.sleep(0.5)
            first.stop()
            self.run_instance(0, **settings)
            time.sleep(2)
        finally:
            done.set()
            for thread in threads:
                thread.join()
        self.assertGreater(others.total(), 300)
        self.assertEqual(set(others), {200, 204, 404}, others)
        # nginx has no active health checks, so it may send a start on a connection that the instance is closing. It never repeats a start.
        lost = 3 if self.name == "nginx" else 0
        self.assertLessEqual(starts.total() - starts[201], lost, starts)


def send_requests(client, starts, others):
    """Sends a start, a heartbeat and a stop of an unknown stream, and a count, all for a new user. Counts the responses by status."""
    user, stream = f"gateway/{uuid.uuid4()}", f"/streams/{uuid.uuid4()}"
    for method, path, results in (("POST", user_path(user), starts), ("POST", user_path(user, stream + "/heartbeat"), others),
                                  ("DELETE", user_path(user, stream), others), ("GET", user_path(user, "/streams/count"), others)):
        try:
            results[client.send(method, path).status] += 1
        except (OSError, http.client.HTTPException) as error:
            results[repr(error)] += 1


def load_tests(loader, *_):
    suite = unittest.TestSuite()
    for name in GATEWAYS:
        for case in (Passing, Recorded, Failing):
            suite.addTests(loader.loadTestsFromTestCase(type(f"{case.__name__}_{name}", (case,), {"name": name})))
    return suite


if __name__ == "__main__":
    unittest.main(verbosity=2)
