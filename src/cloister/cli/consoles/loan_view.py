"""What ``loan watch`` shows: where every unit is, a burn-down with what comes of going on so, requests, instances."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from rich.text import Text

from cloister.cli.consoles.doc import Doc
from cloister.cli.consoles.heard import InstanceHeard, LoanHeard, Spending
from cloister.cli.consoles.layout import FAINT, STRONG, WARN, Cell, Column, Table, cut, fitted, split_line
from cloister.cli.consoles.parts import (
    STATE_STYLES,
    entry_table,
    freshness,
    instance_table,
    newest,
    outlook_cell,
    trouble_lines,
)
from cloister.cli.consoles.plot import Canvas, framed
from cloister.cli.consoles.words import clock, per_minute, short_units
from cloister.lending.forecast import Outlook, span_words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cloister.cli.consoles.feed import Standing
    from cloister.cli.consoles.glyphs import Glyphs
    from cloister.lending.forecast import Forecast
    from cloister.wire import Json

__all__ = ["LoanView", "Request", "Watched"]

_PARTS = ("granted", "balance", "held", "spent", "written_off", "owed")
_METER_COLUMNS = (
    Column(title="METER", least=12, most=40),
    *(
        Column(title=part.replace("_", " ").upper(), least=11, most=14, right=True, rank=8 - number)
        for number, part in enumerate(_PARTS)
    ),
)
_REQUEST_COLUMNS = (
    Column(title="REQUEST", least=10, most=16),
    Column(title="ASKED", least=7, most=10, right=True),
    Column(title="METER", least=8, most=20, rank=5),
    Column(title="STATE", least=8, most=8),
    Column(title="GRANTED", least=7, most=10, right=True, rank=6),
    Column(title="REASON AND ANSWER", least=16, most=90, rank=7),
)
_LEAST_PLOT, _MOST_PLOT = 5, 17  # rows: odd, so that one is in the middle
_NOW = 2 / 3  # of the width of a plot that looks ahead
_MOST_METERS, _MOST_REQUESTS, _MOST_INSTANCES, _LEAST_ENTRIES = 6, 4, 4, 3
_KEYS = "q quit  e all events"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A borrower's request for more, and its answer."""

    id: str
    meter: str
    units: int
    state: str
    granted: int | None
    words: str

    @classmethod
    def of(cls, doc: Doc) -> Request:
        """Return the request that an answer shows. Raises ``Malformed``."""
        said = [doc.text(name) for name in ("reason", "answer") if not doc.is_null(name) and doc.text(name)]
        return cls(
            id=doc.text("id"),
            meter=doc.text("meter"),
            units=doc.count("units"),
            state=doc.text("state"),
            granted=None if doc.is_null("granted") else doc.count("granted"),
            words=" - ".join(said),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One loan, as of ``at``, the custodian's time."""

    at: datetime
    loan: LoanHeard
    meters: Mapping[str, Mapping[str, int]]
    requests: tuple[Request, ...]
    instances: tuple[InstanceHeard, ...]
    blocked: tuple[str, ...]

    @classmethod
    def of(cls, summary: object, spending: object) -> Watched:
        """Return the loan that two answers show. Raises ``Malformed``."""
        doc, spent = Doc(summary), Spending.all_of(spending)
        loan = LoanHeard.of(doc, spent)
        blocked = [Doc({"name": one}).text("name") for part in _BLOCKED for one in doc.values(part)]
        return cls(
            at=loan.created_at if loan.spending is None else loan.spending.until,
            loan=loan,
            meters={name: {part: Doc(one).count(part) for part in _PARTS} for name, one in doc.doc("meters").items()},
            requests=tuple(Request.of(one) for one in doc.docs("requests")),
            instances=tuple(InstanceHeard.of(one) for one in doc.docs("instances")),
            blocked=tuple(blocked),
        )

    def to_json(self) -> dict[str, Json]:
        """Return it for programs."""
        return {**self.loan.to_json(), "requests_open": sum(1 for one in self.requests if one.state == "open")}


_BLOCKED = ("blocked_models", "blocked_consumers")


class LoanView:
    """The view. ``keys`` says whether anybody can press any."""

    def __init__(
        self,
        standing: Callable[[], Standing[Watched]],
        *,
        named: str,
        glyphs: Glyphs,
        interval: timedelta,
        keys: bool = False,
        ended: Callable[[], None] = lambda: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Show what ``standing`` returns; ``ended`` is called when a key ends it."""
        self._ended = ended
        self._standing, self._named, self._glyphs, self._interval = standing, named, glyphs, interval
        self._keys, self._now, self._routine = keys, now, False

    def press(self, key: str) -> bool:
        """Take a key; q or escape ends."""
        if key == "e":
            self._routine = not self._routine
        if key not in {"q", "escape", "backspace", "left"}:
            return True
        self._ended()
        return False

    def frame(self, width: int, height: int) -> Sequence[Text]:
        """Return the lines."""
        standing, now = self._standing(), self._now()
        lines = [self._title(standing, now, width), *trouble_lines(standing, now, width, self._glyphs)]
        data = standing.data
        if data is None:
            lines.append(Text("waiting for the custodian's first answer", style=FAINT))
        else:
            lines += self._figures(data, width)
            theirs = data.at + (now - (standing.heard_at or now))
            below = [*self._requests(data, width), *self._instances(data, theirs, width)]
            entries = newest(standing, routine=self._routine, printed=not self._keys)
            log = entry_table(entries, width, self._glyphs)
            if not entries:
                log.append(cut(Text(self._glyphs.line(standing.quiet or "nothing lately"), style=FAINT), width))
            room = height - len(lines) - len(below) - self._keys - min(len(log), 1 + _LEAST_ENTRIES) - 2
            lines += self._plot(data.loan, width, max(_LEAST_PLOT, min(_MOST_PLOT, room - 1 | 1)))
            lines += [*below, *log]
        return fitted(lines, Text(_KEYS, style=FAINT) if self._keys else None, width=width, height=height)

    def _title(self, standing: Standing[Watched], now: datetime, width: int) -> Text:
        borrower = "" if standing.data is None else standing.data.loan.borrower
        left = Text.assemble(("cloister loan watch", STRONG), "  ", self._glyphs.line(f"{self._named}  {borrower}"))
        fresh = freshness(standing, now, interval=self._interval) if self._keys else Text()
        return split_line(left, Text.assemble(f"{clock(now)} UTC  ", fresh), width)

    def _figures(self, data: Watched, width: int) -> list[Text]:
        loan = data.loan
        spending = loan.spending
        style = STATE_STYLES.get(loan.state, "")
        state = Text.assemble((self._glyphs.line(loan.state), style), f"  {loan.left:,} left")
        if spending is not None:
            state.append(f" of {spending.granted:,} granted; {spending.spent:,} spent, ")
            state.append(f"{spending.written_off:,} written off, {loan.held:,} held")
        bound = f"a block stops it within {loan.bound_s:g} s or {loan.held:,} units, whichever comes first"
        lines = [state, Text(bound, style=FAINT), _rate_line(loan.forecast, spending)]
        if data.blocked:
            lines.append(Text(self._glyphs.line(f"blocked: {', '.join(data.blocked)}"), style=WARN))
        if len(data.meters) > 1:
            table = Table(_METER_COLUMNS, width, self._glyphs)
            lines.append(table.head())
            for name, counts in [*data.meters.items()][:_MOST_METERS]:
                lines.append(table.row([Cell(text=name), *(Cell(text=f"{counts[part]:,}") for part in _PARTS)]))
            if len(data.meters) > _MOST_METERS:
                lines.append(Text(f"and {len(data.meters) - _MOST_METERS} more: 'loan show' has them", style=FAINT))
        return [cut(line, width) for line in lines]

    def _requests(self, data: Watched, width: int) -> list[Text]:
        """Return the requests that wait, then the newest of the others; none where nobody ever asked."""
        newest = data.requests[::-1]
        ordered = [one for wanted in (True, False) for one in newest if (one.state == "open") is wanted]
        if not ordered:
            return []
        table = Table(_REQUEST_COLUMNS, width, self._glyphs)
        rows = [
            [
                Cell(text=one.id), Cell(text=short_units(one.units)), Cell(text=one.meter),
                Cell(text=one.state, style=WARN if one.state == "open" else ""),
                Cell(text="" if one.granted is None else short_units(one.granted)), Cell(text=one.words),
            ]
            for one in ordered[:_MOST_REQUESTS]
        ]  # fmt: skip
        return [table.head(), *(table.row(row) for row in rows)]

    def _instances(self, data: Watched, now: datetime, width: int) -> list[Text]:
        live = [one for one in data.instances if one.live]
        if not live:
            return [Text("no instance is live", style=FAINT)]
        return instance_table(live, now, width, self._glyphs, loans=False)[: 1 + _MOST_INSTANCES]

    def _plot(self, loan: LoanHeard, width: int, rows: int) -> list[Text]:
        """Return units left over time, and two lines ahead: as fast and as slow as lately."""
        if loan.spending is None:
            return []
        margin = 7
        canvas = Canvas(width - margin, rows, self._glyphs)
        window = loan.spending.window
        ahead = loan.forecast.outlook is Outlook.ENDS
        now = _NOW if ahead else 1.0
        history = _left_before(loan, loan.spending)
        top = _round_up(max(left for _, left in history))
        canvas.curve([(now * part, left / top) for part, left in history])
        below = [(0.0, f"-{span_words(window)}"), (now, "now" if ahead else f"now {clock(loan.spending.until)} UTC")]
        rate = loan.forecast.rate
        if ahead and rate is not None:
            canvas.column(now, ":")
            horizon = window * ((1 - _NOW) / _NOW)
            for speed in (rate.high, rate.low):
                canvas.curve(_ahead(loan.left / top, speed / top, horizon, now), mark=".", dashed=True)
            below.append((1.0, f"+{span_words(horizon)}"))
        words = (short_units(top), short_units(top / 2), "0")
        left = tuple(f"{word:>{margin - 2}}" for word in words)
        lines = framed(canvas, left=(left[0], left[1], left[2]), below=below, width=width, glyphs=self._glyphs)
        return [cut(Text("units left", style=FAINT), width), *(cut(Text(line), width) for line in lines)]


def _rate_line(found: Forecast, spending: Spending | None) -> Text:
    if spending is None or found.rate is None:
        return Text("too little was seen for a forecast", style=FAINT)
    rate, window = found.rate, span_words(spending.window)
    speed = f"{per_minute(rate.middle)} units a minute (from {per_minute(rate.low)} to {per_minute(rate.high)})"
    return Text.assemble(f"{speed} by the last {window}: ", (found.words, outlook_cell(found).style or STRONG))


def _left_before(loan: LoanHeard, spending: Spending) -> list[tuple[float, float]]:
    """Return what was left at the end of each step, backwards from what is left now; as parts of the window."""
    seconds = max(1.0, spending.window.total_seconds())
    left, at = float(loan.left), spending.until
    points = [(1.0, left)]
    for number in reversed(range(len(spending.steps))):
        begin = spending.start + spending.step * number
        if at <= loan.created_at:
            break
        left = max(0.0, left + spending.steps[number])
        points.append((max(0.0, (begin - spending.start).total_seconds() / seconds), left))
        left = max(0.0, left - spending.added[number])
        if spending.added[number]:
            points.append((points[-1][0], left))
        at = begin
    return points[::-1]


def _ahead(left: float, speed: float, horizon: timedelta, start: float) -> list[tuple[float, float]]:
    """Return the line from now to when nothing is left, or to the end of the plot; in parts of it."""
    seconds = horizon.total_seconds()
    until = min(seconds, left / speed) if speed > 0 else seconds
    return [(start, left), (start + (1 - start) * until / seconds, left - speed * until)]


def _round_up(value: float) -> float:
    """Return the next round number, for the top of an axis."""
    size = 1.0
    while size * 10 < value:
        size *= 10
    return next((size * part for part in (1, 1.5, 2, 3, 4, 5, 6, 8) if size * part >= value), size * 10)
