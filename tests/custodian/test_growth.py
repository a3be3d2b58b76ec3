"""A custodian grows in nothing but the hashes of its log: what a renewal leaves behind in its process."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from cloister.custodian.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from custodian_kit import Bench, Toy
    from sqlalchemy import Connection

WARM_UP, STRETCHES, TURNS = 60, 2, 120
BYTES_PER_ENTRY = 72  # two hashes that an entry of the log adds to the tree, and an eighth more in reserve
NOISE_BYTES = 24 << 10  # cursors that the driver has not forgotten yet, patterns, statements met for the first time
MOST_OBJECTS = 50
CACHES_KIB = 2048


def _turns(bench: Bench, toy: Toy, count: int) -> None:
    """Serve, report and renew, as the shell of an enclave does."""
    for _ in range(count):
        toy.serve()
        toy.renew()
        bench.clock.advance(20)


def _held() -> tuple[int, int]:
    """Return bytes and objects of this process that Python knows of."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0], len(gc.get_objects())


@pytest.mark.timeout(300)
def test_a_renewal_leaves_the_hashes_of_its_log_entry_behind_and_nothing_else(bench: Bench) -> None:
    """Three hundred bytes more for each renewal are found, as where a reply is kept; SQLite's own are not seen.

    What is kept of each renewal grows in every stretch; a cache that fills, here or in the test's own tools, in some.
    """
    toy = bench.lend(allowance=10_000, max_ceiling=4).boot()
    toy.renew()
    grown, more = [], []
    tracemalloc.start()
    try:
        _turns(bench, toy, WARM_UP)  # statements are compiled, rows and pages met for the first time
        for _ in range(STRETCHES):
            size, (before, objects) = bench.service.context.size, _held()
            _turns(bench, toy, TURNS)
            after, objects_after = _held()
            entries = bench.service.context.size - size
            grown.append(after - before - entries * BYTES_PER_ENTRY)
            more.append(objects_after - objects)
    finally:
        tracemalloc.stop()
    assert min(grown) < NOISE_BYTES, grown
    assert min(more) < MOST_OBJECTS, more


@contextlib.contextmanager
def _all_connections(store: SqliteStore) -> Iterator[list[Connection]]:
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(store.reading()) for _ in range(8)]
        yield [*readers, stack.enter_context(store.writing(fenced=False))]


def test_the_page_caches_of_all_connections_together_stay_below_their_bound(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db", fence=bytes(16))
    with contextlib.closing(store), _all_connections(store) as connections:
        caches = [connection.exec_driver_sql("PRAGMA cache_size").scalar_one() for connection in connections]
    assert max(caches) < 0  # KiB, not pages
    assert -sum(caches) <= CACHES_KIB


def test_readers_that_come_one_after_another_share_one_connection(tmp_path: Path) -> None:
    """Taken in turn, each of eight would fill its cache, and open two files."""
    store = SqliteStore(tmp_path / "store.db", fence=bytes(16))
    with contextlib.closing(store):
        with store.reading(), store.reading(), store.reading():
            pass
        used = set()
        for _ in range(9):
            with store.reading() as connection:
                used.add(id(connection.connection.dbapi_connection))
    assert len(used) == 1


_HEAPS = """
import ctypes, sys, threading
from cloister.custodian import footprint
if sys.argv[1] == "shared":
    footprint._share_one_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
meet = threading.Barrier(4)

def take():
    meet.wait()  # all four are there at the same time
    libc.malloc(ctypes.c_size_t(1000))
    meet.wait()

threads = [threading.Thread(target=take) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
stdout = ctypes.c_void_p.in_dll(libc, "stdout")
libc.malloc_info(0, stdout)
libc.fflush(stdout)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
@pytest.mark.parametrize(("how", "want"), [("shared", {1}), ("as it comes", {2, 3, 4, 5})])
def test_the_threads_of_a_custodian_share_one_heap(how: str, want: set[int]) -> None:
    done = subprocess.run(  # noqa: S603 - our own text
        [sys.executable, "-c", _HEAPS, how], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.count("<heap nr=") in want
