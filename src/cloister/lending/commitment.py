"""A value that an entry commits to instead of showing it, and the proof that it was this one (section 9).

``SHA-256("cloister/audit/field/v1" 0x00 || lp(salt) || lp(name) || lp(canonical JSON of the value))``: bound to the
value, and silent about it as long as the 32 random bytes of salt are. Who destroys the salt makes the value
unprovable for ever; the entry stays what it was.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from cloister.errors import Malformed, Rejected, UsageError
from cloister.lending.audit import AuditEntry
from cloister.lending.events import verify_details
from cloister.lending.tlog.proof import MAX_PROOF_BYTES, LogProof, verify_log_proof
from cloister.wire import Fields, dump_json, lp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.lending.events import DetailValue
    from cloister.lending.tlog.checkpoint import VerifiedCheckpoint
    from cloister.lending.tlog.note import NoteKey
    from cloister.wire import Json

__all__ = ["MAX_FIELD_PROOF_BYTES", "SALT_BYTES", "FieldProof", "Opening", "verify_field_proof"]

SALT_BYTES = 32
MAX_FIELD_PROOF_BYTES = 2 * MAX_PROOF_BYTES
_LABEL = b"cloister/audit/field/v1\x00"
_MAX_NAME = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What opens one commitment: the detail's name, its value, the salt."""

    name: str
    value: DetailValue
    salt: bytes = field(repr=False)

    @property
    def commitment(self) -> bytes:
        """What the entry has in the value's place."""
        return hashlib.sha256(_LABEL + lp(self.salt, self.name.encode(), dump_json(self.value))).digest()

    def dump(self) -> bytes:
        """Return the canonical bytes."""
        return dump_json(self.as_json())

    def as_json(self) -> dict[str, Json]:
        """Return the members."""
        return {"name": self.name, "salt": self.salt.hex(), "v": 1, "value": self.value}

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse. Raises ``Malformed``, also for a value that no entry could have in the clear."""
        return cls.take(Fields.parse(data, what="opening", canonical=True))

    @classmethod
    def take(cls, fields: Fields) -> Self:
        """Take the members of an opening out of an object. Raises ``Malformed``."""
        fields.literal("v", 1)
        value = fields.take("value")
        if not isinstance(value, (str, int, bool)):
            fields.fail("value", "want a string, an integer or a boolean")
        opening = cls(name=fields.text("name", cap=_MAX_NAME), salt=fields.hex("salt", size=SALT_BYTES), value=value)
        fields.end()
        try:
            verify_details({opening.name: opening.value})
        except UsageError as exc:
            raise Malformed(f"opening: {exc.message}") from exc
        return opening


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldProof:
    """An opening, with the proof of the entry that has its commitment. Not verified."""

    opening: Opening
    entry: LogProof

    def dump(self) -> bytes:
        """Return the file, canonical JSON."""
        return dump_json({"entry": self.entry.dump().decode(), "opening": self.opening.as_json(), "v": 1})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse, but for the checkpoint in it. Raises ``Malformed``."""
        fields = Fields.parse(data, what="field proof", cap=MAX_FIELD_PROOF_BYTES, canonical=True)
        fields.literal("v", 1)
        proof = cls(
            entry=LogProof.parse(_lines(fields)),
            opening=Opening.take(fields.fields("opening")),
        )
        fields.end()
        return proof


def _lines(fields: Fields) -> bytes:
    """Return a member that holds a text of lines, which ``Fields.text`` does not take."""
    text = fields.take("entry")
    if not isinstance(text, str):
        fields.fail("entry", "want a string")
    return text.encode("utf-8", "replace")


def verify_field_proof(
    proof: FieldProof, log: NoteKey, *, witnesses: Sequence[NoteKey], quorum: int
) -> tuple[AuditEntry, VerifiedCheckpoint]:
    """Prove that the value in ``proof`` is the one that an entry of this log committed to.

    Nothing is learnt of what else that entry commits to. Raises as ``verify_log_proof``, ``Malformed``, and
    ``Rejected`` (``not_committed``).
    """
    line = proof.entry.extra
    if line is None:
        raise Malformed("field proof: holds no entry")
    verified = verify_log_proof(proof.entry, line, log, witnesses=witnesses, quorum=quorum)
    entry = AuditEntry.parse(line)
    committed = entry.committed.get(proof.opening.name)
    if committed is None or not hmac.compare_digest(committed, proof.opening.commitment):
        raise Rejected.because("not_committed", f"entry {entry.index}: {proof.opening.name}")
    return entry, verified
