"""Pebble, the test authority of Let's Encrypt: a real ACME server (RFC 8555) with a DNS server of its own beside it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding
from mtls_kit import SERVER, forge

from cloister.testing.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HAVE_PEBBLE = all(shutil.which(name) for name in ("pebble", "pebble-challtestsrv"))


@dataclass
class Pebble:
    """A running authority. ``ca`` proves its own server, ``challenge_port`` is where it looks for http-01."""

    directory: str
    ca: Path
    challenge_port: int
    management: str

    def root(self) -> str:
        """Return the root of what it issues, as PEM: another one at each start."""
        context = ssl.create_default_context(cafile=self.ca)
        with urllib.request.urlopen(f"{self.management}/roots/0", context=context, timeout=10) as answer:  # noqa: S310
            return str(answer.read().decode())


@contextlib.contextmanager
def pebble(folder: Path) -> Iterator[Pebble]:
    """Run an authority whose every name leads to this machine, and that throws nonces away now and then."""
    folder.mkdir()
    ca = forge(None, common_name="pebble's own", ca=True, uses=(), life=timedelta(days=1))
    own = forge(ca, dns=["localhost"], uses=(SERVER,), common_name="localhost")
    (folder / "ca.pem").write_bytes(ca.certificate.public_bytes(Encoding.PEM))
    (folder / "own.pem").write_bytes(own.pem)
    listen, management, challenge, dns, spare, ready = (free_port() for _ in range(6))
    config = {
        "pebble": {
            "listenAddress": f"127.0.0.1:{listen}", "managementListenAddress": f"127.0.0.1:{management}",
            "certificate": str(folder / "own.pem"), "privateKey": str(folder / "own.pem"),
            "httpPort": challenge, "tlsPort": spare, "ocspResponderURL": "", "externalAccountBindingRequired": False,
        }
    }  # fmt: skip
    (folder / "pebble.json").write_text(json.dumps(config))
    names = [
        "pebble-challtestsrv", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dns01", f"127.0.0.1:{dns}",
        "-http01", "", "-https01", "", "-tlsalpn01", "", "-management", f"127.0.0.1:{ready}",
    ]  # fmt: skip
    authority = [
        "pebble", "-strict", "-config", str(folder / "pebble.json"), "-dnsserver", f"127.0.0.1:{dns}",
    ]  # fmt: skip
    surroundings = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "5"}
    with (folder / "log").open("w") as log, contextlib.ExitStack() as stack:
        for command in (names, authority):
            process = subprocess.Popen(command, stdout=log, stderr=log, env=surroundings)  # noqa: S603 - as above
            stack.callback(process.wait)
            stack.callback(process.kill)
        for port in (ready, listen):
            for _ in range(100):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                time.sleep(0.1)
        yield Pebble(
            directory=f"https://localhost:{listen}/dir", ca=folder / "ca.pem", challenge_port=challenge,
            management=f"https://localhost:{management}",
        )  # fmt: skip
