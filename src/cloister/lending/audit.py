"""The audit log: entries chained by hash, hashed into a tree, its root signed (docs/spec/audit-log.md).

One entry is one line of canonical JSON. The hash of its line is its leaf in an RFC 6962 tree and the
next entry's ``previous``. A signed checkpoint fixes size and root; kept outside the custodian it shows
later whether the log was cut, changed, or replaced by an older one.

Not proven: that an event happened, or that none is missing which was never written. That no two
readers are shown different logs takes checkpoints that they compare (``verify_one_face``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol

from cloister.crypto.sign import Label, Statement, VerifyKey
from cloister.errors import Malformed, Rejected, UsageError
from cloister.lending.events import DETAILS, DetailValue, Event, EventKind, verify_details
from cloister.lending.merkle import HASH_BYTES, MerkleTree, leaf_hash
from cloister.lending.pruning import PrunedEntry, Prunings, is_pruned
from cloister.wire import Fields, dump_b64u, dump_json, dump_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

__all__ = [
    "FIRST_PREVIOUS",
    "MAX_ENTRY_BYTES",
    "AuditEntry",
    "Checkpoint",
    "MerkleTree",
    "TreeHead",
    "VerifiedLog",
    "leaf_hash",
    "line_leaf",
    "next_entry",
    "parse_line",
    "take_committed",
    "verify_checkpoint",
    "verify_log",
    "verify_one_face",
]

MAX_ENTRY_BYTES = 8 * 1024  # bytes of one line
FIRST_PREVIOUS = bytes(HASH_BYTES)
"""What the first entry names as its previous."""

_MAX_NAME = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One event at its place in the log. ``previous`` is the leaf hash of the entry before."""

    index: int
    at: datetime
    kind: EventKind
    actor: str
    subject: str
    details: Mapping[str, DetailValue] = field(default_factory=dict)
    committed: Mapping[str, bytes] = field(default_factory=dict)
    previous: bytes
    version: int = 2

    def dump(self) -> bytes:
        """Return the canonical line, without a line end. Version 1 knows no commitments."""
        committed = {name: digest.hex() for name, digest in self.committed.items()}
        return dump_json(
            {
                **({} if self.version == 1 else {"committed": committed}),
                "actor": self.actor,
                "at": dump_time(self.at),
                "details": dict(self.details),
                "index": self.index,
                "kind": self.kind.value,
                "previous": self.previous.hex(),
                "subject": self.subject,
                "v": self.version,
            }
        )

    @property
    def leaf(self) -> bytes:
        """The leaf hash of this entry."""
        return leaf_hash(self.dump())

    @classmethod
    def parse(cls, data: bytes) -> AuditEntry:
        """Parse one line. Raises ``Malformed``, also for an event or a detail that no version has."""
        fields = Fields.parse(data, what="audit entry", cap=MAX_ENTRY_BYTES, canonical=True)
        version = fields.integer("v", floor=1, cap=2)
        entry = cls(
            index=fields.integer("index"),
            at=fields.time("at"),
            kind=_kind(fields),
            actor=fields.text("actor", cap=_MAX_NAME),
            subject=fields.text("subject", cap=_MAX_NAME),
            details=_details(fields),
            committed={} if version == 1 else take_committed(fields),
            previous=fields.hex("previous", size=HASH_BYTES),
            version=version,
        )
        fields.end()
        try:
            Event(
                kind=entry.kind, actor=entry.actor, subject=entry.subject, details=entry.details,
                committed=entry.committed,
            )  # fmt: skip
        except UsageError as exc:
            raise Malformed(f"audit entry {entry.index}: {exc.message}") from exc
        return entry


def _kind(fields: Fields) -> EventKind:
    name = fields.text("kind", cap=64)
    try:
        return EventKind(name)
    except ValueError:
        fields.fail("kind", "unknown event")


def _details(fields: Fields) -> dict[str, DetailValue]:
    details: dict[str, DetailValue] = {}
    for name, value in fields.members("details", cap=len(DETAILS)).items():
        if not isinstance(value, (str, int, bool)):
            fields.fail("details", "want strings, integers and booleans")
        details[name] = value
    try:
        verify_details(details)
    except UsageError as exc:
        raise Malformed(f"audit entry: {exc.message}") from exc
    return details


def take_committed(fields: Fields) -> dict[str, bytes]:
    """Take the commitments of an event. Raises ``Malformed``."""
    names = fields.members("committed", cap=len(DETAILS))
    held = Fields(names, what="committed details")
    return {name: held.hex(name, size=HASH_BYTES) for name in names}


def parse_line(data: bytes) -> AuditEntry | PrunedEntry:
    """Parse one line of a log, also what is left of one that was pruned. Raises ``Malformed``."""
    return PrunedEntry.parse(data) if is_pruned(data) else AuditEntry.parse(data)


def line_leaf(data: bytes) -> bytes:
    """Return the leaf hash of a line. Raises ``Malformed`` for what is left of one and is not in its form."""
    return PrunedEntry.parse(data).leaf if is_pruned(data) else leaf_hash(data)


