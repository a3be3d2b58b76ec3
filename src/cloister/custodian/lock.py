"""One custodian per home: an operating-system lock that ends with its process (T39).

The kernel drops the lock when the holder dies, however it dies; there is no stale lock to remove.
Copies of a home on other machines are caught by the fence in the database and by the checkpoint.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Self

from cloister.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["HomeLock"]

_MAX_LINE = 200


class HomeLock:
    """Holds ``<home>/lock`` until closed."""

    __slots__ = ("_fd",)

    def __init__(self, path: Path) -> None:
        """Take the lock. Raises ``Unavailable``, saying which process holds it or what failed; then it is let go."""
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._take(path)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"process {os.getpid()}\n".encode("ascii"), 0)
        except OSError as exc:
            self.close()
            msg = f"custodian home {path.parent}: lock: {exc.strerror}"
            raise Unavailable(msg, hint="give the home's disk room to be written") from exc
        except BaseException:
            self.close()
            raise

    def _take(self, path: Path) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            holder = os.pread(self._fd, _MAX_LINE, 0).decode("ascii", "replace").strip() or "another process"
            msg = f"custodian home {path.parent}: held by {holder}"
            raise Unavailable(
                msg, hint="stop that process first; two custodians must never share a ledger", code="home_locked"
            ) from exc

    def close(self) -> None:
        """Let go of the lock. A second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
