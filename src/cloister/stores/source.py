"""Open the package at any place: the one table from kinds of places to what reads them."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.errors import UsageError
from cloister.sealed.directory import DirectorySource
from cloister.stores.ahead import ReadAhead
from cloister.stores.bucket import Bucket
from cloister.stores.http import HttpSource
from cloister.stores.place import parse_place
from cloister.stores.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.sealed.open import DirectSource
    from cloister.stores.access import Access
    from cloister.stores.patience import Patience
    from cloister.stores.place import Place
    from cloister.stores.push import Target

__all__ = ["open_source", "open_target"]

_TARGETS: dict[str, type[Bucket | Registry]] = {"az": Bucket, "gs": Bucket, "oci": Registry, "s3": Bucket}
"""What both reads and takes packages, by the scheme of its URLs; the other schemes are the web's."""


@contextmanager
def open_source(
    where: Place | str, *, access: Access | None = None, patience: Patience | None = None, whole: bool = False
) -> Iterator[DirectSource]:
    """Yield the package at ``where``, a path or a URL; nothing is read yet, and connections end with the block.

    ``whole`` says that it will be read from end to end: behind a URL, what comes next is then fetched ahead.
    Raises ``UsageError`` for a place that is none. What is read raises ``Unavailable``.
    """
    place = parse_place(where) if isinstance(where, str) else where
    if isinstance(place, Path):
        yield DirectorySource(place)
        return
    kind: type[Bucket | HttpSource | Registry] = _TARGETS.get(place.scheme, HttpSource)
    with kind(place, access=access, patience=patience) as source:
        if not whole:
            yield source
            return
        with ReadAhead(source) as ahead:
            yield ahead


@contextmanager
def open_target(
    where: Place | str, *, access: Access | None = None, patience: Patience | None = None
) -> Iterator[Target]:
    """Yield the store at ``where`` for a package to be put there. Raises ``UsageError`` where none can be."""
    place = parse_place(where) if isinstance(where, str) else where
    if isinstance(place, Path) or place.scheme not in _TARGETS:
        msg = f"{place}: no store that takes models"
        raise UsageError(msg, hint="want a bucket or a registry, as s3://BUCKET/FOLDER or oci://HOST/REPOSITORY:TAG")
    with _TARGETS[place.scheme](place, access=access, patience=patience) as target:
        yield target
