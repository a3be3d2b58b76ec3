"""The files of a model where it lies: in a folder before it is sealed, in sealed memory after it was opened."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cloister.sealed.formats.window import ModelFile

if TYPE_CHECKING:
    from cloister.sealed.directory import PlainFile, PlainTree
    from cloister.sealed.open import OpenedModel

__all__ = ["opened_files", "plain_files"]


def plain_files(tree: PlainTree) -> tuple[ModelFile, ...]:
    """Return the files of a model that is to be sealed. A file that changes meanwhile is a ``UsageError``."""
    return tuple(
        ModelFile(path=entry.path, size=entry.size, read=partial(_read_plain, tree, entry)) for entry in tree.files
    )


def _read_plain(tree: PlainTree, entry: PlainFile, offset: int, size: int) -> bytes:
    out = bytearray(max(0, min(size, entry.size - offset)))
    tree.read_into(entry, offset, memoryview(out))
    return bytes(out)


def opened_files(opened: OpenedModel) -> tuple[ModelFile, ...]:
    """Return the files of an opened model, for as long as it is open: what is read is what an engine gets."""
    return tuple(
        ModelFile(path=path, size=opened.manifest.file(path).size, read=partial(_read_opened, opened, path))
        for path in opened.files
    )


def _read_opened(opened: OpenedModel, path: str, offset: int, size: int) -> bytes:
    return bytes(opened.view(path)[offset : offset + size])
