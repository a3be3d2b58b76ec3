"""TLS settings of a server that change while it listens: each handshake is made by those that are current then.

``LiveContext`` hands handshakes to another context, whole: certificates, and whom clients are believed by. Connections
that are open keep what they began with. ``following`` looks at files for every handshake, for servers that nobody else
looks after; what does not fit leaves everything as it was, and is said once.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from cloister.errors import CloisterError
from cloister.journal import EventLog, JournalEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["LiveContext", "ServingEvent", "following"]


class ServingEvent(JournalEvent):
    """What a small server says of its certificate."""

    TLS_CHANGED = "tls_changed"
    TLS_KEPT = "tls_kept"


_LOG = EventLog(lambda: datetime.now(UTC))


class LiveContext(ssl.SSLContext):
    """A server's TLS context that hands every handshake to the one that is current."""

    current: ssl.SSLContext

    def __new__(cls, current: ssl.SSLContext) -> Self:
        """Hand handshakes to ``current``; assign another to change."""
        made = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        made.current = current
        return made

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Begin a handshake with the current settings."""
        return self.current.wrap_bio(*args, **kwargs)


class _Following(LiveContext):
    """Makes itself anew when its files have changed."""

    make: Callable[[], ssl.SSLContext]
    files: Sequence[Path]
    seen: tuple[object, ...]

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Look, and begin a handshake."""
        marks = _marks(self.files)
        if marks != self.seen:
            self.seen = marks  # what does not fit is looked at again once it has changed
            try:
                self.current = self.make()
            except (CloisterError, OSError):
                _LOG.write(ServingEvent.TLS_KEPT, code="unreadable")
            else:
                _LOG.write(ServingEvent.TLS_CHANGED)
        return super().wrap_bio(*args, **kwargs)


def following(make: Callable[[], ssl.SSLContext], files: Sequence[Path]) -> LiveContext:
    """Return a context that ``make`` makes now, and again for the first handshake behind a change of ``files``.

    Raises as ``make``.
    """
    seen = _marks(files)
    found = _Following(make())
    found.make, found.files, found.seen = make, tuple(files), seen
    return found


def _marks(files: Sequence[Path]) -> tuple[object, ...]:
    """Return what changes when a file does."""
    found: list[object] = []
    for path in files:
        try:
            status = path.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(found)
