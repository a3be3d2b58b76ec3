"""What libraries log, warn of and raise: kept are logger, level and class of the error. Their text may quote bytes.

``libraries_to`` takes over a whole process: the loggers of ``logging``, ``warnings``, and the hooks for what nobody
caught. Python's own way out, a traceback on standard error, would show what an exception says.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import threading
from typing import TYPE_CHECKING

from cloister.journal.log import LibraryEvent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.journal.log import EventLog

__all__ = ["LibraryHandler", "libraries_to"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,63}")
_NO_NAME = "other"


class LibraryHandler(logging.Handler):
    """Takes what a library logs and keeps who, how bad, and the class of the error."""

    def __init__(self, log: EventLog) -> None:
        """Write to ``log``."""
        super().__init__(level=logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one ``server_notice``; message and arguments are never formatted."""
        kind = record.exc_info[0] if record.exc_info else None
        self._log.write(
            LibraryEvent.SERVER_NOTICE, level=_word(record.levelname), logger=_word(record.name),
            error=_word(kind.__name__) if kind else "none",
        )  # fmt: skip


def _word(text: str) -> str:
    return text if _NAME.fullmatch(text) else _NO_NAME


@contextlib.contextmanager
def libraries_to(log: EventLog) -> Iterator[None]:
    """Let ``log`` alone say what libraries say in this process, until the block is left.

    Handlers that are there are put aside, also those of single loggers; what propagates nowhere is let propagate.
    """
    root = logging.getLogger()
    loggers = [root, *(item for item in logging.root.manager.loggerDict.values() if isinstance(item, logging.Logger))]
    before = [(item, item.handlers, item.propagate) for item in loggers]
    for item in loggers:
        item.handlers, item.propagate = [], True
    root.handlers = [LibraryHandler(log)]
    raising, logging.raiseExceptions = logging.raiseExceptions, False  # would print the record that failed
    logging.captureWarnings(capture=True)
    try:
        with _hooks_to(log):
            yield
    finally:
        logging.captureWarnings(capture=False)
        logging.raiseExceptions = raising
        for item, handlers, propagate in before:
            item.handlers, item.propagate = handlers, propagate


@contextlib.contextmanager
def _hooks_to(log: EventLog) -> Iterator[None]:
    """Let ``log`` say the class of what nobody caught, in place of a traceback."""
    before = sys.excepthook, sys.unraisablehook, threading.excepthook

    def uncaught(kind: type[BaseException] | None) -> None:
        log.write(LibraryEvent.UNCAUGHT, error=_word(kind.__name__) if kind else "none")

    sys.excepthook = lambda kind, _value, _traceback: uncaught(kind)
    sys.unraisablehook = lambda found: uncaught(found.exc_type)
    threading.excepthook = lambda found: uncaught(found.exc_type)
    try:
        yield
    finally:
        sys.excepthook, sys.unraisablehook, threading.excepthook = before
