"""What goes with an export so that its reader can prove it whole (docs/reference/audit-export.md).

    {"after":[..],"before":[..],"checkpoint":"<note>","digest":"<sha-256>","first":0,"format":"ocsf","size":120,"v":1}

``before`` and ``after`` are the frontiers of the log at ``first`` and ``size``: an export goes on where another ended.
The checkpoint signs the log of ``size`` entries.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cloister.errors import Malformed, Rejected
from cloister.lending.audit import AuditEntry, parse_line
from cloister.lending.exports.table import FORMATS
from cloister.lending.frontier import Frontier
from cloister.lending.merkle import HASH_BYTES
from cloister.lending.tlog.checkpoint import demand_quorum, verify_log_checkpoint
from cloister.lending.tlog.note import MAX_NOTE_BYTES
from cloister.wire import Fields, dump_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cloister.lending.tlog.checkpoint import VerifiedCheckpoint
    from cloister.lending.tlog.note import NoteKey
    from cloister.wire import Json

__all__ = ["MAX_MANIFEST_BYTES", "Exported", "Manifest", "Writing", "verify_export"]

MAX_MANIFEST_BYTES = MAX_NOTE_BYTES * 2
_MAX_PEAKS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What an export says about itself. Not verified."""

    format: str
    before: Frontier
    after: Frontier
    digest: bytes
    checkpoint: bytes

    def dump(self) -> bytes:
        """Return the file, canonical JSON."""
        return dump_json(
            {
                "after": [peak.hex() for peak in self.after.peaks],
                "before": [peak.hex() for peak in self.before.peaks],
                "checkpoint": self.checkpoint.decode(),
                "digest": self.digest.hex(),
                "first": self.before.size,
                "format": self.format,
                "size": self.after.size,
                "v": 1,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse, but for the checkpoint in it. Raises ``Malformed``."""
        fields = Fields.parse(data, what="export manifest", cap=MAX_MANIFEST_BYTES, canonical=True)
        fields.literal("v", 1)
        first, size = fields.integer("first"), fields.integer("size")
        if first > size:
            fields.fail("first", f"want at most {size}")
        note, named = fields.take("checkpoint"), fields.text("format", cap=16)
        if not isinstance(note, str) or named not in FORMATS:
            fields.fail("format", f"want one of {', '.join(sorted(FORMATS))}, and a checkpoint")
        manifest = cls(
            format=named,
            before=Frontier.of(first, _peaks(fields, "before")),
            after=Frontier.of(size, _peaks(fields, "after")),
            digest=fields.hex("digest", size=HASH_BYTES),
            checkpoint=note.encode("utf-8", "replace"),
        )
        fields.end()
        return manifest


def _peaks(fields: Fields, name: str) -> list[bytes]:
    items: list[Json] = fields.items(name, cap=_MAX_PEAKS)
    return [Fields({name: item}, what="export manifest").hex(name, size=HASH_BYTES) for item in items]


class Writing:
    """An export while it is written or read: frontier, digest, and how the last entry hangs on the one before."""

    def __init__(self, name: str, before: Frontier) -> None:
        """Start behind ``before``."""
        self._format = FORMATS[name]
        self._digest = hashlib.sha256()
        self._previous: bytes | None = None
        self.frontier = before
        self.pruned = 0

    def add(self, line: bytes) -> bytes:
        """Take the next line of the log; return its record with the line end. Raises ``Malformed``, ``Rejected``."""
        entry = parse_line(line)
        if entry.index != self.frontier.size:
            got, want = f"index {entry.index}", f"index {self.frontier.size}"
            raise Rejected.because("audit_broken", f"entry {self.frontier.size}", got=got, want=want)
        if isinstance(entry, AuditEntry):
            if self._previous not in (None, entry.previous):
                raise Rejected.because("audit_broken", f"entry {entry.index}", got=entry.previous.hex())
        else:
            self.pruned += 1
        self._previous = entry.leaf
        self.frontier = self.frontier.add(entry.leaf)
        record = self._format.dump(line) + b"\n"
        self._digest.update(record)
        return record

    def again(self, record: bytes) -> None:
        """Take a record that was written, with its line end. Raises as ``add``, ``Rejected`` (``export_changed``)."""
        index = self.frontier.size
        if not record.endswith(b"\n"):
            raise Malformed(f"export: record of entry {index} has no line end")
        if self.add(self._format.take(record[:-1])) != record:
            raise Rejected.because("export_changed", f"entry {index}", got="a record that its entry does not give")

    def digest(self) -> bytes:
        """Return the digest over every record so far."""
        return self._digest.digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A verified export: entries ``first`` to ``size`` (exclusive) of the log, ``pruned`` of them without a body."""

    first: int
    size: int
    pruned: int
    root: bytes
    checkpoint: VerifiedCheckpoint


def verify_export(
    records: Iterable[bytes], manifest: Manifest, log: NoteKey, *, witnesses: Sequence[NoteKey] = (), quorum: int = 0
) -> Exported:
    """Prove that ``records``, each with its line end, are all entries from ``first`` to ``size`` and nothing else.

    That ``before`` is the log's own is proven by the checkpoint: no other frontier leads to its root. Raises
    ``Malformed``, as ``verify_log_checkpoint``, and ``Rejected``: ``quorum_missed``, ``audit_broken``, ``audit_cut``,
    ``audit_changed``, ``export_changed``.
    """
    verified = verify_log_checkpoint(manifest.checkpoint, log, tuple(witnesses))
    demand_quorum(verified, witnesses, quorum)
    if verified.size != manifest.after.size:
        got, want = f"size {verified.size}", f"size {manifest.after.size}"
        raise Rejected.because("export_changed", "manifest", got=got, want=want)
    reading = Writing(manifest.format, manifest.before)
    for record in records:
        reading.again(record)
    size = reading.frontier.size
    if size != verified.size:
        raise Rejected.because("audit_cut", f"entry {size}", got=f"{size} entries", want=f"{verified.size} entries")
    root = reading.frontier.root()
    if root != verified.root or reading.frontier != manifest.after:
        raise Rejected.because("audit_changed", f"log of {size}", got=root.hex(), want=verified.root.hex())
    if not hmac.compare_digest(reading.digest(), manifest.digest):
        raise Rejected.because("export_changed", "manifest", got="another digest")
    return Exported(first=manifest.before.size, size=size, pruned=reading.pruned, root=root, checkpoint=verified)
