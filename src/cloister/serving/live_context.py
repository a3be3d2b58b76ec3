"""A server's certificate out of files that are looked at for every handshake, for servers that nobody else looks after.

What does not fit leaves everything as it was, and is said once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloister.errors import CloisterError
from cloister.live_context import LiveContext
from cloister.serving.logs import LOG, ServingEvent

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["following", "marks_of"]


class _Following(LiveContext):
    """Makes itself anew when its files have changed."""

    make: Callable[[], ssl.SSLContext]
    files: Sequence[Path]
    seen: tuple[object, ...]

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Look, and begin a handshake."""
        marks = marks_of(self.files)
        if marks != self.seen:
            self.seen = marks  # what does not fit is looked at again once it has changed
            try:
                self.current = self.make()
            except (CloisterError, OSError):
                LOG.write(ServingEvent.TLS_KEPT, code="unreadable")
            else:
                LOG.write(ServingEvent.TLS_CHANGED)
        return super().wrap_bio(*args, **kwargs)


def following(make: Callable[[], ssl.SSLContext], files: Sequence[Path]) -> LiveContext:
    """Return a context that ``make`` makes now, and again for the first handshake behind a change of ``files``.

    Raises as ``make``.
    """
    seen = marks_of(files)
    found = _Following(make())
    found.make, found.files, found.seen = make, tuple(files), seen
    return found


def marks_of(files: Sequence[Path]) -> tuple[object, ...]:
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
