"""How long a store that fails is asked again: a bounded number of times, with growing pauses, until a deadline."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from cloister.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Patience", "TryAgainError"]

T = TypeVar("T")


class TryAgainError(Exception):
    """One try failed in a way that may pass. Never leaves this room; its text is for people and holds no secret."""

    def __init__(self, why: str, *, after_s: float = 0.0) -> None:
        """Say why, and how many seconds the other side wants us to wait."""
        super().__init__(why)
        self.after_s = after_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """The bounds of one read or one write of a part."""

    tries: int = 6  # requests for the same bytes
    first_wait_s: float = 0.1  # seconds before the second try; doubles each time
    longest_wait_s: float = 10.0  # seconds, also where the other side asks for more
    silence_s: float = 20.0  # seconds without a byte
    deadline_s: float = 180.0  # seconds for all tries together, however steadily bytes drip in

    def insist(self, subject: str, work: Callable[[float], T]) -> T:
        """Return what ``work(deadline)`` returns, called again while it raises ``TryAgainError``.

        ``deadline`` is a ``time.monotonic()``. Raises ``Unavailable`` about ``subject`` at the end of patience.
        """
        deadline = time.monotonic() + self.deadline_s
        wait = self.first_wait_s
        for left in range(self.tries - 1, -1, -1):
            try:
                return work(deadline)
            except TryAgainError as exc:
                pause = min(max(wait, exc.after_s), self.longest_wait_s)
                if not left or time.monotonic() + pause >= deadline:
                    msg = f"{subject}: {exc}, {self.tries - left} times"
                    raise Unavailable(msg, hint="is the store up, and the network between?") from exc
            time.sleep(pause)
            wait *= 2
        msg = f"{subject}: never tried"
        raise Unavailable(msg)
