"""``cloister attest vectors``: judge a folder of recorded evidence, entry by entry (docs/spec/evidence-index.md)."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.evidence_files import read_evidence
from cloister.cli.terminal import EXIT_REJECTED, Terminal, Verb, pass_terminal
from cloister.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from cloister.attest.dossier.index import Entry, Outcome
    from cloister.wire import Json

__all__ = ["vectors"]


@click.command(cls=Verb)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@pass_terminal
def vectors(terminal: Terminal, /, *, folder: Path) -> int:
    """Judge every entry of DIR/index.json from its files, its time and its policy alone.

    Prints for each entry its verdict: ok, a reason code, or undecided where something is missing. Entries that say
    what they expect are compared afterwards.

    Exit code 0: all judged as expected, as far as they say. 4: one was judged otherwise.
    """
    from cloister.attest.dossier.index import UNDECIDED, parse_index  # noqa: PLC0415 - imports every verifier

    entries = parse_index(read_evidence(folder / "index.json", what="index"))
    now = datetime.now(UTC)
    outcomes: list[tuple[Entry, Outcome]] = []
    with terminal.progress("judging", unit="entries") as report:
        for entry in entries:
            outcomes.append((entry, _judge(terminal, folder, entry, now)))
            report(len(outcomes), len(entries))
    wrong = [(entry, outcome) for entry, outcome in outcomes if not entry.agrees(outcome)]
    open_ones = sum(outcome.verdict == UNDECIDED for _, outcome in outcomes)
    results: list[Json] = [outcome.to_json() for _, outcome in outcomes]
    terminal.result({"results": results}, lambda out: _draw(terminal, outcomes, wrong, open_ones, out))
    return EXIT_REJECTED if wrong else 0


def _judge(terminal: Terminal, folder: Path, entry: Entry, now: datetime) -> Outcome:
    """Return the outcome of one entry, whatever is wrong with it: the others are judged all the same."""
    from cloister.attest.dossier.index import judge_entry, undecided  # noqa: PLC0415 - imports every verifier

    try:
        files = {role: _read(folder, path) for role, path in entry.files.items()}
        return judge_entry(entry, files, now)
    except UsageError as exc:
        return undecided(entry, exc.message)
    except Exception as exc:  # noqa: BLE001 - a bug in one verifier must not hide what the others say
        kind = type(exc).__name__
        terminal.warn(f"{entry.id}: {kind} inside of the verifier; that is a bug of ours")
        return undecided(entry, f"internal error: {kind}")


def _read(folder: Path, path: str) -> bytes:
    """Return a file below the folder: an index names nothing outside of it, by a link neither."""
    try:
        target = (folder / path).resolve()
        inside = target.is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as exc:  # RuntimeError: links in a circle, until Python 3.13
        msg = f"{path[:200]}: no such file"
        raise UsageError(msg) from exc
    if not inside:
        msg = f"{path[:200]}: outside of the folder"
        raise UsageError(msg)
    return read_evidence(target)


def _draw(
    terminal: Terminal,
    outcomes: list[tuple[Entry, Outcome]],
    wrong: list[tuple[Entry, Outcome]],
    open_ones: int,
    out: Console,
) -> None:
    rows = [
        (entry.tee or "-", entry.id, outcome.verdict, outcome.detail or ", ".join(outcome.reasons))
        for entry, outcome in outcomes
    ]
    out.print(terminal.table(("tee", "entry", "verdict", "reasons"), rows))
    out.print(f"{len(outcomes)} entries judged: {len(wrong)} not as expected, {open_ones} undecided")
    for entry, outcome in wrong:
        out.print(f"  - {entry.id}: {outcome.verdict}, expected {' or '.join(entry.expected) or 'other claims'}")
        for name in entry.differing(outcome):
            wanted = (entry.claims or {})[name]
            out.print(f"      claim {name}: {outcome.claims.get(name)!r}, expected {wanted!r}")
