"""Sub-allowances: a chain that only narrows, whoever holds which part of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.crypto.sign import Label, SigningKey
from cloister.errors import Malformed, Rejected, UsageError
from cloister.lending.clauses import Window
from cloister.lending.sub_allowance import (
    MAX_BLOCKS,
    MAX_CHAIN_BYTES,
    MAX_LIFE,
    Block,
    Caveats,
    Chain,
    SubAllowance,
    verify_chain,
)
from cloister.lending.sub_meters import MAX_COUNTED_PER_ROOT, SubMeters
from cloister.lending.terms import InstanceId, LoanId
from cloister.wire import dump_b64u, dump_json, parse_json
from mutations import mutated

if TYPE_CHECKING:
    from cloister.wire import Json

BORROWER, ANN, BOB, EVE = (SigningKey(bytes([n]) * 32) for n in range(1, 5))
LOAN = LoanId("loan-" + "a" * 16)
NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)  # a Monday
END = NOW + timedelta(days=1)
HERE, THERE = InstanceId("1" * 64), InstanceId("2" * 64)


def token(key: SigningKey) -> bytes:
    return dump_b64u(key.seed()).encode()


def root(holder: SigningKey = ANN, loan: LoanId = LOAN, signer: SigningKey = BORROWER, **members: Any) -> Chain:
    caveats = Caveats(**{"not_after": END, **members})
    return Chain.start(signer, loan=loan, holder=holder.verify_key, caveats=caveats)


def narrowed(chain: Chain, secret: SigningKey = ANN, holder: SigningKey = BOB, **members: Any) -> Chain:
    return chain.narrow(secret, holder=holder.verify_key, caveats=Caveats(**members))


def verified(chain: Chain | bytes, holder: SigningKey = ANN) -> SubAllowance:
    data = chain if isinstance(chain, bytes) else chain.dump()
    return verify_chain(data, token(holder), borrower=BORROWER.verify_key, loan=LOAN)


def allowed(sub: SubAllowance, *, model: str = "digits", instance: InstanceId = HERE, now: datetime = NOW) -> bool:
    try:
        sub.demand(model=model, instance=instance, now=now)
    except Rejected:
        return False
    return True


def refused(data: bytes, holder: SigningKey, code: str = "sub_allowance_invalid") -> None:
    with pytest.raises(Rejected) as caught:
        verified(data, holder)
    assert caught.value.code == code


def with_blocks(*blocks: Block) -> bytes:
    return Chain(blocks=blocks).dump()


def test_a_chain_is_verified_to_its_last_holder() -> None:
    chain = narrowed(root(models=("digits", "faces")), models=("digits",), units=5)
    sub = verified(chain, BOB)
    assert sub.ids == chain.ids
    assert allowed(sub)
    assert not allowed(sub, model="faces")


@pytest.mark.parametrize(
    ("caveat", "use"),
    [
        ({"models": ("digits",)}, {"model": "faces"}),
        ({"models": ()}, {"model": "digits"}),
        ({"instance": HERE}, {"instance": THERE}),
        ({"hours": (Window(day=1, start=0, end=480),)}, {"now": NOW}),
        ({"not_before": NOW + timedelta(seconds=1)}, {"now": NOW}),
        ({"not_after": NOW}, {"now": NOW}),
    ],
)
def test_a_use_beyond_a_caveat_is_refused(caveat: dict[str, Any], use: dict[str, Any]) -> None:
    assert not allowed(verified(root(**caveat)), **use)
    assert not allowed(verified(narrowed(root(), **caveat), BOB), **use)


def test_a_widened_caveat_further_down_widens_nothing() -> None:
    sub = verified(narrowed(root(models=("digits",), precision=2), models=("digits", "faces"), precision=9), BOB)
    assert not allowed(sub, model="faces")
    assert sub.precision == 2
    late = verified(narrowed(root(not_after=NOW), not_after=END), BOB)
    assert not allowed(late)


def test_a_block_dropped_from_the_end_needs_the_secret_of_the_one_before() -> None:
    chain = narrowed(root(units=100), units=1)
    refused(with_blocks(chain.blocks[0]), BOB)


def test_a_block_dropped_from_the_middle_breaks_the_chain() -> None:
    long = narrowed(narrowed(root(), units=1), BOB, EVE, units=2)
    refused(with_blocks(long.blocks[0], long.blocks[2]), EVE)


def test_reordered_blocks_break_the_chain() -> None:
    long = narrowed(narrowed(root(), ANN, ANN, units=1), ANN, ANN, units=2)
    first, second, third = long.blocks
    refused(with_blocks(first, third, second), ANN)
    with pytest.raises(Malformed):
        verified(with_blocks(second, first), ANN)


def test_a_block_of_one_chain_cannot_be_spliced_into_another_of_the_same_holder() -> None:
    narrow, wide = root(units=1), root(units=1000)
    spliced = narrowed(narrow).blocks[1]
    refused(with_blocks(wide.blocks[0], spliced), BOB)


def test_chains_of_two_loans_cannot_be_spliced() -> None:
    other = root(loan=LoanId("loan-" + "b" * 16))
    refused(other.dump(), ANN)
    refused(with_blocks(other.blocks[0], narrowed(root()).blocks[1]), BOB)


def test_another_loans_borrower_key_signs_nothing_here() -> None:
    refused(root(signer=EVE).dump(), ANN)


def test_a_stranger_cannot_add_a_block() -> None:
    with pytest.raises(UsageError):
        narrowed(root(), EVE)
    chain = narrowed(root())
    forged = replace(chain.blocks[1], signature=EVE.sign(Label.SUB_ALLOWANCE, chain.blocks[1].payload))
    refused(with_blocks(chain.blocks[0], forged), BOB)


def test_a_chain_without_its_token_is_worth_nothing() -> None:
    for wrong in (None, b"", b"x", token(BOB), token(ANN) + b"A", "é".encode()):
        with pytest.raises(Rejected, match="sub_allowance_invalid"):
            verify_chain(root().dump(), wrong, borrower=BORROWER.verify_key, loan=LOAN)


def test_a_sub_allowance_has_an_end_and_a_near_one() -> None:
    with pytest.raises(UsageError, match="no end"):
        root(not_after=None)
    far = verified(root(not_after=NOW + MAX_LIFE + timedelta(seconds=1)))
    assert not allowed(far)
    assert allowed(far, now=NOW + timedelta(seconds=1))


def test_a_chain_has_at_most_eight_blocks() -> None:
    chain = root()
    for _ in range(MAX_BLOCKS - 1):
        chain = narrowed(chain, ANN, ANN)
    assert verified(chain)
    with pytest.raises(UsageError, match="most there may be"):
        narrowed(chain, ANN, ANN)
    with pytest.raises(Malformed):
        Chain.parse(dump_json({"blocks": [{"payload": "e30", "sig": dump_b64u(bytes(64))}] * 9, "v": 1}))


def test_a_chain_of_too_many_bytes_is_not_made() -> None:
    chain = root(purpose="ü" * 1000)
    while len(chain.dump()) + 3000 <= MAX_CHAIN_BYTES:
        chain = narrowed(chain, ANN, ANN, purpose="ü" * 1000)
    with pytest.raises(UsageError, match="bytes"):
        narrowed(narrowed(chain, ANN, ANN, purpose="ü" * 200), ANN, ANN, purpose="ü" * 1000)


@pytest.mark.parametrize(
    "members",
    [
        {"caveats": {"units": -1}},
        {"caveats": {"models": ["b", "a"]}},
        {"caveats": {"hours": []}},
        {"caveats": {"precision": 16}},
        {"caveats": {"purpose": ""}},
        {"caveats": {"units": None}},
        {"caveats": {"unheard": 1}},
        {"caveats": {}},
        {"holder": dump_b64u(bytes(32))},
        {"previous": "0" * 64},
        {"loan": "loan-x"},
        {"v": 2},
        {"more": 1},
    ],
)
def test_another_first_block_is_malformed(members: dict[str, Json]) -> None:
    value: Any = parse_json(root().blocks[0].payload, what="block")
    payload = dump_json({**value, **members})
    data = dump_json({"blocks": [{"payload": dump_b64u(payload), "sig": dump_b64u(bytes(64))}], "v": 1})
    with pytest.raises(Malformed):
        Chain.parse(data)


def test_a_damaged_chain_is_malformed_or_invalid_and_nothing_else() -> None:
    data = narrowed(root(units=9, models=("digits",)), hours=(Window(day=1, start=0, end=1440),)).dump()
    for damaged in mutated(data, count=5000):
        try:
            found = verified(damaged, BOB)
        except (Malformed, Rejected):
            continue
        assert damaged == data, found


# counting


def test_a_total_is_counted_up_to_the_last_unit_and_given_back_where_nothing_was_served() -> None:
    meters, sub = SubMeters(), verified(root(units=5))
    meters.reserve(sub, 4, NOW)
    with pytest.raises(Rejected, match="sub_allowance_exhausted"):
        meters.reserve(sub, 2, NOW)
    meters.reserve(sub, 1, NOW)
    meters.settle(sub, reserved=4, used=0)
    assert meters.room(sub) == 4
    meters.settle(sub, reserved=1, used=1)
    assert meters.room(sub) == 4


def test_whoever_narrows_a_hundred_times_still_has_the_one_total() -> None:
    meters, chain = SubMeters(), root(units=10)
    served = 0
    for number in range(100):
        child = verified(narrowed(chain, holder=BOB, units=10, name=f"n{number}"), BOB)
        try:
            meters.reserve(child, 1, NOW)
        except Rejected:
            continue
        meters.settle(child, reserved=1, used=1)
        served += 1
    assert served == 10


def test_a_rate_is_a_cap_for_each_minute_of_the_clock() -> None:
    meters, sub = SubMeters(), verified(root(per_minute=3))
    meters.reserve(sub, 3, NOW)
    meters.settle(sub, reserved=3, used=0)
    with pytest.raises(Rejected, match="sub_allowance_rate"):
        meters.reserve(sub, 1, NOW + timedelta(seconds=59))
    meters.reserve(sub, 3, NOW + timedelta(seconds=60))
    assert meters.room(sub) is None


def test_a_refusal_of_one_block_counts_nothing_on_another() -> None:
    meters = SubMeters()
    chain = root(units=5)
    child = verified(narrowed(chain, units=1), BOB)
    with pytest.raises(Rejected):
        meters.reserve(child, 2, NOW)
    assert meters.room(verified(chain)) == 5


def test_one_holder_cannot_fill_the_table_for_others() -> None:
    meters, chain = SubMeters(), root()
    for number in range(MAX_COUNTED_PER_ROOT):
        meters.reserve(verified(narrowed(chain, units=9, name=f"n{number}"), BOB), 1, NOW)
    with pytest.raises(Rejected, match="sub_allowances_busy"):
        meters.reserve(verified(narrowed(chain, units=9, name="more"), BOB), 1, NOW)
    meters.reserve(verified(root(units=1, name="another")), 1, NOW)


def test_what_has_ended_makes_room_and_what_is_running_is_kept() -> None:
    meters, chain = SubMeters(), root()
    running = verified(narrowed(chain, units=9, name="running"), BOB)
    meters.reserve(running, 1, NOW)
    for number in range(MAX_COUNTED_PER_ROOT - 1):
        done = verified(narrowed(chain, units=9, name=f"n{number}", not_after=NOW + timedelta(hours=1)), BOB)
        meters.reserve(done, 1, NOW)
        meters.settle(done, reserved=1, used=1)
    meters.reserve(verified(narrowed(chain, units=9, name="later"), BOB), 1, NOW + timedelta(hours=2))
    meters.settle(running, reserved=1, used=1)
    assert meters.room(running) == 8


# the property that the whole format is for

_names = st.sampled_from(("digits", "faces", "voices"))
_times = st.integers(-3, 3).map(lambda hours: NOW + timedelta(hours=hours))
_windows = st.builds(
    lambda day, start, length: Window(day=day, start=start, end=min(1440, start + length)),
    st.integers(1, 2), st.integers(0, 1439), st.integers(1, 1440),
)  # fmt: skip
_caveats = st.builds(
    Caveats,
    models=st.none() | st.sets(_names).map(lambda names: tuple(sorted(names))),
    units=st.none() | st.integers(0, 6),
    per_minute=st.none() | st.integers(0, 6),
    hours=st.none() | st.sets(_windows, min_size=1, max_size=3).map(lambda found: tuple(sorted(found))),
    not_before=st.none() | _times,
    not_after=st.none() | _times,
    precision=st.none() | st.integers(0, 15),
    instance=st.none() | st.sampled_from((HERE, THERE)),
)
_uses = st.lists(
    st.tuples(_names, st.sampled_from((HERE, THERE)), _times, st.integers(1, 4)), min_size=1, max_size=6
)  # fmt: skip


def serve(sub: SubAllowance, uses: list[tuple[str, InstanceId, datetime, int]]) -> list[bool]:
    """Return which uses, one after the other, are served; each that is stays counted."""
    meters, found = {HERE: SubMeters(), THERE: SubMeters()}, []
    for model, instance, now, units in uses:
        try:
            sub.demand(model=model, instance=instance, now=now)
            meters[instance].reserve(sub, units, now)
        except Rejected:
            found.append(False)
            continue
        meters[instance].settle(sub, reserved=units, used=units)
        found.append(True)
    return found


@given(st.lists(_caveats, max_size=3), _caveats, st.tuples(_names, st.sampled_from((HERE, THERE)), _times))
def test_for_any_chain_and_any_block_what_the_longer_allows_the_shorter_allows(
    blocks: list[Caveats], more: Caveats, use: tuple[str, InstanceId, datetime]
) -> None:
    chain = root()
    for caveats in blocks:
        chain = chain.narrow(ANN, holder=ANN.verify_key, caveats=caveats)
    longer = verified(chain.narrow(ANN, holder=BOB.verify_key, caveats=more), BOB)
    shorter = verified(chain, ANN)
    model, instance, now = use
    if allowed(longer, model=model, instance=instance, now=now):
        assert allowed(shorter, model=model, instance=instance, now=now)
    assert longer.ends() <= shorter.ends()
    if shorter.precision is not None:
        assert longer.precision is not None
        assert longer.precision <= shorter.precision


@given(st.lists(_caveats, max_size=2), _caveats, _uses)
def test_for_any_run_of_uses_no_total_of_any_block_is_exceeded(
    blocks: list[Caveats], more: Caveats, uses: list[tuple[str, InstanceId, datetime, int]]
) -> None:
    chain = root()
    for caveats in (*blocks, more):
        chain = chain.narrow(ANN, holder=ANN.verify_key, caveats=caveats)
    sub = verified(chain, ANN)
    served = serve(sub, uses)
    for caveats in sub.caveats:
        for instance in (HERE, THERE):
            here = [use for use, done in zip(uses, served, strict=True) if done and use[1] == instance]
            if caveats.units is not None:
                assert sum(use[3] for use in here) <= caveats.units
