"""A tiny engine: fast, foreseeable, and it can be told to take its time or to fail.

Its models have one input ``x`` of rows of numbers and give ``y``, the rows times the model's factor. A run can
take simulated seconds; ``OnnxEngine`` can be put in its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cloister.enclave.engines.tensor import Datatype, Signature, Tensor, TensorSpec
from cloister.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloister.enclave.engines import ModelFiles, RunningModel

__all__ = ["TOY_FILE", "ToyEngine", "toy_model"]

TOY_FILE = "model.toy"
_FACTOR_BYTES = 4


def toy_model(factor: int = 2, weights: bytes = b"") -> dict[str, bytes]:
    """Return the files of a toy model; ``weights`` are carried along, to be looked for where they must not be."""
    return {TOY_FILE: factor.to_bytes(_FACTOR_BYTES, "big") + weights}


class ToyEngine:
    """Counts its runs. ``failures`` runs fail next, and each takes ``seconds`` of simulated time."""

    kind = "toy"
    version = "1"

    def __init__(self, work: Callable[[float], None] = lambda _: None) -> None:
        """Tell ``work`` how long a run takes."""
        self._work = work
        self.seconds = 0.0
        self.failures = 0
        self.runs = 0
        self.loaded = 0
        """Models that are loaded now."""

    def load(self, files: ModelFiles, *, prepack: bool = False) -> RunningModel:
        """Return the model."""
        del prepack  # its weights are one number
        factor = int.from_bytes(bytes(files.view(TOY_FILE)[:_FACTOR_BYTES]), "big")
        self.loaded += 1
        return _ToyModel(self, factor)

    def start(self) -> None:
        """Begin one run. Raises ``Unavailable`` for one that is to fail."""
        self.runs += 1
        self._work(self.seconds)
        if self.failures:
            self.failures -= 1
            msg = "engine: run failed"
            raise Unavailable(msg)


class _ToyModel:
    steady = False  # its simulated time is a setting

    def __init__(self, engine: ToyEngine, factor: int) -> None:
        self._engine = engine
        self._factor = factor

    @property
    def signature(self) -> Signature:
        """One input, one output."""
        shape = ("batch", None)
        return Signature(
            inputs=(TensorSpec(name="x", datatype=Datatype.FP32, shape=shape),),
            outputs=(TensorSpec(name="y", datatype=Datatype.FP32, shape=shape),),
        )

    def run(self, inputs: Sequence[Tensor], outputs: Sequence[str]) -> tuple[Tensor, ...]:
        """Multiply."""
        self._engine.start()
        product = np.ascontiguousarray(inputs[0].array * np.float32(self._factor))
        return tuple(Tensor(name=name, datatype=Datatype.FP32, array=product) for name in outputs)

    def warm_up(self) -> None:
        """Do nothing: only what is asked for is counted."""

    def close(self) -> None:
        """Forget the model."""
        self._engine.loaded -= 1
