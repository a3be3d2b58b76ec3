"""Procedures without I/O: a plan yields steps, a wire takes them, so that sync and async share every decision.

A ``Plan`` is a generator. It yields a step (ask that URL, read on, wait) and gets the step's answer or
error back; what it returns is the result. ``drive`` and ``drive_async`` run it over a wire.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping
    from datetime import timedelta

    from cloister.channel.fields import FieldLines

__all__ = [
    "Close",
    "Fetch",
    "Fetched",
    "Head",
    "Hold",
    "Open",
    "Party",
    "Pause",
    "Plan",
    "Read",
    "Release",
    "Step",
    "drive",
    "drive_async",
]

T = TypeVar("T")


class Party(StrEnum):
    """Whose server a step talks to: the names under which a wire keeps its connections."""

    ENCLAVE = "enclave"
    CUSTODIAN = "custodian"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """GET a whole document of at most ``cap`` bytes. Answered by ``Fetched``."""

    party: Party
    url: str
    cap: int
    accept: str = "*/*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A whole answer. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    tls_key: bytes = b""
    """SHA-256 of the key that the connection showed under TLS 1.3; empty where there was none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Send ``body`` to the enclave and hand the open answer back. Answered by ``Head``.

    With ``keys`` only on a TLS 1.3 connection that shows one of them (SHA-256 of its SubjectPublicKeyInfo), with
    ``hybrid`` under the post-quantum key exchange. ``within`` cuts silence short. Raises ``UnlistedKey`` before
    anything is sent on another; ``NoAnswer`` where it was sent and nothing came back.
    """

    url: str
    headers: FieldLines = field(repr=False)
    body: bytes = field(repr=False)
    method: str = "POST"
    keys: tuple[bytes, ...] = ()
    hybrid: bool = False
    within: timedelta | None = None


class Head(Protocol):
    """An answer whose body is still to be read. Header names are lower case."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The header fields."""
        ...

    @property
    def lines(self) -> FieldLines:
        """The header fields, each as it came."""
        ...


@dataclass(frozen=True, slots=True)
class Read:
    """Read on. Answered by bytes, or None when the body is over."""

    head: Any


@dataclass(frozen=True, slots=True)
class Close:
    """Let an open answer go. Answered by None."""

    head: Any


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so long. Answered by None."""

    duration: timedelta


@dataclass(frozen=True, slots=True)
class Hold:
    """Wait until no other plan of this wire is where one at a time may be, and enter. Answered by None."""


@dataclass(frozen=True, slots=True)
class Release:
    """Leave what ``Hold`` entered. Answered by None."""


Step: TypeAlias = Fetch | Open | Read | Close | Pause | Hold | Release

if TYPE_CHECKING:
    Plan: TypeAlias = Generator[Step, Any, T]
else:
    Plan = "Plan"


def drive(plan: Plan[T], take: Callable[[Step], Any]) -> T:
    """Run ``plan``; ``take`` performs one step. Errors of a step are raised inside the plan first."""
    try:
        step = next(plan)
        while True:
            try:
                answer = take(step)
            except BaseException as exc:  # noqa: BLE001 - also an interrupt: the plan closes what it opened
                step = plan.throw(exc)
            else:
                step = plan.send(answer)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # a generator's return value is typed by Plan


async def drive_async(plan: Plan[T], take: Callable[[Step], Awaitable[Any]]) -> T:
    """Run ``plan`` as ``drive`` does, awaiting each step."""
    try:
        step = next(plan)
        while True:
            try:
                answer = await take(step)
            except BaseException as exc:  # noqa: BLE001 - also a cancellation: the plan closes what it opened
                step = plan.throw(exc)
            else:
                step = plan.send(answer)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # a generator's return value is typed by Plan
