"""The form of one model, and what somebody filled in as the model's inputs.

An input is a picture where the card says how one is made into it; columns of a table where the card names them, or
where one row has few values; else it has the general form (``tensors``). What the client has no type for has none.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cloister.asking.table import read_rows
from cloister.asking.tensors import TensorField, fill_tensor, has_field
from cloister.client.columns import Column
from cloister.client.images import image_to_array, open_image
from cloister.client.tensors import array_inputs
from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloister.asking.limits import Limits
    from cloister.client.datatypes import Array
    from cloister.client.model_info import ModelInfo, TensorInfo
    from cloister.serving.forms import Form

__all__ = ["Cell", "Questionnaire", "fill_in", "questionnaire"]

_OPEN = -1
_MAX_COLUMNS = 4096  # of all inputs together
_TEXT = "BYTES"
_HUGE = float("inf")
_LARGEST_WHOLE = 1 << 64  # of any type of the protocol
_TRUTH = {"1": True, "0": False, "true": True, "false": False, "yes": True, "no": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One column of the table: of which input, what it is, and the name of its field in the form."""

    tensor: str
    datatype: str
    column: Column
    field: str

    @property
    def is_text(self) -> bool:
        """Whether words go in rather than a number."""
        return self.datatype == _TEXT

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers go in."""
        return self.datatype.removeprefix("U").startswith("INT")

    @property
    def is_truth(self) -> bool:
        """Whether yes or no goes in."""
        return self.datatype == "BOOL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Questionnaire:
    """What a model is asked with: ``pictures``, ``cells``, ``tensors``; ``unfit`` names inputs that have no form here.

    ``fields`` tells whether each cell has a field of its own; ``many`` whether several rows may be asked at once.
    """

    pictures: tuple[str, ...]
    cells: tuple[Cell, ...]
    tensors: tuple[TensorField, ...]
    unfit: tuple[str, ...]
    fields: bool
    many: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the table's columns, in order."""
        return tuple(cell.column.name for cell in self.cells)

    @property
    def can_ask(self) -> bool:
        """Whether there is a form."""
        return not self.unfit and bool(self.pictures or self.cells or self.tensors)

    @property
    def counts(self) -> bool:
        """Whether a question of the general form may cost more than one unit."""
        return any(field.counts for field in self.tensors)


def questionnaire(info: ModelInfo, limits: Limits) -> Questionnaire:
    """Return the form of a model."""
    pictures = tuple(tensor.name for tensor in info.inputs if tensor.name in info.images)
    rest = [tensor for tensor in info.inputs if tensor.name not in info.images]
    fit = [tensor for tensor in rest if _is_table(tensor, info, limits)]
    cells = [cell for tensor in fit for cell in _cells(tensor, info)]
    cells = [replace(cell, field=f"c{index}") for index, cell in enumerate(cells)]
    named = {cell.column.name for cell in cells}
    if len(cells) > _MAX_COLUMNS or len(named) != len(cells):
        fit, cells = [], []
    general = [tensor for tensor in rest if tensor not in fit]
    unfit = tuple(tensor.name for tensor in general if not has_field(tensor))
    if len(general) > limits.max_tensors:
        unfit = tuple(tensor.name for tensor in general)
    tensors = [] if unfit else [TensorField(tensor=tensor, field=f"t{at}") for at, tensor in enumerate(general)]
    return Questionnaire(
        pictures=pictures,
        cells=tuple(cells),
        tensors=tuple(tensors),
        unfit=unfit,
        fields=0 < len(cells) <= limits.max_fields,
        many=not pictures and not general and all(tensor.shape[:1] == (_OPEN,) for tensor in fit),
    )


def _is_table(tensor: TensorInfo, info: ModelInfo, limits: Limits) -> bool:
    """Tell whether an input is best filled in column by column: named by the card, or few."""
    width = _width(tensor)
    if width is None or not has_field(tensor) or tensor.datatype.startswith("FP8"):
        return False
    return width <= limits.max_fields or len(info.about.get(tensor.name, ())) == width


def _inner(tensor: TensorInfo) -> tuple[int, ...]:
    """Return the dimensions of one row: without the first, where that counts rows."""
    return tensor.shape[1:] if tensor.shape[:1] in ((_OPEN,), (1,)) else tensor.shape


def _width(tensor: TensorInfo) -> int | None:
    """Return how many values one row has, None where that is open."""
    inner = _inner(tensor)
    size = math.prod(inner)
    return size if all(part > 0 for part in inner) and size <= _MAX_COLUMNS else None


