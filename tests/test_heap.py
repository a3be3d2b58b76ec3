"""A server's heap is set aside once: what the start left is freed, what comes later is still collected."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Self

import pytest

from cloister.heap import settle_heap

if TYPE_CHECKING:
    from collections.abc import Iterator


class Ring:
    """Refers to itself, so that only the collector frees it."""

    def __init__(self) -> None:
        self.me: Self = self


@pytest.fixture(autouse=True)
def _unfrozen() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_what_the_start_left_behind_is_freed_before_the_rest_is_set_aside() -> None:
    left = weakref.ref(Ring())
    settle_heap()
    assert left() is None
    assert gc.get_freeze_count() > 1000


def test_what_comes_later_is_still_collected() -> None:
    settle_heap()
    later = weakref.ref(Ring())
    gc.collect()
    assert later() is None


def test_what_was_set_aside_is_freed_when_nothing_refers_to_it() -> None:
    kept = {Ring()}
    seen = weakref.ref(next(iter(kept)))
    settle_heap()
    next(iter(kept)).__dict__.clear()  # no ring any more
    kept.clear()
    assert seen() is None
