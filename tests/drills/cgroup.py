"""A limit on memory that the kernel enforces on one process: a control group of our own, of version 1 or 2.

Wants root, and a memory controller that is switched on already: nothing of the system's own is changed. Where that is
not so, the test that wanted a limit is skipped and says why. Pages of files count too, but the kernel takes those back.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_REMOVED_WITHIN_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class _Version:
    """What one version calls things: the limit, the one on swap, where kills are counted, and memory."""

    limit: str
    swap: str
    swap_is_total: bool
    kills: str
    held: tuple[str, str]


_ONE = _Version(
    limit="memory.limit_in_bytes", swap="memory.memsw.limit_in_bytes", swap_is_total=True,
    kills="memory.oom_control", held=("total_rss", "total_shmem"),
)  # fmt: skip
_TWO = _Version(
    limit="memory.max", swap="memory.swap.max", swap_is_total=False, kills="memory.events", held=("anon", "shmem")
)  # fmt: skip


def _mounts(kind: str, option: str = "") -> Iterator[Path]:
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, place, found, options, *_ = line.split()
        if found == kind and (not option or option in options.split(",")):
            yield Path(place)


def _controller() -> tuple[Path, _Version] | None:
    """Return where groups with a memory controller may be made."""
    for place in _mounts("cgroup", "memory"):
        if os.access(place, os.W_OK):
            return place, _ONE
    for place in _mounts("cgroup2"):
        if "memory" in (place / "cgroup.subtree_control").read_text().split() and os.access(place, os.W_OK):
            return place, _TWO
    return None


class Group:
    """A group with a limit."""

    def __init__(self, place: Path, version: _Version, limit: int) -> None:
        self.limit, self._place, self._version = limit, place, version
        self._write(version.limit, limit)
        with suppress(OSError):  # a kernel that does not count swap
            self._write(version.swap, limit if version.swap_is_total else 0)

    def _write(self, name: str, value: int) -> None:
        (self._place / name).write_text(str(value))

    def _counts(self, name: str) -> dict[str, int]:
        lines = (self._place / name).read_text().splitlines()
        return {word: int(number) for word, number in (line.split() for line in lines)}

    def take(self, process: int) -> None:
        """Put a process into it: what it takes from now on counts, what it had before does not."""
        self._write("cgroup.procs", process)

    @property
    def kills(self) -> int:
        """How many processes the kernel killed for want of memory."""
        return self._counts(self._version.kills)["oom_kill"]

    @property
    def held(self) -> int:
        """Bytes of memory that cannot be taken back: anonymous, and in memory files."""
        counts = self._counts("memory.stat")
        return sum(counts[name] for name in self._version.held)


@contextmanager
def memory_limit(limit: int) -> Iterator[Group]:
    """Yield a group that may hold ``limit`` bytes, or skip the test."""
    found = _controller()
    if found is None:
        pytest.skip("no memory limit to be had: no control group may be made here (root, and a memory controller)")
    place, version = found
    group = place / f"cloister-drill-{os.getpid()}"
    group.mkdir()
    try:
        yield Group(group, version, limit)
    finally:
        end = time.monotonic() + _REMOVED_WITHIN_S
        while True:
            try:
                group.rmdir()
                break
            except OSError:  # the last process is still on its way out
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
