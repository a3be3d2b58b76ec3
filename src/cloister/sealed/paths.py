"""Logical paths of the files in a sealed model: one strict spelling, checked by writer and reader.

They never name a place on a disk here; a loader may turn them into one, so they must be harmless
everywhere (docs/spec/sealed-model.md, section "Paths").
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, NewType

from cloister.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MAX_PATH_BYTES", "ModelPath", "parse_path", "parse_paths"]

ModelPath = NewType("ModelPath", str)
"""A path that ``parse_path`` let pass."""

MAX_PATH_BYTES = 255  # bytes of UTF-8 in a whole path, so that no part of it can be longer either
MAX_PATH_PARTS = 16  # folders and the name
_SHOWN = 60  # characters of a hostile path in an error message
_FORBIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, direction marks and other characters nobody sees


def parse_path(text: str, *, what: str = "model path") -> ModelPath:
    """Return ``text`` as a path: relative, ``/`` between parts, NFC, no ``.`` or ``..``, bounded, printable.

    Raises ``Malformed``.
    """
    shown = ascii(text[:_SHOWN])
    if not _fits(text):
        msg = f"{what} {shown}: want 1 to {MAX_PATH_BYTES} bytes of utf-8"
        raise Malformed(msg)
    if any(unicodedata.category(char) in _FORBIDDEN for char in text) or "\\" in text:
        msg = f"{what} {shown}: control character, direction mark or backslash"
        raise Malformed(msg)
    if unicodedata.normalize("NFC", text) != text:
        msg = f"{what} {shown}: not in unicode normal form c"
        raise Malformed(msg)
    parts = text.split("/")
    if len(parts) > MAX_PATH_PARTS or any(part in {"", ".", ".."} for part in parts):
        msg = f"{what} {shown}: want a relative path of 1 to {MAX_PATH_PARTS} parts, none empty, '.' or '..'"
        raise Malformed(msg)
    return ModelPath(text)


def _fits(text: str) -> bool:
    try:
        return 0 < len(text) <= MAX_PATH_BYTES and len(text.encode("utf-8")) <= MAX_PATH_BYTES
    except UnicodeEncodeError:  # half a surrogate pair, which no file system of ours keeps
        return False


def parse_paths(texts: Sequence[str], *, what: str = "model path") -> tuple[ModelPath, ...]:
    """Return all paths of a model; they must be sorted by code point, and no two may ever meet.

    Two paths meet when they are equal after case folding and NFKC, for on some file systems they are
    one; and when one is a folder of the other. Raises ``Malformed``.
    """
    paths = tuple(parse_path(text, what=what) for text in texts)
    if list(paths) != sorted(paths):
        msg = f"{what}s: not sorted by code point"
        raise Malformed(msg)
    folded = [_fold(path) for path in paths]
    taken = set(folded)
    if len(taken) != len(folded):
        msg = f"{what}s: two are the same on some file systems"
        raise Malformed(msg)
    for path in folded:
        parts = path.split("/")
        if any("/".join(parts[:depth]) in taken for depth in range(1, len(parts))):
            msg = f"{what}s: {path[:_SHOWN]!a} lies below a file"
            raise Malformed(msg)
    return paths


def _fold(path: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", path).casefold())
