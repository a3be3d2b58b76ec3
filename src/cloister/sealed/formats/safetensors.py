"""Safetensors: one JSON header, then the tensors without a gap.

Format as huggingface/safetensors describes it (README, "Format"): eight bytes of header length, the header, the data.
Read here is the header alone, with the rules the reference reader has and a few it leaves out: no name twice, and a
far lower cap. Shards are tied together by an index, see ``safetensors_index``.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from cloister.errors import Malformed, Rejected
from cloister.sealed.formats.extents import Extent, demand_apart, element_count
from cloister.sealed.formats.summary import FileSummary, TensorEntry
from cloister.sealed.formats.window import ModelFile, Window, shown
from cloister.wire import Json, parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_HEADER_BYTES", "parse_safetensors"]

MAX_HEADER_BYTES = 8 << 20  # bytes; the reference reader takes 100 MB. A shard of the largest models has some 100 KB
_WHAT = "safetensors"
_METADATA = "__metadata__"
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
}  # fmt: skip


def parse_safetensors(file: ModelFile) -> FileSummary:
    """Return what the file holds; not one byte of the tensors is read.

    Raises ``Malformed``, or ``Rejected``: ``unknown_type``, ``bad_shape``, ``size_mismatch``, ``overlap``, ``gap``,
    ``trailing_data``, ``outside_file``.
    """
    window = Window(file, what=_WHAT)
    size = window.uint(8)
    if not 2 <= size <= MAX_HEADER_BYTES:  # noqa: PLR2004 - two braces
        window.fail(f"header of {size} bytes, want 2 to {MAX_HEADER_BYTES}")
    header = window.take(size)
    if header[:1] != b"{":
        window.fail("the header does not begin with a brace")
    members = parse_json(header, what=f"{_WHAT} {shown(file.path)}: header", cap=MAX_HEADER_BYTES)
    if not isinstance(members, dict):
        window.fail("the header is no object")
    metadata = _metadata(members, window)
    entries, extents = [], []
    for number, (name, value) in enumerate(item for item in members.items() if item[0] != _METADATA):
        entry, extent = _tensor(name, value, number, window, file)
        entries.append(entry)
        extents.append(extent)
    _demand_whole(extents, window.left, f"{_WHAT} {shown(file.path)}")
    return FileSummary(
        path=file.path,
        size=file.size,
        format="safetensors",
        tensors=tuple(entries),
        facts={"metadata": metadata} if metadata else {},
    )


def _metadata(members: Mapping[str, Json], window: Window) -> Json:
    found = members.get(_METADATA, {})
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        window.fail(f"{_METADATA} is no object of strings")
    return found


def _tensor(name: str, value: Json, number: int, window: Window, file: ModelFile) -> tuple[TensorEntry, Extent]:
    subject = f"{_WHAT} {shown(file.path)}: tensor {number} {shown(name)}"
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        msg = f"{subject}: want dtype, shape and data_offsets"
        raise Malformed(msg)
    dtype, shape = value["dtype"], _integers(value["shape"], f"{subject}: shape")
    offsets = _integers(value["data_offsets"], f"{subject}: data_offsets")
    if not isinstance(dtype, str) or len(offsets) != 2:  # noqa: PLR2004 - begin and end
        msg = f"{subject}: dtype is no string, or data_offsets are not two"
        raise Malformed(msg)
    if dtype not in _BITS:
        raise Rejected.because("unknown_type", subject, got=shown(dtype))
    count, (begin, end) = element_count(shape, subject=subject), offsets
    if not 0 <= begin <= end <= window.left:
        raise Rejected.because("outside_file", subject, got=f"{begin} to {end}", want=f"within {window.left} bytes")
    if count * _BITS[dtype] != (end - begin) * 8:
        want = f"{count} elements of {dtype}"
        raise Rejected.because("size_mismatch", subject, got=f"{end - begin} bytes", want=want)
    entry = TensorEntry(name=name, dtype=dtype, shape=shape, size=end - begin, file=file.path)
    return entry, Extent(begin, end, number)


def _integers(value: Json, what: str) -> tuple[int, ...]:
    if isinstance(value, list) and all(type(item) is int for item in value):
        return tuple(value)
    msg = f"{what}: want integers"
    raise Malformed(msg)


def _demand_whole(extents: list[Extent], size: int, subject: str) -> None:
    """Prove that the tensors fill the data exactly: bytes that belong to nobody could be anything."""
    demand_apart(extents, subject=subject, shared=False)
    ordered = sorted(extents)
    for before, after in pairwise([Extent(0, 0, -1), *ordered]):
        if after.begin != before.end:
            raise Rejected.because("gap", subject, got=f"{after.begin} after {before.end}", want="tensors without gaps")
    end = ordered[-1].end if ordered else 0
    if end != size:
        raise Rejected.because("trailing_data", subject, got=f"{size} bytes of data", want=f"{end}")
