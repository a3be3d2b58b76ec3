"""What formats share: an entry read for showing, its severity and outcome, and JSON in ASCII."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from cloister.lending.audit import parse_line
from cloister.lending.events import EventKind
from cloister.lending.pruning import PrunedEntry
from cloister.lending.retention import Retention, retention_of
from cloister.wire import dump_json, parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.lending.events import DetailValue
    from cloister.wire import Json

__all__ = ["Format", "Shown", "Weight", "ascii_json", "canonical_line", "milliseconds"]

MAX_RECORD_BYTES = 64 * 1024
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ALARMS = frozenset({
    EventKind.FORK_DETECTED, EventKind.OVERDRAFT_DETECTED, EventKind.CLOCK_ANOMALY, EventKind.CUSTODIAN_RECOVERED,
})  # fmt: skip


class Format(Protocol):
    """One format. ``take`` raises ``Malformed`` for what is no record of it."""

    def dump(self, line: bytes) -> bytes:
        """Return the record of a line of the log, without a line end."""
        ...

    def take(self, record: bytes) -> bytes:
        """Return the line that a record was made of, as the record says; not proven."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """How much an entry matters: 0 to 2 (told, refused, alarm)."""

    level: int

    @property
    def failed(self) -> bool:
        """Tell whether something was refused or found wrong."""
        return self.level > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What formats show of a line; of a pruned entry only its place and hash."""

    index: int
    leaf: bytes
    at: datetime
    kind: str
    actor: str
    subject: str
    details: Mapping[str, DetailValue]
    kept: str
    weight: Weight

    @classmethod
    def of(cls, line: bytes) -> Shown:
        """Return what is shown of a line. Raises ``Malformed``."""
        entry = parse_line(line)
        if isinstance(entry, PrunedEntry):
            return cls(
                index=entry.index, leaf=entry.leaf, at=_EPOCH, kind="pruned", actor="log", subject="log", details={},
                kept=Retention.RECORD.value, weight=Weight(level=0),
            )  # fmt: skip
        committed = {name: digest.hex() for name, digest in entry.committed.items()}
        return cls(
            index=entry.index, leaf=entry.leaf, at=entry.at, kind=entry.kind.value, actor=entry.actor,
            subject=entry.subject, details={**entry.details, **committed}, kept=retention_of(entry.kind).value,
            weight=Weight(level=_level(entry.kind)),
        )  # fmt: skip


def _level(kind: EventKind) -> int:
    if kind in _ALARMS:
        return 2
    return int(kind.value.endswith(("_refused", "_denied", "_stuck")) or kind is EventKind.RECALLED)


def milliseconds(at: datetime) -> int:
    """Return milliseconds since 1970."""
    return (at - _EPOCH) // timedelta(milliseconds=1)


def ascii_json(value: Json) -> str:
    """Return JSON in one spelling and in ASCII: what steers a terminal or turns the reading is an escape."""
    return json.dumps(value, ensure_ascii=True, sort_keys=True, separators=(",", ":"), allow_nan=False)


def ascii_line(line: bytes) -> str:
    """Return a line of the log in ASCII; ``canonical_line`` gives its bytes back."""
    return ascii_json(parse_json(line, what="audit entry"))


def canonical_line(text: str) -> bytes:
    """Return the exact line that was spelled in ASCII. Raises ``Malformed``."""
    return dump_json(parse_json(text.encode("utf-8", "replace"), what="entry in a record", cap=MAX_RECORD_BYTES))