def next_entry(event: Event, *, index: int, at: datetime, previous: bytes) -> AuditEntry:
    """Return ``event`` at its place: after the entry whose leaf hash is ``previous``."""
    return AuditEntry(
        index=index,
        at=at,
        kind=event.kind,
        actor=event.actor,
        subject=event.subject,
        details=event.details,
        committed=event.committed,
        previous=previous,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What the custodian signs about its database, to be kept elsewhere (30-metering C10).

    ``size`` and ``root`` are the audit log's, ``ledger_size`` the number of postings, ``escrowed`` the
    units ever taken from any allowance, over all loans and meters, whether leased, withdrawn or written
    off, ``block_version`` the count of blocks and unblocks. All but ``root`` and ``at`` never decrease.
    """

    LABEL: ClassVar = Label.CHECKPOINT

    origin: VerifyKey
    size: int
    root: bytes
    epoch: int
    ledger_size: int
    escrowed: int
    block_version: int
    at: datetime

    def dump(self) -> bytes:
        """Return the canonical payload."""
        return dump_json(
            {
                "at": dump_time(self.at),
                "block_version": self.block_version,
                "epoch": self.epoch,
                "escrowed": self.escrowed,
                "ledger_size": self.ledger_size,
                "origin": self.origin.dump(),
                "root": dump_b64u(self.root),
                "size": self.size,
                "v": 1,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Checkpoint:
        """Parse. Raises ``Malformed``."""
        fields = Fields.parse(data, what="checkpoint", cap=MAX_ENTRY_BYTES, canonical=True)
        fields.literal("v", 1)
        checkpoint = cls(
            origin=VerifyKey.take(fields, "origin"),
            size=fields.integer("size"),
            root=fields.b64u("root", size=HASH_BYTES),
            epoch=fields.integer("epoch", floor=1),
            ledger_size=fields.integer("ledger_size"),
            escrowed=fields.integer("escrowed"),
            block_version=fields.integer("block_version"),
            at=fields.time("at"),
        )
        fields.end()
        return checkpoint


def verify_checkpoint(statement: bytes, origin: VerifyKey) -> Checkpoint:
    """Return the checkpoint once ``origin`` is proven to have signed it about its own log."""
    checkpoint = Checkpoint.parse(Statement.parse(statement, label=Checkpoint.LABEL).verify([origin]))
    if checkpoint.origin != origin:
        raise Rejected.because("wrong_origin", "checkpoint", got=checkpoint.origin.key_id, want=origin.key_id)
    return checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedLog:
    """A log whose entries follow one another; ``checked`` entries are covered by a checkpoint.

    ``pruned`` of them have no body any more, as the log itself says. ``last`` is the last that has one, ``last_leaf``
    the hash of the last of all.
    """

    size: int
    root: bytes
    checked: int
    last: AuditEntry | None
    last_leaf: bytes
    pruned: int


class TreeHead(Protocol):
    """Size and root that somebody signed: this file's checkpoint, or the note of ``tlog.checkpoint``."""

    @property
    def size(self) -> int:
        """Number of entries."""

    @property
    def root(self) -> bytes:
        """The tree hash."""


def verify_log(entries: Iterable[bytes], checkpoint: TreeHead | None) -> VerifiedLog:
    """Prove that the lines are one unbroken log, and that it is the one ``checkpoint`` was signed over.

    None as checkpoint proves order only: whoever holds the log could have rewritten all of it; the
    result says ``checked=0``. Raises ``Malformed`` and ``Rejected`` (``audit_broken``, ``audit_cut``,
    ``audit_changed``, ``audit_withheld``), naming the first bad index.
    """
    reading = _Reading()
    root_then = reading.tree.root()
    for index, line in enumerate(entries):
        reading.take(index, line)
        if checkpoint is not None and checkpoint.size == reading.tree.size:
            root_then = reading.tree.root()
    size = reading.tree.size
    if checkpoint is not None and checkpoint.size > size:
        want = f"{checkpoint.size} entries"
        raise Rejected.because("audit_cut", f"entry {size}", got=f"{size} entries", want=want)
    if checkpoint is not None and checkpoint.root != root_then:
        got = root_then.hex()
        raise Rejected.because("audit_changed", f"log of {checkpoint.size}", got=got, want=checkpoint.root.hex())
    reading.prunings.verify()
    return VerifiedLog(
        size=size,
        root=reading.tree.root(),
        checked=0 if checkpoint is None else checkpoint.size,
        last=reading.last,
        last_leaf=reading.previous,
        pruned=reading.prunings.size,
    )


@dataclass(slots=True)
class _Reading:
    """How far a log has been read."""

    tree: MerkleTree = field(default_factory=MerkleTree)
    prunings: Prunings = field(default_factory=Prunings)
    previous: bytes = FIRST_PREVIOUS
    last: AuditEntry | None = None

    def take(self, index: int, line: bytes) -> None:
        """Take the next line. Raises ``Malformed``, ``Rejected`` (``audit_broken``, ``audit_withheld``)."""
        try:
            entry = parse_line(line)
        except Malformed as exc:
            raise Malformed(f"audit entry {index}: {exc.message}") from exc
        if entry.index != index:
            raise Rejected.because("audit_broken", f"entry {index}", got=f"index {entry.index}", want=f"index {index}")
        if isinstance(entry, PrunedEntry):
            self.prunings.lacks(entry)
            self.previous = entry.leaf
            self.tree.append_hash(entry.leaf)
            return
        if entry.previous != self.previous:
            got, want = entry.previous.hex(), self.previous.hex()
            raise Rejected.because("audit_broken", f"entry {index}", got=got, want=want)
        if self.last is not None and entry.at < self.last.at:
            raise Rejected.because("audit_broken", f"entry {index}", got="a time before the entry above")
        if entry.kind is EventKind.LOG_PRUNED:
            self.prunings.says(index, entry.details)
        self.previous, self.last = self.tree.append(line), entry


def verify_one_face(first: Checkpoint, second: Checkpoint) -> None:
    """Prove that two verified checkpoints of one size do not show two logs (threat T92).

    Different sizes need a consistency proof (``merkle.verify_consistency``). Raises ``Rejected``
    (``split_view``): both statements together convict the custodian.
    """
    comparable = (first.origin, first.epoch, first.size) == (second.origin, second.epoch, second.size)
    if comparable and first.root != second.root:
        raise Rejected.because("split_view", f"log of {first.size}", got=first.root.hex(), want=second.root.hex())
