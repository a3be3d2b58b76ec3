"""R8 end to end: processes whose clock jumps an hour or a year, stands still, or runs a hundred times too fast.

A shim (clockshim) stands between a real process and its clocks, told at run time what they show. Two attackers: one
who sets the date of the machine (the wall clock alone), and one who controls every clock of it. The first wins
nothing; of the second, 30-metering promises only the count: at most N further units after a block.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from clockshim import LIES, TRUE, FalseClock
from disk import read_home
from diskshim import needs_compiler
from drill_house import DrillHouse
from load import Asker, receipts_of, until_served
from memory import in_memory

from cloister.lending.clock import lifetime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Measured = Callable[[str, object], None]

pytestmark = [
    needs_compiler,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning"),
]

TTL_S = 3
CEILING = 30
RAN_AHEAD = {"an hour ahead", "a year ahead", "a hundred times too fast"}


class Friend(Asker):
    """A consumer who helps the borrower: shares the enclave's date, and asks on whatever the enclave says of time.

    Whoever verifies is out of this at once: the custodian's word on the enclave (Status) is of another date.
    """

    stays = Asker.stays | {"clock_step", "date_skewed", "lease_expired"}


@contextmanager
def house_in(folder: Path, *, allowance: int = 5000) -> Iterator[DrillHouse]:
    """Yield a custodian that serves; no enclave runs yet."""
    terms = {"ttl_s": TTL_S, "max_ceiling": CEILING, "allowance": allowance, "consumers": 1}
    with in_memory(folder) as place, DrillHouse(folder / "parties", home=place / "home", **terms) as house:
        yield house


@contextmanager
def asked(house: DrillHouse, clock: FalseClock | None = None) -> Iterator[Asker]:
    """Yield a consumer who asks all the time: an honest one, or a friend with the enclave's date."""
    name = next(iter(house.tokens))
    asker = Asker(house, name, pause_s=0.03) if clock is None else Friend(house, name, pause_s=0.03, clock=clock.now)
    asker.start()
    try:
        until_served(house, [asker], more=2, within_s=60)
        yield asker
    finally:
        asker.stop()


def served_after_block(house: DrillHouse, asker: Asker, *, within_s: float) -> tuple[int, float]:
    """Block the loan; return how many answers came after that, and when the last one did."""
    house.call("POST", "/v1/blocks", {"kind": "loan", "subject": house.loan, "reason": "drill"})
    blocked = last = time.monotonic()
    first = count = len(asker.receipts)
    while time.monotonic() < blocked + within_s:
        if len(asker.receipts) > count:
            last, count = time.monotonic(), len(asker.receipts)
        time.sleep(0.005)
    return count - first, last - blocked


def demand_counted(house: DrillHouse, asker: Asker, scratch: Path) -> None:
    """Prove that no instance served beyond its ceiling, and that the books close. Kills the custodian."""
    house.kill_custodian()
    now = read_home(house.home, house.made.key, scratch)
    for instance in house.instances:
        assert sum(r.units for r in receipts_of([asker]) if r.instance == instance) <= now.limit_of(instance)


def bound() -> float:
    """Return T(1 + drift) + slack in seconds."""
    return lifetime(timedelta(seconds=TTL_S)).total_seconds()


def the_date(folder: Path, names: list[str], measured: Measured) -> None:
    """Set the date of the enclave's machine and set it right again; then block behind a frozen one."""
    clock = FalseClock(folder, all_clocks=False)
    with house_in(folder) as house:
        house.world.variables[house.world.borrower] |= clock.environment
        house.start_enclave()
        with asked(house, clock) as asker:
            for name in names:
                clock.show(LIES[name])
                before = len(asker.receipts)
                time.sleep(1.5)
                measured(f"the date {name}: answers to a friend meanwhile", len(asker.receipts) - before)
                clock.show(TRUE)
                if name in RAN_AHEAD:  # it may refuse now: Dates would be good again whose requests are forgotten
                    house.new_enclave()
                until_served(house, [asker], more=2, within_s=60, down_s=2 * TTL_S)
            clock.show(LIES["frozen"])
            more, last = served_after_block(house, asker, within_s=bound() + 1)
            assert last <= bound()
            said = f"{more}, {last:.2f} s of {bound():.1f} s"
            measured("the date frozen: answers after a block, last after", said)
            demand_counted(house, asker, folder / "scratch")


