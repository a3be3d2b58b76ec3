"""Fork evidence brought from outside: two words of one instance that one honest memory cannot have said (I8)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cloister.custodian.store.instances import find_instance, save_instance
from cloister.custodian.store.usage import find_fork, insert_fork, report_with
from cloister.errors import Rejected
from cloister.lending.events import EventKind
from cloister.lending.receipt import ForkEvidence, fork_evidence, verify_receipt
from cloister.lending.state import InstanceStatus
from cloister.lending.usage_report import verify_report
from cloister.wire import Fields, Json, parse_b64u

if TYPE_CHECKING:
    from cloister.crypto.sign import VerifyKey
    from cloister.custodian.service.context import Context, Transaction
    from cloister.lending.messages import Receipt
    from cloister.lending.terms import InstanceId

__all__ = ["MAX_RECEIPT_BYTES", "submit"]

MAX_RECEIPT_BYTES = 16 * 1024
_MOST = 2


def submit(context: Context, instance: InstanceId, body: Fields) -> Json:
    """Take ``{"receipts": [A, B]}``, or ``[A]`` to be held against the record that we have of the same index.

    Both are proven to be signed by the registered key of this instance before anything is written. Writes the
    event, keeps the evidence and stops the instance in one transaction; the same again changes nothing.
    Raises ``Malformed`` and ``Rejected`` (``not_found``, ``signature_invalid``, ``no_fork``, ...).
    """
    texts = body.texts("receipts", cap=_MOST, item_cap=2 * MAX_RECEIPT_BYTES)
    body.end()
    statements = [parse_b64u(text, what="receipt", cap=MAX_RECEIPT_BYTES) for text in texts]
    if not statements:
        body.fail("receipts", "want one or two")
    with context.reading() as connection:
        row = find_instance(connection, instance)
    if row is None:
        raise Rejected.because("not_found", "instance")
    receipts = [verify_receipt(statement, row.state.key) for statement in statements]
    key = row.state.key

    def work(transaction: Transaction) -> Json:
        fork, against = _found(transaction, receipts, statements, key)
        return _stop(transaction, fork, statements[0], against)

    return context.transact(work)


def _found(
    transaction: Transaction, receipts: list[Receipt], statements: list[bytes], key: VerifyKey
) -> tuple[ForkEvidence, bytes]:
    """Return the fork that is proven, and the second of the two statements that prove it."""
    first = receipts[0]
    if len(receipts) == _MOST:
        other, against = receipts[1], statements[1]
        fork = fork_evidence(first, other)
    else:
        stored = report_with(transaction.connection, first.instance, first.index)
        if stored is None:
            raise Rejected.because("no_fork", f"receipt {first.index}", got="no record of this index is reported")
        report, against = verify_report(stored, key), stored
        fork = fork_evidence(first, report.records[first.index - report.first])
    if fork is None:
        raise Rejected.because("no_fork", f"receipt {first.index}", want="two different words on one index")
    return fork, against


def _stop(transaction: Transaction, fork: ForkEvidence, first: bytes, second: bytes) -> Json:
    """Note a proven fork and stop the instance, once."""
    known = find_fork(transaction.connection, fork.instance)
    row = find_instance(transaction.connection, fork.instance)
    if row is None:
        raise Rejected.because("not_found", "instance")
    state = row.state
    if known is None:
        insert_fork(transaction.connection, fork.instance, fork.index, first, second, now=transaction.now)
        if state.status is InstanceStatus.ACTIVE:
            state = replace(state, status=InstanceStatus.FORKED)
            save_instance(transaction.connection, state)
        transaction.record(EventKind.FORK_DETECTED, fork.instance, state.loan, index=fork.index, loan=str(state.loan))
    return {"fork": True, "index": fork.index if known is None else known, "instance": fork.instance,
            "state": state.status.value}  # fmt: skip
