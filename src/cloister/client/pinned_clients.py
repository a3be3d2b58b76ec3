"""Connections under attested keys, kept apart by these and by the certificate of our own that lies in a file just then.

    file changed -> another client for new requests; the old one ends with what is on it, once four others came

So a renewed certificate is shown from the next request on, though connections are kept open. A file that is no use
changes nothing, and it is said once.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from cloister.client.connections import pinned_options
from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from cloister.client.plan import Open

__all__ = ["PinnedClients"]

_KEPT = 4  # clients whose connections are kept: keys of now and before, and a certificate of now and before under each
_LOG = logging.getLogger(__name__)
_Mark: TypeAlias = "tuple[int, int, int] | None"
C = TypeVar("C")


class PinnedClients(Generic[C]):
    """Hands out the client for a step that names keys. ``make`` is the class of clients, blocking or not."""

    def __init__(self, make: Callable[..., C], *, timeout: timedelta, certificate: Path | str | None) -> None:
        """Prepare; nothing is read yet."""
        self._make, self._timeout = make, timeout
        self._certificate = None if certificate is None else Path(certificate)
        self._shown = self._seen = self._mark()
        self._kept: dict[tuple[tuple[bytes, ...], _Mark], C] = {}

    def all(self) -> list[C]:
        """Return every client that is to be closed in the end."""
        return list(self._kept.values())

    def find(self, step: Open) -> tuple[C, C | None]:
        """Return the client for a step, and one that is to be closed now, if there is.

        Raises ``UsageError`` for a file that is no use where no client shows an earlier one under these keys.
        """
        mark, before = self._mark(), self._kept.get((step.keys, self._shown))
        if before is not None and mark in {self._shown, self._seen}:  # what is no use is looked at once it changes
            return before, None
        self._seen = mark
        options: dict[str, Any]
        try:
            options = pinned_options(step, self._timeout, self._certificate)
        except UsageError:
            if before is None:
                raise
            _LOG.warning("client certificate: the changed file is no use, and the one before is shown")
            return before, None
        self._shown = mark
        over = self._kept.pop((step.keys, mark), None)
        made = self._kept[step.keys, mark] = self._make(**options)
        if len(self._kept) > _KEPT:
            over = self._kept.pop(next(iter(self._kept)))
        return made, over

    def _mark(self) -> _Mark:
        """Return what changes when the file does, None where there is none."""
        try:
            status = None if self._certificate is None else self._certificate.stat()
        except OSError:
            return None
        return None if status is None else (status.st_ino, status.st_mtime_ns, status.st_size)
