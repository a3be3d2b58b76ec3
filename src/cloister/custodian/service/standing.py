"""How a loan and its instances stand inside one transaction, as ``lending`` decides over them.

Read anew in the transaction that decides, never carried over from an earlier one (T90).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.custodian.store.blocks import BlockKind, blocks_on
from cloister.custodian.store.book import read_epoch
from cloister.custodian.store.contracts import agreed_since
from cloister.custodian.store.instances import InstanceRow, find_instance, find_key
from cloister.custodian.store.issuers import issuers_version
from cloister.custodian.store.loans import LoanRow, balances_of, find_loan
from cloister.custodian.store.models import withdrawn
from cloister.custodian.store.offline import last_consumption
from cloister.custodian.store.usage import find_reported
from cloister.errors import Rejected
from cloister.lending.clauses import RefundRule
from cloister.lending.clock_trust import ClockPolicy
from cloister.lending.state import LoanState
from cloister.lending.terms import LOAN_ID, ConsumerId, LoanId

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from cloister.crypto.sign import VerifyKey
    from cloister.custodian.config import Config
    from cloister.custodian.service.context import Context
    from cloister.lending.state import InstanceState
    from cloister.lending.terms import InstanceId
    from cloister.lending.usage_report import Reported

__all__ = ["counted_clocks", "heard", "instance_key", "instance_row", "loan_row", "loan_state", "parse_loan_id"]


def parse_loan_id(text: str) -> LoanId:
    """Return the loan id in a path. Anything else is nothing we could have."""
    if not LOAN_ID.fullmatch(text):
        raise Rejected.because("not_found", "loan")
    return LoanId(text)


def counted_clocks(config: Config) -> ClockPolicy:
    """Return whose clocks this custodian counts on."""
    return ClockPolicy(tees=frozenset(config.clock_tees), secure_tsc=frozenset(config.secure_tsc_measurements))


def loan_row(connection: Connection, loan: LoanId) -> LoanRow:
    """Return one loan. Raises ``Rejected`` (``not_found``)."""
    row = find_loan(connection, loan)
    if row is None:
        raise Rejected.because("not_found", "loan")
    return row


def loan_state(connection: Connection, row: LoanRow, config: Config) -> LoanState:
    """Return the loan as it stands now. A withdrawn model counts as blocked (T24).

    Whether the borrower has signed is for ``contracts.contract_in_force``: a release asks, a renewal need not.
    """
    terms = row.terms
    digests = {digest for model in terms.models for digest in model.standing}
    blocks = blocks_on(connection, terms.loan, digests)
    stopped = {block.subject for block in blocks if block.kind is BlockKind.MODEL} | withdrawn(connection, digests)
    return LoanState(
        terms=terms,
        balances=balances_of(connection, terms.loan),
        policy_digest=hashlib.sha256(row.policy).hexdigest(),
        block_version=read_epoch(connection).block_version,
        blocked=any(block.kind is BlockKind.LOAN and block.subject == terms.loan for block in blocks),
        blocked_models=frozenset(digest for digest in digests if digest in stopped),
        blocked_consumers=frozenset(
            ConsumerId(block.subject)
            for block in blocks
            if block.kind is BlockKind.CONSUMER and block.loan == terms.loan
        ),
        evidence_age=timedelta(seconds=config.evidence_max_age_s),
        refund_on_close=terms.clauses.refund is RefundRule.UNUSED,
        agreed_at=agreed_since(connection, terms.loan),
        issuers=0 if terms.consumers is None else issuers_version(connection),
    )


def instance_row(connection: Connection, instance: InstanceId) -> InstanceRow:
    """Return one instance. Raises ``Rejected`` (``not_found``)."""
    row = find_instance(connection, instance)
    if row is None:
        raise Rejected.because("not_found", "instance")
    return row


def heard(connection: Connection, instance: InstanceState, *, asked: int = -1, ticketed: bool = True) -> Reported:
    """Return what an instance has reported, and the consumption statement that came before the reports."""
    found = find_reported(connection, instance.id, asked=asked, ticketed=ticketed)
    if instance.voucher_until is None:  # it never had a voucher, and states nothing
        return found
    return replace(found, told=last_consumption(connection, instance.id))


def instance_key(context: Context, instance: InstanceId) -> VerifyKey:
    """Return the instance's key without touching state (C1). An id is its key's digest, so one that is known stays."""
    key = context.instance_keys.get(instance)
    if key is not None:
        return key
    with context.reading() as connection:
        key = find_key(connection, instance)
    if key is None:
        raise Rejected.because("not_found", "instance")
    context.instance_keys.keep(instance, key)
    return key
