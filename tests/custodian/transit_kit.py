"""A transit engine in this process, over real HTTP: as much of it as a key service needs, written from its interface.

Answers and statuses are those of OpenBao's ``builtin/logical/transit``; keys are versions of AES-256-GCM. It is no
proof that a real server behaves so: that is the live test, for whoever has one.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["TOKEN", "TransitServer", "start_transit"]

TOKEN = "hvs.of-a-test"  # noqa: S105 - of a test


@dataclass
class TransitServer:
    """The server's state. ``answer``, where it is set, is given to everybody, whatever they ask."""

    url: str = ""
    keys: dict[str, list[bytes]] = field(default_factory=lambda: {"vault": [os.urandom(32)], "other": [os.urandom(32)]})
    answer: tuple[int, bytes] | None = None
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """Return what a custodian is given."""
        return {"VAULT_ADDR": self.url, "VAULT_TOKEN": TOKEN}

    def rotate(self, name: str) -> None:
        """Make a new version of a key; older ones still decrypt."""
        self.keys[name].append(os.urandom(32))

    def respond(self, path: str, token: str | None, asked: dict[str, Any]) -> tuple[int, bytes]:
        """Return status and body."""
        if self.answer is not None:
            return self.answer
        words = path.split("/")
        if words[:3] != ["", "v1", "transit"] or len(words) != 5:
            return 404, _errors(f"no handler for route {path!r}")
        if token != TOKEN:
            return 403, _errors("permission denied")
        if words[4] not in self.keys:
            return 400, _errors("encryption key not found")
        aad = base64.b64decode(asked.get("associated_data", ""))
        return (self._encrypt if words[3] == "encrypt" else self._decrypt)(self.keys[words[4]], asked, aad)

    def _encrypt(self, versions: list[bytes], asked: dict[str, Any], aad: bytes) -> tuple[int, bytes]:
        nonce = os.urandom(12)
        sealed = nonce + AESGCM(versions[-1]).encrypt(nonce, base64.b64decode(asked["plaintext"]), aad)
        text = f"vault:v{len(versions)}:{base64.b64encode(sealed).decode()}"
        return 200, json.dumps({"request_id": "r", "data": {"ciphertext": text, "key_version": len(versions)}}).encode()

    def _decrypt(self, versions: list[bytes], asked: dict[str, Any], aad: bytes) -> tuple[int, bytes]:
        try:
            _, version, text = asked["ciphertext"].split(":")
            sealed = base64.b64decode(text, validate=True)
            plain = AESGCM(versions[int(version[1:]) - 1]).decrypt(sealed[:12], sealed[12:], aad)
        except (InvalidTag, ValueError, IndexError):
            return 400, _errors("invalid ciphertext: unable to decrypt")
        return 200, json.dumps({"request_id": "r", "data": {"plaintext": base64.b64encode(plain).decode()}}).encode()


def _errors(text: str) -> bytes:
    return json.dumps({"errors": [text]}).encode()


def start_transit(*, certificate: Path | None = None, key: Path | None = None) -> Iterator[TransitServer]:
    """Serve until the generator is closed, over TLS where there is a certificate."""
    state = TransitServer()

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.headers.append({name.lower(): value for name, value in self.headers.items()})
            state.paths.append(self.path)
            status, body = state.respond(self.path, self.headers.get("X-Vault-Token"), asked)
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", state.url + "/v1/elsewhere")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    state.url = f"{'http' if certificate is None else 'https'}://127.0.0.1:{httpd.server_port}"
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    try:
        yield state
    finally:
        httpd.shutdown()
        httpd.server_close()
