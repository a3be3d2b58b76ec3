"""A checkpoint with the proof that it extends an older one: the request of c2sp.org/tlog-witness.

The custodian answers with it, so that proof and checkpoint are of one moment; the same bytes may be sent to
any witness that speaks ``add-checkpoint``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from cloister.errors import Malformed
from cloister.lending.tlog.note import MAX_NOTE_BYTES
from cloister.lending.tlog.text import dump_base64, parse_hash, parse_number, parse_text

__all__ = ["MAX_ADVANCE_BYTES", "MAX_PROOF_LINES", "Advance"]

MAX_PROOF_LINES = 63  # hashes of one proof (tlog-witness, "add-checkpoint")
MAX_ADVANCE_BYTES = MAX_NOTE_BYTES + 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """From ``old`` entries to those of ``checkpoint`` (the note's bytes), and the consistency proof. Not verified."""

    old: int
    proof: tuple[bytes, ...]
    checkpoint: bytes

    def dump(self) -> bytes:
        """Return the body."""
        lines = (f"old {self.old}", *(dump_base64(part) for part in self.proof), "")
        return "".join(f"{line}\n" for line in lines).encode() + self.checkpoint

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse, but for the checkpoint. Raises ``Malformed``."""
        text = parse_text(data, what="advance", cap=MAX_ADVANCE_BYTES)
        head, blank, checkpoint = text.partition("\n\n")
        first, *lines = head.split("\n")
        if not blank or not first.startswith("old ") or len(lines) > MAX_PROOF_LINES:
            msg = f"advance: want the old size, at most {MAX_PROOF_LINES} hashes, a blank line and a checkpoint"
            raise Malformed(msg)
        return cls(
            old=parse_number(first.removeprefix("old "), what="advance: old size"),
            proof=tuple(parse_hash(line, what="advance: proof") for line in lines),
            checkpoint=checkpoint.encode(),
        )
