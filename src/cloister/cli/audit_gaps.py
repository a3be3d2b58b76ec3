"""``cloister audit gaps``: what a copy of the log lacks, each by its name."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.log_folder import entries_in, read_checkpoint_note
from cloister.cli.log_options import read_capped
from cloister.cli.terminal import EXIT_REJECTED, Terminal, Verb, pass_terminal
from cloister.lending.gaps import find_gaps
from cloister.lending.tlog.checkpoint import LogCheckpoint
from cloister.lending.tlog.note import SignedNote
from cloister.wire import Json, dump_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cloister.lending.gaps import Gaps

__all__ = ["gaps"]


@click.command(cls=Verb)
@click.argument("log", type=click.Path(path_type=Path))
@click.option(
    "--silence",
    type=click.IntRange(min=1),
    default=3600,
    show_default=True,
    help="Seconds without an entry from which on a silence is named.",
)
@pass_terminal
def gaps(terminal: Terminal, /, *, log: Path, silence: int) -> int:
    """Name what a copy of the log lacks: indexes, unreadable lines, times without an entry, leases.

    LOG is a file of 'audit export --out' or a folder of 'audit export --folder'. Asks nobody and proves nothing:
    'audit verify' does. Exit code 4 where an entry is missing, unreadable or there twice.
    """  # fmt: skip
    if log.is_dir():
        size: int | None = LogCheckpoint.parse(SignedNote.parse(read_checkpoint_note(log)).text).size
        lines: Iterable[tuple[int, bytes]] = entries_in(log, size or 0)
    else:
        size, lines = None, enumerate(read_capped(log).removesuffix(b"\n").split(b"\n"))
    found = find_gaps(lines, size=size, silence=timedelta(seconds=silence))
    terminal.result(_json(found), lambda out: out.print("\n".join(_words(found))))
    return 0 if found.is_whole else EXIT_REJECTED


def _json(found: Gaps) -> Json:
    return {
        "entries": found.entries,
        "leases": {name: [list(span) for span in spans] for name, spans in found.leases.items()},
        "missing": [list(span) for span in found.missing],
        "pruned": found.pruned,
        "repeated": list(found.repeated),
        "silences": [
            {
                "after": item.after, "before": item.before, "missing": item.missing, "since": dump_time(item.since),
                "stopped": item.stopped, "until": dump_time(item.until),
            }
            for item in found.silences
        ],
        "unreadable": list(found.unreadable),
        "whole": found.is_whole,
    }  # fmt: skip


def _span(span: tuple[int, int]) -> str:
    return str(span[0]) if span[0] == span[1] else f"{span[0]} to {span[1]}"


def _words(found: Gaps) -> Iterator[str]:
    yield f"{found.entries} entries" + (", none missing" if found.is_whole else "")
    yield from (f"missing: {_span(span)}" for span in found.missing)
    yield from (f"unreadable: place {place}" for place in found.unreadable)
    yield from (f"there twice: {index}" for index in found.repeated)
    for item in found.silences:
        why = "entries are missing" if item.missing else "the custodian was stopped" if item.stopped else "no word why"
        seconds = (item.until - item.since).total_seconds()
        yield f"silent: {seconds:.0f} s from {dump_time(item.since)}, entries {item.after} to {item.before}: {why}"
    for name, spans in found.leases.items():
        yield f"instance {name}: no entry for request {', '.join(_span(span) for span in spans)}"
