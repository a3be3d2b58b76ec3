"""Fetching what comes next while the reader works on what it has: for packages that are read from end to end.

A store far away answers a request after some tens of milliseconds, in which nothing flows; several requests at once
fill them. Memory is bounded: up to eight segments, and 32 MiB. Not for random access, which must fetch its own segments
only.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Self

from cloister.sealed.pages import Pages

if TYPE_CHECKING:
    from cloister.sealed.open import DirectSource

__all__ = ["ReadAhead", "depth_for"]

_MOST = 8
_BUDGET_BYTES = 32 << 20


def depth_for(segment_bytes: int) -> int:
    """Return how many segments of this size may be on their way at once: 2 to 8."""
    return max(2, min(_MOST, _BUDGET_BYTES // segment_bytes))


@dataclass(frozen=True, slots=True)
class _Fetched:
    """A segment on its way into memory of ours."""

    size: int
    pages: Pages
    got: Future[int]


class ReadAhead:
    """``source``, read ahead. Any thread may read; close it, or use it in ``with``. Does not close ``source``."""

    def __init__(self, source: DirectSource) -> None:
        """Fetch nothing yet."""
        self._source = source
        self._ahead: dict[tuple[str, int], _Fetched] = {}
        self._next: dict[str, int] = {}  # what lies before was read, or is on its way
        self._free: list[Pages] = []
        self._turn = Lock()
        self._stack = ExitStack()
        self._threads = ThreadPoolExecutor(_MOST, thread_name_prefix="ahead")
        self._closed = False

    def size(self, name: str) -> int:
        """Return the size of part ``name`` in bytes. Raises ``Unavailable``."""
        return self._source.size(name)

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Return at most ``size`` bytes of part ``name``; nothing is fetched ahead. Raises ``Unavailable``."""
        return self._source.read(name, offset, size)

    def read_into(self, name: str, offset: int, out: memoryview) -> int:
        """Fill ``out`` from part ``name``; return the bytes there were. Raises ``Unavailable``.

        The segments behind it, of the same size, are fetched meanwhile.
        """
        end = self._source.size(name)
        with self._turn:
            mine = self._ahead.pop((name, offset), None)
            self._begin(name, offset + len(out), len(out), end)
        if mine is None:
            return self._source.read_into(name, offset, out)
        try:
            got = min(mine.got.result(), len(out))
            out[:got] = mine.pages.view[:got]
        finally:
            self._give(mine.pages)
        if got == mine.size < len(out) and offset + got < end:  # it was fetched for a shorter read
            got += self._source.read_into(name, offset + got, out[got:])
        return got

    def _begin(self, name: str, offset: int, step: int, end: int) -> None:
        """Fetch what comes at ``offset`` or behind, each place once, as far as there is room; the turn is ours."""
        place = self._next[name] = max(offset, self._next.get(name, 0))
        while step and place < end and len(self._ahead) < depth_for(step) and not self._closed:
            size, pages = min(step, end - place), self._take(step)
            got = self._threads.submit(self._source.read_into, name, place, pages.view[:size])
            self._ahead[name, place] = _Fetched(size, pages, got)
            place = self._next[name] = place + step

    def _take(self, room: int) -> Pages:
        """Return free memory of that size, or new in place of a smaller one."""
        for pages in self._free:
            if len(pages.view) >= room:
                self._free.remove(pages)
                return pages
        if self._free:
            self._free.pop().close()
        return self._stack.enter_context(Pages(room))

    def _give(self, pages: Pages) -> None:
        with self._turn:
            self._free.append(pages)

    def close(self) -> None:
        """Stop, and free the memory once nothing is on its way any more; harmless the second time."""
        with self._turn:
            self._closed = True
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
