"""What travels: requests and answers as values, so that a test can keep, change and replay them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["Answer", "Chunk", "Headers", "Request"]

Headers: TypeAlias = "tuple[tuple[bytes, bytes], ...]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request: ``at`` is when it was sent, ``source`` and ``target`` are names of parties."""

    source: str
    target: str
    method: str
    path: str
    query: bytes = b""
    headers: Headers
    body: bytes = field(repr=False)
    at: datetime

    def dump(self) -> bytes:
        """Return every byte that can be seen of it."""
        head = b"\n".join(name + b": " + value for name, value in self.headers)
        return b"\n".join((f"{self.method} {self.path}".encode(), self.query, head, self.body))


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer, and when it left the server."""

    data: bytes = field(repr=False)
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer to ``request``: ``whole`` is False where the connection broke before its end."""

    request: Request
    status: int
    headers: Headers
    chunks: tuple[Chunk, ...]
    at: datetime
    whole: bool = True

    @property
    def body(self) -> bytes:
        """The body."""
        return b"".join(chunk.data for chunk in self.chunks)

    def dump(self) -> bytes:
        """Return every byte that can be seen of it."""
        head = b"\n".join(name + b": " + value for name, value in self.headers)
        return b"\n".join((str(self.status).encode(), head, self.body))
