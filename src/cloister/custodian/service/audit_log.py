"""Where the audit log stands in memory, and how what happened gets its place in it.

A transaction leaves a ``Batch``: its events and how far it moved the ledger. With one custodian the batch is put
into the log in the same transaction. With several it waits in the database and is ordered right after the commit, by
whichever custodian comes first, in a transaction of which there is one at a time; nobody is answered before that
one is durable too (docs/spec/audit-log.md, section 5).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cloister.custodian.store.book import read_epoch
from cloister.custodian.store.log import (
    LogHead,
    append_entries,
    entries_after,
    insert_pending,
    read_head,
    take_pending,
    write_head,
)
from cloister.errors import Rejected
from cloister.lending.audit import Checkpoint, next_entry, parse_line, take_committed
from cloister.lending.events import Event, EventKind
from cloister.lending.pruning import PrunedEntry
from cloister.lending.terms import MAX_UNITS
from cloister.wire import Fields, dump_json, dump_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from cloister.crypto.sign import VerifyKey
    from cloister.lending.events import DetailValue
    from cloister.lending.merkle import MerkleTree

__all__ = ["AuditLog", "Batch", "sequence_pending"]

_KINDS = frozenset(kind.value for kind in EventKind)
_MAX_BATCH_BYTES = 4 << 20
_MAX_EVENTS = 10_000
_FOLLOW = 5000  # entries read at once
_TAKE = 500  # batches ordered in one transaction


@dataclass(slots=True, kw_only=True)
class Batch:
    """What one transaction did: its time, its events, its postings, the units it took from allowances.

    ``destroyed``: it deleted what must not remain in any file; that is seen to after the commit, and not written down.
    """

    at: datetime
    events: list[Event] = field(default_factory=list)
    ledger_rows: int = 0
    escrowed: int = 0
    destroyed: bool = False
    units: dict[str, int] = field(default_factory=dict)
    """Units of loans that moved, for the counts of this process: no part of what waits."""

    @property
    def is_empty(self) -> bool:
        """Tell whether there is nothing to order."""
        return not self.events and not self.ledger_rows

    def take(self, part: Batch) -> None:
        """Take in what a part of the transaction did."""
        self.events += part.events
        self.ledger_rows += part.ledger_rows
        self.escrowed += part.escrowed
        self.destroyed |= part.destroyed
        for account, moved in part.units.items():
            self.units[account] = self.units.get(account, 0) + moved

    def dump(self) -> bytes:
        """Return the canonical bytes that wait in the database."""
        return dump_json(
            {
                "at": dump_time(self.at),
                "escrowed": self.escrowed,
                "events": [
                    {
                        "actor": event.actor,
                        "committed": {name: digest.hex() for name, digest in event.committed.items()},
                        "details": dict(event.details),
                        "kind": event.kind.value,
                        "subject": event.subject,
                    }
                    for event in self.events
                ],
                "ledger_rows": self.ledger_rows,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Batch:
        """Parse what waited. Raises ``Malformed``, ``UsageError`` for an event that the log cannot carry."""
        fields = Fields.parse(data, what="pending batch", cap=_MAX_BATCH_BYTES, canonical=True)
        batch = cls(
            at=fields.time("at"),
            events=[_event(Fields(item, what="pending event")) for item in fields.items("events", cap=_MAX_EVENTS)],
            ledger_rows=fields.integer("ledger_rows"),
            escrowed=fields.integer("escrowed"),
        )
        fields.end()
        return batch


def _event(fields: Fields) -> Event:
    kind = fields.text("kind", cap=64)
    details: dict[str, DetailValue] = {}
    for name, value in fields.members("details", cap=64).items():
        if not isinstance(value, (str, int, bool)):
            fields.fail("details", "want strings, integers and booleans")
        details[name] = value
    if kind not in _KINDS:
        fields.fail("kind", "unknown event")
    event = Event(
        kind=EventKind(kind), actor=fields.text("actor"), subject=fields.text("subject"), details=details,
        committed=take_committed(fields) if "committed" in fields else {},  # as older programs left it
    )  # fmt: skip
    fields.end()
    return event


@dataclass(slots=True, kw_only=True)
class AuditLog:
    """Where log and ledger stand in memory: only a commit moves it."""

    tree: MerkleTree
    previous: bytes
    epoch: int
    ledger_size: int
    escrowed: int
    block_version: int
    latest: datetime

    def checkpoint(self, origin: VerifyKey, at: datetime) -> Checkpoint:
        """Return a checkpoint of where this stands. ``escrowed`` stops at the largest number JSON keeps exactly."""
        return Checkpoint(
            origin=origin,
            size=self.tree.size,
            root=self.tree.root(),
            epoch=self.epoch,
            ledger_size=self.ledger_size,
            escrowed=min(self.escrowed, MAX_UNITS),
            block_version=self.block_version,
            at=at,
        )

    def put(self, connection: Connection, batches: Sequence[Batch]) -> _Moved:
        """Write batches as entries behind this log, with its new head; ``follow`` the result after the commit."""
        tree, previous, latest = self.tree.copy(), self.previous, self.latest
        leaves: list[bytes] = []
        lines: list[tuple[int, datetime, bytes]] = []
        for batch in batches:
            latest = max(latest, batch.at)  # the log's order is that of commits; its times must not run back in it
            for event in batch.events:
                entry = next_entry(event, index=tree.size, at=latest, previous=previous)
                line = entry.dump()
                lines.append((entry.index, latest, line))
                previous = tree.append(line)
                leaves.append(previous)
        append_entries(connection, lines)
        moved = _Moved(
            leaves=leaves,
            latest=latest,
            ledger_size=self.ledger_size + sum(batch.ledger_rows for batch in batches),
            escrowed=self.escrowed + sum(batch.escrowed for batch in batches),
            block_version=read_epoch(connection).block_version,
        )
        write_head(
            connection,
            LogHead(
                size=tree.size,
                root=tree.root(),
                latest=latest,
                ledger_size=moved.ledger_size,
                escrowed=min(moved.escrowed, MAX_UNITS),
            ),
        )
        return moved

    def follow(self, moved: _Moved) -> None:
        """Follow a commit in memory."""
        self._append(moved.leaves)
        self.latest = moved.latest
        self.ledger_size = moved.ledger_size
        self.escrowed = moved.escrowed
        self.block_version = moved.block_version

    def catch_up(self, connection: Connection) -> None:
        """Take in what other custodians put into the log since; it must be the same log, only longer.

        Raises ``Rejected`` (``database_older``, ``audit_changed``, ``audit_broken``): somebody put another database
        in its place (T38).
        """
        head = read_head(connection)
        if head is None:
            return
        if head.size < self.tree.size:
            raise Rejected.because(
                "database_older", "audit log", got=str(head.size), want=f"at least {self.tree.size}",
                hint="restore the newest copy, or run cloister custodian recover",
            )  # fmt: skip
        while self.tree.size < head.size:
            lines = entries_after(connection, self.tree.size, limit=_FOLLOW)
            self._append(_linked(lines, self.previous, self.tree.size))
        if self.tree.size == head.size and self.tree.root() != head.root:
            raise Rejected.because("audit_changed", f"log of {head.size}", want=head.root.hex())
        self.latest = max(self.latest, head.latest)
        self.ledger_size, self.escrowed = head.ledger_size, head.escrowed
        self.block_version = max(self.block_version, read_epoch(connection).block_version)

    def _append(self, leaves: Iterable[bytes]) -> None:
        for leaf in leaves:
            self.tree.append_hash(leaf)
            self.previous = leaf


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moved:
    """What a log is to become once its transaction has committed."""

    leaves: list[bytes]
    latest: datetime
    ledger_size: int
    escrowed: int
    block_version: int


def _linked(lines: Sequence[bytes], previous: bytes, index: int) -> list[bytes]:
    """Return the leaf hashes of lines that follow one another from ``previous`` on."""
    leaves: list[bytes] = []
    for line in lines:
        entry = parse_line(line)
        follows = isinstance(entry, PrunedEntry) or entry.previous == previous
        if entry.index != index or not follows:
            raise Rejected.because("audit_broken", f"entry {index}", got=f"index {entry.index}")
        previous, index = entry.leaf, index + 1
        leaves.append(previous)
    if not leaves:
        raise Rejected.because("audit_broken", f"entry {index}", got="missing")
    return leaves


def leave_pending(connection: Connection, batch: Batch) -> None:
    """Let a batch wait for its place in the log, in the transaction that did it."""
    if not batch.is_empty:
        insert_pending(connection, batch.dump())


def sequence_pending(connection: Connection, log: AuditLog) -> tuple[_Moved | None, bool]:
    """Order what waits, in the caller's sequencing transaction.

    Returns what ``log`` is to follow after the commit, None where nothing waited, and whether more may wait.
    """
    log.catch_up(connection)
    batches = [Batch.parse(data) for data in take_pending(connection, limit=_TAKE)]
    if not batches:
        return None, False
    return log.put(connection, batches), len(batches) == _TAKE
