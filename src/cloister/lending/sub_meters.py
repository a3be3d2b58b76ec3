"""What sub-allowances have used here: counted by block, in enclave memory, beside the loan's own meters.

A block's count takes in everything below it: whoever narrows a sub-allowance a hundred times still has the one
total. Each instance counts for itself and a restart starts at zero; what bounds all of them is the loan's own
meter, which the custodian keeps (docs/spec/sub-allowance.md, section 5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.errors import Reason, Rejected

if TYPE_CHECKING:
    from datetime import datetime

    from cloister.lending.sub_allowance import BlockId, Caveats, SubAllowance

__all__ = ["MAX_COUNTED", "MAX_COUNTED_PER_ROOT", "SubMeters"]

MAX_COUNTED = 10_000  # blocks that are counted at once
MAX_COUNTED_PER_ROOT = 256  # of them below one block of the borrower's, so that no holder can fill the table
_MINUTE_S = 60


@dataclass(slots=True, kw_only=True)
class _Count:
    """What one block has used and set aside, and what was reserved in the current minute."""

    root: BlockId
    ends: datetime
    used: int = 0
    reserved: int = 0
    minute: int = 0
    in_minute: int = 0


class SubMeters:
    """Counts of every block that has a cap: ``used + reserved <= units`` holds for each, always."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        """Start at zero."""
        self._counts: dict[BlockId, _Count] = {}

    def room(self, sub: SubAllowance) -> int | None:
        """Return what is left of the totals, None where no block has one."""
        left = [cap.units - self._spoken_for(block) for block, cap in _capped(sub) if cap.units is not None]
        return min(left, default=None)

    def reserve(self, sub: SubAllowance, units: int, now: datetime) -> None:
        """Set ``units`` aside with every block that has a cap, or with none.

        Raises ``Rejected`` (``sub_allowance_exhausted``, ``sub_allowance_rate``, ``sub_allowances_busy``).
        """
        minute = int(now.timestamp()) // _MINUTE_S
        reasons = [reason for block, cap in _capped(sub) for reason in self._short(block, cap, units, minute)]
        if reasons:
            raise Rejected("; ".join(map(str, reasons)), reasons=tuple(reasons))
        self._make_room(sub, now)
        for block, _ in _capped(sub):
            upto = sub.ids.index(block) + 1
            count = self._counts.setdefault(block, _Count(root=sub.ids[0], ends=sub.ends(upto)))
            count.in_minute = units + (count.in_minute if count.minute == minute else 0)
            count.minute = minute
            count.reserved += units

    def settle(self, sub: SubAllowance, *, reserved: int, used: int) -> None:
        """Replace a reservation by what it came to. What a minute has reserved stays counted in that minute."""
        for block, _ in _capped(sub):
            self._counts[block].reserved -= reserved
            self._counts[block].used += used

    def _spoken_for(self, block: BlockId) -> int:
        count = self._counts.get(block)
        return count.used + count.reserved if count else 0

    def _short(self, block: BlockId, cap: Caveats, units: int, minute: int) -> list[Reason]:
        found = []
        if cap.units is not None and self._spoken_for(block) + units > cap.units:
            got = str(max(0, cap.units - self._spoken_for(block)))
            found.append(Reason(code="sub_allowance_exhausted", subject="sub-allowance", got=got, want=str(units)))
        count = self._counts.get(block)
        now_in = count.in_minute if count is not None and count.minute == minute else 0
        if cap.per_minute is not None and now_in + units > cap.per_minute:
            want = f"at most {cap.per_minute} in a minute"
            found.append(Reason(code="sub_allowance_rate", subject="sub-allowance", got=str(now_in + units), want=want))
        return found

    def _make_room(self, sub: SubAllowance, now: datetime) -> None:
        """Forget what has ended where the table is full. Raises ``Rejected`` where it stays full."""
        new = [block for block, _ in _capped(sub) if block not in self._counts]
        if not new or self._fits(sub, len(new)):
            return
        self._counts = {key: item for key, item in self._counts.items() if item.reserved or now < item.ends}
        if not self._fits(sub, len(new)):
            raise Rejected.because("sub_allowances_busy", "sub-allowances", hint="too many are counted here at once")

    def _fits(self, sub: SubAllowance, new: int) -> bool:
        if len(self._counts) + new > MAX_COUNTED:
            return False
        same = sum(1 for item in self._counts.values() if item.root == sub.ids[0])
        return same + new <= MAX_COUNTED_PER_ROOT


def _capped(sub: SubAllowance) -> list[tuple[BlockId, Caveats]]:
    """Return the blocks that count something."""
    pairs = zip(sub.ids, sub.caveats, strict=True)
    return [(block, cap) for block, cap in pairs if cap.units is not None or cap.per_minute is not None]
