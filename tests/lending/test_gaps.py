"""What a damaged copy of the log lacks is named: indexes, lines, times, leases (T83)."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from cloister.lending.audit import FIRST_PREVIOUS, next_entry
from cloister.lending.events import Event, EventKind
from cloister.lending.gaps import Gaps, find_gaps
from cloister.lending.merkle import leaf_hash
from cloister.lending.pruning import PrunedEntry
from mutations import mutated

AT = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def log(
    kinds: list[EventKind] | int, *, every: timedelta = timedelta(minutes=1), seqs: list[int] | None = None
) -> list[bytes]:
    lines: list[bytes] = []
    previous, at = FIRST_PREVIOUS, AT
    for index, kind in enumerate([EventKind.LOAN_CREATED] * kinds if isinstance(kinds, int) else kinds):
        details = {} if seqs is None else {"seq": seqs[index]}
        event = Event(kind=kind, actor="ab12", subject="loan-a", details=details)
        entry = next_entry(event, index=index, at=at, previous=previous)
        lines.append(entry.dump())
        previous, at = entry.leaf, at + every
    return lines


def gaps(lines: list[bytes], *, size: int | None = None, silence: timedelta = HOUR) -> Gaps:
    return find_gaps(enumerate(lines), size=size, silence=silence)


def test_a_whole_log_lacks_nothing() -> None:
    found = gaps(log(20))
    assert found == Gaps(entries=20, missing=(), unreadable=(), repeated=(), silences=(), leases={})
    assert found.is_whole
    assert gaps([]).is_whole


def test_t83_every_missing_index_is_named() -> None:
    rng = random.Random(7)
    lines = log(60)
    for _ in range(50):
        lost = set(rng.sample(range(60), rng.randrange(1, 30)))
        kept = [line for index, line in enumerate(lines) if index not in lost]
        rng.shuffle(kept)
        found = gaps(kept, size=60)
        assert {index for first, last in found.missing for index in range(first, last + 1)} == lost
        assert not found.is_whole


def test_an_end_that_is_cut_off_shows_by_the_size_alone() -> None:
    lines = log(10)[:7]
    assert gaps(lines).is_whole
    assert gaps(lines, size=10).missing == ((7, 9),)


def test_what_cannot_be_read_and_what_is_there_twice_is_named_by_its_place() -> None:
    lines = log(6)
    found = gaps([*lines[:2], b"{}", lines[3], lines[3], b"", *lines[4:]])
    assert (found.missing, found.unreadable, found.repeated) == (((2, 2),), (2, 5), (3,))


def test_a_silence_is_named_with_what_explains_it() -> None:
    started, stopped = EventKind.CUSTODIAN_STARTED, EventKind.CUSTODIAN_STOPPED
    lines = log([started, stopped, started, started, started], every=timedelta(hours=2))
    found = gaps([*lines[:3], lines[4]]).silences
    assert [(item.after, item.before, item.stopped, item.missing) for item in found] == [
        (0, 1, False, False), (1, 2, True, False), (2, 4, False, True),
    ]  # fmt: skip
    assert (found[2].since, found[2].until) == (AT + 4 * HOUR, AT + 8 * HOUR)
    assert gaps(lines, silence=2 * HOUR).silences == ()


def test_a_lease_request_that_no_entry_answers_is_named() -> None:
    granted, refused = EventKind.LEASE_GRANTED, EventKind.LEASE_REFUSED
    lines = log([granted, granted, refused, granted, EventKind.LOAN_CREATED], seqs=[1, 2, 5, 9, 7])
    assert gaps(lines).leases == {"ab12": ((3, 4), (6, 8))}
    assert gaps(log([granted] * 3, seqs=[4, 5, 6])).leases == {}


def test_damaged_copies_are_read_whatever_they_hold() -> None:
    whole = b"\n".join(log(4))
    for data in mutated(whole, count=2_000):
        found = gaps(data.split(b"\n"), size=4)
        assert found.entries + len(found.unreadable) + len(found.repeated) == data.count(b"\n") + 1


def test_what_is_left_of_pruned_entries_is_not_missing() -> None:
    lines = log(20)
    left = [
        PrunedEntry(index=at, leaf=leaf_hash(line), pruning=1).dump() if at in {3, 7} else line
        for at, line in enumerate(lines)
    ]
    found = gaps(left)
    assert (found.entries, found.pruned, found.missing, found.is_whole) == (18, 2, (), True)
