"""Tensors as the inference protocol and the engines exchange them, and the types they may have.

The names are those of the Open Inference Protocol V2, section "Tensor Data Types", with BF16 from its
binary extension and four 8-bit floats of ONNX IR 9 that no protocol names yet. NumPy has no BF16 and no
8-bit floats: these travel as their raw bits (``uint16``, ``uint8``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from cloister.errors import UsageError
from cloister.wire.values import hot_value

if TYPE_CHECKING:
    from cloister.wire import Json

__all__ = ["MAX_RANK", "Array", "Datatype", "Signature", "Tensor", "TensorSpec", "element_count"]

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

MAX_RANK = 16  # dimensions of one tensor


class Datatype(Enum):
    """One element type: its name on the wire."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    FP32 = "FP32"
    FP64 = "FP64"
    BF16 = "BF16"
    FP8_E4M3FN = "FP8_E4M3FN"
    FP8_E4M3FNUZ = "FP8_E4M3FNUZ"
    FP8_E5M2 = "FP8_E5M2"
    FP8_E5M2FNUZ = "FP8_E5M2FNUZ"
    BYTES = "BYTES"

    @cached_property
    def label(self) -> str:
        """The name on the wire, as ``value`` is: that of an enumeration is a call of Python's each time."""
        return self.value

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The little-endian NumPy type that holds it; ``object`` (of ``bytes``) for ``BYTES``."""
        return _DTYPES[self]

    @cached_property
    def size(self) -> int:
        """Bytes of one element; 0 for ``BYTES``, whose elements carry their own length."""
        return 0 if self is Datatype.BYTES else self.dtype.itemsize

    @cached_property
    def is_raw(self) -> bool:
        """Tell whether arrays hold bits that NumPy cannot read as numbers."""
        return self in _RAW

    @cached_property
    def is_float8(self) -> bool:
        """Tell whether this is one of the 8-bit floats, which have no JSON form."""
        return self.is_raw and self.size == 1


_DTYPES: dict[Datatype, np.dtype[Any]] = {
    Datatype.BOOL: np.dtype("?"),
    Datatype.UINT8: np.dtype("u1"),
    Datatype.UINT16: np.dtype("<u2"),
    Datatype.UINT32: np.dtype("<u4"),
    Datatype.UINT64: np.dtype("<u8"),
    Datatype.INT8: np.dtype("i1"),
    Datatype.INT16: np.dtype("<i2"),
    Datatype.INT32: np.dtype("<i4"),
    Datatype.INT64: np.dtype("<i8"),
    Datatype.FP16: np.dtype("<f2"),
    Datatype.FP32: np.dtype("<f4"),
    Datatype.FP64: np.dtype("<f8"),
    Datatype.BF16: np.dtype("<u2"),
    Datatype.FP8_E4M3FN: np.dtype("u1"),
    Datatype.FP8_E4M3FNUZ: np.dtype("u1"),
    Datatype.FP8_E5M2: np.dtype("u1"),
    Datatype.FP8_E5M2FNUZ: np.dtype("u1"),
    Datatype.BYTES: np.dtype(object),
}
_RAW = frozenset(kind for kind in Datatype if kind.value.startswith(("BF", "FP8")))


def element_count(shape: tuple[int, ...]) -> int:
    """Return how many elements a tensor of this shape has; 1 for a scalar."""
    return math.prod(shape)


@hot_value
class Tensor:
    """A named array. ``array`` has the type and shape that ``datatype`` says; it is C-contiguous."""

    name: str
    datatype: Datatype
    array: Array

    def __post_init__(self) -> None:
        """Refuse an array of another element type: a mistake of ours."""
        if self.array.dtype != self.datatype.dtype:
            msg = f"tensor: array of {self.array.dtype}, want {self.datatype.dtype}"
            raise UsageError(msg)

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        shape: tuple[int, ...] = self.array.shape
        return shape

    def __repr__(self) -> str:
        """Show type and shape, never a value: tensors are the consumer's data."""
        return f"Tensor({self.datatype.value}{list(self.shape)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """What a model says of one input or output.

    ``shape`` is None where the model leaves even the rank open; a dimension is a fixed size, a symbol
    (the same symbol means the same size everywhere) or None where anything goes.
    """

    name: str
    datatype: Datatype
    shape: tuple[int | str | None, ...] | None

    def to_json(self) -> Json:
        """Return the metadata object of the protocol: open dimensions are -1."""
        dims = [-1] if self.shape is None else [dim if isinstance(dim, int) else -1 for dim in self.shape]
        return {"datatype": self.datatype.value, "name": self.name, "shape": dims}

    def describe_shape(self) -> str:
        """Return the shape for people: ``[batch, 3, ?]``."""
        if self.shape is None:
            return "any shape"
        return "[" + ", ".join("?" if dim is None else str(dim) for dim in self.shape) + "]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """Every input and output of a model."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def output(self, name: str) -> TensorSpec | None:
        """Return the output of that name, or None."""
        for spec in self.outputs:
            if spec.name == name:
                return spec
        return None
