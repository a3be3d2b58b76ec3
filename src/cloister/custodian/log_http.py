"""What the routes of the public log do: names and numbers to values, one use case, bytes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.custodian.calls import Member, Reply, json_reply
from cloister.custodian.service import logbook, transparency
from cloister.errors import Malformed
from cloister.lending.tlog.text import MAX_LOG_SIZE, parse_number
from cloister.lending.tlog.tiles import Tile

if TYPE_CHECKING:
    from cloister.custodian.calls import Call

__all__ = [
    "OLD",
    "QUORUM",
    "SIZE",
    "TEXT_TYPE",
    "TILE_TYPE",
    "cosignatures",
    "loan_entries",
    "log_checkpoint",
    "log_consistency",
    "log_entries",
    "log_tile",
    "proof",
    "quorum_of",
    "size_of",
]

TEXT_TYPE = "text/plain"
TILE_TYPE = "application/octet-stream"
MAX_QUORUM = 16

SIZE = Member(name="size", type="integer", doc="of the first so many entries", required=False)
QUORUM = Member(
    name="witnesses", type="integer", doc=f"cosigned by so many witnesses, 1 to {MAX_QUORUM}", required=False
)
OLD = Member(name="old", type="integer", doc="entries of the checkpoint you have; 0 for none")


def size_of(call: Call) -> int | None:
    """Return of how many entries a checkpoint is asked for, None where that is not said."""
    return call.number("size", default=0, floor=0, cap=MAX_LOG_SIZE) if "size" in call.query else None


def quorum_of(call: Call) -> int:
    """Return how many witnesses must have cosigned. Raises ``Malformed``."""
    quorum = call.number("witnesses", default=0, floor=0, cap=MAX_QUORUM)
    if quorum and "size" in call.query:
        msg = "query: size or witnesses, not both"
        raise Malformed(msg)
    return quorum


def _text(body: bytes) -> Reply:
    return Reply(body=body, media_type=TEXT_TYPE)


def log_checkpoint(call: Call) -> Reply:
    """Get the log's checkpoint as a signed note, with the cosignatures of witnesses."""
    context = call.service.context
    size = transparency.log_size(context, size=size_of(call), quorum=quorum_of(call))
    return _text(transparency.log_note(context, size).dump())


def log_consistency(call: Call) -> Reply:
    """Get a checkpoint and the proof that it extends the one you have."""
    old = call.number("old", default=-1, floor=0, cap=MAX_LOG_SIZE)
    context = call.service.context
    return _text(transparency.advance_from(context, old, size=size_of(call), quorum=quorum_of(call)).dump())


def log_tile(call: Call) -> Reply:
    """Get a tile of hashes of the log's tree."""
    tile = Tile.parse("tile/" + call.parameters["tile"])
    return Reply(body=transparency.hash_tile(call.service.context, tile), media_type=TILE_TYPE)


def log_entries(call: Call) -> Reply:
    """Get a bundle of entries."""
    tile = Tile.parse("tile/entries/" + call.parameters["tile"])
    return Reply(body=transparency.entry_bundle(call.service.context, tile), media_type=TILE_TYPE)


def cosignatures(call: Call) -> Reply:
    """Hand in a checkpoint with a witness's cosignature."""
    return json_reply(transparency.accept_cosignatures(call.service.context, call.body))


def loan_entries(call: Call) -> Reply:
    """Read the entries about one loan, a page at a time."""
    after = call.number("after", default=-1, floor=-1, cap=MAX_LOG_SIZE)
    limit = call.number("limit", default=100, floor=1, cap=logbook.MAX_ENTRIES)
    return json_reply(logbook.loan_page(call.service.context, call.loan, after=after, limit=limit))


def proof(call: Call) -> Reply:
    """Get one entry with its proof, for somebody who cannot ask the custodian."""
    index = parse_number(call.parameters["index"], what="entry")
    size, quorum = size_of(call), quorum_of(call)
    found = transparency.entry_proof(call.service.context, call.actor, index, size=size, quorum=quorum)
    return _text(found.dump())
