"""Debian's container registry on loopback, a relay that cuts connections to it, and a registry that plays tricks."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self

import pytest
from moto_kit import await_port

from cloister.testing.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["HTPASSWD", "USER", "Relay", "Tricks", "start_registry", "write_login"]

USER = ("somebody", "a-secret-word")
HTPASSWD = "somebody:$2y$04$abcdefghijklmnopqrstuu9wJzIfVX5zu/TEFqOICOXqBmiCxCJV2\n"


def start_registry(folder: Path, htpasswd: str = "", certificate: Path | None = None) -> Iterator[str]:
    """Run a registry until the generator is closed; yield its address. Skips where it is not installed."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed")
    port = free_port()
    auth = ""
    if htpasswd:
        (folder / "htpasswd").write_text(htpasswd)
        auth = f"auth:\n  htpasswd:\n    realm: here\n    path: {folder / 'htpasswd'}\n"
    config = folder / "config.yml"
    config.write_text(
        "version: 0.1\nlog:\n  accesslog:\n    disabled: true\n  level: error\n"
        f"storage:\n  filesystem:\n    rootdirectory: {folder / 'data'}\n"
        f"http:\n  addr: 127.0.0.1:{port}\n"
        + (f"  tls:\n    certificate: {certificate}\n    key: {certificate}\n" if certificate else "")
        + auth
    )
    process = subprocess.Popen(  # noqa: S603 - our own words
        [program, "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        await_port(port)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def write_login(folder: Path, host: str, user: tuple[str, str] = USER) -> Path:
    """Write the file of credentials that container tools keep; return its folder."""
    folder.mkdir(exist_ok=True)
    place = folder / "config.json"
    place.touch(mode=0o600)
    place.write_text(json.dumps({"auths": {host: {"auth": base64.b64encode(":".join(user).encode()).decode()}}}))
    return folder


@dataclass
class Relay:
    """Forwards connections to ``port``, and resets one each time that many bytes went up. Use it in ``with``."""

    port: int
    cuts: list[int] = field(default_factory=list)
    sent: int = 0
    done: int = 0

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self._turn = threading.Lock()
        self._run(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in self._open:
            one.close()

    @property
    def host(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def _run(self, work: object, *arguments: object) -> None:
        self._threads.append(threading.Thread(target=work, args=arguments))  # type: ignore[arg-type]
        self._threads[-1].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self.port))
            self._open += [near, far]
            self._run(self._pump_up, near, far)
            self._run(self._pump, far, near)

    def _pump_up(self, source: socket.socket, target: socket.socket) -> None:
        self._pump(source, target, self._cut)

    def _pump(self, source: socket.socket, target: socket.socket, cut: Callable[[int], bool] = lambda _: False) -> None:
        with suppress(OSError):
            while (data := source.recv(4096)) and not cut(len(data)):
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _cut(self, size: int) -> bool:
        with self._turn:
            self.sent += size
            if self.cuts and self.sent >= self.cuts[0]:
                self.cuts.pop(0)
                self.done += 1
                return True
        return False


class Tricks:
    """A registry that answers what a test says. Use it in ``with``; ``answers`` maps paths to status, headers, body."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.seen: list[tuple[str, str | None]] = []
        self.token = ""
        self.challenge = ""

    @contextmanager
    def running(self) -> Iterator[str]:
        """Yield its address."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                credential = self.headers.get("authorization")
                outer.seen.append((self.path, credential))
                status, headers, body = outer.answer(self.path, credential)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield f"127.0.0.1:{server.server_address[1]}"
            finally:
                server.shutdown()
                thread.join()

    def answer(self, path: str, credential: str | None) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body."""
        if path.startswith("/v2/") and self.challenge and credential != f"Bearer {self.token}":
            return 401, {"WWW-Authenticate": self.challenge}, b""
        return self.answers.get(path.split("?", maxsplit=1)[0], (404, {}, b""))
