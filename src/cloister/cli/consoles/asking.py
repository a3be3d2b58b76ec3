"""How the consoles ask a custodian: where, how often, and what; then one frame, lines of JSON, or a live screen."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import click

from cloister.cli.consoles.custodian_view import Custody
from cloister.cli.consoles.doc import Doc
from cloister.cli.consoles.feed import KEPT_ENTRIES, Events, Feed, Standing, entries_of
from cloister.cli.consoles.heard import AlarmHeard, InstanceHeard, LoanHeard, Spending
from cloister.cli.consoles.loan_view import Watched
from cloister.cli.consoles.screen import Wake, is_live, print_frame, show
from cloister.cli.exits import error_json
from cloister.cli.remote import Remote, credentials_of, from_options, segment
from cloister.errors import Rejected, Unavailable
from cloister.wire import dump_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from cloister.cli.consoles.heard import EntryHeard
    from cloister.cli.consoles.screen import View
    from cloister.cli.terminal import Terminal
    from cloister.wire import Json

__all__ = ["Asked", "Source", "ask_custody", "console_options", "custody_source", "loan_source", "reconnect", "run"]

_STEPS, _HOUR_S = 60, 3600  # of what loans spent, for a line of the table
_PLOT_STEPS = 120
_YOUNGEST = timedelta(minutes=2)  # the shortest time that a plot shows
_LOOKED_BACK = 1000  # entries of the log among which those of one loan are looked for
_NOT_ASKED = "events are not asked for"
_AGAIN_S = 5.0  # until a custodian that did not answer is asked again, where lines are printed


class Asked(Protocol):
    """What was asked for: it has a time and a form for programs."""

    @property
    def at(self) -> datetime:
        """When, by the custodian's clock."""
        ...

    def to_json(self) -> dict[str, Json]:
        """Return it for programs."""
        ...


