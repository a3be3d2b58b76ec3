"""What each consumer has asked here, held against its limits (docs/spec/consumer-limits.md, section 3).

Memory only, and so made that losing it wins nothing: an instance has **earned** only what its own age gives it. A
bucket starts empty, and in its first window an instance may give the part of a budget that the window is old. However
often it is restarted, it never gives more than the limit comes to over the time it lived.

Time is the lease's, as it was seen to pass (``lease_clock.Passed``): a clock that steps voids the lease and refills
nothing. Pure. Not done here: totals of a loan, which the custodian keeps (``meters``).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeAlias

from cloister.errors import Reason, Rejected
from cloister.lending.consumer_limits import SLOTS, Budget, ConsumerLimits, Limits, Rate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.lending.lease_clock import Passed

__all__ = ["ANYBODY", "GUESTS", "SLOW_FOR", "SLOW_UNIT", "ConsumerMeters", "Mark"]

ANYBODY, GUESTS = "", "*"
"""Accounts that no consumer's id can be: all of an open loan together, and all sub-allowances together."""

Mark: TypeAlias = tuple[int, ...]
"""The slot of each budget that units were counted in, so that they can be given back there."""

SLOW_FOR = timedelta(hours=1)  # how long an alarm slows its consumer down
SLOW_UNIT = timedelta(seconds=10)  # how long the next request waits for each unit of the one before it, so long

