"""``cloister infer``: verify, then ask once. The answer goes to stdout, the receipt to a file."""

from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from cloister.cli.consumer import DURATION, Consumer, consumer_options
from cloister.cli.terminal import Terminal, Verb, pass_terminal, write_file
from cloister.errors import Malformed, Rejected, UsageError
from cloister.wire import Json, parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from rich.console import Console

    from cloister.client import Inference

__all__ = ["infer"]

MAX_INPUT_BYTES = 1 << 30  # bytes of one array file
MAX_JSON_INPUT_BYTES = 64 << 20  # bytes of one JSON file
_SHOWN_VALUES = 12  # values of an output that are printed for people
_file = click.Path(path_type=Path, dir_okay=False)


@click.command(cls=Verb)
@click.argument("url")
@click.option("--model", required=True, help="Name of the model.")
@click.option(
    "--input",
    "inputs",
    metavar="[NAME=]FILE",
    multiple=True,
    required=True,
    help="Image, .npy, .npz or .json; repeat with names for a model of several inputs.",
)
@click.option("--wait", type=DURATION, help="Ask again while the allowance is exhausted, so long at most (5m, 2h).")
@click.option("--receipt", "receipt_file", type=_file, help="Write the enclave's signed receipt here.")
@click.option("--out", type=_file, help="Write the outputs here: .npz, or .npy for one output.")
@click.option("--idempotency-key", help="Ask again under the same key: the same answer, at no cost.")
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
    wait: timedelta | None,
    receipt_file: Path | None,
    out: Path | None,
    idempotency_key: str | None,
    force: bool,
    consumer: Consumer,
) -> None:
    """Ask MODEL in the enclave at URL, once it is verified.

    What leaves this machine is encrypted to a key that exists inside the enclave only.
    """
    # Whatever can go wrong here goes wrong before a unit is spent.
    named = _read_inputs(inputs)
    _demand_writable((receipt_file, out), force=force)
    if out is not None and out.suffix not in {".npz", ".npy"}:
        msg = f"{out}: want .npz or .npy"
        raise UsageError(msg)

    def on_wait(_: Rejected, left: timedelta) -> None:
        terminal.say(f"allowance exhausted; waiting for more, {int(left.total_seconds())} s left", style="yellow")

    with consumer.connect(url, terminal, with_token=True) as client:
        answer = client.infer(model, named, wait=wait, idempotency_key=idempotency_key, on_wait=on_wait)
    if receipt_file is not None:
        write_file(receipt_file, answer.receipt.dump() + b"\n", force=force, private=True)
    if out is not None:
        write_file(out, _archive(answer.outputs, out.suffix), force=force, private=True)
    terminal.result(_answer_json(answer), lambda console: _show(console, terminal, answer))


def _demand_writable(paths: Sequence[Path | None], *, force: bool) -> None:
    for path in paths:
        if path is None:
            continue
        if path.exists() and not force:
            msg = f"{path}: exists already"
            raise UsageError(msg, hint="pass --force to replace it")
        if not path.absolute().parent.is_dir():
            msg = f"{path}: no such folder"
            raise UsageError(msg)


def _read_inputs(texts: Sequence[str]) -> object:
    """Return one value, or a mapping by name, of what ``--input`` names."""
    named: dict[str, object] = {}
    single: list[object] = []
    for text in texts:
        name, equals, rest = text.partition("=")
        if equals and not Path(text).exists():
            if name in named:
                msg = f"--input {name}: twice"
                raise UsageError(msg)
            named[name] = _read_input(Path(rest))
        else:
            single.append(_read_input(Path(text)))
    if single and (named or len(single) > 1):
        msg = "--input: want NAME=FILE for each of several inputs"
        raise UsageError(msg)
    return single[0] if single else named


def _read_input(path: Path) -> object:
    match path.suffix.lower():
        case ".npy" | ".npz":
            return _read_arrays(path)
        case ".json":
            return _read_json(path)
        case _:
            _demand_file(path, MAX_INPUT_BYTES)
            return path  # an image; the client reads it as the model's card says