@pytest.mark.drill
def test_whoever_sets_the_date_of_the_enclaves_machine_wins_nothing(tmp_path: Path, measured: Measured) -> None:
    the_date(tmp_path, ["a year behind"], measured)


@pytest.mark.drill
@pytest.mark.timeout(1200)
def test_whatever_the_date_of_the_enclaves_machine_it_wins_nothing(tmp_path: Path, measured: Measured) -> None:
    the_date(tmp_path, list(LIES), measured)


def every_clock(folder: Path, names: list[str], measured: Measured) -> None:
    """Let every clock of the enclave lie, block, and count."""
    clock = FalseClock(folder, all_clocks=True)
    with house_in(folder) as house:
        house.world.variables[house.world.borrower] |= clock.environment
        house.start_enclave()
        with asked(house, clock) as asker:
            for number, name in enumerate(names):
                if number:
                    house.call("DELETE", f"/v1/blocks/loan/{house.loan}")
                    clock.show(TRUE)
                    house.new_enclave()
                    until_served(house, [asker], more=2, within_s=60, down_s=2 * TTL_S)
                clock.show(LIES[name])
                more, last = served_after_block(house, asker, within_s=2 * bound())
                assert more <= CEILING  # the count, where no clock is left
                measured(
                    f"every clock {name}: answers after a block, last after",
                    f"{more} of at most {CEILING}, {last:.2f} s",
                )
            demand_counted(house, asker, folder / "scratch")


@pytest.mark.drill
def test_whoever_freezes_every_clock_of_an_enclave_gets_one_ceiling_at_most(tmp_path: Path, measured: Measured) -> None:
    every_clock(tmp_path, ["frozen"], measured)


@pytest.mark.drill
@pytest.mark.timeout(1200)
def test_whatever_every_clock_of_an_enclave_shows_one_ceiling_is_the_most(tmp_path: Path, measured: Measured) -> None:
    every_clock(tmp_path, list(LIES), measured)


def custodians_clock(folder: Path, names: list[str], measured: Measured) -> None:
    """Let the custodian's clocks lie: the count holds; what stands behind its database is refused."""
    for number, name in enumerate(names):
        place = folder / str(number)
        place.mkdir()
        clock = FalseClock(place, all_clocks=False)
        with house_in(place) as house:
            house.stop_custodian()
            house.world.variables[house.world.custodian] |= clock.environment
            house.start_custodian()
            house.start_enclave()
            with asked(house) as asker:
                clock.show(LIES[name])
                answers = len(asker.receipts)
                time.sleep(2 * bound())
                answers = len(asker.receipts) - answers
                added = house.http.post(
                    f"/v1/loans/{house.loan}/top-up",
                    json={"units": 1},
                    headers={"authorization": f"Bearer {house.made.admin_token}"},
                ).status_code
                assert added == (503 if name.endswith("behind") else 200)
                clock.show(TRUE)
                measured(
                    f"the custodian's clock {name}: answers in {2 * bound():.0f} s, a change", f"{answers}, {added}"
                )
                demand_counted(house, asker, place / "scratch")
            if name.endswith("ahead"):  # the database has seen a later time than the clock shows now (T52)
                house.start_custodian(wait=False)
                assert house.custodian is not None
                assert house.custodian.wait(within_s=60) == 5
                assert "behind the database" in house.custodian.said()


def test_a_custodian_whose_clock_steps_back_writes_nothing_until_then(tmp_path: Path, measured: Measured) -> None:
    custodians_clock(tmp_path, ["an hour behind"], measured)


@pytest.mark.drill
@pytest.mark.timeout(1200)
def test_whatever_the_custodians_clock_shows_the_count_holds(tmp_path: Path, measured: Measured) -> None:
    custodians_clock(tmp_path, list(LIES), measured)