def _cells(tensor: TensorInfo, info: ModelInfo) -> Iterator[Cell]:
    """Yield the columns of one input, by the card's names where it names each of them."""
    width = _width(tensor) or 0
    named = info.about.get(tensor.name, ())
    if len(named) != width:
        named = tuple(Column(name=f"{tensor.name} {index}") for index in range(1, width + 1))
        named = named if width > 1 else (Column(name=tensor.name),)
    for column in named:
        yield Cell(tensor=tensor.name, datatype=tensor.datatype, column=column, field="")


def fill_in(info: ModelInfo, asked: Questionnaire, form: Form, limits: Limits) -> dict[str, Array]:
    """Return the inputs as arrays by name. Slow where a picture is large. Raises ``UsageError`` naming the field."""
    if not asked.can_ask:
        msg = f"model {info.name}: this page has no form for {', '.join(asked.unfit)[:200] or 'a model without inputs'}"
        raise UsageError(msg, hint="ask it with the Python client or 'cloister infer'")
    inputs = {name: _picture(info, name, form, limits) for name in asked.pictures}
    if asked.cells:
        rows = _rows(asked, form, limits)
        for tensor in info.inputs:
            mine = [index for index, cell in enumerate(asked.cells) if cell.tensor == tensor.name]
            if mine:
                inputs[tensor.name] = _array(tensor, [[row[index] for index in mine] for row in rows])
    left = limits.max_values
    for field in asked.tensors:
        inputs[field.tensor.name] = fill_tensor(field, form, limits, left)
        left -= inputs[field.tensor.name].size
    return array_inputs(info, inputs)


def _picture(info: ModelInfo, name: str, form: Form, limits: Limits) -> Array:
    upload = form.files.get(f"picture-{name}")
    if upload is None or not upload.data:
        msg = f"picture {name}: none was chosen"
        raise UsageError(msg, hint="choose a picture, or drop one on the field")
    image = open_image(io.BytesIO(upload.data), max_pixels=limits.max_pixels)
    return image_to_array(image, info.images[name])


def _rows(asked: Questionnaire, form: Form, limits: Limits) -> list[list[object]]:
    """Return the rows of the table, each value read: the file's, else what was pasted, else the fields."""
    upload, pasted = form.files.get("table-file"), form.text("table")
    if upload is not None:
        try:
            pasted = upload.data.decode("utf-8")
        except UnicodeDecodeError as exc:
            msg = "table: the file is no utf-8 text"
            raise UsageError(msg, hint="save it as csv in utf-8") from exc
    if pasted.strip():
        found = read_rows(pasted, asked.names, max_rows=limits.max_rows if asked.many else 1)
    elif asked.fields:
        found = [[form.text(cell.field).strip() for cell in asked.cells]]
    else:
        msg = "table: nothing was given"
        raise UsageError(msg, hint="paste rows, or choose a file")
    return [
        [_value(cell, text, number) for cell, text in zip(asked.cells, row, strict=True)]
        for number, row in enumerate(found, start=1)
    ]


def _value(cell: Cell, text: str, number: int) -> object:
    """Return what one cell says. Raises ``UsageError``."""
    place = f"{cell.column.name[:80]}, row {number}"
    if cell.is_text:
        return text
    if cell.is_truth:
        if text.lower() not in _TRUTH:
            msg = f"{place}: {text[:40]!r}, want yes or no"
            raise UsageError(msg)
        return _TRUTH[text.lower()]
    try:
        value = int(text) if cell.is_whole else float(text)
    except ValueError as exc:
        want = "a whole number" if cell.is_whole else "a number, with a point"
        msg = f"{place}: {text[:40]!r}, want {want}" if text else f"{place}: empty, want {want}"
        raise UsageError(msg) from exc
    low, high = cell.column.minimum, cell.column.maximum
    largest = _LARGEST_WHOLE if cell.is_whole else _HUGE
    if not -largest < value < largest or (low is not None and value < low) or (high is not None and value > high):
        msg = f"{place}: {text[:40]}, want {_span(low, high)}"
        raise UsageError(msg)
    return value


def _span(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return "a finite number"
    if low is None or high is None:
        return f"at least {low:g}" if low is not None else f"at most {high:g}"
    return f"{low:g} to {high:g}"


def _array(tensor: TensorInfo, rows: Sequence[Sequence[object]]) -> Array:
    shape = (len(rows), *_inner(tensor)) if tensor.shape[:1] in ((_OPEN,), (1,)) else _inner(tensor)
    kind = object if tensor.datatype == _TEXT else None
    try:
        return np.array(rows, dtype=kind).reshape(shape)
    except (ValueError, OverflowError) as exc:
        msg = f"input {tensor.name}: {len(rows)} rows do not fit {list(tensor.shape)}"
        raise UsageError(msg) from exc
