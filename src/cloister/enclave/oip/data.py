"""Tensor data on the wire: JSON numbers, and the little-endian bytes of the binary extension.

Section names are those of the binary tensor data extension: fixed-size elements in row-major order, each
element of ``BYTES`` with its length as four little-endian bytes in front. JSON carries every type but the
8-bit floats; FP16 and BF16 are rounded to nearest, ties to even.
"""

from __future__ import annotations

import struct
from itertools import chain
from typing import TYPE_CHECKING, cast

import numpy as np

from cloister.enclave.engines.tensor import Datatype, element_count
from cloister.wire import MAX_INT

if TYPE_CHECKING:
    from cloister.enclave.engines.tensor import Array, Tensor
    from cloister.wire import Json

__all__ = ["BadData", "binary_to_array", "json_to_array", "tensor_to_binary", "tensor_to_json", "to_numbers"]

_INTEGERS = frozenset(kind for kind in Datatype if "INT" in kind.value)
_LENGTH = struct.Struct("<I")


class BadData(Exception):
    """The data does not fit its own datatype and shape: what was there, what had to be."""

    def __init__(self, got: str, want: str) -> None:
        """Keep both sides; neither holds a value of the consumer's."""
        super().__init__(f"got {got}, want {want}")
        self.got = got
        self.want = want


def json_to_array(data: Json, datatype: Datatype, shape: tuple[int, ...]) -> Array:
    """Return the array of a flat or nested JSON list. Raises ``BadData``."""
    flat = _flatten(data, shape)
    kinds = set(map(type, flat))
    if datatype is Datatype.BYTES:
        _demand(kinds, {str}, "strings")
        return _objects([cast("str", item).encode("utf-8") for item in flat], shape)
    if datatype is Datatype.BOOL:
        _demand(kinds, {bool}, "true and false")
        return np.array(flat, dtype=datatype.dtype).reshape(shape)
    if datatype in _INTEGERS:
        _demand(kinds, {int}, "integers")
        return _integers(cast("list[int]", flat), datatype, shape)
    if datatype.is_float8:
        raise BadData("json", "binary data: 8-bit floats have no json form")
    _demand(kinds, {int, float}, "numbers")
    try:
        values = np.array(flat, dtype=np.float64)
    except OverflowError:
        raise BadData("a number out of range", f"what {datatype.value} can hold") from None
    return _floats(values, datatype).reshape(shape)


def _flatten(data: Json, shape: tuple[int, ...]) -> list[Json]:
    """Return the elements in row-major order; nested lists must have exactly ``shape``."""
    if not isinstance(data, list):
        raise BadData("no list", "a json array")
    flat = _unnest(data, shape) if data and isinstance(data[0], list) else data
    if len(flat) != element_count(shape):
        raise BadData(f"{len(flat)} elements", f"{element_count(shape)} for shape {list(shape)}")
    return flat


def _unnest(data: list[Json], shape: tuple[int, ...]) -> list[Json]:
    rows: list[Json] = [data]
    for size in shape:
        if any(not isinstance(row, list) or len(row) != size for row in rows):
            raise BadData("nested lists of another shape", f"{list(shape)}, or one flat list")
        rows = list(chain.from_iterable(cast("list[list[Json]]", rows)))
    return rows


def _demand(kinds: set[type], allowed: set[type], want: str) -> None:
    if not kinds <= allowed:
        raise BadData("json " + ", ".join(sorted(kind.__name__ for kind in kinds - allowed)), want)


def _integers(flat: list[int], datatype: Datatype, shape: tuple[int, ...]) -> Array:
    bounds = np.iinfo(datatype.dtype)
    if flat and not (bounds.min <= min(flat) and max(flat) <= bounds.max):
        raise BadData("an integer out of range", f"{bounds.min} to {bounds.max}")
    return np.array(flat, dtype=datatype.dtype).reshape(shape)


