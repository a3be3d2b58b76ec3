"""SHA-256 of a file whose segments are worked on by several lanes: each is hashed in its turn, while it is at hand.

A model signature names digests of whole plain files, which no tree of segments gives. Taken here they cost no second
pass over the file and no copy; the lanes that wait for their turn have done the rest of their segment.
"""

from __future__ import annotations

import hashlib
from threading import Condition
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["OrderedDigest"]


class OrderedDigest:
    """One file's SHA-256. ``add`` it every segment, from any thread, each index once."""

    __slots__ = ("_hash", "_next", "_stopped", "_turn")

    def __init__(self) -> None:
        """Begin with segment 0."""
        self._hash = hashlib.sha256()
        self._next = 0
        self._stopped = False
        self._turn = Condition()

    def add(self, index: int, data: memoryview) -> bool:
        """Hash segment ``index`` once all before it are; tell whether it was: not after ``stop``."""
        with self._turn:
            self._turn.wait_for(lambda: self._stopped or self._next == index)
            if self._stopped:
                return False
        self._hash.update(data)  # nobody else has this turn; the interpreter's lock is not held meanwhile
        with self._turn:
            self._next += 1
            self._turn.notify_all()
        return True

    def stop(self) -> None:
        """Let nobody wait any more: a segment before theirs will not come."""
        with self._turn:
            self._stopped = True
            self._turn.notify_all()

    def begin(self) -> Callable[[], None]:
        """Begin, or go on with the first segment that is missing; return what to call when a lane fails."""
        self._stopped = False
        return self.stop

    def digest(self) -> bytes:
        """Return the digest of what was added."""
        return self._hash.digest()
