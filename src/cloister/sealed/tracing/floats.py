"""Float tensors of a model: where their bytes lie, and a sketch by which one is known again.

Files are read by ``formats`` first, which proves that every tensor lies inside its file. Left out: integers, tensors
of less than 64 elements, those in attributes of nodes, packed half floats (``int32_data``), and formats other
than safetensors and ONNX.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Final

import numpy as np

from cloister.errors import Malformed
from cloister.sealed.formats import parse_model
from cloister.sealed.formats.onnx_tables import ELEMENT_NAMES, EXTERNAL, TABLE
from cloister.sealed.formats.protobuf import Message, ProtoReader, signed
from cloister.sealed.formats.window import ModelFile, Window
from cloister.sealed.tracing.mark import FloatKind, values
from cloister.wire import Fields, parse_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cloister.sealed.tracing.mark import Array

__all__ = ["SKETCH_BYTES", "FloatTensor", "bits_of", "distances", "float_tensors", "read_words", "sketch"]

MIN_ELEMENTS: Final = 64
SKETCH_BYTES: Final = 32
_SKETCH_BITS = 256
_BLOCKS, _BLOCK = 4, 64
_SAFETENSORS = {"F64": FloatKind.F64, "F32": FloatKind.F32, "F16": FloatKind.F16, "BF16": FloatKind.BF16}
_ONNX = {
    "DOUBLE": FloatKind.F64, "FLOAT": FloatKind.F32, "FLOAT16": FloatKind.F16, "BFLOAT16": FloatKind.BF16,
}  # fmt: skip
_PLACES = ("raw_data", "float_data", "double_data")


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatTensor:
    """``count`` elements from byte ``begin`` of ``file``."""

    file: ModelFile
    name: str
    kind: FloatKind
    begin: int
    count: int


def float_tensors(files: Sequence[ModelFile]) -> tuple[FloatTensor, ...]:
    """Return the tensors that can carry a mark, in the order of files and bytes; tied ones once.

    Raises as ``parse_model``.
    """
    summary = parse_model(files)
    by_path = {file.path: file for file in files}
    found: dict[tuple[str, int], FloatTensor] = {}
    names: set[tuple[str, str]] = set()  # inner graphs may use a name again: the first one counts
    for entry in summary.files:
        file = by_path[entry.path]
        if entry.format == "safetensors":
            tensors: Iterable[FloatTensor] = _in_safetensors(file)
        else:
            tensors = _in_onnx(file, by_path) if entry.format == "onnx" else ()
        for tensor in tensors:
            name, place = (tensor.file.path, tensor.name), (tensor.file.path, tensor.begin)
            if tensor.count >= MIN_ELEMENTS and name not in names and place not in found:
                names.add(name)
                found[place] = tensor
    return tuple(found[place] for place in sorted(found))


def _in_safetensors(file: ModelFile) -> Iterator[FloatTensor]:
    size = int.from_bytes(file.read(0, 8), "little")
    members = parse_json(file.read(8, size), what="safetensors header", cap=size)
    if not isinstance(members, dict):
        msg = "safetensors header: no object"
        raise Malformed(msg)
    for name, value in members.items():
        if name != "__metadata__":
            fields = Fields(value, what="safetensors tensor")
            kind = _SAFETENSORS.get(fields.text("dtype", cap=32))
            begin, end = (number for number in fields.items("data_offsets", cap=2) if isinstance(number, int))
            if kind is not None:
                count = (end - begin) // kind.size
                yield FloatTensor(file=file, name=name, kind=kind, begin=8 + size + begin, count=count)


def _in_onnx(file: ModelFile, files: dict[str, ModelFile]) -> list[FloatTensor]:
    found: list[FloatTensor] = []

    def done(name: str, message: Message) -> None:
        if name == "Tensor" and reader.path[-2] == "Graph":
            kind = _ONNX.get(ELEMENT_NAMES[message.number("data_type")])
            place = _place(message, file, files) if kind is not None else None
            if kind is not None and place is not None:
                count = prod(signed(size) for size in message.numbers.get("dims", ()))
                where, begin = place
                found.append(FloatTensor(file=where, name=message.text("name"), kind=kind, begin=begin, count=count))

    reader = ProtoReader(Window(file, what="onnx"), TABLE, done)
    reader.read("Model")
    return found


def _place(tensor: Message, file: ModelFile, files: dict[str, ModelFile]) -> tuple[ModelFile, int] | None:
    """Return file and first byte, where all values lie in one piece."""
    if tensor.number("data_location") == EXTERNAL:
        stated = {entry.text("key"): entry.text("value") for entry in tensor.messages.get("external_data", ())}
        where = files[file.folder + stated["location"]]
        return where, int(stated.get("offset", "0"))
    spans = [span for place in _PLACES for span in tensor.spans.get(place, ()) if span.size]
    return (file, spans[0].begin) if len(spans) == 1 else None


def read_words(tensor: FloatTensor, first: int, count: int) -> Array:
    """Return elements ``first`` to ``first + count`` as integers. Raises ``Malformed`` for a file cut short."""
    size = tensor.kind.size
    data = tensor.file.read(tensor.begin + first * size, count * size)
    if len(data) != count * size:
        msg = f"tensor: {len(data)} bytes, want {count * size}"
        raise Malformed(msg)
    return np.frombuffer(data, tensor.kind.words)


def _samples(tensor: FloatTensor) -> Array:
    room = tensor.count - _BLOCK
    blocks = [read_words(tensor, room * at // (_BLOCKS - 1), _BLOCK) for at in range(_BLOCKS)]
    return values(np.concatenate(blocks), tensor.kind)


def sketch(tensor: FloatTensor) -> bytes:
    """Return 256 bits: which of 256 elements are above their median. No low-order bit has a part in it."""
    found = _samples(tensor)
    return np.packbits(found > np.median(found)).tobytes()


def bits_of(sketches: Sequence[bytes]) -> Array:
    """Return the bits of sketches, a row for each."""
    rows = np.frombuffer(b"".join(sketches), np.uint8).reshape(len(sketches), SKETCH_BYTES)
    found: Array = np.unpackbits(rows, axis=1).astype(bool)
    return found


def distances(tensor: FloatTensor, wanted: Array) -> Array:
    """Return for each row of ``bits_of`` the share (0 to 1) of samples that differ from it.

    Zeros, which pruning leaves, do not count; where hardly anything else is there, everything is far away.
    """
    found = _samples(tensor)
    there = found != 0
    if np.count_nonzero(there) < _SKETCH_BITS // 8:
        return np.ones(len(wanted))
    bits = found > np.median(found)
    shares: Array = np.mean(wanted[:, there] != bits[there], axis=1)
    return shares
