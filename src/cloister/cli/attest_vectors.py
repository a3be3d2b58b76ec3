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
    """Judge every entry of DIR/index.json from its files, time and policy alone.

    Entries that say what to expect are compared: exit code 4 where one differs.
    """
    from cloister.attest.dossier.index import judge_entry, parse_index  # noqa: PLC0415 - imports every verifier

    entries = parse_index(read_evidence(folder / "index.json", what="index"))
    now = datetime.now(UTC)
    outcomes: list[tuple[Entry, Outcome]] = []
    for entry in entries:
        files = {role: _read(folder, path) for role, path in entry.files.items()}
        outcomes.append((entry, judge_entry(entry, files, now)))
    wrong = [(entry, outcome) for entry, outcome in outcomes if not entry.agrees(outcome)]
    results: list[Json] = [outcome.to_json() for _, outcome in outcomes]
    terminal.result({"results": results}, lambda out: _draw(terminal, outcomes, wrong, out))
    return EXIT_REJECTED if wrong else 0


def _read(folder: Path, path: str) -> bytes:
    """Return a file below the folder: an index names nothing outside of it."""
    target = (folder / path).resolve()
    if not target.is_relative_to(folder.resolve()):
        msg = f"index: {path[:200]!r} is outside of the folder"
        raise UsageError(msg)
    return read_evidence(target)


def _draw(
    terminal: Terminal, outcomes: list[tuple[Entry, Outcome]], wrong: list[tuple[Entry, Outcome]], out: Console
) -> None:
    rows = [(entry.tee, entry.id, outcome.verdict, ", ".join(outcome.reasons)) for entry, outcome in outcomes]
    out.print(terminal.table(("tee", "entry", "verdict", "reasons"), rows))
    out.print(f"{len(outcomes)} entries judged, {len(wrong)} not as expected")
    for entry, outcome in wrong:
        out.print(f"  - {entry.id}: {outcome.verdict}, expected {' or '.join(entry.expected)}")
        for name in entry.differing(outcome):
            out.print(f"      claim {name}: {outcome.claims.get(name)!r}, expected {entry.claims[name]!r}")
