"""The element types of the Open Inference Protocol as NumPy sees them, for a consumer.

The protocol's section "Tensor Data Types" and its binary tensor data extension. NumPy has no BF16 and no
8-bit floats: BF16 is taken from and given back as float32 (exact), 8-bit floats travel as their bits.
"""

from __future__ import annotations

import struct
from typing import Any, TypeAlias

import numpy as np

from cloister.errors import Malformed, UsageError

__all__ = ["Array", "as_array", "decode", "element_type", "encode"]

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

_LENGTH = struct.Struct("<I")
_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BF16": np.dtype("<u2"),
    "FP8_E4M3FN": np.dtype("u1"),
    "FP8_E4M3FNUZ": np.dtype("u1"),
    "FP8_E5M2": np.dtype("u1"),
    "FP8_E5M2FNUZ": np.dtype("u1"),
}
_BYTES = "BYTES"


def element_type(datatype: str) -> np.dtype[Any]:
    """Return the NumPy type that carries ``datatype``. Raises ``Malformed`` for one this client does not know."""
    if datatype == _BYTES:
        return np.dtype(object)
    if datatype not in _DTYPES:
        msg = f"tensor: unknown datatype {datatype[:32]!r}"
        raise Malformed(msg)
    return _DTYPES[datatype]


def as_array(value: object, *, name: str) -> Array:
    """Return an array of whatever has numbers: arrays, nested lists, scalars, tensors of torch and others.

    A tensor is taken off its device and its graph; bfloat16 becomes float32, which holds it exactly.
    Raises ``UsageError``.
    """
    try:
        if hasattr(value, "detach") and hasattr(value, "cpu"):  # torch, without importing it
            tensor: Any = value.detach().cpu()
            value = tensor.float().numpy() if str(tensor.dtype) == "torch.bfloat16" else tensor.numpy()
        array: Array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as exc:
        msg = f"input {name}: {type(value).__name__} has no array form"
        raise UsageError(msg, hint="pass a numpy array, a torch tensor or nested lists of equal length") from exc
    if array.dtype.name == "bfloat16":  # ml_dtypes
        return array.astype(np.float32)
    return array


def encode(array: Array, datatype: str, *, name: str) -> bytes:
    """Return the binary extension's bytes of ``array`` as ``datatype``.

    Numbers are converted where that loses no more than precision (float64 to float32, int64 to int32 in
    range); anything else is a ``UsageError``: a question must not change silently.
    """
    if datatype == _BYTES:
        return _encode_strings(array, name)
    want = element_type(datatype)
    if array.dtype.kind not in "biuf":
        _misfit(name, f"elements of {array.dtype}", datatype)
    if datatype == "BF16" and array.dtype.kind == "f":
        return _to_bf16(array.astype(np.float32)).tobytes()
    if datatype.startswith(("BF", "FP8")) and array.dtype != want:
        _misfit(name, f"{array.dtype}", f"{datatype} as its bits ({want})")
    integers = array.dtype.kind in "iu" and want.kind in "iu"
    if not integers and not np.can_cast(array.dtype, want, casting="same_kind"):
        _misfit(name, f"{array.dtype}", datatype)
    with np.errstate(over="ignore"):
        cast = array.astype(want)
    if integers and not np.array_equal(cast, array):
        _misfit(name, "an integer out of range", datatype)
    return cast.tobytes()


def _misfit(name: str, got: str, want: str) -> None:
    msg = f"input {name}: {got}, want {want}"
    raise UsageError(msg, hint="convert the array first; nothing is converted that would change its meaning")


def _to_bf16(values: Array) -> Array:
    """Round float32 to the nearest BF16, ties to even; NaN stays NaN."""
    bits = values.view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded).astype("<u2")


def _encode_strings(array: Array, name: str) -> bytes:
    parts = []
    for item in array.reshape(-1).tolist():
        data = item.encode("utf-8") if isinstance(item, str) else item
        if not isinstance(data, bytes):
            _misfit(name, f"elements of {type(item).__name__}", "BYTES: str or bytes")
        parts.append(_LENGTH.pack(len(data)) + data)
    return b"".join(parts)


def decode(data: memoryview, datatype: str, shape: tuple[int, ...], *, name: str) -> Array:
    """Return the array of the binary extension's bytes, writable and ours. Raises ``Malformed``."""
    count = 1
    for size in shape:
        count *= size
    if datatype == _BYTES:
        return _decode_strings(data, count, name).reshape(shape)
    kind = element_type(datatype)
    if len(data) != count * kind.itemsize:
        msg = f"output {name}: {len(data)} bytes, want {count * kind.itemsize}"
        raise Malformed(msg)
    array = np.frombuffer(data, dtype=kind).reshape(shape).copy()
    if datatype == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


def _decode_strings(data: memoryview, count: int, name: str) -> Array:
    items: list[bytes] = []
    position = 0
    while position + _LENGTH.size <= len(data) and len(items) < count:
        (size,) = _LENGTH.unpack_from(data, position)
        position += _LENGTH.size
        if size > len(data) - position:
            break
        items.append(bytes(data[position : position + size]))
        position += size
    if len(items) != count or position != len(data):
        msg = f"output {name}: strings do not fill their bytes"
        raise Malformed(msg)
    array = np.empty(count, dtype=object)
    array[:] = items
    return array
