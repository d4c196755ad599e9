"""A minimal HTTP/1.1 client that sends paths and headers exactly as given."""

import http.client
import json
import os
import ssl
import urllib.parse


class Response:
    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.content = response.read()

    @property
    def body(self):
        return json.loads(self.content)

    @property
    def code(self):
        """Returns the problem code, or None if the response is not a problem of the service."""
        if self.headers.get_content_type() != "application/problem+json":
            return None
        return self.body["code"]

    def __repr__(self):
        return f"{self.status} {dict(self.headers)} {self.content[:300]!r}"


class Client:
    """Keeps one connection open, as a player does. Reconnects if the server has closed it."""

    def __init__(self, url, timeout_s=30):
        parts = urllib.parse.urlsplit(url)
        context = ssl.create_default_context(cafile=os.environ.get("CA_FILE")) if parts.scheme == "https" else None
        self.host = parts.hostname
        if context:
            self.connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=timeout_s, context=context)
        else:
            self.connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)

    def send(self, method, path, headers=(), body=b""):
        """Raises an OSError or HTTPException if the connection closes without a response."""
        headers = dict(headers)
        if os.environ.get("TOKEN"):
            headers.setdefault("Authorization", f"Bearer {os.environ['TOKEN']}")
        if body or method in ("POST", "PUT"):
            headers["Content-Length"] = str(len(body))
        try:
            self.connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in headers.items():
                self.connection.putheader(name, value)
            self.connection.endheaders(body or None)
            return Response(self.connection.getresponse())
        except (OSError, http.client.HTTPException):
            self.connection.close()
            raise

    def json(self, method, path, value, headers=()):
        return self.send(method, path, {"Content-Type": "application/json", **dict(headers)}, json.dumps(value).encode())

    def close(self):
        self.connection.close()


def user_path(name, rest="/streams"):
    return f"/v1/users/{urllib.parse.quote(name, safe='')}{rest}"
