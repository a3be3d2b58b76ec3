"""``cloister infer``: verify, encrypt, ask, and keep the receipt."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from cloister.cli.consumer import connect, consumer_options
from cloister.cli.terminal import Terminal, Verb, pass_terminal
from cloister.errors import Rejected, UsageError
from cloister.wire import parse_json

if TYPE_CHECKING:
    from rich.console import Console

    from cloister.client import Client, Inference
    from cloister.wire import Json

__all__ = ["infer"]

_MAX_INPUT_BYTES = 64 << 20
_SHOWN = 10  # numbers of an output on a terminal; --json has all
_file = click.Path(path_type=Path, dir_okay=False)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_INPUT_BYTES + 1)
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise UsageError(msg) from exc
    if len(data) > _MAX_INPUT_BYTES:
        msg = f"{path}: more than {_MAX_INPUT_BYTES} bytes"
        raise UsageError(msg)
    return data


def _question(path: Path) -> dict[str, object]:
    """Return the arguments of ``Client.infer`` for a file: arrays (.npy, .npz, .json) or an image (anything else)."""
    match path.suffix.lower():
        case ".npy" | ".npz":
            try:
                loaded = np.load(path, allow_pickle=False)
            except (OSError, ValueError) as exc:
                msg = f"{path}: no numpy file without pickled objects"
                raise UsageError(msg) from exc
            return {"inputs": loaded}
        case ".json":
            return {"inputs": parse_json(_read(path), what=path.name, cap=_MAX_INPUT_BYTES)}
        case _:
            return {"image": path}


def _answer_json(path: Path, answer: Inference) -> dict[str, Json]:
    return {
        "index": answer.receipt.receipt.index,
        "input": str(path),
        "label": answer.label,
        "model": answer.digest,
        "outputs": {name: np.asarray(value).tolist() for name, value in answer.outputs.items()},
        "remaining": answer.remaining,
        "units": answer.units,
    }


def _draw(answers: list[tuple[Path, Inference]], out: Console) -> None:
    for path, answer in answers:
        shown = answer.label
        if shown is None:
            first = next(iter(answer.outputs.values()))
            shown = np.array2string(np.asarray(first), threshold=_SHOWN, precision=4)
        out.print(f"{path.name}: {shown}  [{answer.units} used, {answer.remaining} remaining]", markup=False)


@click.command(cls=Verb)
@click.argument("url")
@click.option("--model", required=True, help="Name of the model.")
@click.option("--input", "inputs", type=_file, multiple=True, required=True, help="Image, .npy, .npz or .json; repeat.")
@click.option("--wait", type=click.IntRange(min=1), help="Seconds to wait while the allowance is exhausted.")
@click.option("--idempotency-key", help="Ask at most once under this key, also over restarts of this command.")
@click.option("--receipt", type=_file, help="Keep the signed receipt in this new file (a single input).")
@consumer_options
@pass_terminal
def infer(
    terminal: Terminal,
    /,
    *,
    url: str,
    model: str,
    inputs: tuple[Path, ...],
    wait: int | None,
    idempotency_key: str | None,
    receipt: Path | None,
    **whom: Any,
) -> None:
    """Ask MODEL at URL about each input. Nobody but the verified enclave can read question or answer."""
    if len(inputs) > 1 and (receipt or idempotency_key):
        msg = "infer: --receipt and --idempotency-key go with a single --input"
        raise UsageError(msg)
    questions = [(path, _question(path)) for path in inputs]
    answers: list[tuple[Path, Inference]] = []
    with connect(terminal, url, **whom) as client:
        for path, question in questions:
            answers.append((path, _ask(terminal, client, model, question, wait=wait, key=idempotency_key)))
    if receipt is not None:
        answers[0][1].receipt.save(receipt)
    result: Json = {"answers": [_answer_json(path, answer) for path, answer in answers]}
    terminal.result(result, lambda out: _draw(answers, out))


def _ask(
    terminal: Terminal, client: Client, model: str, question: dict[str, object], *, wait: int | None, key: str | None
) -> Inference:
    told = False

    def on_wait(refusal: Rejected, left: timedelta) -> None:
        nonlocal told
        if not told:
            told = True
            terminal.say(f"{refusal.code}: waiting up to {left.total_seconds():.0f} s until units are freed")

    return client.infer(
        model,
        question.get("inputs"),
        image=question.get("image"),
        wait=None if wait is None else timedelta(seconds=wait),
        idempotency_key=key,
        on_wait=on_wait,
    )
