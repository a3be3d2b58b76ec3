"""What a web server and the enclave's resources say to each other about one HTTP exchange.

    begin(head) -> Answer, before a byte of the body is read
                 | Exchange: fits(size) -> arrived(size)... -> answer(body) -> Answer ... end(outcome)

An answer is whole, or chunks that are asked for one by one as their reader takes them: so the application can look
at the lease again before each of them (E5). Servers own sockets and deadlines, applications own the rest.
"""

from __future__ import annotations

from dataclasses import field
from enum import Enum
from typing import TYPE_CHECKING, Protocol, TypeAlias

from cloister.wire.values import hot_value

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Answer", "Application", "Body", "Exchange", "Head", "Headers", "Outcome"]

Headers: TypeAlias = "tuple[tuple[str, str], ...]"
Body: TypeAlias = "bytes | bytearray"


@hot_value
class Head:
    """The head of a request. ``target`` is path and query as they were sent, ``headers`` have names in lower case.

    ``pinned`` says that it came over TLS that ends in this process, with a key that no one else has: whoever pinned
    that key was not overheard. ``certificates`` are what the client proved in that handshake, its own first (DER).
    """

    method: str
    target: str
    headers: Headers = field(repr=False)
    pinned: bool = False
    certificates: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """What stands behind the question mark."""
        return self.target.partition("?")[2]

    def all(self, name: str) -> list[str]:
        """Return every value of a header field, in their order."""
        return [value for found, value in self.headers if found == name]


@hot_value
class Answer:
    """What goes back: ``body`` whole, or ``chunks`` one after the other.

    ``chunks`` may raise ``Rejected`` before any of them: nothing more may leave then.
    """

    status: int
    headers: Headers = ()
    body: bytes | memoryview = field(default=b"", repr=False)
    chunks: Iterator[bytes] | None = field(default=None, repr=False)


class Outcome(Enum):
    """How an exchange came to its end."""

    ANSWERED = "answered"
    CUT = "cut"
    FAILED = "failed"


class Exchange(Protocol):
    """One request whose head was taken. ``end`` is called exactly once, whatever happens."""

    def fits(self, size: int) -> Answer | None:
        """Return the answer that refuses a body of this length, None where it may come."""
        ...

    def arrived(self, size: int) -> Answer | None:
        """Note ``size`` more bytes of the body; an answer ends the reading of it."""
        ...

    def late(self) -> Answer:
        """Return the answer to a request whose body does not come."""
        ...

    async def answer(self, body: Body) -> Answer:
        """Return the answer. Raises nothing; cancelled where whoever asked has gone."""
        ...

    def end(self, outcome: Outcome) -> None:
        """Note that the answer has left whole, was cut, or was not given at all."""
        ...


class Application(Protocol):
    """What answers requests."""

    def begin(self, head: Head) -> Exchange | Answer:
        """Return an exchange for a head that is taken, or the answer that refuses it. Raises nothing."""
        ...
