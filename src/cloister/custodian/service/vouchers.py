"""Vouchers signed and consumption settled, from files that staff carries (docs/spec/voucher.md).

One transaction each, as for leases: the voucher's bytes are stored before they are handed out, so that a file that
got lost on the way is signed again as the same bytes.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cloister.crypto.sign import Statement
from cloister.custodian.service.debts import owed, repay_booked
from cloister.custodian.service.standing import heard, instance_key, instance_row, loan_row, loan_state
from cloister.custodian.store.instances import save_instance, standing_instances
from cloister.custodian.store.offline import (
    insert_voucher,
    is_voucher,
    last_consumption,
    last_voucher,
    save_consumption,
)
from cloister.errors import Rejected
from cloister.lending.events import EventKind
from cloister.lending.lease_grant import Replay
from cloister.lending.messages import Consumption, VoucherRequest
from cloister.lending.terms import MAX_UNITS
from cloister.lending.voucher_grant import (
    Issued,
    SettleDecision,
    VoucherDecision,
    decide_consumption,
    decide_voucher,
    overdraft_room,
    verify_consumption,
    verify_voucher_request,
)
from cloister.wire import Json, parse_b64u

if TYPE_CHECKING:
    from cloister.custodian.service.context import Context, Transaction
    from cloister.custodian.tokens import Actor
    from cloister.lending.state import InstanceState
    from cloister.lending.terms import LoanId, Meter
    from cloister.wire import Fields

__all__ = ["settle", "sign"]

_MAX_REQUEST_BYTES = 1 << 20


def sign(context: Context, actor: Actor, loan: LoanId, body: Fields) -> bytes:
    """Return the signed voucher for ``{"request", "units"?}``; the same request gets the same bytes.

    Raises ``Malformed`` and ``Rejected`` with every reason; a refusal is in the audit log before anybody reads it.
    """
    statement = parse_b64u(body.text("request", cap=2 * _MAX_REQUEST_BYTES), what="voucher request")
    units = body.integer("units", floor=1, cap=MAX_UNITS) if "units" in body else MAX_UNITS
    body.end()
    # Who signed says the payload, unverified until the key of that instance has spoken.
    claimed = VoucherRequest.parse(Statement.parse(statement, label=VoucherRequest.LABEL).payload)
    request, digest = verify_voucher_request(statement, instance_key(context, claimed.instance))
    try:
        return _sign(context, loan, request, digest, units)
    except Rejected as refusal:
        context.refuse(
            EventKind.VOUCHER_REFUSED, actor, loan, refusal,
            instance=request.instance, req_digest=digest.hex(), seq=request.seq,
        )  # fmt: skip
        raise


def _sign(context: Context, loan: LoanId, request: VoucherRequest, digest: bytes, units: int) -> bytes:
    if request.loan != loan:
        raise Rejected.because("wrong_loan", "voucher request", got=request.loan, want=loan)

    def work(transaction: Transaction) -> bytes | InstanceState:
        decision = _decide(transaction, request, digest, units)
        if isinstance(decision, Replay):
            return decision.reply
        save_instance(transaction.connection, decision.instance)
        transaction.record_all(decision.events)
        if decision.reply is None:
            return decision.instance
        payload = decision.reply.dump()
        reply = Statement.sign(context.vault.signing_key, decision.reply.LABEL, payload).dump()
        transaction.post(decision.postings)
        repay_booked(transaction, loan, decision.postings)
        insert_voucher(
            transaction.connection,
            request.instance,
            Issued(seq=request.seq, req_digest=digest, reply=reply),
            digest=hashlib.sha256(payload).digest(),
            now=transaction.now,
        )
        return reply

    done = context.transact(work)
    if isinstance(done, bytes):
        return done
    raise _found_out(done)  # the alarm is committed before anybody hears of it


def _decide(transaction: Transaction, request: VoucherRequest, digest: bytes, units: int) -> VoucherDecision | Replay:
    connection = transaction.connection
    instance = instance_row(connection, request.instance).state
    row = loan_row(connection, instance.loan)
    term = row.terms.clauses.offline
    others = [item.state for item in standing_instances(connection, loan=instance.loan) if item.state.id != instance.id]
    return decide_voucher(
        request,
        digest,
        instance=instance,
        loan=loan_state(connection, row, transaction.context.config),
        last=last_voucher(connection, instance.id),
        reported=heard(connection, instance, asked=request.served),
        overdraft=0 if term is None else overdraft_room(term, others, owed(connection, instance.loan)),
        units=units,
        epoch=transaction.epoch.epoch,
        now=transaction.now,
        quiet_until=transaction.epoch.quiet_until,
    )


def settle(context: Context, loan: LoanId, statement: bytes) -> Json:
    """Take a signed consumption statement; one that says nothing new changes nothing.

    Raises ``Malformed`` and ``Rejected``. The instance's signature is what counts, whoever brings it.
    """
    claimed = Consumption.parse(Statement.parse(statement, label=Consumption.LABEL).payload)
    message = verify_consumption(statement, instance_key(context, claimed.instance))
    if message.loan != loan:
        raise Rejected.because("wrong_loan", "consumption statement", got=message.loan, want=loan)

    def work(transaction: Transaction) -> tuple[SettleDecision | None, InstanceState, dict[Meter, int]]:
        connection = transaction.connection
        instance = instance_row(connection, message.instance).state
        decision = decide_consumption(
            message,
            instance=instance,
            loan=loan_state(connection, loan_row(connection, instance.loan), context.config),
            last=last_consumption(connection, instance.id),
            reported=heard(connection, instance, asked=message.served),
            is_known=is_voucher(connection, instance.id, message.voucher),
        )
        if decision is not None:
            instance = decision.instance
            transaction.post(decision.postings)
            save_instance(connection, instance)
            transaction.record_all(decision.events)
            if not decision.alarms:
                save_consumption(connection, message, transaction.now)
                repay_booked(transaction, loan, decision.postings)
        return decision, instance, owed(connection, loan)

    decision, instance, debts = context.transact(work)
    if decision is not None and decision.alarms:
        raise _found_out(instance)
    settled = {} if decision is None else decision.settled
    return {
        "instance": message.instance,
        "number": message.number,
        "owed": {str(meter): units for meter, units in debts.items()},
        "settled": {str(meter): units for meter, units in settled.items()},
        "used": {str(meter): units for meter, units in instance.used.items()},
    }


def _found_out(instance: InstanceState) -> Rejected:
    """Return what is said to whoever brought the file; the alarm is in the log and the instance is stopped."""
    code = "overdrawn" if instance.status.value == "overdrawn" else "fork_detected"
    return Rejected.because(code, "instance", got=instance.id, hint="it is stopped; look at the audit log")
