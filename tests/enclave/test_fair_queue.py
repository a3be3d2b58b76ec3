"""The order in which consumers come to the engine, and who is refused where no room is left."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from cloister.enclave.fair_queue import FairQueue, Waiting
from cloister.errors import Unavailable

LINE = "line"


def waiting(who: str, size: int = 1, line: str = LINE) -> Waiting[Any]:
    return Waiting(who=who, size=size, line=line, future=asyncio.Future(loop=_LOOP))


_LOOP = asyncio.new_event_loop()
_LOOP.close()  # a place for futures; nothing runs in it


def order(queue: FairQueue, line: str = LINE) -> list[str]:
    found = []
    while (item := queue.take(line)) is not None:
        found.append(str(item.who))
    return found


def test_a_consumer_who_floods_does_not_come_before_the_others() -> None:
    """T82."""
    queue = FairQueue(most=100, most_bytes=100)
    for who in ("a",) * 5 + ("b", "c", "b"):
        queue.put(waiting(who))
    assert order(queue) == ["a", "b", "c", "a", "b", "a", "a", "a"]
    assert len(queue) == 0


def test_who_was_just_served_waits_for_the_others() -> None:
    queue = FairQueue(most=100, most_bytes=100)
    queue.put(waiting("a"))
    queue.put(waiting("b"))
    assert queue.take(LINE).who == "a"  # type: ignore[union-attr]  # somebody waits
    queue.put(waiting("a"))
    assert order(queue) == ["b", "a"]


@pytest.mark.parametrize(("most", "most_bytes"), [(4, 100), (100, 4)])
def test_a_full_queue_makes_room_at_the_expense_of_the_greediest(most: int, most_bytes: int) -> None:
    """T82."""
    queue = FairQueue(most=most, most_bytes=most_bytes)
    flood = [waiting("flood") for _ in range(4)]
    assert all(queue.put(item) == () for item in flood)
    with pytest.raises(Unavailable) as caught:
        queue.put(waiting("flood"))
    assert caught.value.retry_after_s == 1
    assert queue.put(waiting("other")) == (flood[3],)
    assert queue.put(waiting("other")) == (flood[2],)
    with pytest.raises(Unavailable):
        queue.put(waiting("other"))
    assert order(queue) == ["flood", "other", "flood", "other"]


def test_one_request_larger_than_the_whole_queue_is_refused_and_displaces_nobody() -> None:
    queue = FairQueue(most=10, most_bytes=10)
    queue.put(waiting("a", 8))
    with pytest.raises(Unavailable):
        queue.put(waiting("b", 11))
    assert order(queue) == ["a"]


def test_lines_are_taken_from_apart_and_bounded_together() -> None:
    queue = FairQueue(most=2, most_bytes=10)
    queue.put(waiting("a", line="one"))
    queue.put(waiting("b", line="two"))
    with pytest.raises(Unavailable):
        queue.put(waiting("c", line="three"))
    assert (queue.waiting("one"), queue.waiting("three")) == (True, False)
    assert (order(queue, "one"), order(queue, "two"), order(queue, "three")) == (["a"], ["b"], [])


def test_nothing_is_lost_or_counted_twice_whatever_comes_and_goes() -> None:
    rng = random.Random(7)
    queue = FairQueue(most=20, most_bytes=200)
    inside: set[Waiting[Any]] = set()
    for _ in range(5000):
        choice = rng.random()
        if choice < 0.6:
            item = waiting(rng.choice("abcd"), rng.randrange(30), rng.choice(("one", "two")))
            try:
                inside -= set(queue.put(item))
                inside.add(item)
            except Unavailable:
                assert len(inside) > 10 or sum(one.size for one in inside) > 100
        elif choice < 0.8 and inside:
            gone = rng.choice(sorted(inside, key=id))
            queue.drop(gone)
            queue.drop(gone)
            inside.discard(gone)
        else:
            item_or_none = queue.take(rng.choice(("one", "two")))
            if item_or_none is not None:
                inside.remove(item_or_none)
        assert len(queue) == len(inside) <= 20
        assert sum(one.size for one in inside) <= 200
    assert set(queue.clear()) == inside
    assert len(queue) == 0
    assert not queue.waiting("one")
