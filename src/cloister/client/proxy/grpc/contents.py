"""Tensors that come typed, element by element, and the bytes of the binary form that they are.

Which field holds which datatype is the protocol's ("InferTensorContents"); FP16, BF16 and the 8-bit floats have none.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from cloister.errors import Malformed

__all__ = ["HOLDERS", "dump_contents", "fill_contents"]

HOLDERS: dict[str, tuple[str, str]] = {
    # datatype: field, element type
    "BOOL": ("bool_contents", "?"),
    "UINT8": ("uint_contents", "u1"),
    "UINT16": ("uint_contents", "<u2"),
    "UINT32": ("uint_contents", "<u4"),
    "UINT64": ("uint64_contents", "<u8"),
    "INT8": ("int_contents", "i1"),
    "INT16": ("int_contents", "<i2"),
    "INT32": ("int_contents", "<i4"),
    "INT64": ("int64_contents", "<i8"),
    "FP32": ("fp32_contents", "<f4"),
    "FP64": ("fp64_contents", "<f8"),
    "BYTES": ("bytes_contents", ""),
}
_LENGTH = struct.Struct("<I")


def dump_contents(contents: Any, datatype: str, *, what: str) -> bytes:
    """Return the bytes of a typed tensor. Raises ``Malformed`` for another field, or a number out of range."""
    if datatype not in HOLDERS:
        msg = f"{what}: datatype {datatype[:32]} has no typed contents, want raw_input_contents"
        raise Malformed(msg)
    holder, kind = HOLDERS[datatype]
    others = [field.name for field, _ in contents.ListFields() if field.name != holder]
    if others:
        msg = f"{what}: {others[0]}, want {holder} for {datatype}"
        raise Malformed(msg)
    values = getattr(contents, holder)
    if not kind:
        return b"".join(_LENGTH.pack(len(item)) + item for item in values)
    try:
        return np.array(list(values), dtype=np.dtype(kind)).tobytes()
    except OverflowError as exc:
        msg = f"{what}: a number out of range, want {datatype}"
        raise Malformed(msg) from exc


def fill_contents(contents: Any, datatype: str, data: memoryview, *, what: str) -> None:
    """Put the bytes of a tensor into ``contents``, element by element. Raises ``Malformed``."""
    holder, kind = HOLDERS[datatype]
    if kind:
        dtype = np.dtype(kind)
        if len(data) % dtype.itemsize:
            msg = f"{what}: {len(data)} bytes, want {datatype}"
            raise Malformed(msg)
        getattr(contents, holder).extend(np.frombuffer(data, dtype=dtype).tolist())
        return
    position = 0
    while position < len(data):
        if len(data) - position < _LENGTH.size:
            raise Malformed(f"{what}: a length that is cut")
        (size,) = _LENGTH.unpack_from(data, position)
        position += _LENGTH.size
        if size > len(data) - position:
            raise Malformed(f"{what}: an element of {size} bytes, {len(data) - position} are left")
        contents.bytes_contents.append(bytes(data[position : position + size]))
        position += size
