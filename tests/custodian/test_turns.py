"""Group commit: requests that wait for the writer share a transaction, and none suffers from another."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import pytest
from custodian_kit import Bench, Toy

from cloister.custodian.service.turns import MOST, Turns
from cloister.errors import Malformed, Rejected, Unavailable
from cloister.lending.messages import Lease, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")


def together(turns: Turns[T, bytes], calls: Sequence[Callable[[], bytes]]) -> list[bytes | BaseException]:
    """Make calls that all wait before the first is done, in this order; return what came of each."""
    with ThreadPoolExecutor(len(calls)) as threads:
        with turns._turn:
            futures = []
            for number, call in enumerate(calls):
                futures.append(threads.submit(call))
                end = time.monotonic() + 20
                while len(turns._waiting) <= number:
                    assert time.monotonic() < end
                    time.sleep(0.001)
        return [future.exception() or future.result() for future in futures]


def _renewals(bench: Bench, toys: Sequence[Toy], statements: Sequence[bytes]) -> list[bytes | BaseException]:
    turns = bench.service.context._turns
    calls = [
        lambda toy=toy, statement=statement: bench.service.lease(toy.id, statement)
        for toy, statement in zip(toys, statements, strict=True)
    ]
    return together(turns, calls)  # type: ignore[arg-type]


def _commits(bench: Bench) -> int | None:
    """Return how often the database was committed to, as SQLite counts itself."""
    if bench.service.context.store.shared:
        return None
    with bench.service.context.reading() as connection:
        return int(connection.exec_driver_sql("PRAGMA data_version").scalar_one())


def test_renewals_that_wait_together_are_committed_together_and_each_gets_its_own(bench: Bench) -> None:
    lent = bench.lend(allowance=100, max_ceiling=10, max_instances=8)
    toys = [lent.boot() for _ in range(8)]
    before, checkpoint = _commits(bench), bench.service.context.size
    answers = _renewals(bench, toys, [toy.request() for toy in toys])
    assert before is None or _commits(bench) == before + 1
    assert bench.service.context.size == checkpoint + 8
    for toy, answer in zip(toys, answers, strict=True):
        assert toy.holder is not None
        assert isinstance(answer, bytes)
        assert isinstance(toy.holder.receive(answer, bench.clock()), Lease)
    assert lent.balance() == 20


def test_instances_that_wait_together_get_no_more_than_there_is(bench: Bench) -> None:
    lent = bench.lend(allowance=10, max_ceiling=4, max_instances=8)
    toys = [lent.boot() for _ in range(5)]
    for toy, answer in zip(toys, _renewals(bench, toys, [toy.request() for toy in toys]), strict=True):
        assert toy.holder is not None
        assert isinstance(answer, bytes)
        toy.holder.receive(answer, bench.clock())
    assert [sum(toy.holder.snapshot().limits.values()) for toy in toys if toy.holder] == [4, 4, 2, 0, 0]
    assert lent.balance() == 0


def test_one_request_twice_in_a_group_is_one_debit_and_one_reply(bench: Bench) -> None:
    toy = bench.lend(allowance=10, max_ceiling=4).boot()
    statement = toy.request()
    first, again = _renewals(bench, [toy, toy], [statement, statement])
    assert isinstance(first, bytes)
    assert first == again
    assert toy.lent.balance() == 6


def test_two_requests_with_one_number_in_a_group_are_a_fork(bench: Bench) -> None:
    toy = bench.lend(allowance=10, max_ceiling=4).boot()
    assert toy.holder is not None
    honest = toy.request()
    forked = Toy(toy.lent)
    forked.key, forked.id, forked.request_digest = toy.key, toy.id, toy.request_digest
    assert toy.grant is not None
    forked.holder = type(toy.holder)(key=toy.key, grant=toy.grant, custodian=bench.init.key)
    first, second = _renewals(bench, [toy, forked], [honest, forked.request()])
    assert isinstance(first, bytes)
    assert isinstance(second, bytes)
    assert isinstance(toy.holder.receive(first, bench.clock()), Lease)
    refused = forked.holder.receive(second, bench.clock())
    assert isinstance(refused, Refusal)
    assert refused.reasons[0].code == "fork_detected"


def test_a_refused_request_leaves_the_rest_of_its_group_alone(bench: Bench) -> None:
    lent = bench.lend(allowance=100, max_ceiling=10, max_instances=4)
    toys = [lent.boot() for _ in range(3)]
    late = toys[1]
    late.renew()
    bench.clock.advance(20)
    late.request()
    assert late.holder is not None
    late.holder._pending, late.holder._seq = None, 5  # a number that nobody waits for
    answers = _renewals(bench, toys, [toy.request() for toy in toys])
    assert isinstance(answers[1], Rejected)
    assert answers[1].code == "wrong_seq"
    for toy, answer in ((toys[0], answers[0]), (toys[2], answers[2])):
        assert toy.holder is not None
        assert isinstance(answer, bytes)
        assert isinstance(toy.holder.receive(answer, bench.clock()), Lease)
    assert "lease_refused" in bench.kinds()


def _run(group: Sequence[str], groups: list[int]) -> list[bytes | Rejected]:
    groups.append(len(group))
    if "broken" in group:
        raise ValueError
    if "refused" in group:
        raise Rejected.because("allowance_exhausted", "loan")
    if "down" in group:
        message = "disk full"
        raise Unavailable(message)
    return [Rejected.because("wrong_seq", "x") if word == "no" else word.encode() for word in group]


@pytest.mark.parametrize(("bad", "error"), [("broken", ValueError), ("refused", Rejected)])
def test_a_group_that_one_call_undoes_is_done_again_one_by_one(bad: str, error: type[Exception]) -> None:
    groups: list[int] = []
    turns: Turns[str, bytes] = Turns(lambda group: _run(group, groups))
    words = ["a", bad, "no", "b"]
    found = together(turns, [lambda word=word: turns.take(word) for word in words])
    assert groups == [4, 1, 1, 1, 1]
    assert found[0] == b"a"
    assert isinstance(found[1], error)
    assert isinstance(found[2], Rejected)
    assert found[3] == b"b"


def test_a_disk_that_fails_is_everybodys_and_is_not_asked_again() -> None:
    groups: list[int] = []
    turns: Turns[str, bytes] = Turns(lambda group: _run(group, groups))
    found = together(turns, [lambda word=word: turns.take(word) for word in ("a", "down", "b")])
    assert groups == [3]
    assert all(isinstance(error, Unavailable) for error in found)


def test_a_group_is_bounded_and_nobody_is_left_waiting() -> None:
    groups: list[int] = []
    turns: Turns[str, bytes] = Turns(lambda group: _run(group, groups))
    words = [f"w{number}" for number in range(2 * MOST + 3)]
    found = together(turns, [lambda word=word: turns.take(word) for word in words])
    assert found == [word.encode() for word in words]
    assert sorted(groups, reverse=True) == [MOST, MOST, 3]
    assert not turns._waiting


def test_a_call_that_is_interrupted_lets_the_others_go_on() -> None:
    """A malformed surprise in a run is raised to its caller, and the lock is free afterwards."""
    calls = iter((Malformed("x"), None))

    def run(group: Sequence[str]) -> list[bytes | Rejected]:
        error = next(calls)
        if error is not None:
            raise error
        return [word.encode() for word in group]

    turns: Turns[str, bytes] = Turns(run)
    with pytest.raises(Malformed):
        turns.take("a")
    done = threading.Thread(target=turns.take, args=("b",))
    done.start()
    done.join(10)
    assert not done.is_alive()
