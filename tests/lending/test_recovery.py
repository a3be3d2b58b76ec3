"""An older database: noticed in every figure, and come back from without serving twice (T38, C10, C11)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from cloister.crypto.sign import SigningKey
from cloister.errors import Rejected, UsageError
from cloister.lending.audit import Checkpoint
from cloister.lending.clock import lifetime
from cloister.lending.ending import block_bound, decide_write_off
from cloister.lending.ledger import ALLOWANCE, WRITTEN_OFF
from cloister.lending.merkle import MerkleTree
from cloister.lending.recovery import Position, decide_recovery, verify_position
from cloister.lending.state import InstanceState, InstanceStatus
from cloister.lending.terms import LOAN_METER, LoanId, Meter, instance_id

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ORIGIN = SigningKey(b"c" * 32).verify_key
LOAN, OTHER = LoanId("loan-" + "a" * 16), LoanId("loan-" + "b" * 16)
POSITION = Position(origin=ORIGIN, epoch=2, ledger_size=10, escrowed=30, block_version=4)
T = timedelta(seconds=60)


def tree(size: int = 6) -> MerkleTree:
    grown = MerkleTree()
    for number in range(size):
        grown.append(bytes([number]))
    return grown


OUTSIDE = Checkpoint(
    origin=ORIGIN,
    size=6,
    root=tree().root(),
    epoch=2,
    ledger_size=10,
    escrowed=30,
    block_version=4,
    at=NOW,
)


def instance(status: InstanceStatus = InstanceStatus.ACTIVE, *, name: bytes = b"i", **members: object) -> InstanceState:
    key = SigningKey(name * 32).verify_key
    state = InstanceState(
        id=instance_id(key.raw),
        loan=LOAN,
        key=key,
        epoch=2,
        policy_digest="c" * 64,
        attested_at=NOW,
        committed_at=NOW,
        dead_at=NOW + lifetime(T),
        status=status,
        limits={LOAN_METER: 10},
        used={LOAN_METER: 4},
    )
    return replace(state, **members)  # type: ignore[arg-type]  # names are the caller's


def test_a_database_that_is_as_far_or_farther_starts() -> None:
    verify_position(POSITION, tree(), OUTSIDE)
    verify_position(replace(POSITION, ledger_size=11, escrowed=31, block_version=5), tree(8), OUTSIDE)


@pytest.mark.parametrize("name", ["epoch", "ledger_size", "escrowed", "block_version"])
def test_t38_a_database_older_in_one_figure_does_not_start(name: str) -> None:
    older = replace(POSITION, **{name: getattr(POSITION, name) - 1})
    with pytest.raises(Rejected) as caught:
        verify_position(older, tree(), OUTSIDE)
    assert [reason.code for reason in caught.value.reasons] == ["database_older"]


def test_t38_a_shorter_or_another_log_does_not_start() -> None:
    with pytest.raises(Rejected) as caught:
        verify_position(POSITION, tree(5), OUTSIDE)
    assert [reason.subject for reason in caught.value.reasons] == ["audit log"]
    with pytest.raises(Rejected) as caught:
        verify_position(POSITION, tree(), replace(OUTSIDE, root=bytes(32)))
    assert [reason.code for reason in caught.value.reasons] == ["audit_changed"]
    other = SigningKey(b"o" * 32).verify_key
    with pytest.raises(Rejected, match="wrong_origin"):
        verify_position(replace(POSITION, origin=other), tree(), OUTSIDE)


def test_recovery_writes_off_what_was_lost_and_all_that_was_leased() -> None:
    balances = {(LOAN, LOAN_METER): 5, (LOAN, Meter("model:a")): 0, (OTHER, LOAN_METER): 100}
    done = instance(InstanceStatus.CLOSED, name=b"d", written_off=True)
    recovery = decide_recovery(
        POSITION,
        replace(OUTSIDE, escrowed=37, block_version=5),
        instances=[instance(), done],
        balances=balances,
        longest_ttl=T,
        now=NOW,
    )
    assert recovery.epoch == 3
    assert recovery.quiet_until == NOW + lifetime(T)
    assert recovery.debits == {(LOAN, LOAN_METER): 5, (OTHER, LOAN_METER): 7}
    assert [item.status for item in recovery.instances] == [InstanceStatus.FENCED, InstanceStatus.CLOSED]
    assert all(item.written_off for item in recovery.instances)
    assert {(item.debit_account == ALLOWANCE, item.credit_account, item.units) for item in recovery.postings} == {
        (True, WRITTEN_OFF, 5),
        (True, WRITTEN_OFF, 7),
        (False, WRITTEN_OFF, 6),
    }
    assert recovery.blocks_lost
    assert recovery.block_version == 6


def test_recovery_of_a_database_that_lost_nothing_costs_the_leases_only() -> None:
    recovery = decide_recovery(
        POSITION, OUTSIDE, instances=[], balances={(LOAN, LOAN_METER): 5}, longest_ttl=T, now=NOW
    )
    assert (recovery.debits, recovery.postings, recovery.blocks_lost) == ({}, (), False)


def test_another_custodians_checkpoint_recovers_nothing() -> None:
    foreign = replace(OUTSIDE, origin=SigningKey(b"o" * 32).verify_key)
    with pytest.raises(UsageError):
        decide_recovery(POSITION, foreign, instances=[], balances={}, longest_ttl=T, now=NOW)


@pytest.mark.parametrize("status", list(InstanceStatus))
def test_c8_the_rest_is_written_off_once_no_lease_can_live(status: InstanceStatus) -> None:
    held = instance(status)
    assert decide_write_off(held, now=held.dead_at - timedelta(microseconds=1)) is None
    ended = decide_write_off(held, now=held.dead_at)
    assert ended is not None
    assert [(item.credit_account, item.units) for item in ended.postings] == [(WRITTEN_OFF, 6)]
    assert ended.instance.status is (InstanceStatus.DEAD if status is InstanceStatus.ACTIVE else status)
    assert ended.instance.limits == held.limits
    assert decide_write_off(ended.instance, now=held.dead_at) is None


def test_the_bound_of_a_block_is_a_time_and_the_units_still_out() -> None:
    live = instance()
    gone = replace(instance(name=b"g"), written_off=True)
    bound = block_bound([live, gone], ttl=T, now=NOW)
    assert (bound.seconds, bound.units) == (62, 6)
    assert block_bound([live], ttl=T, now=live.dead_at).units == 0