def _demand_file(path: Path, cap: int) -> None:
    """Refuse what is no plain file: a pipe or a device would be read for ever."""
    try:
        status = path.stat()
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise UsageError(msg) from exc
    if not stat.S_ISREG(status.st_mode):
        msg = f"{path}: not a plain file"
        raise UsageError(msg)
    if status.st_size > cap:
        msg = f"{path}: {status.st_size} bytes, want at most {cap}"
        raise UsageError(msg)


def _read_bytes(path: Path, cap: int) -> bytes:
    _demand_file(path, cap)
    try:
        return path.read_bytes()
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise UsageError(msg) from exc


def _read_arrays(path: Path) -> object:
    """Return an array, or a mapping of arrays; pickled objects are refused, for reading them runs code."""
    data = io.BytesIO(_read_bytes(path, MAX_INPUT_BYTES))
    try:
        loaded = np.load(data, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except (ValueError, EOFError, KeyError, OSError, zipfile.BadZipFile, MemoryError) as exc:
        msg = f"{path}: no array file that can be read"
        raise UsageError(msg, hint="write it with numpy.save or numpy.savez; arrays of objects are refused") from exc


def _read_json(path: Path) -> object:
    try:
        return parse_json(_read_bytes(path, MAX_JSON_INPUT_BYTES), what=str(path), cap=MAX_JSON_INPUT_BYTES)
    except Malformed as exc:
        raise UsageError(exc.message, hint="want a list, or an object of lists by input name") from exc


def _archive(outputs: Mapping[str, Any], suffix: str) -> bytes:
    buffer = io.BytesIO()
    plain = {name: array.astype(np.bytes_) if array.dtype == object else array for name, array in outputs.items()}
    if suffix == ".npz":
        np.savez(buffer, **plain)
    elif len(plain) == 1:
        np.save(buffer, next(iter(plain.values())))
    else:
        msg = f"--out: the model has {len(plain)} outputs, want .npz"
        raise UsageError(msg)
    return buffer.getvalue()


def _answer_json(answer: Inference) -> Json:
    receipt = answer.receipt.receipt
    return {
        "instance": receipt.instance,
        "label": answer.label,
        "labels": {name: list(names) for name, names in answer.labels.items()},
        "model": answer.model,
        "model_digest": answer.digest,
        "operator": answer.enclave.operator or None,
        "outputs": {name: _values(array) for name, array in answer.outputs.items()},
        "receipt": {"index": receipt.index, "issued_at": receipt.issued_at.isoformat(), "units": receipt.units},
        "remaining": answer.remaining,
        "units": answer.units,
    }


def _values(array: Any) -> Json:
    """Return nested lists that JSON can carry; what it cannot (infinities, raw bytes) becomes text."""
    return _plain(array.tolist())


def _plain(value: Any) -> Json:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value  # type: ignore[no-any-return]  # numbers, booleans and text as NumPy gives them


def _show(console: Console, terminal: Terminal, answer: Inference) -> None:
    rows = [(name, ", ".join(names[:_SHOWN_VALUES])) for name, names in answer.labels.items()]
    rows += [(name, _short(array)) for name, array in answer.outputs.items() if name not in answer.labels]
    console.print(terminal.table(("", ""), rows))
    receipt = answer.receipt.receipt
    terminal.say(
        f"{answer.units} unit{'s' * (answer.units != 1)}, {answer.remaining} remaining; "
        f"receipt {receipt.index} of instance {receipt.instance[:16]}",
        style="dim",
    )


def _short(array: Any) -> str:
    flat = [
        f"{item:.6g}" if isinstance(item, float) else str(item) for item in array.reshape(-1)[:_SHOWN_VALUES].tolist()
    ]
    more = ", …" if array.size > _SHOWN_VALUES else ""
    return f"{array.dtype}{list(array.shape)} {', '.join(flat)}{more}"
