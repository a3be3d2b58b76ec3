"""What a contract holds back of a model's outputs, held back (docs/spec/output-rules.md, section 3).

One step between the engine and every form of an answer, so that no form gets around it: JSON, binary data and classes
are written from what comes out here, a batch is cut apart first, and what is stored for a retry is the answer. What the
receipt commits to is what is sent.

Not proven: that what is left tells nothing of what was held back. A largest value tells that the others are smaller.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Self

import numpy as np

from cloister.enclave.engines.tensor import Datatype, Signature
from cloister.enclave.oip.data import to_numbers
from cloister.enclave.rounding import rounded
from cloister.errors import Reason, Rejected
from cloister.lending.output_rule import OutputRule, Shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloister.enclave.engines.tensor import Array, Tensor
    from cloister.enclave.oip import InferRequest
    from cloister.wire import Json

__all__ = ["Withholding"]

_RANK_OF_BATCHES = 2  # from here on the first dimension may be the batch
_BF16_BITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Withholding:
    """What one caller is shown of one model: ``signature`` has the outputs that there are for it, ``names`` theirs."""

    signature: Signature
    names: tuple[str, ...]
    rules: Mapping[str, OutputRule]
    places: int | None
    has_batch: bool

    @classmethod
    def of(cls, signature: Signature, rules: Sequence[OutputRule], places: int | None) -> Self:
        """Return what ``rules`` and ``places`` leave of a model with this signature.

        Raises ``Rejected`` (``output``) for a rule about an output that the model does not have, or cannot be held to:
        whoever wrote it meant to hold something back.
        """
        bad = tuple(reason for rule in rules if (reason := _misfit(signature, rule)) is not None)
        if bad:
            raise Rejected("; ".join(map(str, bad)), reasons=bad, hint="the contract's output rules must be amended")
        hidden = {rule.output for rule in rules if rule.show is Shown.NOTHING}
        shown = tuple(spec for spec in signature.outputs if spec.name not in hidden)
        return cls(
            signature=Signature(inputs=signature.inputs, outputs=shown),
            names=tuple(spec.name for spec in shown),
            rules={rule.output: rule for rule in rules},
            places=places,
            has_batch=any(spec.shape is None or not isinstance((*spec.shape, 0)[0], int) for spec in signature.inputs),
        )

    def demand(self, request: InferRequest) -> None:
        """Prove that nothing is asked for that is held back whole. Raises ``Rejected`` (``output_withheld``)."""
        bad = tuple(
            Reason(code="output_withheld", subject=f"output {output.name}", want="one that the contract shows")
            for output in request.outputs
            if (rule := self.rules.get(output.name)) is not None and rule.show is Shown.NOTHING
        )
        if bad:
            raise Rejected("; ".join(map(str, bad)), reasons=bad)
        if not self.signature.outputs:
            raise Rejected.because("output_withheld", "outputs", got="none that the contract shows")

    def applied(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the outputs as they may leave. Raises ``Rejected`` (``output``) for what cannot be rounded."""
        if not self.rules and self.places is None:
            return tuple(tensors)
        return tuple(self._applied(tensor) for tensor in tensors)

    def to_json(self) -> dict[str, Json]:
        """Return what the model's metadata say of it: nothing where nothing is held back."""
        members: dict[str, Json] = {}
        if self.places is not None:
            members["precision"] = self.places
        if self.rules:
            members["output_rules"] = [rule.to_json() for _, rule in sorted(self.rules.items())]
        return members

    def _applied(self, tensor: Tensor) -> Tensor:
        rule = self.rules.get(tensor.name)
        if rule is not None:
            tensor = replace(tensor, array=np.ascontiguousarray(self._shown(tensor, rule)))
        return tensor if self.places is None else rounded(tensor, self.places)

    def _shown(self, tensor: Tensor, rule: OutputRule) -> Array:
        numbers = to_numbers(tensor)
        if rule.show is Shown.NOTHING:  # it was not asked of the engine; should it come all the same, it ends here
            return np.zeros_like(tensor.array)
        keep = np.ones(numbers.shape, dtype=bool)
        top = 1 if rule.show is Shown.LABEL else rule.top
        if top is not None:
            keep &= _largest(numbers, top, batched=self.has_batch)
        if rule.minimum is not None:
            keep &= numbers >= _least(rule.minimum, numbers.dtype)
        if rule.show is Shown.LABEL:
            return np.where(keep, _bits("1", tensor.datatype), _bits("0", tensor.datatype))
        return np.where(keep, tensor.array, _bits(rule.fill, tensor.datatype))


def _largest(numbers: Array, top: int, *, batched: bool) -> Array:
    """Return where the ``top`` largest values of each item are; of equal ones the first, and no number is none."""
    rows = numbers.reshape(len(numbers) if batched and numbers.ndim >= _RANK_OF_BATCHES else 1, -1)
    if top >= rows.shape[1]:
        return np.ones(numbers.shape, dtype=bool)
    keys = np.where(np.isnan(rows), -np.inf, rows) if rows.dtype.kind == "f" else rows
    # Sorted upwards from behind and turned round: of equal values the first comes first.
    order = rows.shape[1] - 1 - np.argsort(keys[:, ::-1], axis=1, kind="stable")[:, ::-1][:, :top]
    found = np.zeros(rows.shape, dtype=bool)
    np.put_along_axis(found, order, values=True, axis=1)
    return found.reshape(numbers.shape)


def _least(minimum: str, dtype: np.dtype[np.generic]) -> float | int:
    """Return the smallest number of a type that is not below ``minimum``: a fraction is none of the integers."""
    exact = Decimal(minimum)
    return float(exact) if dtype.kind == "f" else math.ceil(exact)


def _bits(number: str, datatype: Datatype) -> Array:
    """Return a number as one element of a type."""
    if datatype is Datatype.BF16:
        wide = np.array(float(number), dtype=np.float32).view(np.uint32)
        return (wide >> _BF16_BITS).astype(datatype.dtype)
    value = float(number) if datatype.dtype.kind == "f" else int(number)
    return np.array(value).astype(datatype.dtype)


def _misfit(signature: Signature, rule: OutputRule) -> Reason | None:
    """Return why a rule cannot be held, None where it can."""
    subject = f"contract: output {rule.output}"
    spec = signature.output(rule.output)
    if spec is None:
        return Reason(code="output", subject=subject, got="no such output", want=f"one of model {rule.model}")
    if rule.show is Shown.NOTHING:
        return None
    if spec.datatype is Datatype.BYTES or spec.datatype.is_float8:
        return Reason(code="output", subject=subject, got=spec.datatype.value, want="numbers that can be compared")
    if not _holds(spec.datatype, rule.fill):
        return Reason(code="output", subject=subject, got=f"fill {rule.fill}", want=f"a {spec.datatype.value}")
    return None


def _holds(datatype: Datatype, number: str) -> bool:
    """Tell whether a type has this number, near enough for a float."""
    dtype = datatype.dtype
    if datatype is Datatype.BF16:
        return True
    if dtype.kind == "f":
        return bool(abs(float(number)) <= float(np.finfo(dtype).max))
    if dtype.kind == "b":
        return number in ("0", "1")
    exact = Decimal(number)
    return exact == exact.to_integral_value() and np.iinfo(dtype).min <= exact <= np.iinfo(dtype).max
