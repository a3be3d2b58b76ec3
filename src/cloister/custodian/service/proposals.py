"""Two-person approval (T89, T90; docs/spec/proposal.md): asked for by one person, carried out once another approves.

What is asked for is tried at once in a transaction that is taken back: nonsense is refused to its author, not to the
approver. It is carried out in the approving transaction, against the state of then: where what it was made on has
changed, where its author's token is good no more, or where the use case itself says no, it is refused for good.

Not done here: which operations need it (``duty``), how a request becomes a use case (``proposals_http``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.custodian.duty import AS_THE_PROFILE_SAYS, Operation, named_operations
from cloister.custodian.service.access import demand_lasting, demand_standing
from cloister.custodian.store.persons import admins_ever
from cloister.custodian.store.proposals import (
    ProposalRow,
    ProposalState,
    close_proposal,
    expired_proposals,
    find_open,
    find_proposal,
    insert_proposal,
    list_proposals,
    open_proposals,
    purge_proposals,
    wipe_body,
)
from cloister.errors import Rejected
from cloister.lending.events import EventKind
from cloister.wire import Fields, Json, dump_b64u, dump_json, dump_time, lp, parse_json, reason_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from cloister.custodian.config import Config
    from cloister.custodian.service.context import Context, Transaction
    from cloister.custodian.tokens import Actor

__all__ = [
    "Asked",
    "approve",
    "demand_executed",
    "deny",
    "expire",
    "in_force",
    "is_ruled",
    "is_spelled",
    "proposal_list",
    "proposal_view",
    "propose",
    "withdraw",
]

_LABEL = b"cloister/proposal/v1"
_ID_BYTES = 8
_DIGEST_BYTES = 32
_MAX_OPEN = 100  # proposals that wait at once
_KEPT = timedelta(days=90)  # what was decided is shown for so long
_MAX_REASON = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked for, exactly: the operation, canonical JSON of route, parameters and query, the body as it came."""

    operation: Operation
    request: bytes
    body: bytes


def in_force(connection: Connection, config: Config, operation: Operation) -> bool:
    """Tell whether one person alone may only propose this now.

    As the profile says it, or for making another person's token: since two persons have been let in as administrators.
    Before that there is nobody who could approve. An operation that the settings spell out: always.
    """
    return is_ruled(connection, named_operations(config), operation, spelled=is_spelled(config))


def is_spelled(config: Config) -> bool:
    """Tell whether the settings name the operations one by one."""
    return config.two_person != (AS_THE_PROFILE_SAYS,)


def is_ruled(connection: Connection, named: frozenset[Operation], operation: Operation, *, spelled: bool) -> bool:
    """Tell whether an operation needs two persons, where these are named."""
    if operation not in named:
        return False
    return (spelled and operation is not Operation.PERSON) or admins_ever(connection) > 1


def propose(
    transaction: Transaction, actor: Actor, asked: Asked, basis: Json, work: Callable[[Transaction], Json]
) -> Json:
    """Keep what is asked for until a second person has decided; return the proposal.

    The same asked for again by the same actor on the same state is the same proposal. Raises ``Rejected``: what
    ``work`` raises now, ``person_wanted``, ``too_many_proposals``.
    """
    if actor.person is None:
        raise Rejected.because("person_wanted", actor.role.value, hint="ask an admin for a token that names you")
    with transaction.undone() as tried:
        work(tried)
    context, now = transaction.context, transaction.now
    identity = f"prop-{context.rng(_ID_BYTES).hex()}"
    stated = dump_json(basis)
    row = ProposalRow(
        id=identity,
        operation=asked.operation,
        request=asked.request,
        body=asked.body,
        basis=stated,
        digest=_digest(context, identity, asked, stated),
        actor=actor.id,
        role=actor.role,
        name=actor.name,
        person=actor.person,
        created_at=now,
        expires_at=now + timedelta(seconds=context.config.proposal_ttl_s),
    )
    known = find_open(transaction.connection, row, now)
    if known is not None:
        return _view(known)
    if open_proposals(transaction.connection, now) >= _MAX_OPEN:
        raise Rejected.because("too_many_proposals", "proposals", want=f"at most {_MAX_OPEN} open")
    insert_proposal(transaction.connection, row)
    _record(transaction, EventKind.PROPOSAL_MADE, actor, row)
    return _view(row)


