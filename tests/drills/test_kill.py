"""R3 and R4: kill -9 of custodian and enclave under load (docs/threat-model.md; 30-metering "How to test").

After every kill: what was acknowledged is stored, every unit is somewhere, the database is whole, the log
verifies and its checkpoint extends the one before, and nothing was served that was not granted.
"""

from __future__ import annotations

import random
import statistics
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
from counts import CUSTODIAN_KILLS, ENCLAVE_KILLS, KILLS_IN_TURNS
from disk import demand_extends, demand_logged, read_home
from drill_house import DrillHouse
from load import Asker, Staff, demand_expected, receipts_of, until_served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from disk import OnDisk

    Measured = Callable[[str, object], None]

pytestmark = [
    pytest.mark.timeout(240),
    # A kill in the middle of a TLS handshake leaves the HTTP library's socket to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning"),
]
UNITS = 4  # added by staff at a time


@contextmanager
def asking(house: DrillHouse, *, pause_s: float = 0.02) -> Iterator[list[Asker]]:
    """Let every consumer of the loan ask in a thread of its own."""
    askers = [Asker(house, name, pause_s=pause_s) for name in house.tokens]
    with ExitStack() as stack:
        for asker in askers:
            stack.callback(asker.stop)
            asker.start()
        yield askers


@contextmanager
def adding(house: DrillHouse) -> Iterator[Staff]:
    """Let staff add units in a thread of its own."""
    staff = Staff(house, units=UNITS)
    staff.start()
    try:
        yield staff
    finally:
        staff.stop()


def demand_sound(house: DrillHouse, scratch: Path, before: OnDisk | None, staff: Staff | None) -> OnDisk:
    """Prove the pass rule of R3 on what the dead custodian left, and return it."""
    asks = [] if staff is None else list(staff.asks)
    added = 0 if staff is None else staff.added
    now = read_home(house.home, house.made.key, scratch)
    demand_extends(now, before)
    assert set(asks) <= now.asked
    demand_logged(now, asks, detail="request")
    tried = 0 if staff is None else staff.keys * UNITS
    assert house.allowance + added <= now.granted(house.loan) <= house.allowance + tried
    return now


def demand_no_more_than_granted(now: OnDisk, house: DrillHouse, askers: list[Asker]) -> None:
    """Prove I1 per instance: no receipt beyond the ceiling that is on the custodian's disk."""
    counts = dict.fromkeys(now.instances, 0)
    for receipt in receipts_of(askers):
        assert receipt.loan == house.loan
        counts[receipt.instance] += receipt.units
    for instance, units in counts.items():
        assert units <= now.limit_of(instance)


def kill_custodians(folder: Path, *, rounds: int, seed: int, measured: Measured) -> None:
    """R3: the enclave must not notice more than a pause."""
    rng = random.Random(seed)
    ttl_s = 6
    with DrillHouse(folder / "parties", ttl_s=ttl_s, max_ceiling=16, allowance=40) as house:
        house.start_enclave()
        before: OnDisk | None = None
        lost = 0
        with asking(house) as askers:
            until_served(house, askers, more=1, within_s=60)
            began = time.monotonic()
            with adding(house) as staff:
                for turn in range(rounds):
                    time.sleep(rng.uniform(0.02, 0.35))
                    house.kill_custodian()
                    down = time.monotonic()
                    # What consumers hold now was leased before the kill, so it must be on the disk.
                    before = demand_sound(house, folder / "scratch", before, staff)
                    demand_no_more_than_granted(before, house, askers)
                    if turn % 5 == 4:  # and once more while it starts
                        house.start_custodian(wait=False)
                        time.sleep(rng.uniform(0.1, 0.9))
                        house.kill_custodian()
                        before = demand_sound(house, folder / "scratch", before, staff)
                    house.start_custodian()
                    until_served(house, askers, more=2, within_s=60, down_s=time.monotonic() - down)
                until_quiet(staff)
            lost = staff.lost
            measured("kills, a minute", f"{rounds}, {per_minute(rounds, since=began)}")
            measured(
                "acknowledged additions and requests, of them lost", f"{staff.added // UNITS + len(staff.asks)}, 0"
            )
            measured("calls of staff that got no answer and were made again", lost)
            # Nothing was lost on the way: what is granted is served to the last unit, by the same instance.
            until_exhausted(house, askers, within_s=60 + 2 * rounds)
            served = sum(receipt.units for receipt in receipts_of(askers))
            meter = house.meter()
            assert meter["granted"] == house.allowance + staff.added
            assert served <= meter["granted"]
            if len(house.instances) == 1:
                assert served == meter["granted"]
        demand_expected(askers)
        assert lost, "no kill ever hit a request: the load is too thin to prove anything"
        assert house.call("GET", "/v1/instances")["instances"][0]["state"] == "active"


def per_minute(rounds: int, *, since: float) -> str:
    """Return how many rounds a minute there were."""
    return f"{60 * rounds / (time.monotonic() - since):.0f}"


def until_quiet(staff: Staff) -> None:
    """Wait until staff's last addition is acknowledged."""
    end = time.monotonic() + 30
    added = staff.added
    while staff.added == added:
        assert time.monotonic() < end
        time.sleep(0.02)


def until_exhausted(house: DrillHouse, askers: list[Asker], *, within_s: float) -> None:
    """Wait until every consumer is told that nothing is left, and the ledger says so too."""
    end = time.monotonic() + within_s
    while True:
        assert time.monotonic() < end, house.meter()
        seen = sum(len(asker.receipts) for asker in askers)
        time.sleep(0.6)
        meter = house.meter()
        if meter["balance"] == 0 and seen == sum(len(asker.receipts) for asker in askers):
            return


