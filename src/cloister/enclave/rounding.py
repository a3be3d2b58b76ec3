"""Output precision: floating outputs are rounded before they are sealed (docs/spec/contract.md, section 4).

What is rounded is what the receipt commits to. Integers, truth values, bytes, infinities and NaN stay as they are,
and so do numbers so large that their type has no more places than asked for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cloister.enclave.engines.tensor import Datatype
from cloister.errors import Rejected

if TYPE_CHECKING:
    from cloister.enclave.engines.tensor import Array, Tensor

__all__ = ["rounded"]

_WHOLE = 2.0**53  # from here on doubles are whole numbers
_FLOATS = frozenset({Datatype.FP16, Datatype.FP32, Datatype.FP64})


def rounded(tensor: Tensor, places: int) -> Tensor:
    """Return the tensor with its numbers rounded to ``places`` decimal places, half to even, in its own type.

    Raises ``Rejected`` (``output``) for an 8-bit float: what is left of it is no rounding to promise.
    """
    if tensor.datatype.is_float8:
        raise Rejected.because("output", f"output {tensor.name}", got=tensor.datatype.value, want="a type to round")
    if tensor.datatype in _FLOATS:
        wide = _round(tensor.array.astype(np.float64), places)
        return replace(tensor, array=np.ascontiguousarray(wide.astype(tensor.datatype.dtype)))
    if tensor.datatype is Datatype.BF16:
        wide = _round(_from_bf16(tensor.array).astype(np.float64), places)
        return replace(tensor, array=np.ascontiguousarray(_to_bf16(wide.astype(np.float32), tensor.array)))
    return tensor


def _round(wide: Array, places: int) -> Array:
    """Round doubles. What has no more places than that is left alone, so that nothing overflows or moves by a bit."""
    coarse = ~(np.abs(wide) < _WHOLE / 10.0**places)  # true for infinities and NaN too
    if not coarse.any():
        return np.round(wide, places)
    return np.where(coarse, wide, np.round(np.where(coarse, 0.0, wide), places))


def _from_bf16(bits: Array) -> Array:
    """Return the numbers of raw BF16 bits: the upper half of a single."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _to_bf16(numbers: Array, before: Array) -> Array:
    """Return raw BF16 bits, rounded to the nearest, half to even; what is no number keeps the bits it had."""
    bits = numbers.view(np.uint32)
    nearest = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isfinite(numbers), nearest, before).astype(np.dtype("<u2"))
