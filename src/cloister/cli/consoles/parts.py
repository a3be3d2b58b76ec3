"""Parts that the views of a custodian's figures share: how fresh they are, instances, alarms, entries of the log."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from rich.text import Text

from cloister.cli.consoles.layout import BAD, FAINT, GOOD, STRONG, WARN, Cell, Column, Table, cut
from cloister.cli.consoles.words import age, clock, short_units
from cloister.lending.forecast import Outlook, span_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from cloister.cli.consoles.feed import Standing
    from cloister.cli.consoles.glyphs import Glyphs
    from cloister.cli.consoles.heard import AlarmHeard, EntryHeard, InstanceHeard
    from cloister.lending.forecast import Forecast

__all__ = [
    "STATE_STYLES",
    "alarm_lines",
    "entry_table",
    "freshness",
    "instance_table",
    "is_stale",
    "newest",
    "outlook_cell",
    "trouble_lines",
]

STATE_STYLES = {"active": GOOD, "exhausted": WARN, "blocked": BAD}
_STALE = timedelta(seconds=15)  # without an answer, beyond what was asked for, after which figures are called old
_LATE = 2 / 3  # of the time from a heartbeat to the end of the lease: three retries would have come before
_MOST_ALARMS = 4
_PRINTED = 20  # entries
_SOON = timedelta(hours=1)

_INSTANCE_COLUMNS = (
    Column(title="INSTANCE", least=10, most=16, rank=8),
    Column(title="LOAN", least=13, most=21, rank=6),
    Column(title="TEE", least=9, most=16, rank=5),
    Column(title="TRUST TIER", least=10, most=15, rank=4),
    Column(title="HEARD", least=9, most=9, right=True),
    Column(title="USED/CEILING", least=13, most=13, right=True, rank=7),
    Column(title="", least=5, most=20, rank=3),
)
_ENTRY_COLUMNS = (
    Column(title="TIME UTC", least=8, most=8),
    Column(title="EVENT", least=16, most=20),
    Column(title="SUBJECT", least=13, most=21, rank=8),
    Column(title="BY", least=11, most=24, rank=7),
    Column(title="", least=20, most=80, rank=6),
)


def freshness(standing: Standing[object], now: datetime, *, interval: timedelta) -> Text:
    """Say in a word or two how fresh the figures are."""
    if standing.heard_at is None:
        return Text("asking" if standing.problem is None else "no answer yet", style=WARN)
    if standing.problem is not None or is_stale(standing, now, interval=interval):
        return Text(f"stale: {age(standing.heard_at, now)} old", style=BAD)
    return Text("live", style=GOOD) if not standing.quiet else Text("polling", style=WARN)


def is_stale(standing: Standing[object], now: datetime, *, interval: timedelta) -> bool:
    """Tell whether the figures are older than they should be."""
    return standing.heard_at is not None and now - standing.heard_at > interval + _STALE


def trouble_lines(standing: Standing[object], now: datetime, width: int, glyphs: Glyphs) -> list[Text]:
    """Say why there is no answer, and when the next try is."""
    problem = standing.problem
    if problem is None:
        return []
    wait = (
        "" if standing.next_try is None else f"; next try in {span_words(max(timedelta(0), standing.next_try - now))}"
    )
    lines = [f"no answer: {problem.message}{wait}", *([f"hint: {problem.hint}"] if problem.hint else [])]
    return [cut(Text(glyphs.line(line), style=BAD), width) for line in lines]


def alarm_lines(alarms: Sequence[AlarmHeard], now: datetime, width: int, glyphs: Glyphs) -> list[Text]:
    """Return the alarms, worst first as the custodian says them; of many the first few."""
    if not alarms:
        return [Text("no alarms", style=FAINT)]
    lines = []
    for alarm in alarms[:_MOST_ALARMS]:
        style = BAD if alarm.severity == "critical" else WARN
        since = "" if alarm.since is None else f" for {age(alarm.since, now)}"
        subjects = ", ".join(alarm.subjects)
        words = f"{alarm.severity} {alarm.code}{since}: {subjects}"
        lines.append(cut(Text(glyphs.cell(words, width), style=style), width))
    if len(alarms) > _MOST_ALARMS:
        lines.append(Text(f"and {len(alarms) - _MOST_ALARMS} more: 'cloister alerts' shows them", style=WARN))
    return lines


def instance_table(
    instances: Iterable[InstanceHeard], now: datetime, width: int, glyphs: Glyphs, *, loans: bool = True
) -> list[Text]:
    """Return the instances that may serve, the longest silent first, below their titles. ``loans``: of which loan."""
    own = [column for column in _INSTANCE_COLUMNS if loans or column.title != "LOAN"]
    table = Table(own, width, glyphs)
    rows = [table.head()]
    for one in sorted(instances, key=lambda one: one.heard_at):
        late = now - one.heard_at > (one.dead_at - one.heard_at) * _LATE
        cells = [
            Cell(text=one.id), *([Cell(text=one.loan)] if loans else []), Cell(text=one.tee),
            Cell(text=one.tier, style="" if one.tier == "affirming" else WARN),
            Cell(text=f"{age(one.heard_at, now)} ago", style=BAD if late else ""),
            Cell(text=f"{short_units(one.used)}/{short_units(one.ceiling)}"),
            Cell(part=one.used / one.ceiling if one.ceiling else 0.0, style=FAINT),
        ]  # fmt: skip
        rows.append(table.row(cells))
    return rows


def newest(standing: Standing[object], *, routine: bool, printed: bool) -> list[EntryHeard]:
    """Return the entries to show, newest first; a frame that is printed has room for any number, and wants few."""
    found = [one for one in reversed(standing.entries) if routine or not one.is_routine]
    return found[:_PRINTED] if printed else found


def entry_table(entries: Iterable[EntryHeard], width: int, glyphs: Glyphs) -> list[Text]:
    """Return entries of the log below their titles, in the order they come."""
    table = Table(_ENTRY_COLUMNS, width, glyphs)
    rows = [table.head()]
    for one in entries:
        style = STRONG if not one.is_routine else FAINT
        cells = [
            Cell(text=clock(one.at)), Cell(text=one.kind.replace("_", " "), style=style), Cell(text=one.subject),
            Cell(text=one.actor, style=FAINT), Cell(text=one.details),
        ]  # fmt: skip
        rows.append(table.row(cells))
    return rows


def outlook_cell(found: Forecast) -> Cell:
    """Return a forecast as short as a column: what stands below the title EMPTY IN."""
    words = found.words.removeprefix("empty in ").removeprefix("in ").replace("not before", ">")
    match found.outlook:
        case Outlook.EMPTY:
            return Cell(text="empty", style=BAD)
        case Outlook.NEVER:
            return Cell(text="never so", style=FAINT)
        case Outlook.UNKNOWN:
            return Cell(text=words, style=FAINT)
        case Outlook.ENDS:
            soon = found.earliest is not None and found.earliest - found.at < _SOON
            return Cell(text=words, style=WARN if soon else "")
