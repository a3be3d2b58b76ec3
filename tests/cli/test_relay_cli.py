"""``cloister relay`` as a process: it says where it listens, relays, and ends in order."""

from __future__ import annotations

import http.server
import json
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import httpx2
import pytest

from cloister.channel.keyset import GATEWAY_PATH, KEYS_TYPE

if TYPE_CHECKING:
    from pathlib import Path


class _Gateway(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", KEYS_TYPE)
        self.send_header("content-length", "4")
        self.end_headers()
        self.wfile.write(b"keys")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _start(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "cloister", "relay", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # noqa: S603 - ourselves


def test_it_relays_until_it_is_told_to_end(tmp_path: Path) -> None:
    gateway = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Gateway)
    threading.Thread(target=gateway.serve_forever, daemon=True).start()
    ready = tmp_path / "ready.json"
    address = f"http://127.0.0.1:{gateway.server_port}"
    relay = _start("--gateway", address, "--listen", "127.0.0.1:0", "--ready-file", str(ready))
    try:
        end = time.monotonic() + 60
        while not ready.exists() and relay.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        said = json.loads(ready.read_bytes())
        assert said["gateway"] == address
        answer = httpx2.get(said["address"] + GATEWAY_PATH, trust_env=False)
        assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"keys", KEYS_TYPE)
    finally:
        relay.send_signal(signal.SIGTERM)
        out, err = relay.communicate(timeout=60)
        gateway.shutdown()
        gateway.server_close()
    assert (relay.returncode, err) == (0, b"")
    assert out.decode() == f"listening on {said['address']}\nrelaying to {address}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--gateway", "http://enclave.test"),
        ("--gateway", "https://enclave.test", "--listen", "0.0.0.0:0"),
        ("--gateway", "https://enclave.test", "--tls-key", "/dev/null"),
        ("--gateway", "https://enclave.test", "--tls-key", "/dev/null", "--tls-certificate", "/dev/null"),
        ("--gateway", "https://enclave.test", "--gateway-ca", "/nonexistent"),
    ],
)
def test_what_would_be_open_or_cannot_be_read_is_refused(arguments: tuple[str, ...]) -> None:
    relay = _start(*arguments)
    out, err = relay.communicate(timeout=60)
    assert (relay.returncode, out) == (2, b""), err
    assert err
