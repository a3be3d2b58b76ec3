"""A collector for tests: a real server that takes OTLP over HTTP and keeps what it got, decoded and raw."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from collections.abc import Callable


class Receiver:
    """Listens on loopback while its block runs."""

    def __init__(self, status: int = 200) -> None:
        self.raw: list[bytes] = []
        self.spans: list[Any] = []
        self.resources: list[Any] = []
        self.heads: list[dict[str, str]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.take(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def take(self, path: str, head: dict[str, str], body: bytes) -> None:
        """Decode one export."""
        assert path == "/v1/traces"
        assert head["content-type"] == "application/x-protobuf"
        request = ExportTraceServiceRequest.FromString(body)
        self.raw.append(body)
        self.heads.append(head)
        for group in request.resource_spans:
            self.resources.append(group.resource)
            self.spans += [span for scope in group.scope_spans for span in scope.spans]

    def named(self, name: str) -> list[Any]:
        """Return the spans of that name."""
        return [span for span in self.spans if span.name == name]

    def until(self, seen: Callable[[], object], within_s: float = 10) -> None:
        """Wait for something to arrive."""
        end = time.monotonic() + within_s
        while not seen():
            assert time.monotonic() < end, [span.name for span in self.spans]
            time.sleep(0.05)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def attributes(span: Any) -> dict[str, Any]:
    """Return a span's attributes as plain values."""
    found = {}
    for item in span.attributes:
        kind = item.value.WhichOneof("value")
        found[item.key] = getattr(item.value, kind)
    return found
