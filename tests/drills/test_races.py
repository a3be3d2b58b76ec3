"""R15: sixteen enclaves want the last unit at once; and a long run of leases and additions, held against its log.

The log is the list that everybody appends to: played back in its order it must give every answer that anybody got,
and the order must be one that the clients could have seen (what had ended before another began stands before it).
"""

from __future__ import annotations

import random
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from counts import RACE_OPERATIONS, RACES
from disk import OnDisk, read_home, read_shared
from drill_house import DrillHouse
from memory import in_memory
from toys import ToyBox, lend_to_toys

from cloister.lending.events import EventKind
from cloister.lending.messages import Lease
from cloister.lending.terms import LOAN_METER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from custodian_kit import Toy

    Measured = Callable[[str, object], None]

RACERS = 16
CEILING = 5

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """One acknowledged lease or addition: when it began and ended, and what its answer said."""

    began: float
    ended: float
    actor: str
    seq: int
    limit: int
    balance: int


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str | None:
    """Return the URL of an empty PostgreSQL database, None for a file in the home."""
    return str(request.getfixturevalue("postgres").create()) if request.param == "postgresql" else None


@contextmanager
def racers(folder: Path, database: str | None, **terms: Any) -> Iterator[tuple[DrillHouse, dict[str, Any], list[Toy]]]:
    """Yield sixteen toys of one loan, each with a connection of its own; on PostgreSQL they go to two custodians."""
    with (
        in_memory(folder) as place,
        DrillHouse(
            folder / "parties", home=place / "home", ttl_s=60, max_ceiling=1, allowance=1, database=database
        ) as house,
        ExitStack() as stack,
    ):
        ports = [house.custodian_port]
        if database is not None:
            house.start_second()
            ports.append(house.second_port)
        made = lend_to_toys(house, max_instances=RACERS, ttl_s=600, **terms)
        context = ssl.create_default_context(cafile=str(house.home / "tls" / "ca.pem"))
        urls = [f"https://localhost:{ports[number % len(ports)]}" for number in range(RACERS)]
        boxes = [stack.enter_context(ToyBox(house, made, url=url, context=context)) for url in urls]
        yield house, made, [box.boot() for box in boxes]


def left_behind(house: DrillHouse, scratch: Path) -> OnDisk:
    """Kill whatever runs, and return what it left."""
    house.kill_custodian()
    if house.database is None:
        return read_home(house.home, house.made.key, scratch)
    house.kill_second()
    return read_shared(house.home, house.made.key, scratch)


def race(folder: Path, database: str | None, *, rounds: int, measured: Measured) -> None:
    """Let all ask at once for one unit; one gets it, each time."""
    with racers(folder, database, allowance=1, max_ceiling=1) as (house, made, toys):
        with ThreadPoolExecutor(RACERS) as pool:
            for turn in range(rounds):
                barrier = threading.Barrier(RACERS)
                held = list(pool.map(lambda toy, gate=barrier: _renew_at(toy, gate), toys))
                assert sum(held) == turn + 1, held
                shown = house.call("GET", f"/v1/loans/{made['loan']}")["meters"]["loan"]
                assert (shown["balance"], shown["granted"], shown["held"]) == (0, turn + 1, 1)
                _winner(toys).serve(1)
                for toy in toys:  # what was served is told before the next race, so that the winner may win again
                    toy.renew()
                house.call("POST", f"/v1/loans/{made['loan']}/top-up", {"units": 1})
        found = left_behind(house, folder / "scratch")
        assert sum(found.limit_of(toy.id) for toy in toys) == rounds
    measured("races of sixteen for one unit, units given", f"{rounds}, {rounds}")


def _renew_at(toy: Toy, barrier: threading.Barrier) -> int:
    """Ask when all ask; return how many units this toy was ever given."""
    barrier.wait(20)
    toy.renew()
    return _limit(toy)


def _limit(toy: Toy) -> int:
    assert toy.holder is not None
    return toy.holder.snapshot().limits.get(LOAN_METER, 0)


def _winner(toys: list[Toy]) -> Toy:
    """Return the one toy that holds a unit."""
    (winner,) = [
        toy for toy in toys if toy.holder is not None and _limit(toy) > toy.holder.snapshot().used.get(LOAN_METER, 0)
    ]
    return winner


