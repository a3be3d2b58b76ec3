"""A man in the middle who may do everything that a network may: lose, delay, double, reorder and repeat messages.

He ends the TLS of enclaves with the custodian's own certificate, so that he sees whole messages; that is more than a
network can, and signatures must carry what TLS then does not. ``rule`` says what becomes of each exchange.
"""

from __future__ import annotations

import ssl
import threading
import time
from dataclasses import dataclass
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self

import httpx2

if TYPE_CHECKING:
    from collections.abc import Callable

    from drill_house import DrillHouse

_OK = 200
_HOP = {"connection", "content-length", "host", "transfer-encoding", "date", "server"}


class Fate(Enum):
    """What becomes of one exchange."""

    PASS = "pass"  # noqa: S105 - no word of a secret
    LOSE_REQUEST = "lose request"
    LOSE_ANSWER = "lose answer"
    TWICE = "twice"
    STALE = "stale"
    """The request goes through; what comes back is the answer to an earlier one on the same path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request and, where it was let through, its answer."""

    at: float
    path: str
    headers: dict[str, str]
    body: bytes
    status: int = 0
    answer: bytes = b""
    answer_headers: tuple[tuple[str, str], ...] = ()

    @property
    def step(self) -> str:
        """The last word of the path: challenge, attest, lease, close, ..."""
        return self.path.partition("?")[0].rpartition("/")[2]


class Proxy:
    """Listens on a port of its own until the ``with`` block ends."""

    def __init__(self, house: DrillHouse) -> None:
        self.rule: Callable[[Exchange], Fate] = lambda _: Fate.PASS
        self.seen: list[Exchange] = []
        self.upstream = httpx2.Client(
            base_url=f"https://localhost:{house.custodian_port}",
            verify=ssl.create_default_context(cafile=str(house.home / "tls" / "ca.pem")),
            timeout=10,
            trust_env=False,
        )
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(house.home / "tls" / "server.pem", house.home / "tls" / "server.key")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://localhost:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.upstream.close()

    def forward(self, exchange: Exchange) -> Exchange:
        """Send a request on and return it with its answer."""
        method = "POST" if exchange.body or exchange.step in {"challenge", "close", "attest", "lease"} else "GET"
        got = self.upstream.request(method, exchange.path, content=exchange.body, headers=exchange.headers)
        headers = tuple((name, value) for name, value in got.headers.items() if name.lower() not in _HOP)
        done = Exchange(
            at=exchange.at, path=exchange.path, headers=exchange.headers, body=exchange.body,
            status=got.status_code, answer=got.content, answer_headers=headers,
        )  # fmt: skip
        self.seen.append(done)
        return done

    def exchange(self, asked: Exchange) -> Exchange | None:
        """Let the rule decide, and return what goes back; None is a connection that ends without a word."""
        fate = self.rule(asked)
        if fate is Fate.LOSE_REQUEST:
            return None
        earlier = next((old for old in reversed(self.seen) if old.path == asked.path and old.status == _OK), None)
        try:
            done = self.forward(asked)
            if fate is Fate.TWICE:
                done = self.forward(asked)
        except httpx2.HTTPError:
            return None
        if fate is Fate.LOSE_ANSWER:
            return None
        return earlier if fate is Fate.STALE and earlier is not None else done


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    proxy: Proxy

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: whose connection ends in the middle has met the network we play."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20
    wbufsize = 1 << 16  # head and body in one packet
    disable_nagle_algorithm = True
    server: _Server

    def _any(self) -> None:
        length = int(self.headers.get("content-length", 0))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        asked = Exchange(at=time.monotonic(), path=self.path, headers=headers, body=self.rfile.read(length))
        done = self.server.proxy.exchange(asked)
        if done is None:
            self.close_connection = True
            return
        self.send_response_only(done.status)
        for name, value in done.answer_headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(done.answer)))
        self.end_headers()
        self.wfile.write(done.answer)

    do_GET = do_POST = _any  # noqa: N815 - the names that the base class calls

    def log_message(self, *_: object) -> None:
        """Say nothing."""
