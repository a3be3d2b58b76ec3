"""``cloister infer``: verify, encrypt, ask, and keep the receipt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from rich.text import Text

from cloister.cli.consumer import connect, consumer_options
from cloister.cli.duration import DURATION
from cloister.cli.exits import error_json, exit_code
from cloister.cli.infer_batch import Batch, infer_batch, say_again
from cloister.cli.infer_files import dump_outputs, read_inputs
from cloister.cli.receipt_files import content_files
from cloister.cli.terminal import Terminal, Verb, demand_writable, pass_terminal, write_file
from cloister.client.tickets import TicketNotProven
from cloister.errors import CloisterError, UsageError

if TYPE_CHECKING:
    from datetime import timedelta

    from rich.console import Console

    from cloister.client import Client, Inference
    from cloister.errors import Rejected
    from cloister.wire import Json

__all__ = ["infer"]

_SHOWN = 10  # numbers of an output on a terminal; --json has all
_file = click.Path(path_type=Path, dir_okay=False)


@click.command(cls=Verb)
@click.argument("url")
@click.option("--model", required=True, help="Name of the model.")
@click.option(
    "--input",
    "inputs",
    metavar="[NAME=]FILE",
    multiple=True,
    help="Image, .npy, .npz or .json. Repeat for more questions; with NAME= for the inputs of one question.",
)
@click.option(
    "--batch",
    type=click.Path(path_type=Path),
    help="Many questions, many at a time: the rows of a .npy or .npz, or the files of a folder.",
)
@click.option("--rows", type=click.IntRange(1), help="With --batch: rows of one request at most.")
@click.option(
    "--concurrency", type=click.IntRange(1, 64), default=4, show_default=True, help="With --batch: requests at a time."
)
@click.option(
    "--receipts",
    type=click.Path(path_type=Path, file_okay=False),
    help="With --batch: keep every receipt in this folder.",
)
@click.option("--wait", type=DURATION, help="How long to wait while the allowance is exhausted: 90s, 5m, 2h.")
@click.option("--idempotency-key", help="Ask at most once under this key, also over restarts of this command.")
@click.option("--receipt", type=_file, help="Keep the signed receipt in this file (a single question).")
@click.option(
    "--keep-content",
    is_flag=True,
    help="With --receipt: keep the exact request and response beside it, in FILE.request and FILE.response.",
)
@click.option(
    "--out", type=_file, help="Keep the outputs in this .npz, or .npy for one output (a single question, or --batch)."
)
@click.option("--force", is_flag=True, help="Replace files.")
@consumer_options
@pass_terminal
def infer(
    terminal: Terminal,
    /,
    *,
    url: str,
    model: str,
    inputs: tuple[str, ...],
    batch: Path | None,
    rows: int | None,
    concurrency: int,
    receipts: Path | None,
    wait: timedelta | None,
    idempotency_key: str | None,
    receipt: Path | None,
    keep_content: bool,
    out: Path | None,
    force: bool,
    **whom: Any,
) -> int:
    """Ask MODEL at URL about each input. Nobody but the verified enclave can read question or answer.

    Answers are printed as they come; a refusal ends the command, and the answers before it stay.
    """
    # What can go wrong here goes wrong before a unit is spent.
    _demand_array_file(out)
    if batch is not None:
        _demand_alone(inputs, receipt, idempotency_key)
        demand_writable((out,), force=force)
        many = Batch(
            model=model, source=batch, rows=rows, concurrency=concurrency, wait=wait, out=out, receipts=receipts,
            force=force,
        )  # fmt: skip
        return infer_batch(terminal, lambda: connect(terminal, url, **whom), many, _plain)
    if not inputs:
        msg = "infer: want --input or --batch"
        raise UsageError(msg)
    questions = read_inputs(inputs)
    if len(questions) > 1 and (receipt or idempotency_key or out):
        msg = "infer: --receipt, --out and --idempotency-key go with a single question"
        raise UsageError(msg)
    kept = _Kept(receipt=receipt, content=keep_content, out=out, force=force)
    demand_writable(kept.paths, force=force)
    asking = _Asking(terminal=terminal, model=model, wait=wait, key=idempotency_key)
    answers: list[Json] = []
    with connect(terminal, url, **whom) as client:
        for name, question in questions:
            try:
                answer = asking.ask(client, question)
            except CloisterError as exc:
                if isinstance(exc, TicketNotProven):
                    kept.write_unpaid(exc)
                if not answers or not terminal.as_json:
                    raise
                terminal.result({"answers": answers, "error": error_json(exc)})
                return exit_code(exc)
            kept.write(answer)
            answers.append(_answer_json(name, answer))
            if not terminal.as_json:
                _draw(name, answer, terminal.out)
    if terminal.as_json:
        terminal.result({"answers": answers})
    return 0


def _demand_alone(*others: object) -> None:
    """Refuse beside ``--batch`` what goes with ``--input``."""
    if any(others):
        msg = "infer: --input, --receipt and --idempotency-key do not go with --batch"
        raise UsageError(msg, hint="--receipts keeps every receipt of --batch in a folder")


def _demand_array_file(out: Path | None) -> None:
    if out is not None and out.suffix not in {".npz", ".npy"}:
        msg = f"{out}: want .npz or .npy"
        raise UsageError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """What is kept of the one answer, and where."""

    receipt: Path | None
    content: bool
    out: Path | None
    force: bool

    @property
    def paths(self) -> tuple[Path | None, ...]:
        """Every file that will be written."""
        return (self.receipt, self.out, *self._content())

    def _content(self) -> tuple[Path, ...]:
        return content_files(self.receipt) if self.receipt is not None and self.content else ()

    def write(self, answer: Inference) -> None:
        """Write what is wanted of an answer, for its owner alone."""
        files: list[tuple[Path, bytes]] = list(zip(self._content(), (answer.request, answer.response), strict=False))
        if self.receipt is not None:
            files.append((self.receipt, answer.receipt.dump() + b"\n"))
        if self.out is not None:
            files.append((self.out, dump_outputs(answer.outputs, self.out)))
        for path, data in files:
            write_file(path, data, force=self.force, private=True)

    def write_unpaid(self, refused: TicketNotProven) -> None:
        """Keep the receipt of an answer without its ticket: it shows who lost the units."""
        if self.receipt is not None and refused.receipt is not None:
            write_file(self.receipt, refused.receipt.dump() + b"\n", force=self.force, private=True)


@dataclass(slots=True, kw_only=True)
class _Asking:
    """How to ask, the same for every question."""

    terminal: Terminal
    model: str
    wait: timedelta | None
    key: str | None
    told: bool = False

    def ask(self, client: Client, question: object) -> Inference:
        """Return the answer. Raises as ``Client.infer``."""
        self.told = False
        return client.infer(
            self.model,
            question,
            wait=self.wait,
            idempotency_key=self.key,
            on_wait=self._on_wait,
            on_retry=lambda again: say_again(self.terminal, again),
        )

    def _on_wait(self, refusal: Rejected, left: timedelta) -> None:
        if not self.told:
            self.told = True
            self.terminal.say(f"{refusal.code}: waiting up to {left.total_seconds():.0f} s until units are freed")


def _answer_json(name: str, answer: Inference) -> dict[str, Json]:
    return {
        "index": answer.receipt.receipt.index,
        "input": name,
        "instance": answer.receipt.receipt.instance,
        "label": answer.label,
        "labels": {output: list(names) for output, names in answer.labels.items()},
        "model": answer.digest,
        "outputs": {output: _plain(np.asarray(value).tolist()) for output, value in answer.outputs.items()},
        "remaining": answer.remaining,
        "ticket": None if answer.ticket is None else answer.ticket.index,
        "units": answer.units,
    }


def _plain(value: Any) -> Json:
    """Return what JSON can carry: infinities and not-a-number become text, as bytes do."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value  # type: ignore[no-any-return]  # numbers, truth values and text as NumPy gives them


def _draw(name: str, answer: Inference, out: Console) -> None:
    labels = next(iter(answer.labels.values()), ())
    if labels:
        shown = ", ".join(labels[:_SHOWN]) + (", …" if len(labels) > _SHOWN else "")
    else:
        first = next(iter(answer.outputs.values()))
        shown = np.array2string(np.asarray(first), threshold=_SHOWN, precision=4)
    ticket = "" if answer.ticket is None else f", ticket {answer.ticket.index}"
    out.print(Text(f"{name}: {shown}  [{answer.units} used, {answer.remaining} remaining{ticket}]"))
