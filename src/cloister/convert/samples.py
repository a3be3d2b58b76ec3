"""Inputs drawn at random from a model's signature, the same for everybody: both models of a conversion get them.

They prove that two models compute the same, not that either is any good: values are spread over several orders of
magnitude, whole numbers are 0 to 9 (0 to 255 for UINT8), and know nothing of what the model was trained on.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from cloister.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloister.sealed.formats import Port

__all__ = ["SEED", "Array", "draw", "fits"]

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

SEED = 20260301
_SCALES = (1.0, 0.1, 10.0, 100.0)  # of the rows in turn
_FLOATS = {"FLOAT": "<f4", "DOUBLE": "<f8", "FLOAT16": "<f2"}
_WHOLE = {"INT64": "<i8", "INT32": "<i4", "INT16": "<i2", "INT8": "i1", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4",
          "UINT64": "<u8"}  # fmt: skip


def draw(ports: Sequence[Port], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Return one array for each input, of the shape given for it. Raises ``Rejected`` (``conversion_unsupported``)."""
    return {port.name: _array(port, shapes[port.name]) for port in ports}


def _array(port: Port, shape: tuple[int, ...]) -> Array:
    # A generator for each input, so that none depends on the number or order of the others.
    seed = int.from_bytes(hashlib.sha256(f"{SEED}/{port.name}".encode()).digest()[:8], "big")
    random = np.random.default_rng(seed)
    if port.dtype in _FLOATS:
        scales = np.resize(np.array(_SCALES[:2] if port.dtype == "FLOAT16" else _SCALES), shape[:1] or 1)
        scales = scales.reshape(-1, *[1] * (len(shape) - 1)) if shape else scales.reshape(())
        return np.asarray(random.standard_normal(shape) * scales, dtype=_FLOATS[port.dtype])
    if port.dtype in _WHOLE:
        return random.integers(0, 256 if port.dtype == "UINT8" else 10, shape).astype(_WHOLE[port.dtype])
    if port.dtype == "BOOL":
        return random.integers(0, 2, shape).astype("?")
    raise Rejected.because("conversion_unsupported", f"input {port.name[:60]!a}", got=port.dtype, want="numbers")


def fits(port: Port, shape: tuple[int, ...]) -> bool:
    """Tell whether an array of ``shape`` is one that ``port`` takes."""
    if port.shape is None:
        return True
    return len(shape) == len(port.shape) and all(
        not isinstance(want, int) or want == got for want, got in zip(port.shape, shape, strict=True)
    )
