"""What was proven once and does not change: bounded, so that a stranger's certificates cannot fill the memory.

Not done here: time. Whoever remembers a thing with a window looks at the window each time.
"""

from __future__ import annotations

import hashlib
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Memo"]

T = TypeVar("T")


class Memo(Generic[T]):
    """Remembers the last ``cap`` things by the digest of what they were made from. Safe for threads."""

    def __init__(self, cap: int) -> None:
        """Start empty."""
        self._cap = cap
        self._lock = Lock()
        self._found: dict[bytes, T] = {}

    def recall(self, parts: tuple[bytes, ...], make: Callable[[], T], fresh: Callable[[T], bool] = lambda _: True) -> T:
        """Return what was made from ``parts`` if it is still ``fresh``, or make it. An error is not remembered."""
        key = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()
        found = self._found.get(key)
        if found is None or not fresh(found):
            found = make()
            with self._lock:
                self._found.pop(key, None)
                if len(self._found) >= self._cap:
                    del self._found[next(iter(self._found))]
                self._found[key] = found
        return found
