"""Writing events: one canonical line of JSON, only ASCII, in one write."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from enum import StrEnum
from typing import TYPE_CHECKING, TextIO

from cloister.errors import UsageError
from cloister.journal.fields import printable
from cloister.wire import dump_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

__all__ = ["EventLog", "JournalEvent", "LibraryEvent"]


class JournalEvent(StrEnum):
    """The base of every vocabulary: what is no member of one cannot be written."""


class LibraryEvent(JournalEvent):
    """What others' code says in our processes, whatever it says."""

    SERVER_NOTICE = "server_notice"
    UNCAUGHT = "uncaught"


class EventLog:
    """Writes events to a stream. ``clock`` dates them. Threads may share one."""

    def __init__(self, clock: Callable[[], datetime], stream: TextIO | None = None) -> None:
        """Write to ``stream``, standard error (as it is at that moment) by default."""
        self._clock = clock
        self._stream = stream
        self._lock = threading.Lock()

    def write(self, event: JournalEvent, /, **fields: str | float) -> None:
        """Write one event; one that cannot be written is lost.

        Raises ``UsageError`` for an event of no vocabulary and for a field that is not in the table: mistakes of ours.
        """
        vocabulary: object = type(event)
        if not isinstance(vocabulary, type) or not issubclass(vocabulary, JournalEvent):
            msg = "log: want an event of a vocabulary"
            raise UsageError(msg)
        line: dict[str, str | int | float] = {"at": dump_time(self._clock()), "event": event.value}
        for name, value in fields.items():
            line[name] = printable(name, value)
        # Only ASCII: what steers a terminal or turns the direction of reading would be an escape, if it got here.
        text = json.dumps(line, ensure_ascii=True, allow_nan=False) + "\n"
        # A full disk behind the log, or a reader that has gone, stops no inference: the audit log is elsewhere.
        with self._lock, contextlib.suppress(OSError, ValueError):
            stream = self._stream or sys.stderr
            stream.write(text)
            stream.flush()
