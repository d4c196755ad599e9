"""An HTTPS server with a certificate of a CA that nobody else knows: a key set, and an AWS that refuses all."""

import base64
import json
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = "elsewhere.example.test"
PORT = 8443


def certificates(folder):
    """ca.pem, and the server's certificate and key."""
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    ca = [*make, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=A CA for a test"]
    own = [*make, "-keyout", "own.key", "-out", "own.pem", "-subj", f"/CN={NAME}", "-CA", "ca.pem", "-CAkey", "ca.key",
           "-addext", f"subjectAltName=DNS:{NAME}", "-addext", "basicConstraints=critical,CA:FALSE"]
    for command in (ca, own):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)


class Elsewhere:
    def __init__(self, folder):
        self.asked = []
        asked = self.asked
        # One key is enough to be ready; nobody signs with it.
        key = subprocess.run(["openssl", "rsa", "-noout", "-modulus"], check=True, capture_output=True, text=True,
                             input=subprocess.run(["openssl", "genrsa", "2048"], check=True, capture_output=True,
                                                  text=True).stdout).stdout
        modulus = bytes.fromhex(key.strip().removeprefix("Modulus="))
        keys = {"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "1", "e": "AQAB", "n": base64url(modulus)}]}

        class Answers(BaseHTTPRequestHandler):
            def answer(self, status, body):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                asked.append(self.headers.get("X-Amz-Target") or self.path)
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self):
                self.answer(200, keys)

            def do_POST(self):
                self.answer(400, {"__type": "com.amazon.coral.service#AccessDeniedException", "message": "no"})

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_):
                """A handshake that fails is what is looked for."""

        self.server = Server(("127.0.0.1", PORT), Answers)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "own.pem", folder / "own.key")
        # The handshake belongs to the connection's thread: one that fails must not stop the accepting.
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
