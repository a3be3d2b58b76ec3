"""Looking for secrets where they must not be: on a disk, in logs, on a wire.

A secret is searched for as raw bytes and in the spellings it could travel in (hex, base64 at every
alignment, UTF-16). The same search must find it where it belongs, or it proves nothing.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["Needle", "files_below", "find", "spellings"]

_SHORTEST = 8  # bytes: anything shorter turns up by accident
_MAX_FILE_BYTES = 512 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Needle:
    """One secret: what it is, and its bytes."""

    name: str
    value: bytes


def spellings(value: bytes) -> Iterator[bytes]:
    """Yield ``value`` in every spelling that is searched for."""
    yield value
    yield value.hex().encode()
    yield value.hex().upper().encode()
    for shift in range(3):
        # Base64 of a longer text that holds the value somewhere: drop what its neighbours would change.
        middle = base64.b64encode(b"\x00" * shift + value)[4 if shift else 0 :].rstrip(b"=")[:-2]
        yield middle
        yield middle.replace(b"+", b"-").replace(b"/", b"_")
    if value.isascii():
        yield value.decode("ascii").encode("utf-16-le")


def find(needles: Iterable[Needle], places: Iterable[tuple[str, bytes]]) -> list[str]:
    """Return ``name of secret in name of place`` for every secret that is somewhere."""
    wanted = [(needle.name, tuple(spellings(needle.value))) for needle in needles if len(needle.value) >= _SHORTEST]
    return [
        f"{name} in {place}" for place, data in places for name, forms in wanted if any(form in data for form in forms)
    ]


def files_below(root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file below ``root`` with its content, and its own name as content too."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= _MAX_FILE_BYTES:
            name = str(path.relative_to(root))
            yield name, name.encode() + b"\n" + path.read_bytes()
