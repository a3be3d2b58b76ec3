"""Weights inside an ``.onnx`` file, found and named as external data, so that a session can use them where they lie.

A small bounded reader of Protocol Buffers (encoding as of proto3) and of the three messages of onnx.proto3 that lead
to weights: ModelProto.graph, GraphProto.initializer, TensorProto. Everything else is passed on as it stands, unread:
ONNX Runtime reads it next, and refuses what is no model. Weights of subgraphs and constants of nodes stay in the graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ALIGNMENT", "Weight", "lift_weights", "settle"]

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register
MIN_BYTES = 4096  # smaller weights stay in the graph: shape inference may need them
_MAX_VARINT_BYTES = 10
_MAX_GRAPH_BYTES = (1 << 31) - 1  # bytes of what is left: the limit of Protocol Buffers
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types

_GRAPH = 7  # ModelProto.graph
_INITIALIZER = 5  # GraphProto.initializer
_DATA_TYPE, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 2, 9, 13, 14  # of TensorProto
_LOCATED_OUTSIDE = bytes([_DATA_LOCATION << 3 | _VARINT, 1])
# Bytes of one element by TensorProto.DataType, of every type whose raw data is what the session computes with.
_ELEMENT_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
_ELEMENT_BYTES |= {17: 1, 18: 1, 19: 1, 20: 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """One weight: where its bytes begin in the file, how many there are, how many one element takes."""

    start: int
    size: int
    element: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    """One field of a message: its number and wire type, where it begins, where its value begins and ends."""

    number: int
    wire: int
    begin: int
    start: int
    end: int
    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lifted:
    """One initializer that becomes external: its field, its own fields, and the weight."""

    field: _Field
    kept: tuple[_Field, ...]
    weight: Weight


def lift_weights(data: memoryview, *, location: str) -> tuple[bytes, tuple[Weight, ...]]:
    """Return the graph without its weights of ``MIN_BYTES`` and more, and those weights in their order.

    The graph says of each that it lies in the file ``location``, at the place that ``settle`` gives it. Raises
    ``Malformed`` for what cannot be a model.
    """
    graphs = [field for field in _fields(data, 0, len(data)) if field.number == _GRAPH]
    if len(graphs) != 1 or graphs[0].wire != _BYTES:
        msg = f"onnx: {len(graphs)} graphs, want one"
        raise Malformed(msg)
    graph = graphs[0]
    found = [
        lifted
        for field in _fields(data, graph.start, graph.end)
        if field.number == _INITIALIZER and field.wire == _BYTES and (lifted := _lift(data, field)) is not None
    ]
    weights = tuple(item.weight for item in found)
    if len(data) - sum(weight.size for weight in weights) > _MAX_GRAPH_BYTES:
        msg = "onnx: graph without its weights is too large"
        raise Malformed(msg)
    places = settle(weights)
    parts: list[bytes | memoryview] = []
    at = graph.start
    for item, place in zip(found, places, strict=True):
        tensor = b"".join(data[field.begin : field.end] for field in item.kept)
        tensor += _located(location, place, item.weight.size)
        parts += [data[at : item.field.begin], _length_delimited(_INITIALIZER, tensor)]
        at = item.field.end
    parts.append(data[at : graph.end])
    body = b"".join(parts)
    return b"".join((data[: graph.begin], _length_delimited(_GRAPH, body), data[graph.end :])), weights


def settle(weights: tuple[Weight, ...]) -> tuple[int, ...]:
    """Return the place of each weight once it was moved down to where its elements are aligned.

    Between two weights there are names and sizes, so that there nearly always is room; where there is none the
    weight stays, and the session copies it.
    """
    places: list[int] = []
    free = 0  # where the weights before end
    for weight in weights:
        fit = (weight.start // unit * unit for unit in (ALIGNMENT, weight.element))
        place = next((place for place in fit if place >= free), weight.start)
        places.append(place)
        free = place + weight.size
    return tuple(places)


def _lift(data: memoryview, field: _Field) -> _Lifted | None:
    """Return the weight in one initializer, None for one that stays as it is."""
    fields = tuple(_fields(data, field.start, field.end))
    raw = [item for item in fields if item.number == _RAW_DATA and item.wire == _BYTES]
    kinds = [item.value for item in fields if item.number == _DATA_TYPE and item.wire == _VARINT]
    outside = any(item.number in (_EXTERNAL_DATA, _DATA_LOCATION) for item in fields)
    if len(raw) != 1 or len(kinds) != 1 or outside:
        return None
    size, element = raw[0].end - raw[0].start, _ELEMENT_BYTES.get(kinds[0])
    if element is None or size < MIN_BYTES or size % element:
        return None
    kept = tuple(item for item in fields if item.number != _RAW_DATA)
    return _Lifted(field=field, kept=kept, weight=Weight(start=raw[0].start, size=size, element=element))


def _fields(data: memoryview, at: int, end: int) -> Iterator[_Field]:
    """Yield the fields of the message in ``data[at:end]``. Raises ``Malformed``."""
    while at < end:
        begin = at
        key, at = _varint(data, at, end)
        number, wire, value = key >> 3, key & 7, 0
        start = at
        if wire == _VARINT:
            value, at = _varint(data, at, end)
        elif wire == _BYTES:
            size, start = _varint(data, at, end)
            at = start + size
        elif wire in (_FIXED32, _FIXED64):
            at += 4 if wire == _FIXED32 else 8
        else:
            number = 0  # groups are older than ONNX
        if number == 0 or at > end:
            msg = "onnx: not a message"
            raise Malformed(msg)
        yield _Field(number=number, wire=wire, begin=begin, start=start, end=at, value=value)


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    """Return an integer and where it ends."""
    value = 0
    for count in range(_MAX_VARINT_BYTES):
        if at + count >= end:
            break
        byte = data[at + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:  # noqa: PLR2004 - the bit that says that more follows
            return value, at + count + 1
    msg = "onnx: not a number"
    raise Malformed(msg)


def _located(location: str, offset: int, size: int) -> bytes:
    """Return TensorProto.external_data and data_location."""
    entries = (("location", location), ("offset", str(offset)), ("length", str(size)))
    pairs = (_length_delimited(1, key.encode()) + _length_delimited(2, text.encode()) for key, text in entries)
    return b"".join(_length_delimited(_EXTERNAL_DATA, pair) for pair in pairs) + _LOCATED_OUTSIDE


def _length_delimited(number: int, value: bytes) -> bytes:
    return _dump_varint(number << 3 | _BYTES) + _dump_varint(len(value)) + value


def _dump_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:  # noqa: PLR2004 - seven bits a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
