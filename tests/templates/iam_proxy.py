"""A proxy in front of the DynamoDB emulator that enforces an IAM policy.

It serves credentials like the ECS endpoint for task roles, rejects operations that the policy does not allow, and records the IAM
actions of all requests. Its Date header can simulate clock skew.
"""

import fnmatch
import json
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import time
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from templates import TRANSACTION_ACTIONS

# Converts the names of SDK methods to the names in requests: condition_check to ConditionCheck.
ACTIONS = {name.title().replace("_", ""): action for name, action in TRANSACTION_ACTIONS.items()}
CREDENTIALS = {"AccessKeyId": "role", "SecretAccessKey": "role", "Token": "role", "Expiration": "2100-01-01T00:00:00Z"}


class IamProxy(ThreadingHTTPServer):
    def __init__(self, upstream, statements, table_arn_pattern):
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream, self.statements, self.table_arn_pattern = upstream, statements, table_arn_pattern
        self.used_actions, self.clock_skew_s = set(), 0
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def allows(self, action, table):
        self.used_actions.add(action)
        resource = self.table_arn_pattern.replace("*", table)
        return any(
            statement["Effect"] == "Allow"
            and any(fnmatch.fnmatchcase(action, pattern) for pattern in statement["Action"])
            and fnmatch.fnmatchcase(resource, statement["Resource"])
            for statement in self.statements
        )


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.respond(200, json.dumps(CREDENTIALS).encode())

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request, operation = json.loads(body), self.headers["X-Amz-Target"].split(".")[1]
        if operation == "TransactWriteItems":
            items = [item for action in request["TransactItems"] for item in action.items()]
            needed = [(ACTIONS[kind], item["TableName"]) for kind, item in items]
        else:
            needed = [(operation, request["TableName"])]
        for action, table in needed:
            if not self.server.allows(f"dynamodb:{action}", table):
                error = {"__type": "com.amazon.coral.service#AccessDeniedException", "Message": f"no dynamodb:{action} on {table}"}
                return self.respond(400, json.dumps(error).encode())
        headers = {name: self.headers[name] for name in ("Authorization", "Content-Type", "X-Amz-Date", "X-Amz-Target")}
        try:
            with urlopen(Request(self.server.upstream, body, headers)) as response:
                self.respond(response.status, response.read())
        except HTTPError as error:
            self.respond(error.code, error.read())

    def respond(self, status, body):
        self.send_response_only(status)
        self.send_header("Date", formatdate(time() + self.server.clock_skew_s, usegmt=True))
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
