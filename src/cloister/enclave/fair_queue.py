"""Who waits for the engine, and who comes next: consumers in turn, not requests in the order they came (T82).

Requests wait in lines: one for single runs, one for each batch that is being gathered (``batches``). In a line every
consumer that waits is taken from once before any is taken from twice. Over all lines requests and bytes are bounded;
where no room is left the newest request of whoever has most waiting goes, if that is more than the newcomer has. So
whoever floods is refused, and nobody else.

Not done here: waiting itself (``turns``). Called from the event loop alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cloister.errors import Unavailable

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Callable, Hashable

__all__ = ["FairQueue", "Waiting", "queue_full"]

T = TypeVar("T")
RETRY_AFTER_S = 1  # seconds after which a consumer may ask again


@dataclass(slots=True, kw_only=True, eq=False)
class Waiting(Generic[T]):
    """One that waits: whose it is, how many bytes it holds, in which line, and what it waits for.

    One that is not ``counted`` waits for others that are.
    """

    who: Hashable
    size: int
    line: Hashable
    future: Future[T] = field(repr=False)
    counted: bool = True


@dataclass(slots=True)
class _Share:
    """What one consumer has waiting in all lines, oldest first."""

    items: dict[Waiting[Any], None] = field(default_factory=dict)
    size: int = 0


class FairQueue:
    """At most ``most`` requests and ``most_bytes`` bytes that wait."""

    def __init__(self, *, most: int, most_bytes: int) -> None:
        """Start empty."""
        self._most, self._most_bytes = most, most_bytes
        self._size = 0
        self._count = 0
        self._shares: dict[Hashable, _Share] = {}
        self._lines: dict[Hashable, dict[Hashable, dict[Waiting[Any], None]]] = {}

    def __len__(self) -> int:
        """Return how many wait."""
        return self._count

    def waiting(self, line: Hashable) -> bool:
        """Tell whether anybody waits in this line."""
        return line in self._lines

    def put(self, item: Waiting[Any]) -> tuple[Waiting[Any], ...]:
        """Let one wait, and return those that had to go for it. Raises ``Unavailable`` where none would."""
        gone = self._making_room(item) if item.counted else ()
        for other in gone:
            self.drop(other)
        share = self._shares.setdefault(item.who, _Share())
        share.items[item] = None
        share.size += item.size
        self._lines.setdefault(item.line, {}).setdefault(item.who, {})[item] = None
        self._count += item.counted
        self._size += item.size
        return gone

    def take(self, line: Hashable, fits: Callable[[Waiting[Any]], bool] | None = None) -> Waiting[Any] | None:
        """Return who comes next in this line, None where nobody waits or who comes next does not fit."""
        turns = self._lines.get(line)
        if turns is None:
            return None
        who, mine = next(iter(turns.items()))
        item = next(iter(mine))
        if fits is not None and not fits(item):
            return None
        self.drop(item)
        if who in turns:
            turns[who] = turns.pop(who)  # to the end: the others of this line first
        return item

    def drop(self, item: Waiting[Any]) -> None:
        """Let one go; nothing where it waits no more."""
        share = self._shares.get(item.who)
        if share is None or item not in share.items:
            return
        del share.items[item]
        share.size -= item.size
        if not share.items:
            del self._shares[item.who]
        turns = self._lines[item.line]
        del turns[item.who][item]
        if not turns[item.who]:
            del turns[item.who]
        if not turns:
            del self._lines[item.line]
        self._count -= item.counted
        self._size -= item.size

    def clear(self) -> tuple[Waiting[Any], ...]:
        """Let everybody go, and return them."""
        everybody = tuple(item for share in self._shares.values() for item in share.items)
        for item in everybody:
            self.drop(item)
        return everybody

    def _making_room(self, newcomer: Waiting[Any]) -> tuple[Waiting[Any], ...]:
        """Return who goes for a newcomer: the newest requests of the one that has most. Raises ``Unavailable``."""
        count, size = self._count + 1 - self._most, self._size + newcomer.size - self._most_bytes  # too many, too much
        if count <= 0 and size <= 0:
            return ()
        by_count = count > 0

        def weight(share: _Share) -> int:
            return len(share.items) if by_count else share.size

        mine = self._shares.get(newcomer.who, _Share())
        most = max(self._shares.values(), key=weight, default=mine)
        floor = weight(mine) + (1 if by_count else newcomer.size)
        left, gone = weight(most), list[Waiting[Any]]()
        for item in reversed(most.items):
            if (count <= 0 and size <= 0) or most is mine or left <= floor:
                break
            gone.append(item)
            left -= 1 if by_count else item.size
            count, size = count - 1, size - item.size
        if count > 0 or size > 0:
            raise queue_full()
        return tuple(gone)


def queue_full() -> Unavailable:
    """Return what is said where there is no room."""
    return Unavailable("engine: too many requests wait", retry_after_s=RETRY_AFTER_S)
