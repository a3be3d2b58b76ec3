"""Every order of events in a small world: the honest protocol has no way to a violation, every mistake a short one.

One world for each row of the adversary table of 30-metering. The small ones are searched whole here, the
full one (quota 3, N 2, two launches, four ticks) by ``make drill``. How many states there are is printed.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import mutants
import pytest
from cheap_wire import cheap_wire
from explored import Table, db_key
from explorer import Config, Explorer, Report, State
from usage_mutants import GrantsUnreported

if TYPE_CHECKING:
    from collections.abc import Hashable

ADVERSARIES = {
    "the network, crashes, relaunches": Config(ticks=2, asks=1),
    "a second request of each": Config(ticks=1, launches=1, asks=2, blocks=1, unblocks=1, top_ups=1, answers_lost=True),
    "streams": Config(ticks=3, launches=1, asks=2, streams=True, sizes=(1,)),
    "the enclave's clock": Config(ticks=3, launches=1, asks=2, freezes=1, sizes=(1,)),
    "the enclave's memory": Config(ticks=2, launches=1, asks=1, forks=1, sizes=(1,)),
    "the database, noticed": Config(ticks=2, launches=1, asks=2, restores=1, sizes=(2,), closes=False),
}
FULL = {
    "the network, crashes, relaunches": Config(asks=2),
    "a second request of each": Config(ticks=2, launches=1, asks=2, unblocks=1, top_ups=1, answers_lost=True),
    "the enclave's clock": Config(asks=1, freezes=1),
    "the enclave's memory": Config(ticks=3, launches=1, asks=2, forks=1),
    "the database, noticed": Config(ticks=3, asks=1, restores=1),
}
UNNOTICED = Config(
    ticks=1, launches=1, asks=2, unblocks=1, restores=1, with_checkpoint=True, sizes=(), closes=False
)  # nothing may be served: of the count nothing is promised, of what an enclave knows all is

_QUIET: dict[str, Any] = {"blocks": 0, "closes": False}
MISTAKES: dict[str, tuple[dict[str, Any], Config, str, int]] = {
    # what is broken, the world it is put in, what it breaks, and the steps that suffice
    "M1 time from receipt": ({"holder": mutants.TimeFromReceipt}, Config(ticks=3, closes=False), "I3", 8),
    "M2 counter on disk": ({}, Config(ticks=1, disk=True, **_QUIET), "I1", 10),
    # One more than the design's eight: a real enclave takes time only from a request of its own.
    "M3 bearer lease": ({"holder": mutants.BearerLease}, Config(ticks=1, **_QUIET), "I1", 9),
    "M4 debit on report": ({"custodian": mutants.DebitOnReport}, Config(ticks=1, **_QUIET), "I2", 12),
    "M5 retried request granted again": ({"custodian": mutants.GrantedAgain}, Config(ticks=1, **_QUIET), "I4", 5),
    "M6 refund on close with a copy": ({"custodian": mutants.RefundOnClose}, Config(forks=1), "I2", 4),
    "M7 limit of a dead instance used again": (
        {"custodian": mutants.RefundOfTheDead},
        Config(freezes=1, closes=False),
        "I2",
        6,
    ),
    "M8 serve then count": ({"holder": mutants.ServeThenCount}, Config(streams=True, closes=False), "I1", 7),
    "M9 no seq check": ({"custodian": mutants.NoSeqCheck}, Config(closes=False), "I5", 7),
    "M10 delta instead of ceiling": (
        {"holder": mutants.DeltaHolder, "custodian": mutants.DeltaCustodian},
        Config(closes=False),
        "I1",
        7,
    ),
    "M11 older database not noticed": (
        {"custodian": mutants.NoCheckpoint},
        Config(ticks=0, asks=1, restores=1, sizes=(2,), **_QUIET),
        "I1",
        12,
    ),
    "M12 reply not stored": ({"custodian": mutants.ReplyNotStored}, Config(closes=False), "I6", 5),
    "M13 older block version taken": ({"holder": mutants.OldBlockVersion}, UNNOTICED, "I5", 12),
    "lease without the reports": ({"custodian": GrantsUnreported}, Config(ticks=1, **_QUIET), "I9", 7),
}


LARGE = frozenset({"the enclave's clock", "a second request of each"})  # three times the states of the others


def marks_of(name: str) -> tuple[pytest.MarkDecorator, ...]:
    """Return what leaves a large world to ``make drill``."""
    return (pytest.mark.drill,) if name in LARGE else ()


def search(config: Config, **parties: Any) -> Report:
    with cheap_wire():
        report = Explorer(config, **parties).explore()
    print(f"{report.states} states, {report.steps} steps, {report.depth} deep")  # noqa: T201 - the result
    return report


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks_of(name)) for name in ADVERSARIES])
def test_no_order_of_events_breaks_an_invariant(name: str) -> None:
    report = search(ADVERSARIES[name])
    assert report.violation is None, report.way
    assert report.complete
    assert report.states > 1000


def test_an_enclave_never_goes_back_even_where_the_custodian_does_unnoticed() -> None:
    report = search(UNNOTICED)
    assert report.violation is None, report.way
    assert report.complete


@pytest.mark.drill
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", FULL)
def test_no_order_of_events_breaks_an_invariant_in_the_full_world(name: str) -> None:
    report = search(FULL[name])
    assert report.violation is None, report.way
    assert report.complete


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_has_a_short_way_to_a_violation(name: str) -> None:
    parties, config, invariant, steps = MISTAKES[name]
    report = search(config, **parties)
    print(*report.way, sep="\n")  # noqa: T201 - the counterexample
    assert report.violation is not None
    assert report.violation.invariant == invariant
    assert len(report.way) <= steps


def test_all_thirteen_mistakes_of_the_design_are_searched() -> None:
    assert {name for name in MISTAKES if name.startswith("M")} == {
        name for name in mutants.MUTANTS if name.startswith("M")
    }


class Unmerged(Table[Any]):
    """Every value is one of its own, however equal."""

    def number(self, _key: Hashable, value: Any) -> int:
        return super().number(len(self.values), value)


def told(explorer: Explorer, state: State) -> Hashable:
    """Return all of a state that the protocol reads."""
    parts = explorer.parts
    cells = tuple(parts.cells.values[cell].key() for cell in state.cells)
    return (db_key(parts.dbs.values[state.db]), cells, state._replace(db=0, cells=()))


@pytest.mark.parametrize("seed", range(8))
def test_states_that_are_taken_for_one_go_on_alike(seed: int) -> None:
    """Random walks through a search that merges states, beside the same walk through one that merges none."""
    rng = random.Random(seed)
    config = Config(unblocks=1, top_ups=1, freezes=1, streams=True, answers_lost=True)
    with cheap_wire():
        merging, plain = Explorer(config), Explorer(config)
        plain.parts.dbs, plain.parts.cells = Unmerged(), Unmerged()
        for _ in range(6):
            here, there = merging.first(), plain.first()
            for _ in range(40):
                ways, others = list(merging.after(here)), dict(plain.after(there))
                assert {name: told(plain, others[name]) for name, _ in ways} == {
                    name: told(merging, state) for name, state in ways
                }
                if not ways:
                    break
                name, here = rng.choice(ways)
                there = others[name]


def test_a_search_that_stops_early_says_so() -> None:
    with cheap_wire():
        assert not Explorer(Config()).explore(most=100).complete


def test_the_same_search_finds_the_same_states() -> None:
    config = Config(ticks=1, launches=1, asks=1)
    assert search(config).states == search(config).states