def _digest(context: Context, identity: str, asked: Asked, basis: bytes) -> bytes:
    """Return what an approval is of: these bytes, at this custodian, on this state."""
    custodian = context.vault.signing_key.verify_key.raw
    parts = (_LABEL, custodian, identity.encode(), asked.operation.value.encode(), asked.request, asked.body, basis)
    return hashlib.sha256(lp(*parts)).digest()


def approve(
    transaction: Transaction,
    actor: Actor,
    proposal: str,
    body: Fields,
    *,
    demand_able: Callable[[ProposalRow], None],
    perform: Callable[[Transaction, ProposalRow], Json],
) -> Json:
    """Approve ``{"digest"}`` and carry it out, in this transaction; return the proposal with its result.

    Proves that it waits, that its digest is the one that was looked at, that a second person approves it who could have
    asked for it (``demand_able``), and that its author still may ask for it. ``perform`` does it, and raises
    ``Rejected`` where it no longer fits: then it is refused for good, which ``demand_executed`` tells the approver once
    it is committed.
    """
    digest = body.hex("digest", size=_DIGEST_BYTES)
    body.end()
    row = _standing(transaction, proposal)
    if digest != row.digest:
        raise Rejected.because("proposal_changed", "proposal", got=digest.hex()[:16], want=row.digest.hex()[:16])
    _demand_other(actor, row)
    demand_able(row)
    if actor.session is not None:
        demand_lasting(actor)
    _record(transaction, EventKind.PROPOSAL_APPROVED, actor, row)
    try:
        with transaction.tentatively() as tried:
            demand_standing(tried, row.actor, role=row.role, person=row.person)
            result = perform(tried, row)
    except Rejected as refusal:
        reasons: list[Json] = [reason_json(item) for item in refusal.reasons]
        _close(transaction, actor, row, ProposalState.REFUSED, outcome=dump_json({"reasons": reasons}))
        codes = ",".join(dict.fromkeys(item.code for item in refusal.reasons))
        _record(transaction, EventKind.PROPOSAL_REFUSED, actor, row, codes=codes)
    else:
        _close(transaction, actor, row, ProposalState.EXECUTED, outcome=dump_json({"result": result}))
        _record(transaction, EventKind.PROPOSAL_EXECUTED, actor, row)
    return _view(_found(transaction.connection, proposal))


def demand_executed(proposal: Json) -> Json:
    """Return an approved proposal that was carried out. Raises ``Rejected`` with the reasons of one that was not."""
    fields = Fields(proposal, what="proposal")
    if fields.take("state") == ProposalState.EXECUTED.value:
        return proposal
    first, *more = (
        Rejected.because(item.text("code"), item.text("subject"), got=item.text("got"), want=item.text("want"))
        for item in (Fields(item, what="reason") for item in fields.items("reasons", cap=64))
    )
    hint = "it was approved, and refused by what is now: see it with 'cloister custodian proposals', and ask anew"
    reasons = tuple(reason for item in (first, *more) for reason in item.reasons)
    raise Rejected(first.message, reasons=reasons, hint=hint)


def deny(
    transaction: Transaction,
    actor: Actor,
    proposal: str,
    body: Fields,
    *,
    demand_able: Callable[[ProposalRow], None],
) -> Json:
    """Deny it, ``{"reason"?}``: by another person than its author, who could have asked for it."""
    reason = body.text("reason", cap=_MAX_REASON) if "reason" in body else ""
    body.end()
    row = _standing(transaction, proposal)
    _demand_other(actor, row)
    demand_able(row)
    _close(transaction, actor, row, ProposalState.DENIED, reason=reason)
    _record(transaction, EventKind.PROPOSAL_DENIED, actor, row, reason=reason)
    return _view(_found(transaction.connection, proposal))


def withdraw(transaction: Transaction, actor: Actor, proposal: str) -> Json:
    """Take back what oneself proposed, with whichever token of the same person."""
    row = _standing(transaction, proposal)
    if actor.person != row.person:
        raise Rejected.because("forbidden", "proposal", got="another person's", want="your own")
    _close(transaction, actor, row, ProposalState.WITHDRAWN)
    _record(transaction, EventKind.PROPOSAL_WITHDRAWN, actor, row)
    return _view(_found(transaction.connection, proposal))


