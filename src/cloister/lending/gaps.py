"""What a copy of the audit log lacks: indexes, lines that cannot be read, times, leases (docs/spec/audit-log.md).

For a copy that ``verify_log`` refuses, to say what is wrong with it, and for one that it accepts: a whole log
may still have been silent. Nothing here is proven: the lines are read, not held against a checkpoint.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.errors import Malformed
from cloister.lending.audit import parse_line
from cloister.lending.events import EventKind
from cloister.lending.pruning import PrunedEntry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime, timedelta

__all__ = ["Gaps", "Silence", "find_gaps"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """A time without an entry, between the entries ``after`` and ``before``.

    ``stopped``: the custodian says before it that it stopped. ``missing``: indexes between are not in the copy.
    """

    after: int
    before: int
    since: datetime
    until: datetime
    stopped: bool
    missing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaps:
    """What is not there. Ranges are first and last, both missing; ``unreadable`` are places in the copy.

    Of ``pruned`` entries the hash is there and the body is not; that it may be so ``verify_log`` proves.
    """

    entries: int
    missing: tuple[tuple[int, int], ...]
    unreadable: tuple[int, ...]
    repeated: tuple[int, ...]
    silences: tuple[Silence, ...]
    leases: Mapping[str, tuple[tuple[int, int], ...]]
    pruned: int = 0

    @property
    def is_whole(self) -> bool:
        """Tell whether every entry is there once. Silences and sequence numbers are for a person to judge."""
        return not (self.missing or self.unreadable or self.repeated)


def find_gaps(lines: Iterable[tuple[int, bytes]], *, size: int | None, silence: timedelta) -> Gaps:
    """Return what is missing among ``lines``, each with its place in the copy, in any order.

    ``size`` is how many entries there must be, None where the copy's last entry decides. A silence is a time
    longer than ``silence``. Lease sequence numbers of an instance are those its requests were answered under;
    one that is missing was answered twice by nobody, or its entry is not here.
    """
    entries: dict[int, tuple[datetime, EventKind]] = {}
    unreadable: list[int] = []
    repeated: list[int] = []
    pruned: set[int] = set()
    sequences: dict[str, set[int]] = {}
    for place, line in lines:
        try:
            entry = parse_line(line)
        except Malformed:
            unreadable.append(place)
            continue
        if entry.index in entries or entry.index in pruned:
            repeated.append(entry.index)
            continue
        if isinstance(entry, PrunedEntry):
            pruned.add(entry.index)
            continue
        entries[entry.index] = entry.at, entry.kind
        seq = entry.details.get("seq")
        if entry.kind in _ANSWERED and isinstance(seq, int):
            sequences.setdefault(entry.actor, set()).add(seq)
    present = sorted(entries.keys() | pruned)
    until = max(max(present, default=-1) + 1, size or 0)
    return Gaps(
        entries=len(entries),
        missing=_ranges(present, until),
        pruned=len(pruned),
        unreadable=tuple(unreadable),
        repeated=tuple(repeated),
        silences=_silences(entries, silence),
        leases={name: found for name, seqs in sorted(sequences.items()) if (found := _missing_between(seqs))},
    )


_ANSWERED = frozenset({EventKind.LEASE_GRANTED, EventKind.LEASE_REFUSED, EventKind.INSTANCE_CLOSED})


def _ranges(present: list[int], until: int) -> tuple[tuple[int, int], ...]:
    """Return the ranges of 0 to ``until`` (exclusive) that are not among ``present``, which is sorted."""
    found: list[tuple[int, int]] = []
    expected = 0
    for index in [*present, until]:
        if index > expected:
            found.append((expected, index - 1))
        expected = index + 1
    return tuple(found)


def _missing_between(seqs: set[int]) -> tuple[tuple[int, int], ...]:
    """Return what is missing between the lowest and the highest sequence number."""
    floor = min(seqs)
    shifted = _ranges(sorted(seq - floor for seq in seqs), max(seqs) - floor + 1)
    return tuple((first + floor, last + floor) for first, last in shifted)


def _silences(entries: Mapping[int, tuple[datetime, EventKind]], silence: timedelta) -> tuple[Silence, ...]:
    found: list[Silence] = []
    indexes = sorted(entries)
    for after, before in itertools.pairwise(indexes):
        (since, kind), (until, _) = entries[after], entries[before]
        if until - since > silence:
            stopped = kind is EventKind.CUSTODIAN_STOPPED
            missing = before != after + 1
            found.append(
                Silence(after=after, before=before, since=since, until=until, stopped=stopped, missing=missing)
            )
    return tuple(found)
