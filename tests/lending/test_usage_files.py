"""Usage reports where there is no network: files, the voucher that lets them go, the bound where nobody carries."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cloister.crypto.sign import SigningKey, Statement
from cloister.errors import Rejected
from cloister.lending.lease_state import Reservation
from cloister.lending.messages import UsageAck
from cloister.lending.messages.usage import MAX_RECORDS
from cloister.lending.receipt import GENESIS
from cloister.lending.terms import LOAN_METER, LoanId, ModelDigest, ModelTerms, instance_id
from cloister.lending.usage_chain import MAX_UNREPORTED, UsageChain
from cloister.lending.usage_report import head_of, verify_report

KEY, CUSTODIAN = SigningKey(bytes(range(32))), SigningKey(bytes(range(32, 64)))
ME, LOAN = instance_id(KEY.verify_key.raw), LoanId("loan-" + "a" * 16)
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
INFERENCE = Reservation(
    number=1,
    model=ModelTerms(name="digits", digest=ModelDigest("ab" * 32)),
    consumer=None,
    units=1,
    meters=(LOAN_METER,),
)


@pytest.fixture
def chain() -> UsageChain:
    return UsageChain(instance=ME, loan=LOAN)


def charge(chain: UsageChain, count: int) -> None:
    """Charge inferences, each of which leaves one record."""
    for _ in range(count):
        chain.unreceipted(INFERENCE, units=1, now=NOW)


def cut(chain: UsageChain) -> list[int]:
    """End the reports here, as whatever is signed next does; return their first indexes."""
    chain.seal(KEY, upto=chain.index)
    return [first for first, _ in chain.files()]


def acked(statement: bytes) -> bytes:
    """Return what the custodian says to a report."""
    report = verify_report(statement, KEY.verify_key)
    ack = UsageAck(instance=ME, last=report.last, head=head_of(report))
    return Statement.sign(CUSTODIAN, UsageAck.LABEL, ack.dump()).dump()


def is_full(chain: UsageChain) -> bool:
    """Tell whether an inference more is refused for want of reports."""
    try:
        chain.demand_room(0)
    except Rejected as exc:
        assert exc.code == "usage_unreported"  # noqa: PT017 - or there is room
        return True
    return False


def test_more_records_than_an_enclave_keeps_are_served_where_files_carry_them(chain: UsageChain) -> None:
    for _ in range(2):
        charge(chain, MAX_UNREPORTED)
        assert is_full(chain)
        cut(chain)
        assert is_full(chain)  # made, and not written yet
        chain.filed(chain.files()[-1][0])
        assert not is_full(chain)
    assert chain.unreported == 2 * MAX_UNREPORTED  # all of them are still here, to be written again
    head = GENESIS
    for first, statement in chain.files():
        report = verify_report(statement, KEY.verify_key)
        assert (report.first, report.previous) == (first, head)
        assert len(report.records) <= MAX_RECORDS
        head = head_of(report)
    assert head == chain.head


def test_where_nobody_carries_files_serving_ends_at_the_bound_and_running_ones_count(chain: UsageChain) -> None:
    charge(chain, MAX_UNREPORTED - 3)
    chain.demand_room(2)
    with pytest.raises(Rejected, match="usage_unreported"):
        chain.demand_room(3)
    charge(chain, 3)
    cut(chain)
    assert is_full(chain)


def test_records_behind_the_last_file_count_though_older_ones_are_carried(chain: UsageChain) -> None:
    charge(chain, 500)
    cut(chain)
    chain.filed(chain.files()[-1][0])
    charge(chain, MAX_UNREPORTED - 1)
    assert not is_full(chain)
    charge(chain, 1)
    assert is_full(chain)


def test_a_report_made_while_files_were_written_counts_as_carried_by_none(chain: UsageChain) -> None:
    charge(chain, 500)
    (first,) = cut(chain)
    charge(chain, MAX_UNREPORTED - 1)
    cut(chain)  # for a lease request that was made meanwhile
    chain.filed(first)
    assert not is_full(chain)
    charge(chain, 1)
    assert is_full(chain)


def test_a_voucher_lets_go_of_the_reports_up_to_its_request_and_keeps_the_later_ones(chain: UsageChain) -> None:
    charge(chain, 3)
    assert cut(chain) == [1]
    asked = chain.index
    charge(chain, 2)
    assert cut(chain) == [1, 4]
    chain.filed(chain.files()[-1][0])
    chain.reported(asked)
    assert [first for first, _ in chain.files()] == [4]
    assert chain.unreported == 2
    chain.reported(asked)  # the same voucher says it twice
    assert chain.unreported == 2
    charge(chain, MAX_UNREPORTED - 1)
    assert not is_full(chain)  # the two in the file still do not count, and nothing counts twice
    charge(chain, 1)
    assert is_full(chain)


def test_a_voucher_lets_go_of_no_report_that_reaches_beyond_its_request(chain: UsageChain) -> None:
    charge(chain, 3)
    cut(chain)
    chain.reported(2)
    assert [first for first, _ in chain.files()] == [1]


def test_an_acknowledgement_that_comes_after_the_voucher_is_old_news(chain: UsageChain) -> None:
    charge(chain, 2)
    sent = chain.report(KEY, upto=chain.index)
    assert sent is not None
    late = acked(sent)
    charge(chain, 1)
    cut(chain)
    chain.reported(2)  # the voucher came by courier while the report was on its way
    chain.acknowledge(late, CUSTODIAN.verify_key)
    ((first, last),) = chain.files()
    assert first == 3
    with pytest.raises(Rejected, match="unknown_key"):
        chain.acknowledge(late, KEY.verify_key)
    # And the next one is let go of by its own acknowledgement alone.
    chain.acknowledge(late, CUSTODIAN.verify_key)
    assert chain.unreported == 1
    chain.acknowledge(acked(last), CUSTODIAN.verify_key)
    assert chain.unreported == 0


def test_an_acknowledgement_of_what_is_still_on_its_way_must_fit_it(chain: UsageChain) -> None:
    charge(chain, 2)
    cut(chain)
    other = instance_id(CUSTODIAN.verify_key.raw)
    for ack in (
        UsageAck(instance=ME, last=2, head=bytes(32)),
        UsageAck(instance=ME, last=1, head=chain.head),
        UsageAck(instance=other, last=2, head=chain.head),
    ):
        with pytest.raises(Rejected, match="not_pending"):
            chain.acknowledge(Statement.sign(CUSTODIAN, UsageAck.LABEL, ack.dump()).dump(), CUSTODIAN.verify_key)
    assert chain.unreported == 2
