"""Hears what is new, in threads of its own: asks every few seconds, and at once when the log grows.

Two threads. One asks again and again and keeps the last whole answer; one follows server-sent events, keeps the newest
entries and makes the other ask sooner. Either begins anew by itself, later and later, up to half a minute; the
credentials are read anew too, as a session may have been renewed. What was heard stays, and says how old it is.

A refusal is not tried again at once: each one is an entry in the custodian's log.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from cloister.cli.consoles.doc import Doc
from cloister.cli.consoles.heard import EntryHeard
from cloister.errors import CloisterError, Rejected, Unavailable
from cloister.wire import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

__all__ = ["KEPT_ENTRIES", "Events", "Feed", "Standing", "entries_of"]

C = TypeVar("C")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
KEPT_ENTRIES = 200
_FIRST_S, _LONGEST_S, _REFUSED_S = 1.0, 30.0, 30.0  # until the next try: doubled each time; after a refusal
_GAP_S = 0.5  # between two questions, however fast the log grows
_SHARE, _SHARE_OF_NEWS = 5, 2  # times as long as an answer took, until the next: a large custodian is asked less often
_QUIET_S = 45.0  # without a sign of life after which a stream of events is dead: it gives one every 15 s


class _Wake(Protocol):
    def call(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing(Generic[T_co]):
    """What is known now. ``problem`` is why the last question had no answer, ``quiet`` why no events come."""

    data: T_co | None = None
    heard_at: datetime | None = None
    problem: CloisterError | None = None
    next_try: datetime | None = None
    entries: tuple[EntryHeard, ...] = ()
    quiet: str = "not connected yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Events(Generic[C]):
    """How a log is followed: the newest entries there are, and a stream of those behind an index."""

    history: Callable[[C], Iterable[EntryHeard]]
    stream: Callable[[C, int | None, float], AbstractContextManager[Iterator[str]]]
    """Yields the data of each event, and an empty text as a sign of life; given for how long one may be missing."""


class Feed(Generic[C, T]):
    """Asks by ``ask`` and follows ``events`` (None follows nothing), until stopped."""

    def __init__(
        self,
        connect: Callable[[], AbstractContextManager[C]],
        ask: Callable[[C], T],
        *,
        interval_s: float,
        wake: _Wake,
        events: Events[C] | None,
        quiet: str = "",
    ) -> None:
        """Hear nothing yet. ``quiet`` says why no events come where none are followed, if that is to be said."""
        self._connect, self._ask, self._interval_s, self._wake = connect, ask, interval_s, wake
        self._events = events
        self._lock = threading.Lock()
        self._standing: Standing[T] = Standing(quiet=quiet if events is None else "not connected yet")
        self._entries: deque[EntryHeard] = deque(maxlen=KEPT_ENTRIES)
        self._news, self._over = threading.Event(), threading.Event()

    def start(self) -> None:
        """Begin to hear. The threads end with the process: one may wait for the network."""
        runs = [self._keep_asking]
        if self._events is not None:
            runs.append(partial(self._keep_following, self._events))
        for run in runs:
            threading.Thread(target=run, daemon=True).start()

    def stop(self) -> None:
        """Ask no more."""
        self._over.set()
        self._news.set()

    @property
    def standing(self) -> Standing[T]:
        """What is known now."""
        with self._lock:
            return replace(self._standing, entries=tuple(self._entries))

    def _say(self, change: Callable[[Standing[T]], Standing[T]]) -> None:
        with self._lock:
            self._standing = change(self._standing)
        self._wake.call()

    def _heard(self, data: T) -> None:
        self._say(lambda known: replace(known, data=data, heard_at=datetime.now(UTC), problem=None, next_try=None))

    def _quiet(self, why: str) -> None:
        self._say(lambda known: replace(known, quiet=why))

    def _keep_asking(self) -> None:
        wait_s = _FIRST_S
        while not self._over.is_set():
            try:
                with self._connect() as remote:
                    while not self._over.is_set():
                        began = time.monotonic()
                        self._heard(self._ask(remote))
                        wait_s = _FIRST_S
                        self._pause(time.monotonic() - began)
            except CloisterError as exc:
                wait_s = self._failed(exc, wait_s)

    def _failed(self, error: CloisterError, wait_s: float) -> float:
        """Say what went wrong, wait, and return how long to wait the next time."""
        wait_s = wait_s if isinstance(error, Unavailable) else _REFUSED_S
        next_try = datetime.now(UTC) + timedelta(seconds=wait_s)
        self._say(lambda known: replace(known, problem=error, next_try=next_try))
        self._over.wait(wait_s)
        return min(_LONGEST_S, wait_s * 2)

    def _pause(self, took_s: float) -> None:
        """Wait for the next time, or until there is news; either way longer where an answer took long."""
        gap_s = max(_GAP_S, _SHARE_OF_NEWS * took_s)
        self._over.wait(gap_s)
        self._news.wait(max(0.0, max(self._interval_s, _SHARE * took_s) - gap_s))
        self._news.clear()

    def _keep_following(self, events: Events[C]) -> None:
        wait_s = _FIRST_S
        while not self._over.is_set():
            try:
                with self._connect() as remote:
                    self._follow(remote, events)
                    wait_s = _FIRST_S
                self._quiet("the stream of events ended")
            except CloisterError as exc:
                if not self._standing.quiet:
                    wait_s = _FIRST_S  # events came until now
                self._quiet(f"no events: {exc.message}")
                if isinstance(exc, Rejected) and exc.code == "forbidden":
                    return  # this role is never shown the log
                wait_s = wait_s if isinstance(exc, Unavailable) else _REFUSED_S
            self._over.wait(wait_s)
            wait_s = min(_LONGEST_S, wait_s * 2)

    def _follow(self, remote: C, events: Events[C]) -> None:
        """Take entries until the stream ends; what was missed since the last time is in the history."""
        known = self._entries[-1].index if self._entries else -1
        self._take(entry for entry in events.history(remote) if entry.index > known)
        last = self._entries[-1].index if self._entries else None
        with events.stream(remote, last, _QUIET_S) as lines:
            self._quiet("")
            for line in lines:
                if self._over.is_set():
                    return
                if line:
                    self._take(entries_of([parse_json(line.encode(), what="event")]))
                    self._news.set()

    def _take(self, entries: Iterable[EntryHeard]) -> None:
        with self._lock:
            self._entries.extend(entries)
        self._wake.call()


def entries_of(values: Iterable[object]) -> list[EntryHeard]:
    """Return the entries among these: events of another kind, and entries that were pruned, are none."""
    return [EntryHeard.of(doc) for value in values if "kind" in (doc := Doc(value))]
