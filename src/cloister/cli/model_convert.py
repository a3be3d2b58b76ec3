"""``cloister model convert``: a model of another library becomes ONNX, and is held against what it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.cli.terminal import Terminal, Verb, pass_terminal, write_file
from cloister.convert.recognise import SourceKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.wire import Json

__all__ = ["conversion_options", "convert"]

_TOLERANCE = 1e-4


def conversion_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say how to convert."""
    for option in (
        click.option("--tolerance", type=click.FloatRange(0, 1), default=_TOLERANCE, show_default=True,
                     help="Largest difference of outputs, relative to the sample's largest value or 1."),
        click.option("--input", "inputs", multiple=True, metavar="NAME=TYPE:SHAPE",
                     help="An input that the file does not say, as x=FP32:1,28,28; in their order."),
        click.option("--trust-pickle", is_flag=True,
                     help="SOURCE may run code on this machine while it is loaded: you made it, or trust who did."),
        click.option("--from", "kind", type=click.Choice([kind.value for kind in SourceKind]),
                     help="What SOURCE is; by default it is looked at."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command(cls=Verb)
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The ONNX file to write.")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@conversion_options
@pass_terminal
def convert(terminal: Terminal, /, *, source: Path, out: Path, force: bool, **how: Any) -> None:
    """Convert a model of scikit-learn, Keras or PyTorch to ONNX, and prove that both answer alike.

    Both get the same inputs, drawn at random from the model's signature with a fixed seed; answers that differ by more
    than the tolerance are refused. Loading such files may run code: see --trust-pickle.
    """
    from cloister.cli.converted import converted, described  # noqa: PLC0415 - see there

    with converted(terminal, source, **how) as (found, agreement):
        write_file(out, found.model.read_bytes(), force=force)
    value: Json = {"agreement": agreement.to_json(), "library": found.library, "out": str(out)}
    terminal.result(value, lambda console: console.print(f"{out}: from {found.library}\n{described(agreement)}"))
