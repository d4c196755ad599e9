"""Checks that a gateway passes requests and responses unchanged: GATEWAY=URL python3 checks.py

The checks only send requests to this URL. Each run uses new user names and stops the streams that it starts. If TOKEN is set, the
checks send it as a bearer token. It must be an administrator's token. CA_FILE is a file with trusted certificates.
"""

import gzip
import os
import unittest
import uuid

from client import Client, user_path

# Suffixes of user names. Names from other systems may contain such characters. A gateway that decodes the path changes them.
NAMES = [
    "ann@example.com", "a/b", "a//b", "/a", "a/", "a/../b", "a/./b", "../a", "a b", " a ", "a+b", "a;b=c", "a&b=c", "a?b", "a#b", "a:b",
    "a,b", "a|b", "a\\b", "100%", "a%2Fb", "%41", "a%252Fb", "Zoë", "日本", "😀", "~_-.", ".hidden", "!$'()*", "[a]{b}", "<a>\"^`",
    "streams/count", "x/streams/heartbeat",
]


class Checks(unittest.TestCase):
    def setUp(self):
        self.run_id = uuid.uuid4().hex
        self.client = Client(os.environ["GATEWAY"])
        self.addCleanup(self.client.close)

    def start(self, name, body=None, **headers):
        started = self.client.json("POST", user_path(name), body or {}, headers)
        if started.status in (200, 201):
            stop = user_path(name, f"/streams/{started.body['streamId']}/stop")
            self.addCleanup(self.client.send, "POST", stop)
        return started

    def user(self, end=""):
        return f"{self.run_id}{end}"

    def test_user_names_reach_the_service_unchanged(self):
        # Most names begin with the run's id. The last ones begin with special characters, such as a dot or a slash.
        for name in [self.user(end) for end in NAMES] + [end + self.user() for end in ("../", "/", ".", " ", "%2F")]:
            with self.subTest(name):
                count = self.client.send("GET", user_path(name, "/streams/count"))
                self.assertEqual(count.status, 200, count)
                self.assertEqual(count.body["userName"], name)

    def test_a_session_works_with_every_name(self):
        for name in map(self.user, ("a/../b c", "100%+;ë/heartbeat")):
            with self.subTest(name):
                started = self.start(name, {"deviceId": "tv"})
                self.assertEqual(started.status, 201, started)
                stream = user_path(name, f"/streams/{started.body['streamId']}")
                self.assertEqual(started.headers["Location"], stream)
                self.assertEqual(self.client.send("GET", stream).body["userName"], name)
                self.assertEqual(self.client.send("POST", f"{stream}/heartbeat").status, 200)
                listed = self.client.send("GET", user_path(name)).body["streams"]
                self.assertEqual([entry["streamId"] for entry in listed], [started.body["streamId"]])
                self.assertEqual(self.client.send("DELETE", stream).status, 204)
                self.assertEqual(self.client.send("GET", user_path(name)).body["count"], 0)

    def test_a_denial_has_its_body_and_retry_after(self):
        name = self.user()
        limit = self.client.send("GET", user_path(name, "/limit")).body["limit"]
        for _ in range(limit):
            self.assertEqual(self.start(name).status, 201)
        denied = self.start(name)
        self.assertEqual((denied.status, denied.code), (409, "stream-limit-reached"), denied)
        self.assertEqual((denied.body["limit"], len(denied.body["streams"])), (limit, limit))
        self.assertEqual(denied.headers["Retry-After"], str(denied.body["slotFreesInSeconds"]))

    def test_ended_and_unknown_streams_have_their_problems(self):
        name = self.user()
        first = self.start(name, {"deviceId": "tv"}).body["streamId"]
        self.start(name, {"deviceId": "tv"})
        ended = self.client.send("POST", user_path(name, f"/streams/{first}/heartbeat"))
        self.assertEqual((ended.status, ended.code), (410, "stream-ended"), ended)
        self.assertEqual((ended.body["reason"], ended.body["restart"]), ("replaced", "user"))
        unknown = self.client.send("POST", user_path(name, f"/streams/{uuid.uuid4()}/heartbeat"))
        self.assertEqual((unknown.status, unknown.code, unknown.body["restart"]), (404, "stream-not-found", "auto"))
        patched = self.client.send("PATCH", user_path(name))
        self.assertEqual((patched.status, patched.code), (405, "method-not-allowed"), patched)
        self.assertIn("POST", patched.headers["Allow"])

    def test_an_idempotency_key_is_passed(self):
        name, key = self.user(), {"Idempotency-Key": str(uuid.uuid4())}
        first, second = self.start(name, **key), self.start(name, **key)
        self.assertEqual((first.status, second.status), (201, 200), second)
        self.assertEqual((second.body["streamId"], second.headers["Idempotency-Replayed"]), (first.body["streamId"], "true"))

    def test_the_request_id_is_the_services_own(self):
        unknown = self.client.send("GET", user_path(self.user(), f"/streams/{uuid.uuid4()}"), {"X-Request-Id": "from-client"})
        request_id = unknown.headers["X-Request-Id"]
        self.assertEqual(unknown.headers.get_all("X-Request-Id"), [request_id])
        self.assertEqual(unknown.body["instance"], f"urn:stream-manager:request:{request_id}")

    def test_responses_are_not_cached(self):
        name = self.user()
        path = user_path(name, "/streams/count")
        self.assertEqual(self.client.send("GET", path).headers["Cache-Control"], "no-store")
        self.start(name)
        again = self.client.send("GET", path)
        self.assertEqual((again.body["count"], again.headers["Age"]), (1, None), again)
        gone = user_path(name, f"/streams/{uuid.uuid4()}")
        ids = {self.client.send("GET", gone).headers["X-Request-Id"] for _ in range(3)}
        self.assertEqual(len(ids), 3, "a 404 was cached")

    def test_large_bodies_get_the_services_response(self):
        name = self.user()
        for length in (20_000, 900_000):
            large = b"x" * length
            refused = self.client.send("POST", user_path(name), {"Content-Type": "application/json"}, large)
            self.assertEqual((refused.status, refused.code), (413, "payload-too-large"), refused)
            stop = user_path(name, f"/streams/{uuid.uuid4()}/stop")
            self.assertEqual(self.client.send("POST", stop, {}, large).status, 204, "the body of a stop is ignored")

    def test_long_heads_pass_and_longer_ones_are_refused(self):
        name = self.user()
        passed = self.client.send("GET", user_path(name, "/streams/count"), {"X-Padding": "x" * 16_000})
        self.assertEqual(passed.status, 200, passed)
        try:
            refused = self.client.send("POST", user_path(name), {"X-Padding": "x" * 100_000}).status
        except OSError:
            refused = None
        self.assertIn(refused, (400, 413, 414, 431, 494, None))
        self.client.close()
        self.assertEqual(self.client.send("GET", user_path(name)).body["count"], 0)

    def test_compressed_request_bodies_are_refused_by_the_service(self):
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        refused = self.client.send("POST", user_path(self.user()), headers, gzip.compress(b"{}"))
        self.assertEqual((refused.status, refused.code), (415, "unsupported-media-type"), refused)

    def test_documents_are_compressed_and_revalidated(self):
        accepted = {"Accept-Encoding": "gzip"}
        document = self.client.send("GET", "/openapi.json", accepted)
        self.assertEqual((document.status, document.headers["Content-Encoding"]), (200, "gzip"), document)
        self.assertIn(b'"openapi"', gzip.decompress(document.content))
        again = self.client.send("GET", "/openapi.json", {**accepted, "If-None-Match": document.headers["ETag"]})
        self.assertEqual((again.status, again.content), (304, b""), again)
        head = self.client.send("HEAD", "/openapi.json")
        self.assertEqual((head.status, head.content, head.headers["Cache-Control"]), (200, b"", "no-cache"), head)


if __name__ == "__main__":
    unittest.main()
