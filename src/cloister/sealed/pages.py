"""Memory for the bulk: page-aligned buffers used again and again, and two lanes that work on them.

A fresh ``bytearray`` costs a page fault per page and is read into up to four times slower than an
aligned buffer. AES and SHA-256 release the interpreter lock, so a second thread helps; a third does
not on the machines measured.
"""

from __future__ import annotations

import itertools
import mmap
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from threading import Event
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Lane", "Lanes", "Pages"]

LANES = 2


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


class Lanes:
    """At most two threads over numbered segments: the caller's and one more."""

    def __init__(self, segment_bytes: int) -> None:
        """Map memory for segments of up to ``segment_bytes``."""
        with ExitStack() as stack:
            self._lanes = [Lane(segment_bytes, stack) for _ in range(LANES)]
            self._executor = stack.enter_context(ThreadPoolExecutor(LANES - 1, thread_name_prefix="sealed"))
            self._stack = stack.pop_all()

    def run(self, count: int, work: Callable[[int, Lane], None], report: Callable[[int], None]) -> None:
        """Do ``work(index, lane)`` once for each of ``count`` segments, in no certain order.

        ``report(done)`` is called in the caller's thread with numbers that grow. The first error
        stops both lanes and is raised when both have stopped.
        """
        turns = itertools.count()
        finished = itertools.count(1)
        stop = Event()

        def walk(lane: Lane, report: Callable[[int], None] | None) -> None:
            try:
                for index in turns:  # next() on count is one step under the interpreter lock
                    if index >= count or stop.is_set():
                        return
                    work(index, lane)
                    done = next(finished)
                    if report is not None:
                        report(done)
            except BaseException:  # also an interrupt from the keyboard: the other lane must not go on alone
                stop.set()
                raise

        if count == 1:
            walk(self._lanes[0], report)
            return
        helper = self._executor.submit(walk, self._lanes[1], None)
        try:
            walk(self._lanes[0], report)
        finally:
            error = helper.exception()
        if error is not None:
            raise error
        report(count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
