"""A few values that never change, kept so that they need not be read again."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

__all__ = ["Kept"]

Key = TypeVar("Key")
Value = TypeVar("Value")


class Kept(Generic[Key, Value]):
    """At most ``cap`` values; the one kept longest goes first. Threads may share it."""

    def __init__(self, cap: int) -> None:
        """Keep nothing yet."""
        self._cap = cap
        self._lock = threading.Lock()
        self._values: dict[Key, Value] = {}

    def get(self, key: Key) -> Value | None:
        """Return what is kept under ``key``."""
        return self._values.get(key)

    def keep(self, key: Key, value: Value) -> None:
        """Keep a value."""
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._cap:
                del self._values[next(iter(self._values))]
