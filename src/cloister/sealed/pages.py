"""Memory for the bulk: page-aligned buffers used again and again, and lanes that work on them.

A fresh ``bytearray`` costs a page fault per page and is read into up to four times slower than an
aligned buffer. AES, the leaf hashes, reading and writing release the interpreter lock, so there is a lane for each
processor this process may use.
"""

from __future__ import annotations

import itertools
import mmap
import os
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from threading import Event
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Lane", "Lanes", "Pages", "lane_count"]

_FEWEST = 2  # on one processor too: one lane works while the other waits for the disk
_MOST = 16  # beyond, the interpreter lock and the memory's own speed are the limit


def lane_count(segments: int) -> int:
    """Return how many lanes are worth their memory for files of up to so many segments."""
    return min(max(_FEWEST, len(os.sched_getaffinity(0))), _MOST, max(1, segments))


class Pages:
    """Private, page-aligned memory that is left out of core dumps and zeroed on close."""

    __slots__ = ("_map", "view")

    def __init__(self, size: int) -> None:
        """Map ``size`` bytes (at least one page)."""
        self._map = mmap.mmap(-1, max(size, mmap.PAGESIZE), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._map.madvise(mmap.MADV_DONTDUMP)
        self.view = memoryview(self._map)

    def close(self) -> None:
        """Zero and unmap; harmless the second time."""
        if self._map.closed:
            return
        self._map[:] = bytes(len(self._map))
        self.view.release()
        with suppress(BufferError):  # the traceback of an error still holds a part: it is zero, and goes with it
            self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Lane:
    """The memory of one worker: a segment as plaintext and the same segment encrypted."""

    __slots__ = ("_cipher", "_text", "cipher", "text")

    def __init__(self, segment_bytes: int, stack: ExitStack) -> None:
        """Map both buffers; ``stack`` closes them."""
        self._text = stack.enter_context(Pages(segment_bytes))
        self._cipher = stack.enter_context(Pages(segment_bytes))
        self.text = self._text.view
        self.cipher = self._cipher.view


class _Walk:
    """One run of lanes: each takes the next segment until none is left, or one of them fails."""

    def __init__(self, count: int, work: Callable[[int, Lane], None], on_stop: Callable[[], None] | None) -> None:
        self._count, self._work, self._on_stop = count, work, on_stop
        self._turns = itertools.count()
        self._finished = itertools.count(1)
        self._stop = Event()

    def __call__(self, lane: Lane, report: Callable[[int], None] | None) -> None:
        """Work with one lane."""
        try:
            for index in self._turns:  # next() on count is one step under the interpreter lock
                if index >= self._count or self._stop.is_set():
                    return
                self._work(index, lane)
                done = next(self._finished)
                if report is not None:
                    report(done)
        except BaseException:  # also an interrupt from the keyboard: the other lanes must not go on alone
            self.halt()
            raise

    def halt(self) -> None:
        """Let no lane begin another segment, and wake those that wait for one another."""
        self._stop.set()
        if self._on_stop is not None:
            self._on_stop()


class Lanes:
    """Threads over numbered segments: the caller's, and one more for each further lane."""

    def __init__(self, segment_bytes: int, count: int = _FEWEST) -> None:
        """Map memory for ``count`` lanes and segments of up to ``segment_bytes``."""
        with ExitStack() as stack:
            self._lanes = [Lane(segment_bytes, stack) for _ in range(count)]
            self._executor = stack.enter_context(ThreadPoolExecutor(max(1, count - 1), thread_name_prefix="sealed"))
            self._stack = stack.pop_all()

    def run(
        self,
        count: int,
        work: Callable[[int, Lane], None],
        report: Callable[[int], None],
        *,
        on_stop: Callable[[], None] | None = None,
    ) -> None:
        """Do ``work(index, lane)`` once for each of ``count`` segments, begun in order and ended in none.

        ``report(done)`` is called in the caller's thread with numbers that grow. The first error
        stops all lanes and is raised when all have stopped; ``on_stop`` wakes those that wait for one another.
        """
        walk = _Walk(count, work, on_stop)
        helpers = [self._executor.submit(walk, lane, None) for lane in self._lanes[1:count]]
        try:
            walk(self._lanes[0], report)
            errors = [helper.exception() for helper in helpers]
        except BaseException:  # an interrupt may come while we wait for the last of them
            walk.halt()
            wait(helpers)
            raise
        for error in errors:
            if error is not None:
                raise error
        if helpers:
            report(count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
