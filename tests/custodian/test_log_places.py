"""Where in the log a time is: found by halves over the index, the same as by looking at every entry."""

from __future__ import annotations

import random
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from custodian_kit import START
from sqlalchemy import event

from cloister.custodian.store.log import append_entries, size_before
from cloister.custodian.store.retention import prune

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from custodian_kit import Bench
    from sqlalchemy import Connection

COUNT = 400
PRUNED = [*range(60), *range(100, 180), 200, 202, *range(260, 262)]


@contextmanager
def forgotten(bench: Bench) -> Iterator[Connection]:
    """Yield a transaction that leaves nothing behind: these entries are of no log."""
    with bench.service.context.store.writing() as connection:
        mark = connection.begin_nested()
        yield connection
        mark.rollback()


def fill(connection: Connection, size: int) -> dict[int, datetime]:
    """Add entries whose times stand still, and leap; return when each was."""
    rng, at, times = random.Random(3), START + timedelta(days=1), {}
    for index in range(size, size + COUNT):
        at += timedelta(seconds=rng.choice((0, 0, 0, 1, 60)))
        times[index] = at
    append_entries(connection, [(index, moment, b"{}") for index, moment in times.items()])
    return times


def test_the_place_of_a_time_is_found_by_halves_and_is_that_of_looking_at_all(bench: Bench) -> None:
    size = bench.service.context.size
    with forgotten(bench) as connection:
        times = fill(connection, size)
        for gone in ([], [size + item for item in PRUNED], range(size)):
            prune(connection, 1, [(index, bytes(32)) for index in gone])
            for index in gone:
                times.pop(index, None)
            for at in {START + timedelta(days=1), *times.values()}:
                for asked in (at, at + timedelta(seconds=1)):
                    later = [index for index, moment in times.items() if moment >= asked]
                    assert size_before(connection, asked) == min(later, default=None)


def test_no_entry_is_looked_for_by_its_time(bench: Bench) -> None:
    """Times have no index: every statement names its rows by theirs, and there are few statements."""
    with forgotten(bench) as connection:
        times = fill(connection, bench.service.context.size)
        asked: list[str] = []
        event.listen(connection, "before_cursor_execute", lambda *found: asked.append(found[2]))
        assert size_before(connection, max(times.values())) is not None
    assert 1 < len(asked) < 20
    assert not [statement for statement in asked if "audit.at" in statement.partition("WHERE")[2]]
