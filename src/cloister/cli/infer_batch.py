"""``cloister infer --batch``: a file of rows, or a folder of questions, asked many at a time, with their receipts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.cli.exits import error_json, exit_code
from cloister.cli.infer_files import dump_outputs, read_batch
from cloister.cli.terminal import write_file
from cloister.client import Incomplete
from cloister.errors import CloisterError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from pathlib import Path

    from rich.console import Console

    from cloister.cli.terminal import Terminal
    from cloister.client import Answers, Client, Retrying
    from cloister.wire import Json

__all__ = ["Batch", "infer_batch", "say_again"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What is asked and what is kept of it."""

    model: str
    source: Path
    rows: int | None
    concurrency: int
    wait: timedelta | None
    out: Path | None
    receipts: Path | None
    force: bool


def infer_batch(
    terminal: Terminal, connect: Callable[[], Client], batch: Batch, plain: Callable[[object], Json]
) -> int:
    """Ask everything, keep what was answered whatever became of the rest, and return the exit code."""
    questions = read_batch(batch.source)
    if batch.receipts is not None:
        _make(batch.receipts)
    stopped: CloisterError | None = None
    with connect() as client, terminal.progress(f"asking {batch.model}", unit="rows") as report:
        try:
            answered = client.infer_many(
                batch.model,
                questions,
                batch=batch.rows,
                concurrency=batch.concurrency,
                wait=batch.wait,
                on_progress=lambda progress: report(progress.done, progress.total),
                on_retry=lambda again: say_again(terminal, again),
            )
        except Incomplete as exc:
            answered, stopped = exc.answered, exc
    _keep(answered, batch)
    shown = _json(answered, batch, plain)
    if stopped is None:
        terminal.result(shown, lambda out: _draw(shown, out))
        return 0
    cause = stopped.cause if isinstance(stopped, Incomplete) else stopped
    if not terminal.as_json:
        _draw(shown, terminal.out)
        raise cause
    terminal.result({**shown, "error": error_json(cause)})
    return exit_code(cause)


def say_again(terminal: Terminal, again: Retrying) -> None:
    """Tell that a question is asked again, and why; it is counted once."""
    when = f"asking again in {again.pause.total_seconds():.1f} s ({again.number} of {again.tries})"
    terminal.say(f"{again.cause.message}; {when}")


def _make(folder: Path) -> None:
    """Make the folder of receipts, or take the one that is there."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        msg = f"{folder}: {exc.strerror}"
        raise UsageError(msg) from exc


def _keep(answered: Answers, batch: Batch) -> None:
    if batch.receipts is not None:
        for receipt in answered.receipts:
            name = f"{receipt.receipt.instance[:16]}-{receipt.receipt.index:012d}.receipt"
            receipt.save(batch.receipts / name)
    if batch.out is not None and answered.done:
        write_file(batch.out, dump_outputs(answered.outputs, batch.out), force=batch.force, private=True)


def _json(answered: Answers, batch: Batch, plain: Callable[[object], Json]) -> dict[str, Json]:
    outputs: dict[str, Json] = {}
    if batch.out is None:
        outputs = {name: plain(value.tolist()) for name, value in answered.outputs.items()}
    return {
        "labels": {name: list(labels) for name, labels in answered.labels.items()},
        "outputs": outputs,
        "receipts": [receipt.receipt.index for receipt in answered.receipts],
        "remaining": answered.remaining,
        "rows": answered.done,
        "total": sum(sum(group.rows) for group in answered.groups),
        "units": answered.units,
    }


def _draw(shown: dict[str, Json], out: Console) -> None:
    requests = shown["receipts"]
    count = len(requests) if isinstance(requests, list) else 0
    out.print(f"{shown['rows']} of {shown['total']} rows answered in {count} requests, {shown['units']} units used")
