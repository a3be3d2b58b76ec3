"""Sealed models in the borrower's folders and stores, found by what they are and not by what they are called.

Nothing is verified here but size and form: a package is one model because SHA-256 over its manifest says so,
and ``boot`` takes only those that the loan names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.errors import UsageError
from cloister.sealed.manifest import MANIFEST_NAME, model_digest
from cloister.sealed.parts import read_parts
from cloister.stores import open_source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cloister.stores import Access, Place

__all__ = ["FoundPackage", "find_packages"]

_MAX_PACKAGES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPackage:
    """One package where it lies, unverified."""

    place: Place
    digest: str
    manifest_bytes: bytes
    signature_bytes: bytes


def find_packages(places: Iterable[Place], access: Access) -> tuple[FoundPackage, ...]:
    """Return the packages in ``places``: each is a package, or a folder of packages. A URL names one package.

    Raises ``UsageError`` for a place that has none, ``Malformed`` and ``Unavailable`` as ``read_parts``.
    """
    found = []
    for place in places:
        roots = list(_roots(place))
        if not roots:
            msg = f"{place}: no sealed model there"
            raise UsageError(msg, hint="a sealed model is a folder with manifest.json, manifest.sig and blobs")
        found += [_read(root, access) for root in roots]
    if len(found) > _MAX_PACKAGES:
        msg = f"models: {len(found)} packages, want at most {_MAX_PACKAGES}"
        raise UsageError(msg)
    return tuple(found)


def _roots(place: Place) -> Iterator[Place]:
    if not isinstance(place, Path) or (place / MANIFEST_NAME).is_file():
        yield place
    elif place.is_dir():
        yield from sorted(item for item in place.iterdir() if (item / MANIFEST_NAME).is_file())


def _read(place: Place, access: Access) -> FoundPackage:
    with open_source(place, access=access) as source:
        package = read_parts(source)
    return FoundPackage(
        place=place,
        digest=model_digest(package.manifest_bytes),
        manifest_bytes=package.manifest_bytes,
        signature_bytes=package.signature_bytes,
    )
