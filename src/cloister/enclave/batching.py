"""Which requests can be run together, and what each of them gets back (ADR 0037).

Rows of several requests are put one under the other, run once, and cut apart again. That is right only for a model that
looks at every row by itself. What can be checked is checked when it is loaded: the first dimension of every input and
output is open, and the same one; and random rows give the same answers together as alone. A model that mixes rows only
for some inputs passes that: whoever switches batching on for a model says that its rows are apart.

Not done here: gathering them (``batches``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cloister.enclave.engines.tensor import Datatype, Tensor
from cloister.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.enclave.engines import RunningModel
    from cloister.enclave.engines.tensor import Array, Signature, TensorSpec

__all__ = ["joined", "parts_of", "rows_are_apart", "rows_of"]

_PROBED_ROWS = 3
_OPEN = 2  # size of every other open dimension in the probe
_TOLERANCE = {Datatype.FP16: 2e-2, Datatype.FP32: 1e-3, Datatype.FP64: 1e-3}  # kernels for one row and for many differ


def rows_of(tensors: Sequence[Tensor]) -> int:
    """Return the rows of a request, 0 where its inputs have not the same number of them, or none."""
    counts = {tensor.shape[0] if tensor.shape else 0 for tensor in tensors}
    return counts.pop() if len(counts) == 1 else 0


def joined(requests: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    """Return the inputs of several requests, one under the other. Their other dimensions and types are equal."""
    return tuple(
        replace(parts[0], array=np.concatenate([part.array for part in parts])) for parts in zip(*requests, strict=True)
    )


def parts_of(outputs: Sequence[Tensor], rows: Sequence[int]) -> list[tuple[Tensor, ...]]:
    """Return each request's own rows of the outputs, as views.

    Raises ``Unavailable`` where an output has not as many rows as went in: then nobody can tell whose they are.
    """
    if any(not tensor.shape or tensor.shape[0] != sum(rows) for tensor in outputs):
        msg = "batch: outputs have not the rows of the inputs"
        raise Unavailable(msg)
    parts, start = [], 0
    for count in rows:
        end = start + count
        parts.append(
            tuple([Tensor(name=one.name, datatype=one.datatype, array=one.array[start:end]) for one in outputs])
        )
        start = end
    return parts


def rows_are_apart(running: RunningModel) -> bool:
    """Tell whether a model looks at every row by itself, as far as its signature and random rows show."""
    signature = running.signature
    if not _first_is_batch(signature):
        return False
    rng = np.random.default_rng(37)
    inputs = tuple(_random(spec, rng) for spec in signature.inputs)
    names = [spec.name for spec in signature.outputs]
    try:
        together = parts_of(running.run(inputs, names), [1] * _PROBED_ROWS)
        alone = [running.run(row, names) for row in parts_of(inputs, [1] * _PROBED_ROWS)]
    except Unavailable:
        return False
    return all(
        _is_same(one, other)
        for row, part in zip(alone, together, strict=True)
        for one, other in zip(row, part, strict=True)
    )


def _first_is_batch(signature: Signature) -> bool:
    """Tell whether the first dimension of everything is open, one symbol at most, and stands nowhere else."""
    shapes = [spec.shape for spec in (*signature.inputs, *signature.outputs)]
    if not signature.inputs or any(not shape or isinstance(shape[0], int) for shape in shapes):
        return False
    symbols = {shape[0] for shape in shapes if shape and shape[0] is not None}
    elsewhere = {dim for shape in shapes if shape for dim in shape[1:]}
    return len(symbols) <= 1 and not symbols & elsewhere


def _random(spec: TensorSpec, rng: np.random.Generator) -> Tensor:
    shape = (_PROBED_ROWS, *(dim if isinstance(dim, int) else _OPEN for dim in (spec.shape or ())[1:]))
    if spec.datatype is Datatype.BYTES:
        array: Array = np.empty(shape, dtype=object)
        array.reshape(-1)[:] = [b"%d" % number for number in rng.integers(0, 2, array.size)]
    elif spec.datatype in _TOLERANCE:
        array = rng.standard_normal(shape).astype(spec.datatype.dtype)
    else:  # 0 and 1 are indices of most tables, and bits of numbers in every raw type
        array = rng.integers(0, 2, shape).astype(spec.datatype.dtype)
    return Tensor(name=spec.name, datatype=spec.datatype, array=array)


def _is_same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    tolerance = _TOLERANCE.get(one.datatype)
    if tolerance is None:
        return bool(np.array_equal(one.array, other.array)) or one.datatype.is_raw
    return bool(np.allclose(one.array, other.array, rtol=tolerance, atol=tolerance, equal_nan=True))
