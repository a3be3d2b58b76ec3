"""``cloister model inspect``: what a model's files hold and whether they would be sealed, with no engine and no key."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.model_maker import inspect_maker, maker_options
from cloister.cli.terminal import Terminal, Verb, pass_terminal
from cloister.errors import Rejected
from cloister.sealed.directory import PlainTree
from cloister.sealed.formats import parse_model
from cloister.sealed.formats.places import plain_files

if TYPE_CHECKING:
    from rich.console import Console

    from cloister.sealed.formats import FileSummary, ModelSummary, Port
    from cloister.wire import Json

__all__ = ["demand_model", "inspect"]

_SHOWN_TENSORS = 40


@click.command(cls=Verb)
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--all", "every", is_flag=True, help=f"Show every tensor, not the first {_SHOWN_TENSORS} of a file.")
@maker_options
@pass_terminal
def inspect(
    terminal: Terminal, /, *, source: Path, every: bool, model_signature: Path | None, makers: tuple[Path, ...]
) -> None:
    """Show what a model file or folder holds: formats, tensors, inputs and outputs, and who signed it.

    Reads headers only, and runs nothing; with --maker it hashes every file, to prove the signature. What 'model seal'
    would refuse is refused here, with the same words.
    """
    summary = demand_model(source)
    made = inspect_maker(source, model_signature=model_signature, makers=makers, now=datetime.now(UTC))

    def draw(console: Console) -> None:
        _draw(terminal, console, summary, every=every)
        if made is not None:
            console.print(_made_words(made))

    shown = summary.to_json()
    terminal.result({**shown, "maker": made} if made and isinstance(shown, dict) else shown, draw)


def _made_words(made: dict[str, Json]) -> str:
    if made["verified"]:
        return f"\nmade by {made['signer']}: proven"
    return f"\n{made['signature']}: says {made['kind']} {made['signer']}, not proven: pass --maker"


def demand_model(source: Path) -> ModelSummary:
    """Return what ``source`` holds once it is proven sound, and a model.

    Raises ``UsageError``, ``Malformed``, or ``Rejected`` (``no_model``, and what the formats refuse).
    """
    summary = parse_model(plain_files(PlainTree(source)))
    if not summary.formats:
        hint = "models are .onnx, .safetensors and .gguf files; for others see 'cloister model convert'"
        raise Rejected.because("no_model", f"{source.name}", got="no file of a known format", want="one", hint=hint)
    return summary


def _draw(terminal: Terminal, console: Console, summary: ModelSummary, *, every: bool) -> None:
    rows = [(entry.path, entry.format, str(entry.size), str(len(entry.tensors) or "")) for entry in summary.files]
    console.print(terminal.table(("file", "format", "bytes", "tensors"), rows))
    for entry in summary.files:
        if entry.facts:
            facts = [(name, _words(value)) for name, value in entry.facts.items()]
            console.print(terminal.table(("", ""), facts, title=f"\n{entry.path}"))
        if entry.outputs:
            ports = [("input", *_port(port)) for port in entry.inputs]
            ports += [("output", *_port(port)) for port in entry.outputs]
            console.print(terminal.table(("", "name", "type", "shape"), ports))
        _draw_tensors(terminal, console, entry, every=every)


def _draw_tensors(terminal: Terminal, console: Console, entry: FileSummary, *, every: bool) -> None:
    shown = entry.tensors if every else entry.tensors[:_SHOWN_TENSORS]
    rows = [(item.name, item.dtype, str(list(item.shape)), str(item.size)) for item in shown]
    if rows:
        console.print(terminal.table(("tensor", "type", "shape", "bytes"), rows))
    if len(shown) < len(entry.tensors):
        console.print(f"... and {len(entry.tensors) - len(shown)} more (--all)")


def _port(port: Port) -> tuple[str, str, str]:
    dims = (
        "any" if port.shape is None else "[" + ", ".join("?" if dim is None else str(dim) for dim in port.shape) + "]"
    )
    return port.name, port.dtype, dims


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
