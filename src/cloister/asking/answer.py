"""An answer as a person reads it: a word, bars, numbers, a table.

Not done here: what an output means, which its model's card says or nobody does.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cloister.client.datatypes import datatype_of
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloister.client.datatypes import Array
    from cloister.client.inference import Inference
    from cloister.client.model_info import ModelInfo

__all__ = ["Bar", "Output", "json_parts", "outputs_of"]

_MOST_BARS = 10
_PART = 10_000  # values of an output that are text at once
_MOST_ROWS, _MOST_COLUMNS = 500, 64
_MOST_CHARS = 20_000  # of one text
_RANK_OF_SCORES = 2
_SUM_IS_ONE = 0.02  # how far scores may be from adding up to one and still be shown in percent


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One class: its name, its score as text, and how long its bar is, 0 to 1."""

    label: str
    score: str
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One output: whatever of these there is to show. ``note`` says what is not shown."""

    name: str
    headline: str = ""
    bars: tuple[Bar, ...] = ()
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    text: str = ""
    note: str = ""


def outputs_of(inference: Inference, info: ModelInfo | None) -> tuple[Output, ...]:
    """Return every output, in the order of the answer."""
    names = {} if info is None else info.labels
    return tuple(
        _output(name, array, inference.labels.get(name, ()), names.get(name, ()))
        for name, array in inference.outputs.items()
    )


def _output(name: str, array: Array, labels: Sequence[str], classes: Sequence[str]) -> Output:
    if array.dtype.kind == "f" and array.ndim == _RANK_OF_SCORES and array.shape[1] == len(classes) > 0:
        return _scores(name, array, labels, classes)
    if labels:
        if len(labels) == 1:
            return Output(name=name, headline=labels[0])
        rows = tuple((str(number), label) for number, label in enumerate(labels[:_MOST_ROWS], start=1))
        return Output(name=name, head=("row", "class"), rows=rows, note=_cut(len(labels), len(rows)))
    if array.dtype == object and array.size == 1:
        text = _shown(array.reshape(-1)[0])
        cut = text[:_MOST_CHARS]
        return Output(name=name, text=cut, note="" if cut == text else f"the first {_MOST_CHARS} characters")
    if array.size == 1:
        return Output(name=name, headline=_shown(array.reshape(-1)[0]))
    return _table(name, array)


def _scores(name: str, array: Array, labels: Sequence[str], classes: Sequence[str]) -> Output:
    """Return bars for one item, for several the best class of each."""
    if len(array) == 1:
        row = array[0]
        order = [int(index) for index in np.argsort(-np.nan_to_num(row, nan=-np.inf), kind="stable")[:_MOST_BARS]]
        shares, texts = _shares(row), _score_texts(row)
        bars = tuple(Bar(label=classes[at], score=texts[at], share=shares[at]) for at in order)
        more = len(classes) - len(bars)
        note = f"{more} more classes with lower scores" if more else ""
        return Output(name=name, headline=labels[0] if labels else bars[0].label, bars=bars, note=note)
    shown = array[:_MOST_ROWS]
    rows = tuple(
        (str(number), labels[number - 1] if labels else classes[int(np.argmax(row))], _score_texts(row)[np.argmax(row)])
        for number, row in enumerate(shown, start=1)
    )
    return Output(name=name, head=("row", "class", "score"), rows=rows, note=_cut(len(array), len(rows)))


def _shares(row: Array) -> list[float]:
    """Return lengths of bars: the score itself where all are parts of one, else how it stands to the others."""
    values = np.nan_to_num(row.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    if values.min() >= 0 and values.max() <= 1:
        return [float(value) for value in values]
    low, high = min(0.0, float(values.min())), float(values.max())
    return [(float(value) - low) / ((high - low) or 1.0) for value in values]


def _score_texts(row: Array) -> list[str]:
    percent = bool(np.all((row >= 0) & (row <= 1))) and abs(float(row.sum()) - 1) < _SUM_IS_ONE
    return [f"{100 * float(value):.1f} %" if percent else _shown(value) for value in row]


def _table(name: str, array: Array) -> Output:
    """Return rows of values; of more dimensions than two, the last lies in the row and the others name it."""
    if not array.size:
        return Output(name=name, note="no values")
    places = array.shape[:-1] if array.ndim > _RANK_OF_SCORES else array.shape[:1]
    grid = array.reshape(math.prod(places), -1)
    shown = grid[:_MOST_ROWS, :_MOST_COLUMNS]
    rows = tuple((_place(number, places), *map(_shown, row)) for number, row in enumerate(shown))
    head = ("row", *(("value",) if grid.shape[1] == 1 else (str(at) for at in range(1, shown.shape[1] + 1))))
    note = [" x ".join(map(str, array.shape))] if array.ndim > _RANK_OF_SCORES else []
    note += [cut] if (cut := _cut(grid.size, shown.size)) else []
    return Output(name=name, head=head, rows=rows, note="; ".join(note))


def _place(number: int, places: tuple[int, ...]) -> str:
    """Return where a row is, each dimension counted from one as its columns are."""
    return ", ".join(str(int(at) + 1) for at in np.unravel_index(number, places))


def _cut(there: int, shown: int) -> str:
    return "" if there == shown else f"{shown} of {there} are shown; all are in the outputs as JSON"


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.floating | float):
        return f"{float(value):.6g}"
    return str(value)


def json_parts(inference: Inference) -> Iterator[bytes]:
    """Yield all outputs as one JSON document, the response of the Open Inference Protocol, values in one flat list.

    What is no number is a string (``"NaN"``, ``"Infinity"``, ``"-Infinity"``), for JSON has no other place for it.
    Bytes are text; where one of an output is no UTF-8, all of that output are base64url, as its ``parameters`` say.
    """
    yield b'{"model_name":' + _json(inference.model) + b',"outputs":['
    for number, (name, array) in enumerate(inference.outputs.items()):
        values = array.reshape(-1)
        coded = array.dtype == object and not all(map(_is_text, values))
        head: dict[str, object] = {"datatype": datatype_of(array), "name": name, "shape": list(array.shape)}
        head |= {"parameters": {"encoding": "base64url"}} if coded else {}
        yield b"," * (number > 0) + _json(head)[:-1] + b',"data":['
        for start in range(0, values.size, _PART):
            items = [_plain(value, coded=coded) for value in values[start : start + _PART].tolist()]
            yield b"," * (start > 0) + _json(items)[1:-1]
        yield b"]}"
    yield b"]}\n"


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")


def _is_text(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _plain(value: object, *, coded: bool) -> object:
    if isinstance(value, bytes):
        return dump_b64u(value) if coded else value.decode("utf-8")
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
