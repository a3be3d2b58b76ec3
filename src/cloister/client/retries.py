"""When a question that got no answer is asked again, so that it is counted once.

All tries of a question carry one Idempotency-Key: the instance that has answered it gives the same answer again and
counts nothing. Another instance knows nothing of that. So once an answer was lost on the way, only the instance that
may have counted the question is asked again, unless the caller says otherwise. A refusal is an answer, and stays one.

Not done here: waiting for more units (``inference``); asking (``session``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Self

from cloister.client.exchange import TruncatedResponse
from cloister.errors import CloisterError, Rejected, Unavailable, UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from cloister.lending.terms import InstanceId

__all__ = ["DEFAULT_RETRY", "Attempt", "EnclaveFault", "NoAnswer", "Retry", "Retrying"]

MAX_TRIES = 100
_GROWTH = 3  # of the pause, from try to try
_STEPS = 1 << 16


class NoAnswer(Unavailable):
    """A question was sent and nothing came back: it may have been counted."""


class EnclaveFault(Unavailable):
    """The enclave answered that it failed. It counted nothing, and would most likely fail again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often a question is asked in all, and how long the pauses are; ``Retry.never()`` asks once.

    A pause is drawn between half of its length and all of it, so that a thousand consumers do not come back at one
    moment; the first is at most ``first_pause``, each further one three times as long, none longer than
    ``longest_pause``. A server that asks for a longer one is not asked again. ``other_instance``: after a lost answer
    an instance that was verified meanwhile may be asked too, and then the question may be counted at both.
    """

    tries: int = 4
    first_pause: timedelta = timedelta(seconds=1)
    longest_pause: timedelta = timedelta(seconds=30)
    other_instance: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no bound. Raises ``UsageError``."""
        if not 1 <= self.tries <= MAX_TRIES:
            msg = f"retry: {self.tries} tries, want 1 to {MAX_TRIES}"
            raise UsageError(msg)
        if not timedelta(0) <= self.first_pause <= self.longest_pause:
            msg = "retry: want pauses of no less than nothing, the first no longer than the longest"
            raise UsageError(msg)

    @classmethod
    def never(cls) -> Self:
        """Return one that asks once."""
        return cls(tries=1)

    def pause(self, tried: int, cause: CloisterError, random: bytes) -> timedelta | None:
        """Return how long to wait after ``tried`` tries; None where nothing is asked again. ``random``: two bytes."""
        if tried >= self.tries or not _is_passing(cause):
            return None
        asked_for = timedelta(seconds=(cause.retry_after_s or 0) if isinstance(cause, Unavailable) else 0)
        if asked_for > self.longest_pause:
            return None
        length = min(self.longest_pause, self.first_pause * int(_GROWTH ** min(tried - 1, 20)))
        return max(asked_for, length / 2) + length / 2 * int.from_bytes(random[:2], "big") / _STEPS


DEFAULT_RETRY = Retry()


def _is_passing(cause: CloisterError) -> bool:
    """Tell whether the same question may be answered in a moment."""
    if isinstance(cause, TruncatedResponse):
        return True
    if isinstance(cause, Rejected):
        return cause.code == "request_in_flight"  # our own first try is still running there
    return isinstance(cause, Unavailable) and not isinstance(cause, EnclaveFault)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrying:
    """What a caller is told before a question is asked again: why, as which try of how many, after what pause."""

    cause: CloisterError
    number: int
    tries: int
    pause: timedelta


@dataclass(slots=True, kw_only=True)
class Attempt:
    """What is known of one question from try to try."""

    end: datetime | None = None
    """When the caller wants an answer or none."""
    until: datetime | None = None
    """How long an exhausted allowance is waited for."""
    other_instance: bool = True
    counted_at: InstanceId | None = None
    """The instance that may have counted the question, whose answer was lost."""
    lost: CloisterError | None = field(default=None, repr=False)

    def left(self, now: datetime) -> timedelta | None:
        """Return the time until the deadline, None without one. Raises ``Unavailable`` once it has passed."""
        if self.end is None:
            return None
        if now >= self.end:
            msg = "client: no answer before the deadline"
            raise Unavailable(msg, hint="an idempotency_key of your own makes asking again later free") from self.lost
        return self.end - now

    def lose(self, instance: InstanceId, cause: CloisterError) -> None:
        """Note that the answer of an instance was lost."""
        self.counted_at, self.lost = instance, cause

    def demand(self, instance: InstanceId) -> None:
        """Refuse to ask an instance that would count again what another has counted. Raises ``Rejected``."""
        if self.counted_at not in (None, instance) and not self.other_instance:
            raise Rejected.because(
                "instance_changed", "enclave", got=instance, want=self.counted_at or "", hint=_COUNTED
            ) from self.lost


_COUNTED = "the lost answer may have been counted; ask anew, or allow it with Retry(other_instance=True)"
