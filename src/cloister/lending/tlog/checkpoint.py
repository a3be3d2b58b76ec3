"""A log's checkpoint as a signed note (c2sp.org/tlog-checkpoint): origin, size, root.

It says what the statement of docs/spec/audit-log.md section 3 says about the log, in the form that tools
and witnesses of others read; it has no figures of the ledger and no time.

Not proven by a checkpoint: that everybody is shown the same one. That takes witnesses (``cosignature``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cloister.errors import Malformed, Rejected
from cloister.lending.tlog.cosignature import cosigned_at
from cloister.lending.tlog.note import NoteKey, SignatureKind, SignedNote, sign_note, verify_note
from cloister.lending.tlog.text import dump_base64, parse_hash, parse_number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cloister.crypto.sign import SigningKey, VerifyKey

__all__ = [
    "LogCheckpoint",
    "VerifiedCheckpoint",
    "demand_quorum",
    "log_key",
    "log_origin",
    "sign_log_checkpoint",
    "verify_log_checkpoint",
    "verify_one_history",
]

_ORIGIN = "cloister/audit/"
_LINES = 3


def log_origin(key: VerifyKey) -> str:
    """Return the name of the log that the custodian with this key keeps.

    From the key alone: a custodian may change its name and its address, and its log stays the same one.
    """
    return _ORIGIN + key.key_id


def log_key(key: VerifyKey) -> NoteKey:
    """Return whom checkpoints of this custodian's log are signed by."""
    return NoteKey(name=log_origin(key), kind=SignatureKind.ED25519, key=key)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogCheckpoint:
    """Size and root of a log, not verified. ``extensions`` are further lines, which nobody vouches for."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def dump(self) -> str:
        """Return the text of the note."""
        lines = (self.origin, str(self.size), dump_base64(self.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the text of a note. Raises ``Malformed``."""
        lines = text.split("\n")
        if lines.pop() or len(lines) < _LINES or not all(lines):
            msg = "checkpoint: want origin, size and root, each on a line"
            raise Malformed(msg)
        return cls(
            origin=lines[0],
            size=parse_number(lines[1], what="checkpoint: size"),
            root=parse_hash(lines[2], what="checkpoint: root"),
            extensions=tuple(lines[_LINES:]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedCheckpoint:
    """A checkpoint that the log signed, the note it stood in, and when each known witness cosigned it."""

    checkpoint: LogCheckpoint
    note: SignedNote
    cosigned: Mapping[str, datetime]

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.checkpoint.size

    @property
    def root(self) -> bytes:
        """The tree hash."""
        return self.checkpoint.root


def sign_log_checkpoint(key: SigningKey, *, size: int, root: bytes) -> SignedNote:
    """Return the custodian's checkpoint of its log. The same log has the same bytes each time."""
    origin = log_origin(key.verify_key)
    text = LogCheckpoint(origin=origin, size=size, root=root).dump()
    return SignedNote(text=text, signatures=(sign_note(key, origin, text),))


def verify_log_checkpoint(data: bytes, log: NoteKey, witnesses: Sequence[NoteKey] = ()) -> VerifiedCheckpoint:
    """Return a checkpoint once ``log`` is proven to have signed it about itself.

    Says who of ``witnesses`` cosigned it; how many must is ``demand_quorum``'s to say. Raises ``Malformed``;
    ``Rejected`` (``unknown_key``, ``signature_invalid`` also for a known witness's, ``wrong_origin``).
    """
    note = SignedNote.parse(data)
    verify_note(note, log)
    checkpoint = LogCheckpoint.parse(note.text)
    if checkpoint.origin != log.name:
        raise Rejected.because("wrong_origin", "checkpoint", got=checkpoint.origin[:80], want=log.name)
    times = {witness.name: cosigned_at(note, witness) for witness in witnesses}
    cosigned = {name: at for name, at in times.items() if at is not None}
    return VerifiedCheckpoint(checkpoint=checkpoint, note=note, cosigned=cosigned)


def demand_quorum(verified: VerifiedCheckpoint, witnesses: Sequence[NoteKey], quorum: int) -> None:
    """Prove that ``quorum`` of ``witnesses``, told apart by key, cosigned. Raises ``Rejected`` (``quorum_missed``)."""
    keys = {witness.key.raw for witness in witnesses if witness.name in verified.cosigned}
    if len(keys) < quorum:
        got = ", ".join(sorted(verified.cosigned)) or "nobody"
        raise Rejected.because("quorum_missed", f"checkpoint of {verified.size}", got=got, want=f"{quorum} witnesses")


def verify_one_history(first: VerifiedCheckpoint, second: VerifiedCheckpoint) -> None:
    """Prove that two checkpoints of one log and one size do not show two logs (T92).

    Different sizes need a consistency proof. Raises ``Rejected`` (``split_view``): the two notes together
    convict the custodian, for it signed both.
    """
    one, two = first.checkpoint, second.checkpoint
    if (one.origin, one.size) == (two.origin, two.size) and one.root != two.root:
        raise Rejected.because("split_view", f"log of {one.size}", got=two.root.hex(), want=one.root.hex())
