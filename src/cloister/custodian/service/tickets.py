"""Tickets: one inference, one signature, one debit (docs/spec/ticket.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.custodian.service.standing import instance_key, instance_row, loan_row, loan_state
from cloister.custodian.store.instances import save_instance
from cloister.custodian.store.loans import take_turn
from cloister.custodian.store.offline import find_ticket, save_ticket
from cloister.errors import Rejected
from cloister.lending.events import EventKind
from cloister.lending.lease_grant import Replay
from cloister.lending.ticket_grant import decide_ticket, sign_ticket, verify_ticket_request

if TYPE_CHECKING:
    from cloister.custodian.service.context import Context, Transaction
    from cloister.lending.messages import TicketRequest
    from cloister.lending.terms import InstanceId

__all__ = ["ticket"]


def ticket(context: Context, instance: InstanceId, statement: bytes) -> bytes:
    """Return the signed ticket, or the signed refusal, for one inference.

    Raises ``Malformed``, ``Rejected`` (not signed by this instance, wrong index) and ``Unavailable``; then nothing was
    written, or the same request gets the stored answer.
    """
    request, digest = verify_ticket_request(statement, instance_key(context, instance))
    try:
        return _decide(context, instance, request, digest)
    except Rejected as refusal:
        context.refuse(
            EventKind.TICKET_REFUSED, instance, instance, refusal, req_digest=digest.hex(), seq=request.index
        )
        raise


def _decide(context: Context, instance: InstanceId, request: TicketRequest, digest: bytes) -> bytes:
    def work(transaction: Transaction) -> bytes:
        connection = transaction.connection
        state = instance_row(connection, instance).state
        take_turn(connection, state.loan)
        decision = decide_ticket(
            request,
            digest,
            instance=state,
            tickets=find_ticket(connection, instance),
            loan=loan_state(connection, loan_row(connection, state.loan), context.config),
            epoch=transaction.epoch.epoch,
            now=transaction.now,
            quiet_until=transaction.epoch.quiet_until,
        )
        if isinstance(decision, Replay):
            return decision.reply
        reply, tickets = sign_ticket(decision, context.vault.signing_key)
        transaction.post(decision.postings)
        save_ticket(connection, instance, tickets)
        if decision.instance is not state:
            save_instance(connection, decision.instance)
        transaction.record_all(decision.events)
        return reply

    return context.transact(work, beside=True)
