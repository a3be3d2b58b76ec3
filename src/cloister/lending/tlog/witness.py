"""When a witness cosigns: only what extends all that it has cosigned (c2sp.org/tlog-witness).

A pure decision over what the witness remembers of one log. It is remembered durably before a cosignature
leaves: else a witness that forgets can be led through two histories.

Not proven by a cosignature: that entries are true, or that this witness asked often.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cloister.errors import Malformed, Rejected
from cloister.lending.merkle import EMPTY_ROOT, HASH_BYTES, verify_consistency
from cloister.lending.tlog.checkpoint import verify_log_checkpoint, verify_one_history
from cloister.lending.tlog.cosignature import cosign
from cloister.lending.tlog.note import MAX_NAME_CHARS, MAX_NOTE_BYTES, NoteKey, SignatureKind
from cloister.wire import Fields, dump_b64u, dump_json

if TYPE_CHECKING:
    from datetime import datetime

    from cloister.crypto.sign import SigningKey
    from cloister.lending.tlog.advance import Advance
    from cloister.lending.tlog.checkpoint import VerifiedCheckpoint
    from cloister.lending.tlog.note import SignedNote

__all__ = ["MAX_STATE_BYTES", "WitnessState", "cosign_advance", "verify_advance"]

MAX_STATE_BYTES = 128 * 1024  # bytes of what a witness remembers of one log


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessState:
    """What a witness remembers of one log: the largest tree it verified, and the note that said so.

    ``checkpoint`` is empty until the first one. ``name`` is the witness's own.
    """

    name: str
    log: NoteKey
    size: int = 0
    root: bytes = EMPTY_ROOT
    checkpoint: bytes = b""

    def dump(self) -> bytes:
        """Return the canonical file."""
        return dump_json(
            {
                "checkpoint": dump_b64u(self.checkpoint),
                "log": self.log.dump(),
                "name": self.name,
                "root": dump_b64u(self.root),
                "size": self.size,
                "v": 1,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse. Raises ``Malformed``, also for a size and a root that the kept checkpoint does not say."""
        fields = Fields.parse(data, what="witness", cap=MAX_STATE_BYTES, canonical=True)
        fields.literal("v", 1)
        state = cls(
            name=fields.text("name", cap=MAX_NAME_CHARS),
            log=NoteKey.parse(fields.text("log", cap=2 * MAX_NAME_CHARS)),
            size=fields.integer("size"),
            root=fields.b64u("root", size=HASH_BYTES),
            checkpoint=fields.b64u("checkpoint", cap=MAX_NOTE_BYTES),
        )
        fields.end()
        NoteKey(name=state.name, kind=SignatureKind.COSIGNATURE, key=state.log.key)
        if not state._is_whole():
            msg = "witness: size and root are not those of the checkpoint it keeps"
            raise Malformed(msg)
        return state

    def last(self) -> VerifiedCheckpoint | None:
        """Return the last checkpoint, proven again. Raises as ``verify_log_checkpoint``."""
        return verify_log_checkpoint(self.checkpoint, self.log) if self.checkpoint else None

    def _is_whole(self) -> bool:
        """Tell whether the figures are those of the kept checkpoint."""
        try:
            last = self.last()
        except Rejected:
            return False
        return (self.size, self.root) == ((0, EMPTY_ROOT) if last is None else (last.size, last.root))


def verify_advance(state: WitnessState, advance: Advance) -> VerifiedCheckpoint:
    """Return the new checkpoint once it is proven to extend what ``state`` remembers.

    Raises ``Malformed``; ``Rejected``: as ``verify_log_checkpoint``; ``log_shrunk`` for fewer entries than
    before; ``split_view`` for another root at the same size: both notes together convict the custodian;
    ``not_consistent`` for a larger log that is not proven to hold the old one; ``wrong_proof`` for a proof
    from another size than was asked for.
    """
    fresh = verify_log_checkpoint(advance.checkpoint, state.log)
    last = state.last()
    if last is not None:
        verify_one_history(last, fresh)
    if fresh.size < state.size:
        raise Rejected.because("log_shrunk", "log", got=f"{fresh.size} entries", want=f"at least {state.size}")
    if advance.old != state.size:
        raise Rejected.because("wrong_proof", "log", got=f"a proof from {advance.old}", want=f"from {state.size}")
    verify_consistency(old_size=state.size, old_root=state.root, size=fresh.size, root=fresh.root, proof=advance.proof)
    return fresh


def cosign_advance(
    state: WitnessState, advance: Advance, key: SigningKey, now: datetime
) -> tuple[WitnessState, SignedNote]:
    """Return what to remember first, and then the checkpoint with our cosignature. Raises as ``verify_advance``."""
    fresh = verify_advance(state, advance)
    own = fresh.note.signed_also((cosign(key, state.name, fresh.note.text, now),))
    kept = WitnessState(name=state.name, log=state.log, size=fresh.size, root=fresh.root, checkpoint=fresh.note.dump())
    return kept, own
