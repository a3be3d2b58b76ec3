"""One entry, provable offline (c2sp.org/tlog-proof): index, audit path, signed checkpoint.

Whoever has the entry, this file and the keys he trusts needs nobody. The entry itself is not in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cloister.errors import Malformed, Rejected
from cloister.lending.merkle import leaf_hash, verify_inclusion
from cloister.lending.pruning import PrunedEntry, is_pruned
from cloister.lending.tlog.advance import MAX_PROOF_LINES
from cloister.lending.tlog.checkpoint import demand_quorum, verify_log_checkpoint
from cloister.lending.tlog.note import MAX_NOTE_BYTES
from cloister.lending.tlog.text import dump_base64, parse_base64, parse_hash, parse_number, parse_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.lending.tlog.checkpoint import VerifiedCheckpoint
    from cloister.lending.tlog.note import NoteKey

__all__ = ["MAX_PROOF_BYTES", "LogProof", "verify_log_proof"]

MAX_EXTRA_BYTES = 16 * 1024  # bytes of unauthenticated extra data
MAX_PROOF_BYTES = MAX_NOTE_BYTES + MAX_EXTRA_BYTES * 2 + 8192
_HEADER = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogProof:
    """Where an entry is and what leads to the root of ``checkpoint`` (the note's bytes). Not verified.

    ``extra`` is covered by nothing: it is carried and never believed.
    """

    index: int
    path: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None

    def dump(self) -> bytes:
        """Return the file."""
        extra = () if self.extra is None else (f"extra {dump_base64(self.extra)}",)
        lines = (_HEADER, *extra, f"index {self.index}", *(dump_base64(part) for part in self.path), "")
        return "".join(f"{line}\n" for line in lines).encode() + self.checkpoint

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse, but for the checkpoint. Raises ``Malformed``."""
        text = parse_text(data, what="tlog-proof", cap=MAX_PROOF_BYTES)
        head, blank, checkpoint = text.partition("\n\n")
        lines = head.split("\n")
        extra = lines.pop(1).removeprefix("extra ") if len(lines) > 1 and lines[1].startswith("extra ") else None
        well = blank and lines[0] == _HEADER and len(lines) > 1 and lines[1].startswith("index ")
        if not well or len(lines) > MAX_PROOF_LINES + 2:
            msg = f"tlog-proof: want its header, an index, at most {MAX_PROOF_LINES} hashes and a checkpoint"
            raise Malformed(msg)
        return cls(
            index=parse_number(lines[1].removeprefix("index "), what="tlog-proof: index"),
            path=tuple(parse_hash(line, what="tlog-proof: path") for line in lines[2:]),
            checkpoint=checkpoint.encode(),
            extra=None if extra is None else parse_base64(extra, what="tlog-proof: extra"),
        )


def verify_log_proof(
    proof: LogProof, entry: bytes, log: NoteKey, *, witnesses: Sequence[NoteKey], quorum: int
) -> VerifiedCheckpoint:
    """Prove that the exact bytes ``entry`` are at the proof's index in a log that ``log`` signed for.

    Of an entry that was pruned, what is left of it: proven is that an entry with this hash stood there.

    At least ``quorum`` of ``witnesses`` must have cosigned that checkpoint. Raises as
    ``verify_log_checkpoint``, ``quorum_missed``, ``not_included``.
    """
    verified = verify_log_checkpoint(proof.checkpoint, log, witnesses)
    demand_quorum(verified, witnesses, quorum)
    verify_inclusion(
        _leaf(entry, proof.index), index=proof.index, size=verified.size, path=proof.path, root=verified.root
    )
    return verified


def _leaf(entry: bytes, index: int) -> bytes:
    if not is_pruned(entry):
        return leaf_hash(entry)
    left = PrunedEntry.parse(entry)
    if left.index != index:
        raise Rejected.because("not_included", f"leaf {index}", got=f"what is left of entry {left.index}")
    return left.leaf
