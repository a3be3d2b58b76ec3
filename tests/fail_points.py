"""The n-th thing an operation does to the world fails, or is done and reported failed, or is the last one.

``FailPoints`` stands between the product and the operating system: file calls of ``os`` and ``pathlib``, and
every statement and commit of the database. Nothing is a fake: what runs is the product, and it meets a true
``OSError`` or the database's own error. After a ``CRASH`` nothing gets through any more, as nothing does from
a process that has ended; the test then opens everything anew from the disk.
"""

from __future__ import annotations

import errno
import os
import pathlib
import sqlite3
import threading
from contextlib import ExitStack, contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from sqlalchemy.engine.default import DefaultDialect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FILES = ("open", "write", "pwrite", "fsync", "ftruncate", "replace", "rename", "unlink", "mkdir", "memfd_create")
_PATHS = ("write_bytes", "write_text")
_STATEMENTS = ("do_execute", "do_execute_no_params", "do_executemany", "do_commit")


class Fault(Enum):
    """What happens at the point."""

    NOT_DONE = "failed and not persisted"
    DONE = "failed but persisted"
    CRASH = "crash right after"


class ProcessEnded(BaseException):
    """The process has ended here: not even ``except Exception`` sees it."""


class FailPoints:
    """Counts what is done to the world, and lets the ``at``-th go wrong. ``met`` is the point that did."""

    def __init__(self, at: int, fault: Fault) -> None:
        self.at, self.fault = at, fault
        self.count = 0
        self.met: str | None = None
        self.names: list[str] = []
        self.dead = False
        self._lock = threading.Lock()

    def through(self, name: str, failure: Callable[[], Exception], call: Callable[[], Any]) -> Any:
        """Do ``call``, unless it is the one, or the process has ended."""
        with self._lock:
            if self.dead:
                raise ProcessEnded
            self.count += 1
            self.names.append(name)
            if self.count != self.at:
                return call()
            self.met = name
            if self.fault is Fault.NOT_DONE:
                raise failure()
            done = call()
            if name in ("open", "memfd_create"):
                os.close(done)  # what nobody was given is nobody's to close
            if self.fault is Fault.DONE:
                raise failure()
            self.dead = True
            raise ProcessEnded

    @contextmanager
    def standing(self) -> Iterator[None]:
        """Stand between the product and the system."""
        with ExitStack() as stack:
            for name in _FILES:
                stack.enter_context(patch.object(os, name, self._file(name, getattr(os, name))))
            for name in _PATHS:
                stack.enter_context(patch.object(pathlib.Path, name, self._file(name, getattr(pathlib.Path, name))))
            for name in _STATEMENTS:
                stack.enter_context(patch.object(DefaultDialect, name, self._statement(getattr(DefaultDialect, name))))
            yield

    def _file(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            if name == "open" and not _writes(args):
                return real(*args, **kwargs)
            return self.through(name, lambda: OSError(errno.EIO, "input/output error"), lambda: real(*args, **kwargs))

        return called

    def _statement(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def executed(dialect: Any, first: Any, *args: Any, **kwargs: Any) -> Any:
            words = str(args[0]).split() if args else ["COMMIT"]
            if words[0] in ("SELECT", "PRAGMA"):
                return real(dialect, first, *args, **kwargs)
            return self.through(
                " ".join(words[:3]).lower(), _database_error, lambda: real(dialect, first, *args, **kwargs)
            )

        return executed


def _writes(args: tuple[Any, ...]) -> bool:
    return len(args) > 1 and bool(args[1] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _database_error() -> Exception:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_IOERR, "SQLITE_IOERR"
    return error


__all__ = ["FailPoints", "Fault", "ProcessEnded"]
