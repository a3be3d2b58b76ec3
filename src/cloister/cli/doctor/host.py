"""The host as it is looked at: files below a root, and what the kernel says of this process."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable  # noqa: TC003 - a field of a dataclass
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

__all__ = ["Host"]

_MOST_BYTES = 256 * 1024
Limits: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host. ``root`` is another folder in tests, and the rest what a test says."""

    root: Path = Path("/")
    limit: Callable[[int], Limits] = field(default=resource.getrlimit)
    now: Callable[[], float] = field(default=time.time)

    def text(self, path: str) -> str:
        """Return what a file says, empty where it cannot be read."""
        try:
            with (self.root / path).open("rb") as file:
                return file.read(_MOST_BYTES).decode("utf-8", "replace").strip()
        except OSError:
            return ""

    def exists(self, path: str) -> bool:
        """Tell whether there is something of this name."""
        return (self.root / path).exists()
