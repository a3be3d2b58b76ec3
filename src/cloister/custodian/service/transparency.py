"""The audit log as outsiders read it: checkpoints with cosignatures, tiles, proofs (docs/spec/transparency-log.md).

Checkpoints, hashes and consistency proofs are for anybody; entries are for staff, and for a borrower those
about its own loan. Every answer is over the committed log: what is shown here was durable before.

Not done here: the checkpoint outside the database (``custodian.checkpoint``), which carries the ledger's figures.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cloister.custodian.service.logbook import concerns
from cloister.custodian.store.cosignatures import cosignatures_at, keep_cosignature, witnessed_size
from cloister.custodian.store.log import entries_after, size_before
from cloister.custodian.tokens import Role
from cloister.errors import Rejected
from cloister.lending.audit import AuditEntry, line_leaf
from cloister.lending.pruning import is_pruned
from cloister.lending.tlog.advance import Advance
from cloister.lending.tlog.checkpoint import log_key, sign_log_checkpoint, verify_log_checkpoint
from cloister.lending.tlog.note import NoteKey, NoteSignature
from cloister.lending.tlog.proof import LogProof
from cloister.lending.tlog.tiles import dump_bundle, tile_hashes

if TYPE_CHECKING:
    from cloister.custodian.service.context import Context, Transaction
    from cloister.custodian.tokens import Actor
    from cloister.lending.merkle import MerkleTree
    from cloister.lending.tlog.note import SignedNote
    from cloister.lending.tlog.tiles import Tile
    from cloister.wire import Json

__all__ = ["accept_cosignatures", "advance_from", "entry_bundle", "entry_proof", "hash_tile", "log_note", "log_size"]


_BATCH = 1000  # entries read at once


def _tree(context: Context) -> MerkleTree:
    """Return the tree over every committed entry, also over those that another process of this custodian wrote."""
    tree = context.tree
    with context.reading() as connection:
        while lines := entries_after(connection, tree.size, limit=_BATCH):
            for line in lines:
                tree.append_hash(line_leaf(line))
    return tree


def _witnesses(context: Context) -> tuple[NoteKey, ...]:
    return tuple(NoteKey.parse(text) for text in context.config.witnesses)


def log_size(context: Context, *, size: int | None = None, quorum: int = 0) -> int:
    """Return which size a checkpoint is asked for: ``size`` itself, the largest that ``quorum`` cosigned, or ours.

    Ours is the newest; with witnesses, the log as it stood when the last whole window began, so that all of
    them meet at the same sizes. Raises ``Rejected`` (``not_found``, ``quorum_missed``).
    """
    newest = _tree(context).size
    if size is not None:
        if size > newest:
            raise Rejected.because("not_found", "checkpoint", got=f"size {size}", want=f"at most {newest}")
        return size
    if quorum:
        with context.reading() as connection:
            found = witnessed_size(connection, context.config.witnesses, quorum)
        if found is None or found > newest:
            raise Rejected.because("quorum_missed", "checkpoint", got="none", want=f"{quorum} witnesses")
        return found
    window = context.config.witness_window_s
    if not context.config.witnesses or not window:
        return newest
    seconds = int(context.now().timestamp())
    with context.reading() as connection:
        size = size_before(connection, datetime.fromtimestamp(seconds - seconds % window, UTC))
    return newest if size is None else min(size, newest)


def log_note(context: Context, size: int) -> SignedNote:
    """Return the signed checkpoint of the first ``size`` entries, with every cosignature that is known for it."""
    root = _tree(context).root_at(size)
    note = sign_log_checkpoint(context.vault.signing_key, size=size, root=root)
    if not context.config.witnesses:
        return note
    with context.reading() as connection:
        lines = cosignatures_at(connection, context.config.witnesses, size)
    return note.signed_also(tuple(NoteSignature.parse(line.rstrip("\n")) for line in lines))


def advance_from(context: Context, old: int, *, size: int | None, quorum: int) -> Advance:
    """Return a checkpoint and the proof that it extends the log of ``old`` entries.

    Never one that is smaller: who is ahead of the last window gets its own size again.
    """
    newest = _tree(context).size
    if old > newest:
        raise Rejected.because("not_found", "consistency proof", got=f"size {old}", want=f"at most {newest}")
    until = log_size(context, size=size, quorum=quorum)
    until = max(until, old) if size is None else until
    if until < old:
        raise Rejected.because("not_found", "consistency proof", got=f"{old} to {until}", want="a larger log")
    # Of no entry there is nothing to prove (tlog-witness).
    proof = _tree(context).consistency(old, until)
    return Advance(old=old, proof=proof, checkpoint=log_note(context, until).dump())


def hash_tile(context: Context, tile: Tile) -> bytes:
    """Return a tile of hashes."""
    return tile_hashes(_tree(context), tile)


def entry_bundle(context: Context, tile: Tile) -> bytes:
    """Return a bundle of entries. Raises ``Rejected`` (``not_found``) for one that is not there in its whole width."""
    with context.reading() as connection:
        lines = entries_after(connection, tile.start, limit=tile.width)
    if len(lines) != tile.width:
        raise Rejected.because("not_found", tile.path())
    return dump_bundle(lines)


def entry_proof(context: Context, actor: Actor, index: int, *, size: int | None, quorum: int) -> LogProof:
    """Return one entry with what proves it, for somebody without access to us. The entry is its extra data.

    A borrower gets the entries about its loan, and no trace of others. Without ``size`` and ``quorum`` the
    checkpoint is the usual one where that has the entry, else the newest.
    """
    with context.reading() as connection:
        line = next(iter(entries_after(connection, index, limit=1)), None)
    theirs = actor.role is not Role.BORROWER
    if line is None or not (theirs or (not is_pruned(line) and concerns(AuditEntry.parse(line), actor.loan))):
        raise Rejected.because("not_found", "entry")
    until = log_size(context, size=size, quorum=quorum)
    if until <= index and size is None and not quorum:
        until = _tree(context).size
    if until <= index:
        raise Rejected.because("quorum_missed" if quorum else "not_found", f"entry {index}", got=f"log of {until}")
    path = _tree(context).inclusion(index, until)
    return LogProof(index=index, path=path, checkpoint=log_note(context, until).dump(), extra=bytes(line))


def accept_cosignatures(context: Context, body: bytes) -> Json:
    """Keep what witnesses we know say about our log; lines of others are ignored.

    Raises ``Malformed``, and ``Rejected``: as ``verify_log_checkpoint``; ``not_consistent`` for a checkpoint
    that is not of this log, though we signed it; ``unknown_key`` where no witness of ours cosigned.
    """
    witnesses = _witnesses(context)
    verified = verify_log_checkpoint(body, log_key(context.vault.signing_key.verify_key), witnesses)
    tree = _tree(context)
    if verified.size > tree.size or tree.root_at(verified.size) != verified.root:
        raise Rejected.because(
            "not_consistent", f"checkpoint of {verified.size}", got=verified.root.hex(), want="of this log",
            hint="this custodian's key signed another log: its database was put back, or the key is with somebody else",
        )  # fmt: skip
    if not verified.cosigned:
        raise Rejected.because("unknown_key", "cosignature", got="no witness known here", want="one of the witnesses")

    def work(transaction: Transaction) -> list[Json]:
        kept: list[Json] = []
        for witness in witnesses:
            at = verified.cosigned.get(witness.name)
            lines = [item.dump() for item in verified.note.signatures if item.is_by(witness)]
            if at is None:
                continue
            fresh = keep_cosignature(
                transaction.connection, witness=witness.dump(), size=verified.size, at=at, line=lines[-1]
            )
            kept += [witness.name] if fresh else []
        return kept

    return {"kept": context.transact(work), "size": verified.size}
