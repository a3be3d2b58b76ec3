"""What an enclave may say aloud: typed events with typed fields, one line of JSON each (T62, T85).

There is no free text. Fields are numbers, or strings from a small alphabet that can hold an id, a code or a
name, never a sentence out of a request. Whoever needs another field adds it to the table.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, TextIO

from cloister.errors import UsageError
from cloister.wire import dump_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

__all__ = ["Event", "EventLog", "ServerLogHandler"]


class Event(StrEnum):
    """Everything that can happen here and is worth a line."""

    HARDENED = "hardened"
    MEMORY_PAGES = "memory_pages"
    ATTESTED = "attested"
    MODEL_LOADED = "model_loaded"
    MODEL_EVICTED = "model_evicted"
    MODEL_NOT_OPENED = "model_not_opened"
    MODEL_NOT_BATCHED = "model_not_batched"
    MODEL_ROLLED_OUT = "model_rolled_out"
    ROLLOUT_FAILED = "rollout_failed"
    READY = "ready"
    LEASE_RENEWED = "lease_renewed"
    LEASE_REFUSED = "lease_refused"
    RENEWAL_FAILED = "renewal_failed"
    CLOCK_SOURCE = "clock_source"
    CLOCK_STEP = "clock_step"
    KEYS_ROTATED = "keys_rotated"
    ROTATION_FAILED = "rotation_failed"
    DRAINING = "draining"
    ENDING = "ending"
    WIPED = "wiped"
    VOUCHER_ASKED = "voucher_asked"
    VOUCHER_ACCEPTED = "voucher_accepted"
    VOUCHER_FAILED = "voucher_failed"
    REVOCATIONS_ACCEPTED = "revocations_accepted"
    REVOCATIONS_FAILED = "revocations_failed"
    CLOSED = "closed"
    REPORT_FAILED = "report_failed"
    CLOSE_FAILED = "close_failed"
    INTERNAL_ERROR = "internal_error"
    SERVER_NOTICE = "server_notice"


_NUMBERS = frozenset({"units", "seconds", "bytes", "port", "seq", "count"})
_WORDS = frozenset({"instance", "loan", "model", "digest", "code", "state", "tee", "step", "result", "error", "level"})
_WORD = re.compile(r"[A-Za-z0-9_.:/+-]{1,128}")


class EventLog:
    """Writes events to a stream. ``clock`` dates them."""

    def __init__(self, clock: Callable[[], datetime], stream: TextIO | None = None) -> None:
        """Write to ``stream``, standard error by default."""
        self._clock = clock
        self._stream = stream

    def write(self, event: Event, **fields: str | float) -> None:
        """Write one event; one that cannot be written is lost.

        Raises ``UsageError`` for a field that is not in the table: a mistake of ours.
        """
        line: dict[str, str | float] = {"at": dump_time(self._clock()), "event": event.value}
        for name, value in fields.items():
            line[name] = _checked(name, value)
        with contextlib.suppress(OSError):  # a full disk behind the log stops no inference: the audit log is elsewhere
            print(json.dumps(line, ensure_ascii=True), file=self._stream or sys.stderr, flush=True)


def _checked(name: str, value: str | float) -> str | float:
    if name in _NUMBERS and isinstance(value, int | float):
        return value
    if name in _WORDS and isinstance(value, str):
        # What does not look like an id is replaced, not shown: better a poor log than a leak.
        return value if _WORD.fullmatch(value) else "(unprintable)"
    msg = f"log: field {name} is not in the table of fields"
    raise UsageError(msg)


class ServerLogHandler(logging.Handler):
    """Takes what the web server's library logs and keeps only level and class of error: its text may quote bytes."""

    def __init__(self, log: EventLog) -> None:
        """Write to ``log``."""
        super().__init__(level=logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one ``server_notice``."""
        kind = record.exc_info[0] if record.exc_info else None
        self._log.write(Event.SERVER_NOTICE, level=record.levelname, error=kind.__name__ if kind else "none")
