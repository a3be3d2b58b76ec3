"""Engines that run the real one and do one thing more: count, wait, fail."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from cloister.enclave.engines.onnx import OnnxEngine
from cloister.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloister.enclave.engines import ModelFiles, RunningModel
    from cloister.enclave.engines.tensor import Signature, Tensor


class WatchedEngine:
    """Counts runs and calls ``before`` in each, in the worker thread unless ``steady``."""

    kind = "onnxruntime"

    def __init__(self, before: Callable[[], None] | None = None, *, steady: bool = False) -> None:
        self._real = OnnxEngine(threads=1)
        self.steady = steady
        self._lock = threading.Lock()
        self.before = before
        self.runs = 0
        self.closed = 0

    @property
    def version(self) -> str:
        """The real engine's version."""
        return self._real.version

    def load(self, files: ModelFiles, *, prepack: bool = False) -> _Watched:
        """Load the model for real."""
        return _Watched(self, self._real.load(files, prepack=prepack))

    def note(self) -> None:
        """Count one run."""
        with self._lock:
            self.runs += 1
        if self.before is not None:
            self.before()


class _Watched:
    def __init__(self, engine: WatchedEngine, model: RunningModel) -> None:
        self._engine = engine
        self._model = model

    @property
    def signature(self) -> Signature:
        return self._model.signature

    @property
    def steady(self) -> bool:
        return self._engine.steady

    def warm_up(self) -> None:
        self._model.warm_up()

    def run(self, inputs: Sequence[Tensor], outputs: Sequence[str]) -> tuple[Tensor, ...]:
        self._engine.note()
        return self._model.run(inputs, outputs)

    def close(self) -> None:
        self._engine.closed += 1
        self._model.close()


def failing() -> None:
    """Fail as an engine fails."""
    msg = "engine: out of memory"
    raise Unavailable(msg)


def broken() -> None:
    """Fail as no engine may: a bug of ours."""
    msg = "canary-in-an-exception-text"
    raise KeyError(msg)
