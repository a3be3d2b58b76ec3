"""Open the package at any place: the one table from kinds of places to what reads them."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.sealed.directory import DirectorySource
from cloister.stores.http import HttpSource
from cloister.stores.place import parse_place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.sealed.open import DirectSource
    from cloister.stores.access import Access
    from cloister.stores.patience import Patience
    from cloister.stores.place import Place

__all__ = ["open_source"]


@contextmanager
def open_source(
    where: Place | str, *, access: Access | None = None, patience: Patience | None = None
) -> Iterator[DirectSource]:
    """Yield the package at ``where``, a path or a URL; nothing is read yet, and connections end with the block.

    Raises ``UsageError`` for a place that is none. What is read raises ``Unavailable``.
    """
    place = parse_place(where) if isinstance(where, str) else where
    if isinstance(place, Path):
        yield DirectorySource(place)
        return
    with HttpSource(place, access=access, patience=patience) as source:
        yield source
