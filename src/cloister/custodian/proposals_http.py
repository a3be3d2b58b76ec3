"""What the routes of proposals do, and what becomes of a call that needs a second person."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cloister.custodian.calls import Call, Member, Reply, json_reply
from cloister.custodian.duty import Approved
from cloister.custodian.service import proposals
from cloister.custodian.service.proposals import Asked
from cloister.custodian.store.issuers import issuers_version
from cloister.custodian.tokens import Actor
from cloister.errors import Rejected
from cloister.lending.events import EventKind
from cloister.wire import Fields, dump_json, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.custodian.calls import Route
    from cloister.custodian.duty import Duty
    from cloister.custodian.service import Transaction
    from cloister.custodian.store.proposals import ProposalRow
    from cloister.wire import Json

__all__ = [
    "DIGEST",
    "approve_proposal",
    "carry_out",
    "deny_proposal",
    "list_proposals",
    "show_proposal",
    "withdraw_proposal",
]

DIGEST = Member(name="digest", type="string", doc="the proposal's digest, lower-case hex: what is approved")
_ACCEPTED = 202
_TRIED = frozenset({"same_person", "person_wanted", "proposal_changed"})  # what an insider would try


def carry_out(route: Route, call: Call) -> Reply:
    """Do what a route does; where it needs a second person, keep it as a proposal and answer 202."""
    duty = route.duty
    if duty is None or not duty.applies(call):
        return route.handler(call)
    request: dict[str, Json] = {
        "parameters": dict(call.parameters), "query": dict(call.query), "route": f"{route.method} {route.path}",
    }  # fmt: skip
    asked = Asked(operation=duty.operation, request=dump_json(request), body=call.body)
    answers: list[Json] = []

    def carrier(work: Callable[[Transaction], Json]) -> Json:
        def either(transaction: Transaction) -> Json:
            context = transaction.context
            if not proposals.in_force(transaction.connection, context.config, duty.operation):
                return work(transaction)
            return proposals.propose(transaction, call.actor, asked, _basis(duty, transaction, call), work)

        answers.append(call.service.run(either, call.once()))
        return answers[0]

    reply = route.handler(replace(call, carrier=carrier))
    is_proposal = isinstance(answers[0], dict) and "proposal" in answers[0]
    return replace(reply, status=_ACCEPTED) if is_proposal else reply


def _basis(duty: Duty, transaction: Transaction, call: Call) -> Json:
    """Return what a proposal is made on; an identity of an issuer's counts only as long as issuers are the same."""
    basis = duty.basis(transaction, call)
    if call.actor.is_token or not isinstance(basis, dict):
        return basis
    return {**basis, "issuers": issuers_version(transaction.connection)}


def list_proposals(call: Call) -> Reply:
    """List proposals that wait for a second person, and what became of others."""
    return json_reply(proposals.proposal_list(call.service.context))


def show_proposal(call: Call) -> Reply:
    """Show one proposal, with what came of it."""
    return json_reply(proposals.proposal_view(call.service.context, call.parameters["proposal"]))


def approve_proposal(call: Call) -> Reply:
    """Approve a proposal of another person's: it is carried out at once, or refused where it no longer fits."""
    proposal = call.parameters["proposal"]
    decided = _decide(
        call,
        lambda transaction, body: proposals.approve(
            transaction,
            call.actor,
            proposal,
            body,
            demand_able=lambda row: _demand_able(row, call.actor),
            perform=lambda tried, row: _perform(call, tried, row),
        ),
    )
    return json_reply(proposals.demand_executed(decided))


def deny_proposal(call: Call) -> Reply:
    """Deny a proposal of another person's."""
    proposal = call.parameters["proposal"]
    decided = _decide(
        call,
        lambda transaction, body: proposals.deny(
            transaction, call.actor, proposal, body, demand_able=lambda row: _demand_able(row, call.actor)
        ),
    )
    return json_reply(decided)


def withdraw_proposal(call: Call) -> Reply:
    """Withdraw a proposal of one's own."""
    proposal = call.parameters["proposal"]
    call.fields().end()
    return json_reply(call.run(lambda transaction: proposals.withdraw(transaction, call.actor, proposal)))


def _decide(call: Call, work: Callable[[Transaction, Fields], Json]) -> Json:
    """Run it; log what only somebody tries who wants to be two."""
    try:
        return call.change(work)
    except Rejected as refusal:
        if refusal.code in _TRIED:
            call.service.context.refuse(EventKind.ACCESS_DENIED, call.actor, "proposal", refusal)
        raise


def _route_of(row: ProposalRow) -> tuple[Route, Duty, Fields]:
    """Return the route that a proposal asks for, what it owes, and what was asked for.

    Raises ``Rejected`` (``proposal_stale``) where there is none such any more.
    """
    from cloister.custodian.routes import ROUTES  # noqa: PLC0415 - the table names this module

    asked = Fields(parse_json(row.request, what="proposal"), what="proposal")
    name = asked.text("route")
    for route in ROUTES:
        if f"{route.method} {route.path}" == name and route.duty is not None:
            return route, route.duty, asked
    raise Rejected.because("proposal_stale", "proposal", got="a route of another version")


def _demand_able(row: ProposalRow, actor: Actor) -> None:
    """Prove that who decides could have asked for it. Raises ``Rejected`` (``forbidden``)."""
    route, _, _ = _route_of(row)
    if actor.role not in (route.roles or ()):
        wanted = ", ".join(sorted(role.value for role in route.roles or ()))
        raise Rejected.because("forbidden", f"{route.method} {route.path}", got=actor.role.value, want=wanted)


def _perform(call: Call, transaction: Transaction, row: ProposalRow) -> Json:
    """Carry out what a proposal asks for, in its author's name, in the approver's transaction.

    Raises ``Rejected``: ``proposal_stale`` where what it was made on is not so any more, and what the use case says.
    """
    route, duty, asked = _route_of(row)
    again = Call(
        service=call.service,
        actor=Actor(id=row.actor, role=row.role, name=row.name, person=row.person),
        method=route.method,
        path=route.path,
        parameters={name: str(value) for name, value in asked.members("parameters", cap=8).items()},
        query={name: str(value) for name, value in asked.members("query", cap=64).items()},
        body=row.body,
        carrier=lambda work: work(transaction),
        approved=Approved(
            proposal=row.id, digest=row.digest, by=f"{row.role.value}:{row.actor}", approved_by=call.actor.label
        ),
    )
    if dump_json(_basis(duty, transaction, again)) != row.basis:
        raise Rejected.because("proposal_stale", "proposal", hint="what it was made on has changed: ask anew")
    return parse_json(route.handler(again).body, what="result")