def kill_enclaves(folder: Path, *, rounds: int, seed: int, measured: Measured) -> None:
    """R4: each kill costs at most N units, and a new instance begins at nothing."""
    rng = random.Random(seed)
    ceiling = 12
    allowance = rounds * 40
    with DrillHouse(folder / "parties", ttl_s=3, max_ceiling=ceiling, allowance=allowance) as house:
        began = time.monotonic()
        with asking(house) as askers:
            for _ in range(rounds):
                instance = house.start_enclave()
                until_served(house, askers, more=1, within_s=60)
                time.sleep(rng.uniform(0.0, 0.3))
                house.kill_enclave()
                # A new instance began at index 1 with its own chain, whoever saw it first.
                first = min(r.index for r in receipts_of(askers) if r.instance == instance)
                assert first <= 1 + len(askers)
            measured("kills, a minute", f"{rounds}, {per_minute(rounds, since=began)}")
            house.start_enclave()
            until_exhausted(house, askers, within_s=60 + 2 * rounds)
        demand_expected(askers)
        until_written_off(house, live=1)
        house.kill_custodian()
        now = demand_sound(house, folder / "scratch", None, None)
        demand_no_more_than_granted(now, house, askers)
        receipts = receipts_of(askers)
        assert len(set(house.instances)) == rounds + 1 == len(now.instances)
        for instance in house.instances[:-1]:
            assert now.written_off_of(instance) <= ceiling  # I4
            seen = sum(receipt.units for receipt in receipts if receipt.instance == instance)
            # Besides those, only an answer that was on its way to a consumer can be missing.
            assert now.limit_of(instance) - seen <= ceiling + len(askers)
        costs = [now.written_off_of(instance) for instance in house.instances[:-1]]
        said = f"{max(costs)}, {statistics.median(costs):g}"
        measured(f"units that a kill cost, of at most {ceiling}: most, median", said)
        served = sum(receipt.units for receipt in receipts)
        assert allowance - rounds * (ceiling + len(askers)) <= served <= allowance


def until_written_off(house: DrillHouse, *, live: int) -> None:
    """Wait until the custodian has buried the dead by its own clock (C8)."""
    end = time.monotonic() + house.ttl_s + 12
    while sum(item["live"] for item in house.shown()["instances"]) > live or house.meter()["held"]:
        assert time.monotonic() < end, house.meter()
        time.sleep(0.1)


def kill_in_turns(folder: Path, *, rounds: int, seed: int) -> None:
    """Kill the one, the other, or both at once; then heal: all must serve again, and the books must close."""
    rng = random.Random(seed)
    ceiling = 12
    with DrillHouse(folder / "parties", ttl_s=4, max_ceiling=ceiling, allowance=40) as house:
        house.start_enclave()
        before: OnDisk | None = None
        down = 0.0
        with asking(house) as askers:
            until_served(house, askers, more=2, within_s=60)
            with adding(house) as staff:
                for turn in range(rounds):
                    time.sleep(rng.uniform(0.0, 0.3))
                    victim = ("custodian", "enclave", "both")[turn % 3]
                    if victim != "custodian":
                        house.kill_enclave()
                    if victim != "enclave":
                        house.kill_custodian()
                        down = time.monotonic()
                        before = demand_sound(house, folder / "scratch", before, staff)
                        demand_no_more_than_granted(before, house, askers)
                        house.start_custodian()
                    down_s = time.monotonic() - down if victim == "custodian" else 0
                    if victim != "custodian":
                        house.start_enclave()
                    until_served(house, askers, more=2, within_s=60, down_s=down_s)
                until_quiet(staff)
            until_exhausted(house, askers, within_s=60 + 2 * rounds)
        demand_expected(askers)
        until_written_off(house, live=1)
        house.kill_custodian()
        now = demand_sound(house, folder / "scratch", before, staff)
        demand_no_more_than_granted(now, house, askers)
        served = sum(receipt.units for receipt in receipts_of(askers))
        kills = len(house.instances) - 1
        assert now.granted(house.loan) == house.allowance + staff.added
        assert now.granted(house.loan) - kills * (ceiling + len(askers)) <= served <= now.granted(house.loan)


def test_killing_the_custodian_under_load_loses_no_acknowledged_fact_and_no_unit(
    tmp_path: Path, measured: Measured
) -> None:
    kill_custodians(tmp_path, rounds=CUSTODIAN_KILLS.suite, seed=3, measured=measured)


@pytest.mark.drill
def test_killing_the_enclave_under_load_costs_at_most_one_ceiling_each_time(tmp_path: Path, measured: Measured) -> None:
    kill_enclaves(tmp_path, rounds=ENCLAVE_KILLS.suite, seed=4, measured=measured)


@pytest.mark.drill
def test_killing_both_in_turns_ends_in_closed_books_and_service(tmp_path: Path) -> None:
    kill_in_turns(tmp_path, rounds=KILLS_IN_TURNS.suite, seed=5)


@pytest.mark.drill
@pytest.mark.timeout(28800)
def test_killing_the_custodian_for_long(tmp_path: Path, measured: Measured) -> None:
    kill_custodians(tmp_path, rounds=CUSTODIAN_KILLS.many, seed=30, measured=measured)


@pytest.mark.drill
@pytest.mark.timeout(28800)
def test_killing_the_enclave_for_long(tmp_path: Path, measured: Measured) -> None:
    kill_enclaves(tmp_path, rounds=ENCLAVE_KILLS.many, seed=40, measured=measured)


@pytest.mark.drill
@pytest.mark.timeout(28800)
def test_killing_both_in_turns_for_long(tmp_path: Path) -> None:
    kill_in_turns(tmp_path, rounds=KILLS_IN_TURNS.many, seed=50)
