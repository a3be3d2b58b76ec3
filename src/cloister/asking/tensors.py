"""The general form of an input, for what is neither a picture nor a table: text in its shape, or a file.

What the metadata says of an input is shown, and what somebody gave is brought into its shape: as it stands, one item
alone, or one flat list. Where several dimensions are free, a flat list fills the last of them and the others are 1.
Not done here: how values are written (``values``, ``npy``); types, which the client converts as it does for programs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cloister.asking.npy import MAGIC, read_npy
from cloister.asking.values import NAN_HINT, number_lines, reading, text_lines, written
from cloister.client.datatypes import element_type
from cloister.errors import CloisterError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.asking.limits import Limits
    from cloister.asking.values import Reading
    from cloister.client.datatypes import Array
    from cloister.client.model_info import TensorInfo
    from cloister.serving.forms import Form

__all__ = ["TensorField", "fill_tensor", "has_field", "in_shape"]

_OPEN = -1
_TEXT, _BF16 = "BYTES", "BF16"
_SHOWN_ITEMS = 3  # of an example's innermost list, of the others one
_TABLE_RANK = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorField:
    """One input in the form; ``field`` begins the names of its fields."""

    tensor: TensorInfo
    field: str

    @property
    def is_text(self) -> bool:
        """Whether words go in."""
        return self.tensor.datatype == _TEXT

    @property
    def is_float(self) -> bool:
        """Whether numbers with a fraction go in, so that one may be missing."""
        return self.tensor.datatype == _BF16 or element_type(self.tensor.datatype).kind == "f"

    @property
    def is_bits(self) -> bool:
        """Whether numbers go in as their bits, for want of a type that NumPy has."""
        return self.tensor.datatype.startswith("FP8")

    @property
    def counts(self) -> bool:
        """Whether each item of the first dimension costs a unit."""
        return self.tensor.shape[:1] == (_OPEN,)

    @property
    def shape(self) -> str:
        """The shape in words."""
        sizes = ["any" if size == _OPEN else str(size) for size in self.tensor.shape]
        return " x ".join(sizes) or "one value"

    @property
    def example(self) -> str:
        """Values in the shape, cut where they are many."""
        value = (
            '"text"' if self.is_text else "true" if self.tensor.datatype == "BOOL" else "0.5" if self.is_float else "1"
        )
        fixed = math.prod(size for size in self.tensor.shape if size != _OPEN)
        most = _SHOWN_ITEMS
        for size in reversed(_flat_shape(self.tensor.shape, fixed * (_SHOWN_ITEMS + 1))):
            value = "[" + ", ".join([value] * min(size, most)) + (", …]" if size > most else "]")
            most = 1
        return value


def has_field(tensor: TensorInfo) -> bool:
    """Tell whether this form can take an input: of a type that the client knows, and of a size."""
    try:
        element_type(tensor.datatype)
    except CloisterError:
        return False
    return 0 not in tensor.shape


def fill_tensor(field: TensorField, form: Form, limits: Limits, most: int) -> Array:
    """Return what was given for one input, at most ``most`` values, in its shape. Raises ``UsageError`` naming it."""
    tensor, text, upload = field.tensor, form.text(field.field), form.files.get(f"{field.field}-file")
    gaps = form.text(f"{field.field}-nan") == "yes"
    how = reading(tensor, gaps=gaps, most=min(most, limits.max_texts) if field.is_text else most)
    if upload is not None and text.strip():
        how.refuse("", "text and a file", "one of them")
    if upload is not None and upload.data.startswith(MAGIC):
        found = read_npy(upload.data, how)
    else:
        if upload is not None:
            text = _decoded(upload.data, how, limits)
        how = replace(how, most=min(how.most, limits.max_written))
        found = _read(text, how, as_lists=form.text(f"{field.field}-as") == "json")
    _demand_finite(found, how)
    found = in_shape(found, tensor)
    if field.counts and len(found) > limits.max_rows:
        how.refuse("", f"{len(found)} items", f"at most {limits.max_rows}", hint="ask in parts, or with the client")
    return found


def _decoded(data: bytes, how: Reading, limits: Limits) -> str:
    if len(data) > limits.max_text_bytes:
        want = f"at most {limits.max_text_bytes} of text"
        how.refuse("file", f"{len(data)} bytes", want, hint="numbers take less room in a .npy file")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as exc:
        msg = f"input {how.name[:80]}, file: neither .npy nor utf-8 text"
        raise UsageError(msg, hint="write it with numpy.save, or save it as csv in utf-8") from exc


def _read(text: str, how: Reading, *, as_lists: bool) -> Array:
    bare = text.removeprefix("\N{BYTE ORDER MARK}").strip()
    if not bare and not how.is_text:
        how.refuse("", "nothing", f"values of {how.datatype}", hint="write them, or choose a file")
    if how.is_text:
        return written(bare, how) if as_lists else text_lines(text, how)
    return written(bare, how) if bare.startswith("[") else number_lines(text, how)


def _demand_finite(array: Array, how: Reading) -> None:
    """Refuse numbers that are none, wherever they came from, but gaps where they are meant."""
    if array.dtype.kind != "f":
        return
    bad = np.isinf(array) if how.gaps else ~np.isfinite(array)
    if bad.any():
        at = np.unravel_index(int(bad.argmax()), array.shape)
        place = "at " + "".join(f"[{index}]" for index in at) if at else ""
        how.refuse(place, str(array[at]), "a number" if how.gaps else "a finite number", hint=NAN_HINT)


def in_shape(array: Array, tensor: TensorInfo) -> Array:
    """Return ``array`` in the shape of ``tensor``. Raises ``UsageError``.

    It fits as it stands, or is one item without its first dimension, or one flat list, or has each item flat.
    """
    want = tensor.shape
    if want == (_OPEN,) or _fits(array.shape, want):  # that one stands for any rank
        return array
    if want[:1] in ((_OPEN,), (1,)) and _fits(array.shape, want[1:]):
        return array[np.newaxis]
    flat_items = array.ndim == _TABLE_RANK and bool(want) and _OPEN not in want[1:]
    if flat_items and want[0] in (_OPEN, len(array)) and array.shape[1] == math.prod(want[1:]):
        return array.reshape(len(array), *want[1:])
    if array.ndim == 1:
        sizes = _flat_shape(want, array.size)
        if math.prod(sizes) == array.size:
            return array.reshape(sizes)
        fixed = math.prod(size for size in want if size != _OPEN)
        got, need = f"{array.size} values", f"a multiple of {fixed}" if _OPEN in want else f"{fixed}"
        msg = f"input {tensor.name[:80]}: {got}, want {need} for {tensor}"
        raise UsageError(msg)
    msg = f"input {tensor.name[:80]}: shape {list(array.shape)}, want {tensor}"
    raise UsageError(msg, hint="give lists in this shape, or all values in one flat list")


def _fits(got: Sequence[int], want: Sequence[int]) -> bool:
    return len(got) == len(want) and all(size in (_OPEN, there) for size, there in zip(want, got, strict=True))


def _flat_shape(want: Sequence[int], count: int) -> list[int]:
    """Return the sizes that ``count`` values in one list fill: the last free one takes them all, others are 1."""
    sizes = [1 if size == _OPEN else size for size in want]
    free = [place for place, size in enumerate(want) if size == _OPEN]
    if free:
        sizes[free[-1]] = count // math.prod(sizes)
    return sizes