def _floats(values: Array, datatype: Datatype) -> Array:
    with np.errstate(over="ignore"):
        if datatype is Datatype.BF16:
            narrow = _to_bf16(values.astype(np.float32))
            finite = np.isfinite(_from_bf16(narrow))
        else:
            narrow = values.astype(datatype.dtype)
            finite = np.isfinite(narrow)
    if not bool(finite.all()):
        raise BadData("a number out of range", f"what {datatype.value} can hold")
    return narrow


def _to_bf16(values: Array) -> Array:
    """Round float32 to the nearest BF16, ties to even; NaN does not occur in JSON."""
    bits = values.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def _from_bf16(bits: Array) -> Array:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _objects(items: list[bytes], shape: tuple[int, ...]) -> Array:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array.reshape(shape)


def binary_to_array(data: memoryview, datatype: Datatype, shape: tuple[int, ...]) -> Array:
    """Return the array of the binary extension's bytes. Raises ``BadData``."""
    count = element_count(shape)
    if datatype is Datatype.BYTES:
        return _objects(_strings(data, count), shape)
    if len(data) != count * datatype.size:
        want = f"{count * datatype.size} for {datatype.value} of shape {list(shape)}"
        raise BadData(f"{len(data)} bytes", want)
    array = np.frombuffer(data, dtype=datatype.dtype)
    if datatype is Datatype.BOOL and bool((array.view(np.uint8) > 1).any()):
        raise BadData("a byte above 1", "0 or 1 for BOOL")
    return array.reshape(shape)


def _strings(data: memoryview, count: int) -> list[bytes]:
    items: list[bytes] = []
    position = 0
    while position < len(data) and len(items) < count:
        if len(data) - position < _LENGTH.size:
            break
        (size,) = _LENGTH.unpack_from(data, position)
        position += _LENGTH.size
        if size > len(data) - position:
            raise BadData(f"an element of {size} bytes", f"at most the {len(data) - position} that are left")
        items.append(bytes(data[position : position + size]))
        position += size
    if len(items) != count or position != len(data):
        left = len(data) - position
        raise BadData(f"{len(items)} elements and {left} bytes more", f"exactly {count} elements")
    for item in items:
        try:
            item.decode("utf-8")
        except UnicodeDecodeError:
            raise BadData("bytes that are not utf-8", "utf-8 strings") from None
    return items


def tensor_to_binary(tensor: Tensor) -> bytes | memoryview:
    """Return the bytes of the binary extension: of numbers, a view of the tensor's own memory."""
    if tensor.datatype is Datatype.BYTES:
        return b"".join(_LENGTH.pack(len(item)) + item for item in tensor.array.reshape(-1))
    return tensor.array.reshape(-1).view(np.uint8).data


def to_numbers(tensor: Tensor) -> Array:
    """Return the array of a tensor of numbers as NumPy reads them; 8-bit floats it does not."""
    return _from_bf16(tensor.array) if tensor.datatype is Datatype.BF16 else tensor.array


def tensor_to_json(tensor: Tensor) -> list[Json]:
    """Return the flat list. Raises ``BadData`` for what JSON cannot carry exactly."""
    kind, flat = tensor.datatype, tensor.array.reshape(-1)
    if kind is Datatype.BYTES:
        return [item.decode("utf-8") for item in flat]
    if kind.is_float8:
        raise BadData("json", "binary_data: 8-bit floats have no json form")
    if kind is Datatype.BF16:
        flat = _from_bf16(flat)
    if kind in _INTEGERS and flat.size and (int(flat.max()) > MAX_INT or int(flat.min()) < -MAX_INT):
        raise BadData("an integer beyond 2**53 - 1", "binary_data for this output")
    if flat.dtype.kind == "f" and not bool(np.isfinite(flat).all()):
        raise BadData("infinity or not-a-number", "binary_data for this output")
    return cast("list[Json]", flat.tolist())
