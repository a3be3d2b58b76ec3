"""A folder of vendors' endorsements, called as their names say: ``FOLDER/amd/milan/crl``.

Format and names are in docs/reference/endorsements.md. Enclaves hand them on to consumers, consumers take their own:
nobody believes them for lying there, the verifier checks every signature and window.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["read_endorsements"]

MAX_FILES = 16  # as many as an evidence document carries
MAX_FILE_BYTES = 256 * 1024  # bytes of one


def read_endorsements(folder: Path | None) -> Mapping[str, bytes]:
    """Return every file below ``folder`` by its relative path; nothing for no folder.

    Raises ``UsageError`` for a folder that is none, too many files or too long ones.
    """
    if folder is None:
        return {}
    if not folder.is_dir():
        msg = f"endorsements {folder}: no such folder"
        raise UsageError(msg)
    found: dict[str, bytes] = {}
    for place, _, names in os.walk(folder):
        for name in sorted(names):
            path = folder / os.path.relpath(place, folder) / name
            if path.is_symlink() or not path.is_file():
                continue
            with path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
            found[path.resolve().relative_to(folder.resolve()).as_posix()] = data
            if len(found) > MAX_FILES or len(data) > MAX_FILE_BYTES:
                msg = f"endorsements {folder}: want at most {MAX_FILES} files of {MAX_FILE_BYTES} bytes"
                raise UsageError(msg)
    return found
