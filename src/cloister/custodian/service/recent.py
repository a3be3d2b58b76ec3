"""What the log said lately that a person should hear of.

Read from the log itself, so that it holds across restarts and for what other custodians over the database logged.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.custodian.store.figures import entry_since
from cloister.custodian.store.log import entries_after
from cloister.lending.audit import AuditEntry
from cloister.lending.events import EventKind
from cloister.lending.pruning import is_pruned

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from sqlalchemy import Connection

__all__ = ["WATCHED", "Recent"]

WATCHED = frozenset({
    EventKind.ATTESTATION_REFUSED, EventKind.CLOCK_ANOMALY, EventKind.EXTRACTION_ALARM, EventKind.FORK_DETECTED,
    EventKind.INSTANCE_WRITTEN_OFF, EventKind.OVERDRAFT_DETECTED,
})  # fmt: skip
_BATCH = 1000  # entries read at once
_MOST = 10_000  # events kept; of a flood the newest


@dataclass(frozen=True, slots=True)
class _Seen:
    at: datetime
    kind: EventKind
    loan: str


class Recent:
    """The watched events of the last ``window``."""

    def __init__(self, window: timedelta) -> None:
        """Have read nothing."""
        self._window = window
        self._seen: deque[_Seen] = deque(maxlen=_MOST)
        self._next: int | None = None

    def read(self, connection: Connection, *, size: int, now: datetime) -> None:
        """Read on to the end of a log of ``size`` entries, and forget what is too long ago."""
        start = now - self._window
        if self._next is None:
            self._next = entry_since(connection, start, size=size)
        while self._next < size:
            lines = entries_after(connection, self._next, limit=_BATCH)
            if not lines:
                break
            self._next += len(lines)
            self._seen.extend(seen for line in lines if (seen := _watched(line)) is not None)
        while self._seen and self._seen[0].at < start:
            self._seen.popleft()

    def of(self, *kinds: EventKind) -> tuple[str, ...]:
        """Return the loan of every event of these kinds, oldest first."""
        return tuple(seen.loan for seen in self._seen if seen.kind in kinds)


def _watched(line: bytes) -> _Seen | None:
    if is_pruned(line):
        return None
    entry = AuditEntry.parse(line)
    if entry.kind not in WATCHED:
        return None
    return _Seen(entry.at, entry.kind, str(entry.details.get("loan", entry.subject)))
