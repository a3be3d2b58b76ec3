"""The element types of the Open Inference Protocol as NumPy sees them, for a consumer.

The protocol's section "Tensor Data Types" and its binary tensor data extension. NumPy has no BF16 and no
8-bit floats: BF16 is taken from and given back as float32 (exact), 8-bit floats travel as their bits.
"""

from __future__ import annotations

import struct
from typing import Any, NoReturn, TypeAlias

import numpy as np

from cloister.errors import Malformed, UsageError

__all__ = ["Array", "as_array", "datatype_of", "decode", "element_type", "encode", "fit"]

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
_NAMES = {dtype: name for name, dtype in reversed(_DTYPES.items())}  # the first of a dtype: the one NumPy has
_BYTES = "BYTES"
_BF16_INFINITE = 0x7F80  # the bits of its exponent


def element_type(datatype: str) -> np.dtype[Any]:
    """Return the NumPy type that carries ``datatype``. Raises ``Malformed`` for one this client does not know."""
    if datatype == _BYTES:
        return np.dtype(object)
    if datatype not in _DTYPES:
        msg = f"tensor: unknown datatype {datatype[:32]!r}"
        raise Malformed(msg)
    return _DTYPES[datatype]


def datatype_of(array: Array) -> str:
    """Return the type that an array of outputs is written as: BF16 comes as FP32, 8-bit floats as their bits, UINT8."""
    return _BYTES if array.dtype == object else _NAMES[array.dtype]


def as_array(value: object, datatype: str, *, name: str) -> Array:
    """Return an array of whatever has elements: arrays, nested lists, scalars, tensors of torch, JAX and others.

    A tensor is taken off its device and its graph where it knows how (``detach``, ``cpu``); bfloat16 becomes float32,
    which holds it exactly. What only speaks DLPack must be in memory of the processor. Values are for ``fit`` to judge.
    Raises ``UsageError``.
    """
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        msg = f"input {name}: {int(np.ma.getmaskarray(value).sum())} elements are masked"
        raise UsageError(msg, hint="fill them: array.filled(VALUE)")
    try:
        array = _plain(value, datatype)
    except (TypeError, ValueError, RuntimeError, BufferError) as exc:
        msg = f"input {name}: {type(value).__name__} has no array form"
        raise UsageError(msg, hint=_FORMS) from exc
    if array.dtype == object and not array.ndim and not isinstance(value, str | bytes):
        msg = f"input {name}: {type(value).__name__} has no array form"
        raise UsageError(msg, hint=_FORMS)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array  # of ml_dtypes


_TEXT = "BYTES: str or bytes"
_FORMS = "pass a numpy array, a torch tensor, a table of pandas or nested lists of equal length"


def _plain(value: Any, datatype: str) -> Array:
    """Return an array of what is one already, or can become one by its own means."""
    if hasattr(value, "detach") and hasattr(value, "cpu"):  # torch, without importing it
        tensor = value.detach().cpu()
        value = tensor.float().numpy() if str(tensor.dtype) == "torch.bfloat16" else tensor.numpy()
    elif hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        value = np.from_dlpack(value)
    if datatype == _BYTES and not hasattr(value, "__array__"):
        return np.array(value, dtype=object)  # text types of NumPy drop zeros at the end of each item
    return np.asarray(value)


def fit(array: Array, datatype: str, *, name: str) -> Array:
    """Return the elements as ``datatype`` travels, BF16 as its bits; what is of that type already is returned as it is.

    Floats are rounded to the model's floats, integers taken where every one is held exactly; anything else is a
    ``UsageError`` that says how to do it by hand: a question must not change silently.
    """
    if datatype == _BYTES:
        return _texts(array, name)
    want = element_type(datatype)
    if array.dtype.kind not in "biuf":
        _misfit(name, f"elements of {array.dtype}", datatype)
    if datatype == "BF16" and array.dtype.kind == "f":
        return _to_bf16(_narrowed(array, np.dtype(np.float32), name, datatype), name)
    if array.dtype == want:
        return array
    if datatype.startswith(("BF", "FP8")):
        _misfit(name, f"{array.dtype}", f"{datatype} as its bits ({want})")
    if array.dtype.kind in "iu" and want.kind in "iu":
        cast = array.astype(want)
        if not np.array_equal(cast, array):
            _misfit(name, "an integer out of range", datatype)
        return cast
    if want.kind == "b" or (array.dtype.kind == "f" and want.kind in "iu"):
        _misfit(name, f"{array.dtype}", datatype, way=f"round or compare first, then .astype(np.{want.name})")
    if array.dtype.kind in "iu":
        _demand_exact(array, want, name, datatype)
    return _narrowed(array, want, name, datatype)


def _narrowed(array: Array, want: np.dtype[Any], name: str, datatype: str) -> Array:
    """Return the elements rounded; what would become infinite is refused."""
    with np.errstate(over="ignore"):
        cast = array.astype(want)
    if array.dtype.itemsize > want.itemsize and not np.array_equal(np.isinf(cast), np.isinf(array)):
        _misfit(name, "a number that is infinite there", datatype, way="np.clip to what the model takes")
    return cast


def _demand_exact(array: Array, want: np.dtype[Any], name: str, datatype: str) -> None:
    """Refuse integers beyond those that a float holds one by one."""
    exact = 2 ** (np.finfo(want).nmant + 1)
    if array.size and not -exact <= int(array.min()) <= int(array.max()) <= exact:
        way = f"if they may be rounded, say so: .astype(np.{want.name})"
        _misfit(name, f"integers beyond {exact}", datatype, way=way)


def _misfit(name: str, got: str, want: str, *, way: str = "") -> NoReturn:
    msg = f"input {name}: {got}, want {want}"
    raise UsageError(msg, hint=way or "convert the array first; nothing is converted that would change its meaning")


def encode(array: Array, datatype: str, *, name: str) -> bytes:
    """Return the binary extension's bytes of ``array`` as ``datatype``. Raises ``UsageError`` as ``fit``."""
    fitted = fit(array, datatype, name=name)
    if datatype == _BYTES:
        return b"".join(_LENGTH.pack(len(item)) + item for item in map(_octets, fitted.reshape(-1).tolist()))
    return fitted.tobytes()


def _octets(item: str | bytes) -> bytes:
    return item.encode("utf-8") if isinstance(item, str) else item


def _texts(array: Array, name: str) -> Array:
    """Return an array of str and bytes. Raises ``UsageError`` for anything else, lone surrogates too."""
    found = array.astype(object) if array.dtype.kind in "SU" else array
    for item in found.reshape(-1).tolist():
        if not isinstance(item, str | bytes):
            _misfit(name, f"elements of {type(item).__name__}", _TEXT, way="array.astype(str) spells them")
        try:
            _octets(item)
        except UnicodeEncodeError:  # half of a pair of surrogates
            _misfit(name, "text that is no Unicode", _TEXT, way="encode it to bytes yourself")
    return found


def _to_bf16(values: Array, name: str) -> Array:
    """Round float32 to the nearest BF16, ties to even; NaN stays NaN. Raises ``UsageError`` beyond its range."""
    bits = values.view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    if np.any(np.isfinite(values) & ((rounded & _BF16_INFINITE) == _BF16_INFINITE)):
        _misfit(name, "a number that is infinite there", "BF16", way="np.clip to what the model takes")
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded).astype("<u2")


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
