"""What stands between the service and the stand-in for DynamoDB: it gives credentials as ECS does, refuses what a role's policy
does not allow as IAM does, and writes down what was asked for. Its Date can lie.
"""

import fnmatch
import json
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import time
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from templates import PARTS_OF_TRANSACTION

PARTS = {name.title().replace("_", ""): action for name, action in PARTS_OF_TRANSACTION.items()}
CREDENTIALS = {"AccessKeyId": "role", "SecretAccessKey": "role", "Token": "role", "Expiration": "2100-01-01T00:00:00Z"}


class Gate(ThreadingHTTPServer):
    def __init__(self, behind, statements, arn_of_table):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behind, self.statements, self.arn_of_table = behind, statements, arn_of_table
        self.used, self.clock_ahead_s = set(), 0
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def allows(self, action, table):
        self.used.add(action)
        resource = self.arn_of_table.replace("*", table)
        return any(
            statement["Effect"] == "Allow"
            and any(fnmatch.fnmatchcase(action, pattern) for pattern in statement["Action"])
            and fnmatch.fnmatchcase(resource, statement["Resource"])
            for statement in self.statements
        )


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(200, json.dumps(CREDENTIALS).encode())

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        asked, operation = json.loads(body), self.headers["X-Amz-Target"].split(".")[1]
        if operation == "TransactWriteItems":
            parts = [part for item in asked["TransactItems"] for part in item.items()]
            needed = [(PARTS[kind], part["TableName"]) for kind, part in parts]
        else:
            needed = [(operation, asked["TableName"])]
        for action, table in needed:
            if not self.server.allows(f"dynamodb:{action}", table):
                refusal = {"__type": "com.amazon.coral.service#AccessDeniedException", "Message": f"no dynamodb:{action} on {table}"}
                return self.answer(400, json.dumps(refusal).encode())
        headers = {name: self.headers[name] for name in ("Authorization", "Content-Type", "X-Amz-Date", "X-Amz-Target")}
        try:
            with urlopen(Request(self.server.behind, body, headers)) as answer:
                self.answer(answer.status, answer.read())
        except HTTPError as error:
            self.answer(error.code, error.read())

    def answer(self, status, body):
        self.send_response_only(status)
        self.send_header("Date", formatdate(time() + self.server.clock_ahead_s, usegmt=True))
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