C = TypeVar("C")
D = TypeVar("D", bound=Asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source(Generic[C, D]):
    """What a console asks for, and where. ``events`` is None where no log is followed."""

    connect: Callable[[], AbstractContextManager[C]]
    ask: Callable[[C], D]
    interval: timedelta
    events: Events[C] | None = None
    quiet: str = ""
    """Why no events come, where that is to be said."""

    def feed(self, wake: Wake) -> Feed[C, D]:
        """Return a feed of it, not started."""
        interval_s = self.interval.total_seconds()
        return Feed(self.connect, self.ask, interval_s=interval_s, wake=wake, events=self.events, quiet=self.quiet)


def console_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that every console of a custodian takes."""
    for option in (
        click.option("--no-events", is_flag=True, help="Do not follow the log: a viewer may not read it."),
        click.option(
            "--interval", metavar="SECONDS", type=click.FloatRange(0.5, 3600), default=2.0, show_default=True,
            help="Seconds between two looks; news is looked at at once.",
        ),
        click.option("--once", is_flag=True, help="Print one frame and end."),
    ):  # fmt: skip
        command = option(command)
    return command


def reconnect(where: dict[str, Any]) -> Callable[[], Remote]:
    """Return what connects, each time by the credentials as they are then; from stdin they can be read once only."""
    if where.get("token_file") != "-":
        return lambda: from_options(**where)
    found = credentials_of(**where)
    return lambda: Remote(found)


def custody_source(connect: Callable[[], Remote], *, interval: float, no_events: bool) -> Source[Remote, Custody]:
    """Return all of a custodian."""
    events = None if no_events else Events(history=_history, stream=_stream("/v1/events?"))
    every = timedelta(seconds=interval)
    return Source(connect=connect, ask=ask_custody, interval=every, events=events, quiet=_NOT_ASKED)


def loan_source(
    connect: Callable[[], Remote], loan: str, *, interval: float, no_events: bool, window: timedelta
) -> Source[Remote, Watched]:
    """Return one loan, with what it spent within ``window``."""
    path = f"/v1/loans/{segment(loan)}"

    def ask(remote: Remote) -> Watched:
        summary = remote.get(f"{path}/summary")
        lived = max(_YOUNGEST, datetime.now(UTC) - Doc(summary).time("created_at"))
        step_s = -(-int(min(window, lived).total_seconds()) // _PLOT_STEPS)
        return Watched.of(summary, remote.get(f"{path}/spending", step_s=step_s, steps=_PLOT_STEPS))

    def history(remote: Remote) -> list[EntryHeard]:
        size = Doc(remote.get(f"{path}/audit", after=-1, limit=1)).count("size")
        page = Doc(remote.get(f"{path}/audit", after=max(-1, size - _LOOKED_BACK - 1), limit=_LOOKED_BACK))
        return entries_of(page.values("entries"))[-KEPT_ENTRIES:]

    events = None if no_events else Events(history=history, stream=_stream(f"/v1/events?loan={segment(loan)}&"))
    return Source(connect=connect, ask=ask, interval=timedelta(seconds=interval), events=events, quiet=_NOT_ASKED)


def _stream(path: str) -> Callable[[Remote, int | None, float], AbstractContextManager[Iterator[str]]]:
    """Return what opens the stream of events of this path, which ends in ``?`` or ``&``."""

    def opened(remote: Remote, after: int | None, quiet_s: float) -> AbstractContextManager[Iterator[str]]:
        return remote.events(path.rstrip("?&") if after is None else f"{path}after={after}", quiet_s=quiet_s)

    return opened


def ask_custody(remote: Remote) -> Custody:
    """Ask a custodian for everything that ``custodian top`` shows. Raises as the API's calls do."""
    spending = remote.get("/v1/spending", step_s=_HOUR_S // _STEPS, steps=_STEPS)
    spent = Spending.all_of(spending)
    return Custody(
        at=Doc(spending).time("to"),
        loans=tuple(LoanHeard.of(one, spent) for one in Doc(remote.get("/v1/loans")).docs("loans")),
        instances=tuple(InstanceHeard.of(one) for one in Doc(remote.get("/v1/instances")).docs("instances")),
        alarms=tuple(AlarmHeard.of(one) for one in Doc(remote.get("/v1/alarms")).docs("alarms")),
    )


def _history(remote: Remote) -> list[EntryHeard]:
    size = Doc(remote.get("/v1/audit", after=-1, limit=1)).count("size")
    page = Doc(remote.get("/v1/audit", after=max(-1, size - KEPT_ENTRIES - 1), limit=KEPT_ENTRIES))
    return entries_of(page.values("entries"))


def run(
    terminal: Terminal,
    source: Source[C, D],
    view: Callable[[Callable[[], Standing[D]], Wake | None], View],
    *,
    once: bool,
) -> None:
    """Show it: live on a terminal, as lines with ``--json``, else once. ``view`` makes the view of what stands."""
    if terminal.as_json:
        _print_lines(terminal, source, once=once)
        return
    if once or not is_live(terminal):
        standing = _asked_once(source)
        print_frame(terminal, view(lambda: standing, None))
        return
    wake = Wake()
    feed = source.feed(wake)
    feed.start()
    try:
        show(terminal, view(lambda: feed.standing, wake), wake)
    finally:
        feed.stop()


def _asked_once(source: Source[C, D]) -> Standing[D]:
    with source.connect() as remote:
        data, heard_at = source.ask(remote), datetime.now(UTC)
        entries, quiet = _entries_once(source, remote)
    return Standing(data=data, heard_at=heard_at, entries=entries, quiet=quiet)


def _entries_once(source: Source[C, D], remote: C) -> tuple[tuple[EntryHeard, ...], str]:
    """Return the newest entries, or why there are none: who may not read the log sees the rest."""
    if source.events is None:
        return (), source.quiet
    try:
        return tuple(source.events.history(remote)), ""
    except Rejected as exc:
        return (), f"no events: {exc.message}"


def _print_lines(terminal: Terminal, source: Source[C, D], *, once: bool) -> None:
    """Print a document each time. A custodian that does not answer is said, and asked again; a refusal ends it."""
    while True:
        try:
            with source.connect() as remote:
                while True:
                    data = source.ask(remote)
                    terminal.line({"at": dump_time(data.at), **data.to_json()})
                    if once:
                        return
                    time.sleep(source.interval.total_seconds())
        except Unavailable as exc:
            if once:
                raise
            terminal.line({"at": dump_time(datetime.now(UTC)), "error": error_json(exc)})
            time.sleep(max(_AGAIN_S, source.interval.total_seconds()))