_SECOND = 1_000_000  # microseconds: all of time here is whole ones
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class _Bucket:
    """A rate, as the time at which all that was asked is earned (GCRA); in microseconds times ``rate.units``."""

    rate: Rate
    due: int

    @property
    def _cost(self) -> int:
        return self.rate.per_s * _SECOND

    def wait(self, units: int, now: int) -> int | None:
        """Return the microseconds until ``units`` fit, 0 for now, None for never."""
        if units > self.rate.burst:
            return None
        short = self._next(units, now) - self.rate.burst * self._cost - now * self.rate.units
        return -(-max(0, short) // self.rate.units)

    def count(self, units: int, now: int) -> None:
        self.due = self._next(units, now)

    def _next(self, units: int, now: int) -> int:
        return max(self.due, now * self.rate.units) + units * self._cost


@dataclass(slots=True)
class _Window:
    """A budget's part of this instance: units by slot, a sixtieth of the window each, oldest first."""

    budget: Budget
    share: int
    began: int
    slots: deque[list[int]] = field(default_factory=deque)

    @property
    def _length(self) -> int:
        return self.budget.window_s * _SECOND

    @property
    def _slot(self) -> int:
        return self._length // SLOTS

    def room(self, now: int) -> int:
        """Return the units that fit now."""
        self._forget(now)
        room, age = self.share - self._held(now), now - self.began
        if age < self._length:
            room = min(room, self.share * age // self._length - self._all())
        return max(0, room)

    def wait(self, units: int, now: int) -> int | None:
        """Return the microseconds until ``units`` fit, 0 for now, None for never."""
        if units > self.share:
            return None
        if units <= self.room(now):
            return 0
        return next(moment - now for moment in self._moments(units, now) if moment > now)

    def count(self, units: int, now: int) -> int:
        at = now // self._slot
        if not self.slots or self.slots[-1][0] != at:
            self.slots.append([at, 0])
        self.slots[-1][1] += units
        return at

    def give_back(self, units: int, at: int) -> None:
        for slot in self.slots:
            if slot[0] == at:
                slot[1] -= units

    def _moments(self, units: int, now: int) -> Iterator[int]:
        """Yield, in order, moments at which there may be room; the last one has it unless more is asked before."""
        young = self.began + self._length
        if now < young:  # it has earned share * age / window
            yield min(young, self.began + -(-(self._all() + units) * self._length // self.share))
        if self.budget.fixed:
            yield (now // self._length + 1) * self._length
            return
        over = self._held(now) + units - self.share
        for at, used in self.slots:
            over -= used
            if over <= 0:
                yield (at + SLOTS + 1) * self._slot
                return
        yield now + self._length

    def _all(self) -> int:
        return sum(used for _, used in self.slots)

    def _held(self, now: int) -> int:
        """Return what counts against the window of now; a slot counts until all of it is a window old."""
        first = now // self._length * SLOTS if self.budget.fixed else now // self._slot - SLOTS
        return sum(used for at, used in self.slots if at >= first)

    def _forget(self, now: int) -> None:
        while self.slots and self.slots[0][0] < now // self._slot - SLOTS:
            self.slots.popleft()


@dataclass(slots=True)
class _Account:
    """One consumer's bucket and windows."""

    bucket: _Bucket | None
    windows: tuple[_Window, ...]


@dataclass(slots=True)
class _Slowed:
    """A consumer that an alarm slowed down: until when, and when it may be served next; in microseconds."""

    until: int
    at: int


class ConsumerMeters:
    """Counts of every consumer that has limits; one that has none is not counted. And who was slowed or stopped."""

    __slots__ = ("_accounts", "_instances", "_limits", "_slowed", "_stopped")

    def __init__(self, limits: ConsumerLimits | None, *, max_instances: int) -> None:
        """Start with nothing asked. Each of ``max_instances`` gives an equal part of a budget."""
        self._limits = limits
        self._instances = max_instances
        self._accounts: dict[str, _Account] = {}
        self._slowed: dict[str, _Slowed] = {}
        self._stopped: set[str] = set()

    def stop(self, who: str) -> None:
        """Serve ``who`` nothing more here."""
        self._stopped.add(who)

    def slow(self, who: str, passed: Passed) -> None:
        """Serve ``who`` slowly for ``SLOW_FOR`` from now on."""
        now = _now(passed)
        slowed = self._slowed.setdefault(who, _Slowed(until=now, at=now + _micros(SLOW_UNIT)))
        slowed.until = now + _micros(SLOW_FOR)

    @property
    def quiet(self) -> bool:
        """Tell whether nobody is counted, slowed or stopped here: then there is nothing to ask."""
        return self._limits is None and not self._slowed and not self._stopped

    def demand_admitted(self, who: str) -> None:
        """Prove that no alarm stopped ``who``. Raises ``Rejected`` (``consumer_stopped``)."""
        if who in self._stopped:
            raise Rejected.because(
                "consumer_stopped", "consumer", hint="its questions set off an alarm of the contract"
            )

    def demand(self, who: str, units: int, passed: Passed) -> None:
        """Prove that ``units`` fit all limits of ``who``; counts nothing.

        Raises ``Rejected`` with every reason (``rate_limited``, ``budget_spent``), and after how many seconds to ask
        again where that can help.
        """
        account, now = self._account(who, passed), _now(passed)
        found: list[tuple[Reason, int | None]] = [*self._too_soon(who, units, now)]
        if account is not None:
            found += _short(account, units, now)
        if not found:
            return
        reasons = tuple(reason for reason, _ in found)
        waits = [wait for _, wait in found]
        after = None if None in waits else -(-max(wait for wait in waits if wait is not None) // _SECOND)
        hint = "ask for fewer units at once" if after is None else "ask again after that time"
        raise Rejected("; ".join(map(str, reasons)), reasons=reasons, hint=hint, retry_after_s=after)

    def count(self, who: str, units: int, passed: Passed) -> Mark:
        """Count ``units`` that ``demand`` let pass."""
        account, now = self._account(who, passed), _now(passed)
        slowed = self._slowed.get(who)
        if slowed is not None:
            slowed.at = now + units * _micros(SLOW_UNIT)
        if account is None:
            return ()
        if account.bucket is not None:
            account.bucket.count(units, now)
        return tuple(window.count(units, now) for window in account.windows)

    def give_back(self, who: str, units: int, mark: Mark) -> None:
        """Give units of a budget back that were not used. What a rate has let pass stays passed."""
        account = self._accounts.get(who)
        if account is not None:
            for window, at in zip(account.windows, mark, strict=True):
                window.give_back(units, at)

    def room(self, who: str, passed: Passed) -> int | None:
        """Return what the budgets of ``who`` leave now, None where it has none."""
        account, now = self._account(who, passed), _now(passed)
        return None if account is None else min((window.room(now) for window in account.windows), default=None)

    def _too_soon(self, who: str, units: int, now: int) -> Iterator[tuple[Reason, int]]:
        """Yield why one that an alarm slowed down must wait, and for how many microseconds."""
        slowed = self._slowed.get(who)
        if slowed is not None and now < min(slowed.at, slowed.until):
            want = f"{SLOW_UNIT.seconds} s between units, since an alarm of the contract"
            yield Reason(code="rate_limited", subject="consumer", got=str(units), want=want), slowed.at - now

    def _account(self, who: str, passed: Passed) -> _Account | None:
        found = self._accounts.get(who)
        if found is None and self._limits is not None:
            limits = self._limits.of_guests if who == GUESTS else self._limits.of(who)
            found = self._opened(limits, passed)
            if found is not None:
                self._accounts[who] = found
        return found

    def _opened(self, limits: Limits, passed: Passed) -> _Account | None:
        """Return an account as old as this instance, nothing asked of it yet; None for one without limits."""
        if limits.rate is None and not limits.budgets:
            return None
        began, rate = _micros(passed.began - _EPOCH), limits.rate
        windows = tuple(
            _Window(budget, share=budget.units // self._instances, began=began) for budget in limits.budgets
        )
        if rate is None:
            return _Account(None, windows)
        return _Account(_Bucket(rate, due=began * rate.units + rate.burst * rate.per_s * _SECOND), windows)


def _short(account: _Account, units: int, now: int) -> Iterator[tuple[Reason, int | None]]:
    """Yield each limit that ``units`` do not fit, and the microseconds until they do."""
    if account.bucket is not None:
        rate, wait = account.bucket.rate, account.bucket.wait(units, now)
        if wait != 0:
            want = f"{rate.units} in {rate.per_s} s, at most {rate.burst} at once"
            yield Reason(code="rate_limited", subject="consumer", got=str(units), want=want), wait
    for window in account.windows:
        wait = window.wait(units, now)
        if wait != 0:
            got = f"{window.room(now)} left of {window.share} in {window.budget.window_s} s"
            yield Reason(code="budget_spent", subject="consumer", got=got, want=str(units)), wait


def _now(passed: Passed) -> int:
    return _micros(passed.began - _EPOCH + passed.lasted)


def _micros(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1)
