"""The signed checkpoint outside the database: what tells yesterday's copy from today's (C10, T38).

One file, replaced atomically and durably after every commit and before its answer. Put it on another
disk than the database: who restores the one must not restore the other by accident.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cloister.crypto.sign import Label, Statement
from cloister.errors import Malformed, Unavailable
from cloister.lending.audit import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cloister.crypto.sign import SigningKey, VerifyKey

__all__ = ["marks_at", "read_checkpoint", "read_marks", "sign_checkpoint", "write_checkpoint"]

_MAX_BYTES = 16 * 1024
_MEND = "put a whole copy back; where there is none, remove it and run cloister custodian recover"


def sign_checkpoint(checkpoint: Checkpoint, key: SigningKey) -> bytes:
    """Return the checkpoint as a signed statement."""
    return Statement.sign(key, Label.CHECKPOINT, checkpoint.dump()).dump()


def write_checkpoint(path: Path, statement: bytes) -> None:
    """Replace the file. Raises ``Unavailable``: without it nothing is answered."""
    fresh = path.with_name(path.name + ".new")
    try:
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            left = memoryview(statement)
            while left:  # a disk that fills up takes a part and says so only by the count
                left = left[os.write(fd, left) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        fresh.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as exc:
        msg = f"checkpoint {path}: {exc.strerror}"
        raise Unavailable(
            msg, retry_after_s=5, hint="no audit, no answer: give the checkpoint room to be written"
        ) from exc


def marks_at(path: Path, *, shared: bool) -> tuple[Path, ...]:
    """Return the checkpoints a database must be as new as: our own, and where processes share it theirs beside it."""
    if not shared:
        return (path,)
    return (path, *sorted(other for other in path.parent.glob("checkpoint*.json") if other != path))


def read_marks(paths: Iterable[Path], key: VerifyKey) -> tuple[Checkpoint, ...]:
    """Return the checkpoints that there are at these places. Raises as ``read_checkpoint``."""
    return tuple(mark for path in paths if (mark := read_checkpoint(path, key)) is not None)


def read_checkpoint(path: Path, key: VerifyKey) -> Checkpoint | None:
    """Return the last checkpoint, None where there is no file. Raises ``Malformed`` and ``Rejected``."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError as exc:
        msg = f"checkpoint {path}: {exc.strerror}"
        raise Unavailable(msg) from exc
    try:
        return Checkpoint.parse(Statement.parse(data, label=Label.CHECKPOINT).verify([key]))
    except Malformed as exc:
        msg = f"checkpoint {path}: {exc.message}"
        raise Malformed(msg, hint=_MEND) from exc