def expire(context: Context) -> int:
    """Close what nobody decided in time, and forget what was decided long ago; return how many expired."""

    def work(transaction: Transaction) -> int:
        over = expired_proposals(transaction.connection, transaction.now)
        for row in over:
            _close(transaction, "custodian", row, ProposalState.EXPIRED)
            _record(transaction, EventKind.PROPOSAL_EXPIRED, "custodian", row)
        purge_proposals(transaction.connection, transaction.now - _KEPT)
        return len(over)

    with context.reading() as connection:
        waiting = expired_proposals(connection, context.now())
    return context.transact(work) if waiting else 0


def proposal_list(context: Context) -> Json:
    """Return the newest proposals, and which operations need two persons now."""
    with context.reading() as connection:
        rows = list_proposals(connection)
        persons = admins_ever(connection)
        named = sorted(item.value for item in named_operations(context.config))
        ruled = sorted(item.value for item in Operation if in_force(connection, context.config, item))
    rule: dict[str, Json] = {"admins": persons, "in_force": list(ruled), "operations": list(named)}
    return {"proposals": [_view(row) for row in rows], "two_person": rule}


def proposal_view(context: Context, proposal: str) -> Json:
    """Return one proposal, with what came of it."""
    with context.reading() as connection:
        return _view(_found(connection, proposal))


def _found(connection: Connection, proposal: str) -> ProposalRow:
    row = find_proposal(connection, proposal)
    if row is None:
        raise Rejected.because("not_found", "proposal")
    return row


def _standing(transaction: Transaction, proposal: str) -> ProposalRow:
    """Return a proposal that waits to be decided."""
    row = _found(transaction.connection, proposal)
    if row.state is not ProposalState.OPEN:
        raise Rejected.because("already_decided", "proposal", got=row.state.value)
    if transaction.now >= row.expires_at:
        raise Rejected.because("proposal_expired", "proposal", got=dump_time(row.expires_at), hint="ask anew")
    return row


def _demand_other(actor: Actor, row: ProposalRow) -> None:
    """Prove that a second person decides: somebody known, and not the author with another token."""
    if actor.person is None:
        raise Rejected.because("person_wanted", actor.role.value, hint="ask an admin for a token that names you")
    if actor.person == row.person or actor.id == row.actor:
        raise Rejected.because("same_person", "proposal", got=actor.person, want="another person than its author")


def _close(
    transaction: Transaction,
    actor: Actor | str,
    row: ProposalRow,
    state: ProposalState,
    *,
    reason: str = "",
    outcome: bytes | None = None,
) -> None:
    by = actor if isinstance(actor, str) else actor.label
    now = transaction.now
    close_proposal(transaction.connection, row.id, state, now=now, by=by, reason=reason, outcome=outcome)
    if row.operation is Operation.ERASURE:
        wipe_body(transaction.connection, row.id)  # it names whom nothing is to name any more


def _record(transaction: Transaction, kind: EventKind, actor: Actor | str, row: ProposalRow, **more: str) -> None:
    transaction.record(kind, actor, row.id, digest=row.digest.hex(), operation=row.operation.value, **more)


def _view(row: ProposalRow) -> dict[str, Json]:
    outcome = {} if row.outcome is None else parse_json(row.outcome, what="outcome of a proposal")
    return {
        "basis": parse_json(row.basis, what="basis of a proposal"),
        "body": dump_b64u(row.body),
        "by": f"{row.role.value}:{row.actor}",
        "created_at": dump_time(row.created_at),
        "decided_at": None if row.decided_at is None else dump_time(row.decided_at),
        "decided_by": row.decided_by,
        "digest": row.digest.hex(),
        "expires_at": dump_time(row.expires_at),
        "name": row.name,
        "operation": row.operation.value,
        "person": row.person,
        "proposal": row.id,
        "reason": row.reason,
        "request": parse_json(row.request, what="request of a proposal"),
        "state": row.state.value,
        **(outcome if isinstance(outcome, dict) else {}),
    }
