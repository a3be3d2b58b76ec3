"""What ``custodian top`` shows: loans with what is left of them and until when, instances, alarms, the log's newest.

Pure but for the keys that were pressed: a frame comes of what was heard, a size and the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING

from rich.text import Text

from cloister.cli.consoles.layout import FAINT, STRONG, WARN, Cell, Column, Table, cut, fitted, split_line
from cloister.cli.consoles.parts import (
    STATE_STYLES,
    alarm_lines,
    entry_table,
    freshness,
    instance_table,
    newest,
    outlook_cell,
    trouble_lines,
)
from cloister.cli.consoles.words import clock, per_minute, short_units
from cloister.lending.forecast import Outlook

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloister.cli.consoles.feed import Standing
    from cloister.cli.consoles.glyphs import Glyphs
    from cloister.cli.consoles.heard import AlarmHeard, InstanceHeard, LoanHeard
    from cloister.cli.consoles.screen import View
    from cloister.wire import Json

__all__ = ["CustodianView", "Custody", "Order"]

_COLUMNS = (
    Column(title="LOAN", least=13, most=21),
    Column(title="BORROWER", least=10, most=28, rank=6),
    Column(title="STATE", least=9, most=9, rank=8),
    Column(title="LIVE", least=4, most=4, rank=3, right=True),
    Column(title="LEFT", least=6, most=6, right=True),
    Column(title="", least=6, most=24, rank=5),
    Column(title="LAST HOUR", least=9, most=30, rank=4),
    Column(title="/MIN", least=5, most=5, right=True, rank=7),
    Column(title="EMPTY IN", least=15, most=16),
)
_FAR = datetime(9999, 1, 1, tzinfo=UTC)
_LEAST_INSTANCES, _LEAST_ENTRIES = 2, 3  # rows that loans leave to the others while there are that many
_KEYS = "q quit  s sort  / filter  enter one loan  e all events  up, down, page keys move"


class Order(Enum):
    """What loans are sorted by."""

    SOONEST = "soonest empty"
    LEAST = "least left"
    FASTEST = "fastest spent"
    NAME = "name"
    NEWEST = "newest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Custody:
    """What a custodian said of itself as of ``at``, its own time."""

    at: datetime
    loans: tuple[LoanHeard, ...]
    instances: tuple[InstanceHeard, ...]
    alarms: tuple[AlarmHeard, ...]

    def to_json(self) -> dict[str, Json]:
        """Return it for programs."""
        return {
            "alarms": [{"code": one.code, "count": one.count, "severity": one.severity} for one in self.alarms],
            "instances": [one.to_json() for one in self.instances if one.live],
            "loans": [one.to_json() for one in self.loans],
        }


class CustodianView:
    """The view. ``opened`` makes the view of one loan, ``keys`` says whether anybody can press any."""

    def __init__(
        self,
        standing: Callable[[], Standing[Custody]],
        *,
        where: str,
        glyphs: Glyphs,
        interval: timedelta,
        opened: Callable[[str], View] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Show what ``standing`` returns."""
        self._standing, self._where, self._glyphs, self._interval = standing, where, glyphs, interval
        self._opened, self._now = opened, now
        self._order, self._filter, self._typing, self._routine = Order.SOONEST, "", False, False
        self._selected, self._page = 0, 1
        self._loan: View | None = None

    def frame(self, width: int, height: int) -> Sequence[Text]:
        """Return the lines."""
        if self._loan is not None:
            return self._loan.frame(width, height)
        standing, now = self._standing(), self._now()
        top = [self._title(standing, now, width), *trouble_lines(standing, now, width, self._glyphs)]
        data = standing.data
        if data is None:
            return self._footed([*top, Text("waiting for the custodian's first answer", style=FAINT)], width, height)
        theirs = data.at + (now - (standing.heard_at or now))  # the custodian's time: ages are by its clock
        loans = self._shown(data.loans)
        self._selected = max(0, min(self._selected, len(loans) - 1))
        top.append(self._totals(data, len(loans), width))
        top += alarm_lines(data.alarms, theirs, width, self._glyphs)
        live = [one for one in data.instances if one.live]
        entries = newest(standing, routine=self._routine, printed=self._opened is None)
        room = height - len(top) - 3 - bool(self._opened)  # titles of three tables, and the foot
        shares = _shares(room, max(1, len(loans)), max(1, len(live)), max(1, len(entries)))
        lines = [*top, *self._loan_table(loans, shares[0], width)]
        lines += instance_table(live, theirs, width, self._glyphs)[: 1 + shares[1]]
        if not live:
            lines.append(Text("no instance is live", style=FAINT))
        lines += entry_table(entries[: shares[2]], width, self._glyphs)
        if not entries:
            lines.append(cut(Text(self._glyphs.line(standing.quiet or "nothing lately"), style=FAINT), width))
        return self._footed(lines, width, height)

    def press(self, key: str) -> bool:
        """Take a key; q ends, or leaves the one loan."""
        if self._loan is not None:
            if not self._loan.press(key):
                self._loan = None
            return True
        if self._typing:
            self._type(key)
            return True
        moves = {
            "up": -1, "down": 1, "k": -1, "j": 1, "pageup": -self._page, "pagedown": self._page,
            "home": -self._selected, "end": 1 << 30,
        }  # fmt: skip
        if key in moves:
            self._selected += moves[key]
        elif key == "s":
            orders = [*Order]
            self._order = orders[(orders.index(self._order) + 1) % len(orders)]
        elif key == "/":
            self._typing = True
        elif key == "escape":
            self._filter = ""
        elif key == "e":
            self._routine = not self._routine
        elif key == "enter":
            self._enter()
        return key != "q"

    def _enter(self) -> None:
        data = self._standing().data
        loans = [] if data is None else self._shown(data.loans)
        if self._opened is not None and 0 <= self._selected < len(loans):
            self._loan = self._opened(loans[self._selected].loan)

    def _type(self, key: str) -> None:
        if key in {"enter", "escape"}:
            self._typing = False
            self._filter = "" if key == "escape" else self._filter
        elif key == "backspace":
            self._filter = self._filter[:-1]
        elif len(key) == 1:
            self._filter += key

    def _shown(self, loans: Sequence[LoanHeard]) -> list[LoanHeard]:
        """Return the loans that the filter leaves, in order."""
        wanted = self._filter.casefold()
        found = [
            one for one in loans
            if not wanted or any(wanted in text.casefold() for text in (one.loan, one.borrower, one.state, *one.models))
        ]  # fmt: skip
        return sorted(found, key=lambda one: (*self._place(one), one.loan))

    def _place(self, loan: LoanHeard) -> tuple[float, ...]:
        match self._order:
            case Order.SOONEST:
                found = loan.forecast
                ranks = {Outlook.ENDS: 0, Outlook.EMPTY: 1, Outlook.UNKNOWN: 2, Outlook.NEVER: 3}
                return (loan.state == "blocked", ranks[found.outlook], (found.earliest or _FAR).timestamp())
            case Order.LEAST:
                return (loan.left / max(1, loan.granted),)
            case Order.FASTEST:
                rate = loan.forecast.rate
                return (0.0 if rate is None else -rate.middle,)
            case Order.NAME:
                return ()
            case Order.NEWEST:
                return (-loan.created_at.timestamp(),)

    def _title(self, standing: Standing[Custody], now: datetime, width: int) -> Text:
        left = Text.assemble(("cloister custodian top", STRONG), "  ", self._glyphs.line(self._where))
        fresh = freshness(standing, now, interval=self._interval) if self._opened is not None else Text()
        return split_line(left, Text.assemble(f"{clock(now)} UTC  ", fresh), width)

    def _totals(self, data: Custody, shown: int, width: int) -> Text:
        live = sum(1 for one in data.instances if one.live)
        left = short_units(sum(one.left for one in data.loans))
        loans = f"{shown} of {len(data.loans)}" if self._filter else f"{len(data.loans)}"
        words = f"{_many(loans, len(data.loans), 'loan')}, {_many(str(live), live, 'live instance')}, {left} units left"
        order = f"sorted by {self._order.value}"
        return split_line(Text(words), Text(order, style=FAINT), width)

    def _loan_table(self, loans: Sequence[LoanHeard], rows: int, width: int) -> list[Text]:
        table = Table(_COLUMNS, width, self._glyphs)
        self._page = max(1, rows - 1)
        first = max(0, min(self._selected - rows // 2, len(loans) - rows))
        lines = [table.head()]
        for number, loan in enumerate(loans[first : first + rows], first):
            chosen = self._opened is not None and number == self._selected
            lines.append(table.row(_cells(loan), style="reverse" if chosen else ""))
        if not loans:
            words = "no loan fits the filter" if self._filter else "no loans yet: 'cloister loan create' makes one"
            lines.append(cut(Text(words, style=FAINT), width))
        return lines

    def _footed(self, lines: list[Text], width: int, height: int) -> list[Text]:
        """Return the lines, cut to the height, with the keys as the last one where there are any."""
        foot = None if self._opened is None else Text(_KEYS, style=FAINT)
        if self._typing or self._filter:
            foot = Text(f"filter: {self._glyphs.line(self._filter)}{'_' if self._typing else '  (escape clears it)'}")
        return fitted(lines, foot, width=width, height=height)


def _cells(loan: LoanHeard) -> list[Cell]:
    found = loan.forecast
    rates = () if loan.spending is None else loan.spending.rates()
    return [
        Cell(text=loan.loan), Cell(text=loan.borrower), Cell(text=loan.state, style=STATE_STYLES.get(loan.state, "")),
        Cell(text=str(loan.live)), Cell(text=short_units(loan.left), style="" if loan.left else WARN),
        Cell(part=loan.left / loan.granted if loan.granted > 0 else 0.0), Cell(spark=rates, style=FAINT),
        Cell(text="" if found.rate is None else per_minute(found.rate.middle)), outlook_cell(found),
    ]  # fmt: skip


def _shares(room: int, loans: int, instances: int, entries: int) -> tuple[int, int, int]:
    """Share rows: instances and entries get a little, loans what they need, and the others what is left over."""
    room = max(0, room)
    least = min(instances, _LEAST_INSTANCES), min(entries, _LEAST_ENTRIES)
    of_loans = max(min(loans, room), 0) if room < sum(least) else min(loans, room - sum(least))
    of_instances = min(instances, max(0, room - of_loans - least[1]))
    return of_loans, of_instances, min(entries, max(0, room - of_loans - of_instances))


def _many(number: str, count: int, noun: str) -> str:
    return f"{number} {noun}" if count == 1 else f"{number} {noun}s"
