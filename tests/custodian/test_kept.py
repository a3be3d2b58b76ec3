"""Values kept beside the database: bounded, and shared by threads."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from cloister.custodian.service.kept import Kept


def test_the_one_kept_longest_goes_first() -> None:
    kept: Kept[int, str] = Kept(2)
    for number in (1, 2, 3):
        kept.keep(number, str(number))
    assert [kept.get(number) for number in (1, 2, 3)] == [None, "2", "3"]


def test_threads_that_keep_at_once_meet_no_error() -> None:
    kept: Kept[int, int] = Kept(64)

    def fill(start: int) -> None:
        for number in range(start, start + 5000):
            kept.keep(number, number)

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(fill, range(0, 40_000, 5000)))
    finally:
        sys.setswitchinterval(usual)
    assert sum(kept.get(number) is not None for number in range(40_000)) == 64
