"""The enclave's counters: ceiling, used and reserved per meter, all or nothing over several meters.

A charge falls on every meter it names and needs room in all of them; a meter without a ceiling has
room for nothing. Memory only: there is no dump, on purpose (rule one of 30-metering).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.errors import Rejected, UsageError
from cloister.lending.terms import MAX_UNITS, Meter

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable, Mapping

    from cloister.lending.messages import Units

__all__ = ["Meters"]


class Meters:
    """Counts up to absolute ceilings: ``used + reserved <= limit`` holds for every meter, always."""

    __slots__ = ("_limits", "_reserved", "_tops", "_used")

    def __init__(self) -> None:
        """Start at zero: ceiling zero, nothing used, nothing reserved (rule E1)."""
        self._limits: dict[Meter, int] = {}
        self._tops: Mapping[Meter, int] = {}
        self._used: dict[Meter, int] = {}
        self._reserved: dict[Meter, int] = {}

    @property
    def limits(self) -> Units:
        """The ceilings, absolute."""
        return dict(self._limits)

    @property
    def leased(self) -> Container[Meter]:
        """The meters that have a ceiling."""
        return self._limits

    @property
    def used(self) -> Units:
        """What was served, where it is not zero."""
        return {meter: units for meter, units in self._used.items() if units}

    @property
    def reserved(self) -> Units:
        """What running inferences may still come to, where it is not zero."""
        return {meter: units for meter, units in self._reserved.items() if units}

    def raise_to(self, limits: Mapping[Meter, int]) -> None:
        """Raise ceilings; a lower one than known is ignored (rule E3: limit = max)."""
        for meter, limit in limits.items():
            self._limits[meter] = max(limit, self._limits.get(meter, 0))

    def overdraw(self, tops: Mapping[Meter, int]) -> None:
        """Let these absolute ceilings stand where they are higher, until the next call."""
        self._tops = tops

    def room(self, meter: Meter) -> int:
        """Return the units that this meter can still take."""
        ceiling = self._limits.get(meter, 0)
        if self._tops:
            ceiling = max(ceiling, self._tops.get(meter, 0))
        return ceiling - self._used.get(meter, 0) - self._reserved.get(meter, 0)

    def spoken_for(self, meter: Meter) -> int:
        """Return what is used and reserved on this meter."""
        return self._used.get(meter, 0) + self._reserved.get(meter, 0)

    def demand_room(self, meters: Iterable[Meter], units: int) -> None:
        """Prove that every meter can take ``units`` more; sets nothing aside.

        Raises ``Rejected`` (``allowance_exhausted``) with one reason for each meter without room.
        """
        if type(units) is not int or not 1 <= units <= MAX_UNITS:
            msg = f"reserve: {units!r} units, want an integer of 1 to {MAX_UNITS}"
            raise UsageError(msg)
        short = [meter for meter in meters if self.room(meter) < units]
        if short:
            reasons = tuple(
                Rejected.because("allowance_exhausted", meter, got=str(self.room(meter)), want=str(units)).reasons[0]
                for meter in short
            )
            msg = "; ".join(map(str, reasons))
            raise Rejected(msg, reasons=reasons, hint="ask the custodian for more, or wait until units are freed")

    def reserve(self, meters: Collection[Meter], units: int) -> None:
        """Set ``units`` aside on every meter, or on none. Raises as ``demand_room``."""
        self.demand_room(meters, units)
        for meter in meters:
            self._reserved[meter] = self._reserved.get(meter, 0) + units

    def settle(self, meters: Iterable[Meter], *, reserved: int, used: int) -> None:
        """Replace a reservation by what it came to: ``used`` of 0 to ``reserved`` units."""
        if type(used) is not int or not 0 <= used <= reserved:
            msg = f"settle: {used!r} units, want an integer of 0 to {reserved}"
            raise UsageError(msg)
        for meter in meters:
            self._reserved[meter] -= reserved
            self._used[meter] = self._used.get(meter, 0) + used
