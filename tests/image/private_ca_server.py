"""An HTTPS server with a certificate of a private CA. It serves a JWKS, and rejects every AWS request with AccessDenied."""

import base64
import json
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = "private-ca.example.test"
PORT = 8443


def create_certificates(folder):
    """Writes the CA certificate ca.pem, and the server's certificate and key."""
    create = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    ca = [*create, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Test CA"]
    server = [*create, "-keyout", "server.key", "-out", "server.pem", "-subj", f"/CN={NAME}", "-CA", "ca.pem", "-CAkey", "ca.key",
              "-addext", f"subjectAltName=DNS:{NAME}", "-addext", "basicConstraints=critical,CA:FALSE"]
    for command in (ca, server):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)


def create_jwks():
    """Returns a JWKS with one RSA key, which is enough for the service to become ready."""
    private_key = subprocess.run(["openssl", "genrsa", "2048"], check=True, capture_output=True, text=True).stdout
    command = ["openssl", "rsa", "-noout", "-modulus"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, input=private_key).stdout
    modulus = bytes.fromhex(printed.strip().removeprefix("Modulus="))
    key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "1", "e": "AQAB", "n": base64url(modulus)}
    return {"keys": [key]}


class Server:
    def __init__(self, folder):
        """Starts the server. `requests` collects the path of each GET and the operation of each AWS request."""
        self.requests = []
        requests, jwks = self.requests, create_jwks()

        class Handler(BaseHTTPRequestHandler):
            def respond(self, status, body):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                requests.append(self.headers.get("X-Amz-Target") or self.path)
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self):
                self.respond(200, jwks)

            def do_POST(self):
                self.respond(400, {"__type": "com.amazon.coral.service#AccessDeniedException", "message": "denied"})

            def log_message(self, *_):
                pass

        class HttpsServer(ThreadingHTTPServer):
            def handle_error(self, *_):
                """Ignores errors: the tests expect failed handshakes."""

        self.server = HttpsServer(("127.0.0.1", PORT), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem", folder / "server.key")
        # Do the handshake in the thread of the connection, so that a failed handshake does not stop the accept loop.
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
