"""Where tensors lie in a file: inside it, with the size their shape says, and apart from one another."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cloister.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["MAX_ELEMENTS", "MAX_RANK", "Extent", "demand_apart", "element_count", "packed_bytes"]

MAX_RANK = 16  # dimensions of one tensor
MAX_ELEMENTS = 1 << 48  # elements of one tensor: no product that an engine forms from here overflows 64 bits
_BYTE_BITS = 8


class Extent(NamedTuple):
    """Bytes ``begin`` to ``end`` of a file, and the number of the tensor they belong to."""

    begin: int
    end: int
    tensor: int


def element_count(shape: Sequence[int], *, subject: str) -> int:
    """Return the number of elements. Raises ``Rejected`` (``bad_shape``): rank, a negative size, or an overflow."""
    if len(shape) > MAX_RANK:
        raise Rejected.because("bad_shape", subject, got=f"{len(shape)} dimensions", want=f"at most {MAX_RANK}")
    count = 1
    for size in shape:
        if not 0 <= size <= MAX_ELEMENTS:
            raise Rejected.because("bad_shape", subject, got=f"dimension {size}", want=f"0 to {MAX_ELEMENTS}")
    if 0 in shape:
        return 0
    for size in shape:
        count *= size
        if count > MAX_ELEMENTS:
            raise Rejected.because("bad_shape", subject, got="too many elements", want=f"at most {MAX_ELEMENTS}")
    return count


def packed_bytes(count: int, bits: int) -> int:
    """Return the bytes of ``count`` elements of ``bits`` bits, the last byte filled up."""
    return -(-count * bits // _BYTE_BITS)


def demand_apart(extents: Iterable[Extent], *, subject: str, shared: bool) -> None:
    """Prove that no two tensors overlap; where ``shared``, two may lie on exactly the same bytes (tied weights).

    Raises ``Rejected`` (``overlap``).
    """
    last: Extent | None = None
    for extent in sorted(extents):
        if extent.begin == extent.end:
            continue
        if last is not None and extent.begin < last.end and not (shared and extent[:2] == last[:2]):
            got = f"tensors {last.tensor} and {extent.tensor}"
            raise Rejected.because("overlap", subject, got=got, want="each its own bytes")
        last = extent
