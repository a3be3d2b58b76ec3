"""Leases, closes and status: what a running instance and its consumers ask (docs/spec/lease.md).

One transaction for a lease request and for all that wait with it, C1 to C9; the reply's bytes are stored before
they are sent, so a lost answer is asked for again and is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.crypto.sign import Statement
from cloister.custodian.service.debts import repay_booked
from cloister.custodian.service.standing import loan_row, loan_state
from cloister.custodian.store.instances import find_instance, find_key, save_instance
from cloister.custodian.store.loans import take_turn
from cloister.custodian.store.usage import find_reported
from cloister.errors import Rejected
from cloister.lending.ending import decide_close, verify_close
from cloister.lending.events import EventKind
from cloister.lending.lease_grant import Replay, decide_lease, sign_decision, verify_request
from cloister.lending.messages import Status
from cloister.lending.state import InstanceStatus
from cloister.lending.terms import DIGEST, InstanceId

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from cloister.attest.rats import Nonce
    from cloister.crypto.sign import VerifyKey
    from cloister.custodian.service.context import Context, Transaction
    from cloister.custodian.store.instances import InstanceRow
    from cloister.lending.lease_grant import LeaseDecision
    from cloister.lending.messages import LeaseRequest

__all__ = ["Leases", "close", "instance_key", "instance_row", "parse_instance_id", "status"]


def parse_instance_id(text: str) -> InstanceId:
    """Return the instance id in a path. Anything else is nothing we could have."""
    if not DIGEST.fullmatch(text):
        raise Rejected.because("not_found", "instance")
    return InstanceId(text)


def instance_row(connection: Connection, instance: InstanceId) -> InstanceRow:
    """Return one instance. Raises ``Rejected`` (``not_found``)."""
    row = find_instance(connection, instance)
    if row is None:
        raise Rejected.because("not_found", "instance")
    return row


def instance_key(context: Context, instance: InstanceId) -> VerifyKey:
    """Return the instance's key without touching state (C1)."""
    with context.reading() as connection:
        key = find_key(connection, instance)
    if key is None:
        raise Rejected.because("not_found", "instance")
    return key


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """One verified lease request."""

    instance: InstanceId
    request: LeaseRequest
    digest: bytes


class Leases:
    """Answers lease requests."""

    def __init__(self, context: Context) -> None:
        """Answer in ``context``."""
        self._context = context

    def lease(self, instance: InstanceId, statement: bytes) -> bytes:
        """Return the signed lease, or the signed refusal, for one lease request.

        Raises ``Malformed``, ``Rejected`` (not signed by this instance, wrong sequence number) and
        ``Unavailable``; then nothing was written, or the same request gets the stored answer.
        """
        request, digest = verify_request(statement, instance_key(self._context, instance))
        try:
            return self._one(_Asked(instance=instance, request=request, digest=digest))
        except Rejected as refusal:
            self._context.refuse(
                EventKind.LEASE_REFUSED, instance, instance, refusal, req_digest=digest.hex(), seq=request.seq
            )
            raise

    def _one(self, asked: _Asked) -> bytes:
        """Decide and write in one transaction; the reply's bytes are stored before they are sent (C7, C12)."""
        answer = self._context.transact(lambda transaction: _answer(transaction, asked), beside=True)
        if isinstance(answer, Rejected):
            raise answer
        return answer


def _answer(transaction: Transaction, asked: _Asked) -> bytes | Rejected:
    """Return the reply, or why there is none. What it raises must undo the whole transaction."""
    try:
        decision = _decision(transaction, asked)
    except Rejected as refusal:
        return refusal  # nothing was written for it
    if isinstance(decision, Replay):
        return decision.reply
    reply, state = sign_decision(decision, transaction.context.vault.signing_key)
    transaction.post(decision.postings)
    save_instance(transaction.connection, state)
    transaction.record_all(decision.events)
    repay_booked(transaction, state.loan, decision.postings)
    return reply


def _decision(transaction: Transaction, asked: _Asked) -> LeaseDecision | Replay:
    """Read how instance and loan stand in this transaction, after whatever was decided in it before; decide."""
    row = instance_row(transaction.connection, asked.instance)
    take_turn(transaction.connection, row.state.loan)
    loan = loan_row(transaction.connection, row.state.loan)
    return decide_lease(
        asked.request,
        asked.digest,
        instance=row.state,
        loan=loan_state(transaction.connection, loan, transaction.context.config),
        reported=find_reported(transaction.connection, asked.instance, asked=asked.request.served),
        epoch=transaction.epoch.epoch,
        now=transaction.now,
        quiet_until=transaction.epoch.quiet_until,
    )


def close(context: Context, instance: InstanceId, statement: bytes) -> None:
    """Note that an instance has ended; saying so twice changes nothing."""
    message = verify_close(statement, instance_key(context, instance))

    def work(transaction: Transaction) -> None:
        row = instance_row(transaction.connection, instance)
        take_turn(transaction.connection, row.state.loan)
        loan = loan_state(transaction.connection, loan_row(transaction.connection, row.state.loan), context.config)
        reported = find_reported(transaction.connection, instance, asked=message.served)
        decision = decide_close(message, instance=row.state, loan=loan, reported=reported, now=transaction.now)
        if decision is None:
            return
        transaction.post(decision.postings)
        save_instance(transaction.connection, decision.instance)
        transaction.record_all(decision.events)
        repay_booked(transaction, row.state.loan, decision.postings)

    context.transact(work, beside=True)


def status(context: Context, instance: InstanceId, nonce: Nonce) -> bytes:
    """Return the signed standing of an instance for a consumer who chose ``nonce`` (T4). Writes nothing."""
    with context.reading() as connection:
        row = instance_row(connection, instance)
        loan = loan_state(connection, loan_row(connection, row.state.loan), context.config)
    now = context.now()
    state = "blocked" if loan.blocked and row.state.status is InstanceStatus.ACTIVE else row.state.status.value
    left = max(timedelta(0), row.state.dead_at - now)
    message = Status(
        instance=instance,
        nonce=nonce,
        operator=loan.terms.borrower,
        loan=loan.terms.loan,
        kem_digest=row.kem_digest,
        models=tuple(model.digest for model in loan.terms.models if model.digest not in loan.blocked_models),
        state="dead" if state == "active" and not left else state,
        valid_for=timedelta(seconds=int(left.total_seconds())),
        block_version=loan.block_version,
        issued_at=now,
    )
    return Statement.sign(context.vault.signing_key, Status.LABEL, message.dump()).dump()
