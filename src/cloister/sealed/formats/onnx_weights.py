"""The weights of an ONNX model: each tensor has the bytes its type and shape say, here or in a file of the package.

ONNX IR, sections "Tensor Definition" and "External Tensor Data". Values are not read, but for packed numbers
(``int32_data`` and its like), whose count shows only in their bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cloister.errors import Malformed, Rejected
from cloister.sealed.formats.extents import Extent, demand_apart, element_count, packed_bytes
from cloister.sealed.formats.onnx_tables import (
    ELEMENT_BITS,
    ELEMENT_NAMES,
    EXTERNAL,
    PACKED_IN_INT32,
    STRING,
    TYPED_DATA,
)
from cloister.sealed.formats.protobuf import Message, Span, signed
from cloister.sealed.formats.summary import TensorEntry
from cloister.sealed.formats.window import ModelFile, shown
from cloister.sealed.paths import parse_path

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Weights"]

_DATA = ("raw_data", "float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
_KEYS = {"location", "offset", "length", "checksum"}
_MAX_DIGITS = 19
_CHUNK_BYTES = 1 << 20
_MORE_FOLLOWS = bytes(range(0x80, 0x100))  # bytes of a varint that are not its last


@dataclass(slots=True)
class Weights:
    """Every tensor of one ``.onnx`` file. ``files`` are the files of the package, with their sizes."""

    graph: ModelFile
    files: Mapping[str, int]
    subject: str
    count: int = 0
    extents: dict[str, list[Extent]] = field(default_factory=dict)

    def add(self, tensor: Message) -> TensorEntry:
        """Return the tensor once its bytes are proven to be there, and to be as many as its shape says.

        Raises ``Malformed``, or ``Rejected``: ``unknown_type``, ``bad_shape``, ``size_mismatch``, ``outside_package``,
        ``external_missing``, ``outside_file``, ``two_values``.
        """
        name, kind = tensor.text("name"), tensor.number("data_type")
        subject = f"{self.subject}: tensor {self.count} {shown(name)}"
        if kind not in ELEMENT_NAMES:
            raise Rejected.because("unknown_type", subject, got=str(kind))
        shape = tuple(signed(size) for size in tensor.numbers.get("dims", ()))
        count = element_count(shape, subject=subject)
        held = [data for data in _DATA if any(span.size for span in tensor.spans.get(data, ())) or _many(tensor, data)]
        external = tensor.number("data_location") == EXTERNAL
        if len(held) + external > 1 or tensor.has("segment") or tensor.has("external_data") != external:
            raise Rejected.because("two_values", subject, got=", ".join(held) or "a place", want="values in one place")
        if tensor.number("data_location") not in {0, EXTERNAL}:
            raise Rejected.because("outside_package", subject, got="an unknown kind of place")
        size = packed_bytes(count, ELEMENT_BITS.get(kind, 0))
        place = self.graph.path
        if external:
            place = self._external(tensor, kind, size, subject)
        else:
            size = self._internal(tensor, kind, count, held[0] if held else "", subject)
        self.count += 1
        return TensorEntry(name=name, dtype=ELEMENT_NAMES[kind], shape=shape, size=size, file=place)

    def _internal(self, tensor: Message, kind: int, count: int, held: str, subject: str) -> int:
        """Return the bytes of values that stand in the message itself."""
        spans = tensor.spans.get(held, [])
        stored, size = sum(span.size for span in spans), packed_bytes(count, ELEMENT_BITS.get(kind, 0))
        field_name, each = TYPED_DATA[kind]
        if held in {"", "raw_data"}:
            if stored != size or (kind == STRING and (held or count)):
                raise Rejected.because("size_mismatch", subject, got=f"{stored} bytes", want=f"{count} elements")
            return size
        if held != field_name:
            raise Rejected.because("size_mismatch", subject, got=held, want=field_name)
        want = packed_bytes(count, 8 // PACKED_IN_INT32[kind]) if kind in PACKED_IN_INT32 else count
        if kind == STRING:
            got = len(spans)
        elif each:
            got = stored // each if stored % each == 0 else -1
        else:
            got = sum(self._varints(span) for span in spans)
        if got != want:
            raise Rejected.because("size_mismatch", subject, got=f"{got} values in {held}", want=str(want))
        return stored

    def _varints(self, span: Span) -> int:
        """Count packed numbers: each ends with the one byte of it whose high bit is clear."""
        found, last = 0, b"\x00"
        for at in range(0, span.size, _CHUNK_BYTES):
            chunk = self.graph.read(span.begin + at, min(_CHUNK_BYTES, span.size - at))
            found += len(chunk.translate(None, _MORE_FOLLOWS))
            last = chunk[-1:]
        if last >= b"\x80":
            msg = f"{self.subject}: packed numbers that do not end"
            raise Malformed(msg)
        return found

    def _external(self, tensor: Message, kind: int, size: int, subject: str) -> str:
        """Return the path of the file that has the values."""
        entries = [(entry.text("key"), entry.text("value")) for entry in tensor.messages.get("external_data", ())]
        found = dict(entries)
        if len(found) != len(entries) or not {"location"} <= set(found) <= _KEYS or kind == STRING:
            want = "location, offset, length"
            raise Rejected.because("outside_package", subject, got="a place out of form", want=want)
        path = self._path(found["location"], subject)
        begin = _decimal(found.get("offset", "0"), subject)
        if (stated := _decimal(found.get("length", str(size)), subject)) != size:
            raise Rejected.because("size_mismatch", subject, got=f"length {stated}", want=f"{size} bytes")
        if begin + size > self.files[path]:
            want = f"within {self.files[path]} bytes"
            raise Rejected.because("outside_file", subject, got=f"{begin} to {begin + size}", want=want)
        self.extents.setdefault(path, []).append(Extent(begin, begin + size, self.count))
        return path

    def _path(self, location: str, subject: str) -> str:
        """Return the file of the package that ``location`` names, from the folder of the ``.onnx`` file.

        ONNX Runtime takes a location below ``*/`` for an address in its own memory, and reads from there.
        """
        try:
            path = parse_path(self.graph.folder + parse_path(location))
        except Malformed:
            path = None
        if path is None or "*" in location:
            want = "the path of a file beside the model"
            raise Rejected.because("outside_package", subject, got=shown(location), want=want)
        if path not in self.files or path == self.graph.path:
            raise Rejected.because("external_missing", subject, got=shown(location), want="a file of the package")
        return path

    def demand_apart(self) -> None:
        """Prove that no two tensors overlap in a file, but for those that share all their bytes."""
        for path, extents in self.extents.items():
            demand_apart(extents, subject=f"{self.subject}: {shown(path)}", shared=True)


def _many(tensor: Message, data: str) -> bool:
    """Tell whether strings are there, which may all be empty."""
    return data == "string_data" and bool(tensor.spans.get(data))


def _decimal(text: str, subject: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise Rejected.because("outside_file", subject, got=shown(text), want="a decimal number")
    return int(text)
