"""GGUF: metadata, a table of tensors, then the tensors, each on an aligned place.

Specification: gguf.md of ggml, versions 2 and 3, little-endian. Read here are metadata and table. Refused beyond it
is what no writer makes and readers fall over: a key or name twice, nested arrays, bytes that belong to no tensor.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cloister.errors import Rejected
from cloister.sealed.formats.extents import Extent, demand_apart, element_count
from cloister.sealed.formats.gguf_types import (
    BLOCKS,
    VALUE_ARRAY,
    VALUE_BOOL,
    VALUE_BYTES,
    VALUE_STRING,
    VALUE_UINT32,
    Block,
)
from cloister.sealed.formats.summary import FileSummary, TensorEntry
from cloister.sealed.formats.window import ModelFile, Window, shown

if TYPE_CHECKING:
    from cloister.wire import Json

__all__ = ["GGUF_MAGIC", "parse_gguf"]

GGUF_MAGIC = b"GGUF"
_WHAT = "gguf"
_VERSIONS = (2, 3)
_MAX_TENSORS = 1 << 16
_MAX_KEYS = 1 << 14  # metadata entries
_MAX_KEY_BYTES = (1 << 16) - 1  # the specification's
_MAX_NAME_BYTES = 64  # of a tensor; the specification's
_MAX_STRING_BYTES = 1 << 20  # a value: chat templates have some 100 KB
_MAX_STRINGS = 1 << 21  # strings of all arrays together: vocabularies have some 250,000
_MAX_ARRAY_BYTES = 1 << 28  # numbers of one array
_MAX_DIMS = 4  # GGML_MAX_DIMS
_ALIGNMENT_KEY = "general.alignment"
_DEFAULT_ALIGNMENT = 32
_MAX_ALIGNMENT = 1 << 16
_SHOWN_KEYS = ("general.architecture", "general.name", "general.file_type", _ALIGNMENT_KEY)


def parse_gguf(file: ModelFile) -> FileSummary:
    """Return what the file holds; not one byte of the tensors is read.

    Raises ``Malformed``, or ``Rejected``: ``unknown_type``, ``bad_shape``, ``outside_file``, ``misaligned``,
    ``overlap``, ``gap``, ``trailing_data``, ``duplicate_name``.
    """
    return _Gguf(file).parse()


@dataclass(frozen=True, slots=True)
class _Tensor:
    entry: TensorEntry
    offset: int


@dataclass(slots=True)
class _Gguf:
    """One reading of one file."""

    file: ModelFile
    window: Window = field(init=False)
    subject: str = field(init=False)
    facts: dict[str, Json] = field(default_factory=dict)
    strings_left: int = _MAX_STRINGS

    def __post_init__(self) -> None:
        self.window = Window(self.file, what=_WHAT)
        self.subject = f"{_WHAT} {shown(self.file.path)}"

    def parse(self) -> FileSummary:
        window = self.window
        if window.take(4) != GGUF_MAGIC:
            window.fail("does not begin with GGUF")
        if (version := window.uint(4)) not in _VERSIONS:
            window.fail(f"version {version}, want {' or '.join(map(str, _VERSIONS))}, little-endian")
        tensors = self._count("tensors", _MAX_TENSORS)
        keys = self._count("metadata entries", _MAX_KEYS)
        alignment = self._metadata(keys)
        found = self._tensors(tensors)
        self._demand_places(found, alignment)
        facts = {**self.facts, "metadata_entries": keys, "version": version}
        entries = tuple(tensor.entry for tensor in found)
        return FileSummary(path=self.file.path, size=self.file.size, format="gguf", tensors=entries, facts=facts)

    def _count(self, what: str, cap: int) -> int:
        count = self.window.uint(8)
        if count > cap:
            self.window.fail(f"{count} {what}, want at most {cap}")
        return count

    def _bytes(self, cap: int, what: str) -> bytes:
        size = self.window.uint(8)
        if size > cap:
            self.window.fail(f"{what} of {size} bytes, want at most {cap}")
        return self.window.take(size)

    def _text(self, cap: int, what: str) -> str:
        try:
            return self._bytes(cap, what).decode("utf-8")
        except UnicodeDecodeError:
            self.window.fail(f"{what} is not utf-8")

    def _metadata(self, keys: int) -> int:
        """Read all entries; return the alignment."""
        seen: set[str] = set()
        alignment = _DEFAULT_ALIGNMENT
        for _ in range(keys):
            key = self._text(_MAX_KEY_BYTES, "a key")
            if not key:
                self.window.fail("a key of no bytes")
            if key in seen:
                raise Rejected.because("duplicate_name", self.subject, got=f"key {shown(key)}")
            seen.add(key)
            kind = self.window.uint(4)
            value = self._value(kind)
            if key == _ALIGNMENT_KEY:
                alignment = self._alignment(kind, value)
            if key in _SHOWN_KEYS and value is not None:
                self.facts[key] = value
        return alignment

    def _alignment(self, kind: int, value: str | int | None) -> int:
        if kind != VALUE_UINT32 or not isinstance(value, int):
            self.window.fail(f"{_ALIGNMENT_KEY} is no 32-bit number")
        if not 8 <= value <= _MAX_ALIGNMENT or value & (value - 1):  # noqa: PLR2004 - the specification's least
            raise Rejected.because(
                "misaligned", self.subject, got=f"alignment {value}", want=f"a power of two from 8 to {_MAX_ALIGNMENT}"
            )
        return value

    def _value(self, kind: int) -> str | int | None:
        """Read one value; return it where it is text or a whole number."""
        if kind == VALUE_STRING:
            return self._text(_MAX_STRING_BYTES, "a value")
        if kind == VALUE_ARRAY:
            self._array()
            return None
        size = VALUE_BYTES.get(kind)
        if size is None:
            self.window.fail(f"metadata of type {kind}")
        value = self.window.uint(size)
        if kind == VALUE_BOOL and value > 1:
            self.window.fail(f"a boolean of {value}")
        return value

    def _array(self) -> None:
        kind, count = self.window.uint(4), self.window.uint(8)
        if kind == VALUE_STRING:
            if count > self.strings_left:
                self.window.fail(f"an array of {count} strings, want at most {_MAX_STRINGS} in all")
            self.strings_left -= count
            for _ in range(count):
                size = self.window.uint(8)
                if size > _MAX_STRING_BYTES:
                    self.window.fail(f"a string of {size} bytes, want at most {_MAX_STRING_BYTES}")
                self.window.skip(size)
            return
        size = VALUE_BYTES.get(kind, 0)
        if not size:
            self.window.fail(f"an array of type {kind}")
        if count * size > _MAX_ARRAY_BYTES:
            self.window.fail(f"an array of {count * size} bytes, want at most {_MAX_ARRAY_BYTES}")
        self.window.skip(count * size)

    def _tensors(self, count: int) -> list[_Tensor]:
        found: list[_Tensor] = []
        names: set[str] = set()
        for number in range(count):
            name = self._text(_MAX_NAME_BYTES, "the name of a tensor")
            subject = f"{self.subject}: tensor {number} {shown(name)}"
            if name in names:
                raise Rejected.because("duplicate_name", subject)
            names.add(name)
            found.append(self._tensor(name, subject))
        return found

    def _tensor(self, name: str, subject: str) -> _Tensor:
        rank = self.window.uint(4)
        if rank > _MAX_DIMS:
            raise Rejected.because("bad_shape", subject, got=f"{rank} dimensions", want=f"at most {_MAX_DIMS}")
        shape = tuple(self.window.uint(8) for _ in range(rank))
        kind, offset = self.window.uint(4), self.window.uint(8)
        block = BLOCKS.get(kind)
        if block is None:
            raise Rejected.because("unknown_type", subject, got=str(kind))
        size = _size(shape, block, subject)
        entry = TensorEntry(name=name, dtype=block.name, shape=shape, size=size, file=self.file.path)
        return _Tensor(entry, offset)

    def _demand_places(self, tensors: list[_Tensor], alignment: int) -> None:
        """Prove that every tensor lies in the file, aligned and apart, with no more than padding between."""
        start = -(-self.window.position // alignment) * alignment
        data = max(0, self.file.size - start)
        extents = []
        for number, tensor in enumerate(tensors):
            subject = f"{self.subject}: tensor {number} {shown(tensor.entry.name)}"
            end = tensor.offset + tensor.entry.size
            if end > data:  # a negative offset is a very large one here
                raise Rejected.because("outside_file", subject, got=f"{tensor.offset} to {end}", want=f"within {data}")
            if tensor.offset % alignment:
                raise Rejected.because("misaligned", subject, got=str(tensor.offset), want=f"a multiple of {alignment}")
            extents.append(Extent(tensor.offset, end, number))
        demand_apart(extents, subject=self.subject, shared=False)
        last = 0
        for extent in sorted(extents):
            if extent.begin - last >= alignment:
                got = f"{extent.begin - last} bytes before tensor {extent.tensor}"
                raise Rejected.because("gap", self.subject, got=got, want=f"fewer than {alignment}")
            last = extent.end
        if self.file.size - min(start, self.file.size) - last >= alignment:
            got = f"{data - last} bytes"
            raise Rejected.because("trailing_data", self.subject, got=got, want=f"fewer than {alignment}")


def _size(shape: tuple[int, ...], block: Block, subject: str) -> int:
    count = element_count(shape, subject=subject)
    if (shape[0] if shape else 1) % block.elements:
        want = f"rows of {block.elements} elements or a multiple"
        raise Rejected.because("bad_shape", subject, got=f"rows of {shape[0] if shape else 1}", want=want)
    return count // block.elements * block.size