def append(folder: Path, database: str | None, *, operations: int, seed: int, measured: Measured) -> None:
    """Let sixteen lease and serve while staff adds units; then play the log back."""
    with racers(folder, database, allowance=RACERS, max_ceiling=CEILING) as (house, made, toys):
        each = operations // RACERS
        stop = threading.Event()
        began = time.monotonic()
        with ThreadPoolExecutor(RACERS + 1) as pool:
            adding = pool.submit(_add, house, made["loan"], stop)
            try:
                leasing = [pool.submit(_lease, toy, each, seed + number) for number, toy in enumerate(toys)]
                done = [item for future in leasing for item in future.result()]
            finally:
                stop.set()
            added = adding.result()
        seconds = time.monotonic() - began
        found = left_behind(house, folder / "scratch")
        demand_played_back(found, made["loan"], done, added)
    measured("leases and additions, each found in the log as answered", len(done) + len(added))
    measured("a second", f"{(len(done) + len(added)) / seconds:.0f}")


def _lease(toy: Toy, count: int, seed: int) -> list[Done]:
    """Serve some and renew, over and over."""
    rng = random.Random(seed)
    done = []
    assert toy.holder is not None
    for _ in range(count):
        began = time.monotonic()
        lease = toy.renew()
        ended = time.monotonic()
        assert isinstance(lease, Lease)
        limit, balance = lease.limits[LOAN_METER], lease.balances[LOAN_METER]
        done.append(Done(began=began, ended=ended, actor=toy.id, seq=lease.seq, limit=limit, balance=balance))
        snapshot = toy.holder.snapshot()
        for _ in range(rng.randrange(limit - snapshot.used.get(LOAN_METER, 0) + 1)):
            toy.serve(1)
    return done


def _add(house: DrillHouse, loan: str, stop: threading.Event) -> list[Done]:
    """Add units until told to stop; so few at a time that sixteen are always short of them."""
    done = []
    while not stop.is_set():
        began = time.monotonic()
        balance = house.call("POST", f"/v1/loans/{loan}/top-up", {"units": 3})["balance"]
        done.append(Done(began=began, ended=time.monotonic(), actor="staff", seq=0, limit=0, balance=balance))
        stop.wait(0.02)
    return done


def demand_played_back(found: OnDisk, loan: str, leases: list[Done], additions: list[Done]) -> None:
    """Prove that the log in its order gives every answer, and that no answer is from before its time."""
    state: dict[tuple[str, int], tuple[int, int, int]] = {}
    added: list[tuple[int, int]] = []
    limits: dict[str, int] = {}
    balance = 0
    for entry in found.entries:
        if entry.subject != loan:
            continue
        if entry.kind is EventKind.ALLOWANCE_ADDED:
            balance += int(entry.details["units"])
            added.append((entry.index, balance))
        if entry.kind is EventKind.LEASE_GRANTED:
            limit = int(entry.details["limit"])
            balance -= limit - limits.get(entry.actor, 0)
            limits[entry.actor] = limit
            key = (entry.actor, int(entry.details["seq"]))
            assert key not in state
            state[key] = (entry.index, limit, balance)
        assert balance >= 0
    placed: list[tuple[float, float, int]] = []
    for item in leases:
        index, limit, left = state[item.actor, item.seq]
        assert (item.limit, item.balance) == (limit, left)
        placed.append((item.began, item.ended, index))
    assert [item.balance for item in additions] == [left for _, left in added[1:]]  # the first made the loan
    placed += [(item.began, item.ended, index) for item, (index, _) in zip(additions, added[1:], strict=True)]
    demand_order(placed)


def demand_order(placed: list[tuple[float, float, int]]) -> None:
    """Prove that whatever ended before another began stands before it in the log (strict serialisability)."""
    ends = sorted((ended, index) for _, ended, index in placed)
    newest, at = -1, 0
    for began, _, index in sorted(placed):
        while at < len(ends) and ends[at][0] < began:
            newest = max(newest, ends[at][1])
            at += 1
        assert newest < index


def test_sixteen_racing_for_the_last_unit_get_one(tmp_path: Path, database: str | None, measured: Measured) -> None:
    race(tmp_path, database, rounds=RACES.suite, measured=measured)


@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.drill)], indirect=True)
def test_the_log_played_back_gives_every_answer(tmp_path: Path, database: str | None, measured: Measured) -> None:
    append(tmp_path, database, operations=RACE_OPERATIONS.suite, seed=15, measured=measured)


@pytest.mark.drill
@pytest.mark.timeout(7200)
def test_sixteen_racing_very_often_get_one_each_time(tmp_path: Path, database: str | None, measured: Measured) -> None:
    race(tmp_path, database, rounds=RACES.many, measured=measured)


@pytest.mark.drill
@pytest.mark.timeout(14400)
def test_a_long_log_played_back_gives_every_answer(tmp_path: Path, database: str | None, measured: Measured) -> None:
    append(tmp_path, database, operations=RACE_OPERATIONS.many, seed=150, measured=measured)
