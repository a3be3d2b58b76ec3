"""What the routes of compliance do: persons, committed fields, holds, pruning; one use case each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.custodian.calls import Member, Reply, json_reply
from cloister.custodian.log_http import quorum_of, size_of
from cloister.custodian.service import erasure, holds, pruning
from cloister.lending.tlog.text import parse_number

if TYPE_CHECKING:
    from cloister.custodian.calls import Call

__all__ = ["SUBJECT", "due", "field_proof", "forget", "lift_hold", "list_holds", "place_hold", "prune", "resolve"]

SUBJECT = Member(name="subject", type="string", doc="a person's name as entries had it, or its pseudonym `p:...`")


def resolve(call: Call) -> Reply:
    """Tell whose a pseudonym is, and log who asked."""
    return json_reply(call.change(lambda work, body: erasure.resolve(work, call.actor, body)))


def forget(call: Call) -> Reply:
    """Destroy a person's key: its pseudonym is nobody's from now on."""
    return json_reply(call.change(lambda work, body: erasure.forget(work, call.actor, body)))


def field_proof(call: Call) -> Reply:
    """Open one committed field of an entry, with its proof, and log who asked."""
    index, name = parse_number(call.parameters["index"], what="entry"), call.parameters["field"]
    proof = erasure.open_field(
        call.service.context, call.actor, index, name, size=size_of(call), quorum=quorum_of(call)
    )
    return Reply(body=proof)


def list_holds(call: Call) -> Reply:
    """List legal holds, also those that were lifted."""
    return json_reply(holds.hold_list(call.service.context))


def place_hold(call: Call) -> Reply:
    """Place a legal hold."""
    return json_reply(call.change(lambda work, body: holds.place(work, call.actor, body)), status=201)


def lift_hold(call: Call) -> Reply:
    """Lift a legal hold."""
    return json_reply(call.run(lambda work: holds.lift(work, call.actor, call.parameters["hold"])))


def due(call: Call) -> Reply:
    """Show how long entries are kept, and what could be pruned now."""
    return json_reply(pruning.due_list(call.service.context))


def prune(call: Call) -> Reply:
    """Prune entries whose period is over and that no hold keeps."""
    return json_reply(call.change(lambda work, body: pruning.prune_log(work, call.actor, body)))
