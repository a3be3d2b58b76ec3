"""Leases, closes and status: what a running instance and its consumers ask (docs/spec/lease.md).

One transaction for a lease request and for all that wait with it, C1 to C9; the reply's bytes are stored before
they are sent, so a lost answer is asked for again and is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeAlias

from cloister.crypto.sign import Statement
from cloister.custodian.service.debts import repay_booked
from cloister.custodian.service.standing import heard, instance_key, instance_row, loan_row, loan_state
from cloister.custodian.service.usage import take
from cloister.custodian.store.instances import save_instance
from cloister.custodian.store.keys import move_instance
from cloister.custodian.store.loans import take_turn
from cloister.errors import Malformed, Rejected
from cloister.lending.ending import decide_close, verify_close
from cloister.lending.events import EventKind
from cloister.lending.lease_grant import Replay, decide_lease, sign_decision, verify_request
from cloister.lending.messages import Status
from cloister.lending.standing import standing_models
from cloister.lending.state import InstanceStatus
from cloister.lending.terms import DIGEST, InstanceId
from cloister.lending.usage_report import ReportDecision, sign_ack, verify_report

if TYPE_CHECKING:
    from cloister.attest.rats import Nonce
    from cloister.crypto.sign import VerifyKey
    from cloister.custodian.service.context import Context, Transaction
    from cloister.lending.lease_grant import LeaseDecision
    from cloister.lending.messages import LeaseRequest, UsageReport
    from cloister.lending.state import InstanceState
    from cloister.lending.terms import Terms
    from cloister.lending.usage_report import Reported

__all__ = ["Leases", "Renewed", "close", "parse_instance_id", "status"]


def parse_instance_id(text: str) -> InstanceId:
    """Return the instance id in a path. Anything else is nothing we could have."""
    if not DIGEST.fullmatch(text):
        raise Rejected.because("not_found", "instance")
    return InstanceId(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """What comes of a renewal. ``ack`` is None where no report came with it; ``refused`` says why one was not taken."""

    answer: bytes
    ack: bytes | None = None
    refused: Rejected | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """One verified lease request."""

    instance: InstanceId
    request: LeaseRequest
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """One verified usage report and its exact bytes."""

    message: UsageReport
    statement: bytes


_Taken: TypeAlias = "ReportDecision | Rejected | None"


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
        return self.renew(instance, statement, None).answer

    def renew(self, instance: InstanceId, statement: bytes, report: bytes | None) -> Renewed:
        """Take a usage report and answer the lease request behind it, in one transaction.

        The same as one after the other: a report that is refused keeps no request back. Raises as ``lease``; a
        report that was taken then stands.
        """
        key = instance_key(self._context, instance)
        request, digest = verify_request(statement, key)
        asked, told = _Asked(instance=instance, request=request, digest=digest), _told(report, key)
        try:
            taken, answer = self._context.transact(lambda work: _renew(work, asked, told), beside=True)
            if isinstance(taken, Rejected) and isinstance(told, _Told):  # of what nobody signed nothing is written (C1)
                self._context.refuse(EventKind.USAGE_REFUSED, instance, instance, taken, first=told.message.first)
            if isinstance(answer, Rejected):
                raise answer
        except Rejected as refusal:
            self._context.refuse(
                EventKind.LEASE_REFUSED, instance, instance, refusal, req_digest=digest.hex(), seq=request.seq
            )
            raise
        return self._renewed(taken, answer)

    def _renewed(self, taken: _Taken, answer: bytes) -> Renewed:
        if taken is None:
            return Renewed(answer=answer)
        if isinstance(taken, Rejected):
            return Renewed(answer=answer, refused=taken)
        if taken.ack is None:
            return Renewed(answer=answer, refused=Rejected.because(taken.code, "usage report"))
        return Renewed(answer=answer, ack=sign_ack(taken.ack, self._context.vault.signing_key))


def _told(report: bytes | None, key: VerifyKey) -> _Told | Rejected | None:
    """Return the report that came with a request, proven (C1), or why it is none."""
    if report is None:
        return None
    try:
        return _Told(message=verify_report(report, key), statement=report)
    except Rejected as refusal:
        return refusal
    except Malformed as exc:
        return Rejected.because("malformed", "usage report", got=exc.message)


def _renew(transaction: Transaction, asked: _Asked, told: _Told | Rejected | None) -> tuple[_Taken, bytes | Rejected]:
    """Take the report, then answer. What this raises must undo the whole transaction."""
    connection = transaction.connection
    instance = instance_row(connection, asked.instance).state
    take_turn(connection, instance.loan)
    loan = loan_row(connection, instance.loan)
    has_tickets = any(model.ticketed for model in loan.terms.models)
    reported = heard(connection, instance, asked=asked.request.served, ticketed=has_tickets)
    taken: _Taken = None
    if isinstance(told, _Told):
        taken = _take(transaction, told, instance, loan.terms, reported)
        if isinstance(taken, ReportDecision):
            instance, reported = taken.instance, taken.reported
    else:
        taken = told
    try:
        decision = decide_lease(
            asked.request,
            asked.digest,
            instance=instance,
            loan=loan_state(connection, loan, transaction.context.config),
            reported=reported,
            epoch=transaction.epoch.epoch,
            now=transaction.now,
            quiet_until=transaction.epoch.quiet_until,
        )
    except Rejected as refusal:
        return taken, refusal  # nothing was written for it
    return taken, decision.reply if isinstance(decision, Replay) else _write(transaction, decision)


def _take(
    transaction: Transaction, told: _Told, instance: InstanceState, terms: Terms, reported: Reported
) -> ReportDecision | Rejected:
    """Take the report, or return why nothing was written for it."""
    try:
        return take(transaction, told.message, told.statement, instance=instance, terms=terms, reported=reported)
    except Rejected as refusal:
        return refusal


def _write(transaction: Transaction, decision: LeaseDecision) -> bytes:
    """Write what was decided and return the reply, whose bytes are stored before they are sent (C7, C12)."""
    reply, state = sign_decision(decision, transaction.context.vault.signing_key)
    transaction.post(decision.postings)
    save_instance(transaction.connection, state)
    move_instance(transaction.connection, state.id)
    transaction.record_all(decision.events)
    repay_booked(transaction, state.loan, decision.postings)
    return reply


def close(context: Context, instance: InstanceId, statement: bytes) -> None:
    """Note that an instance has ended; saying so twice changes nothing."""
    message = verify_close(statement, instance_key(context, instance))

    def work(transaction: Transaction) -> None:
        row = instance_row(transaction.connection, instance)
        take_turn(transaction.connection, row.state.loan)
        loan = loan_state(transaction.connection, loan_row(transaction.connection, row.state.loan), context.config)
        reported = heard(transaction.connection, row.state, asked=message.served)
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
        models=standing_models(loan),
        state="dead" if state == "active" and not left else state,
        valid_for=timedelta(seconds=int(left.total_seconds())),
        block_version=loan.block_version,
        issued_at=now,
    )
    return Statement.sign(context.vault.signing_key, Status.LABEL, message.dump()).dump()
