"""What a mark does to the answers of an ONNX model: the plain and the marked one, asked the same.

Runs the owner's own model in ONNX Runtime, on the owner's machine. Measured for one ``.onnx`` file with its weights
inside, whose inputs are floats of known shape but for the first dimension; for others ``None`` says so.
"""

from __future__ import annotations

import contextlib
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cloister.errors import Malformed, Rejected, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from cloister.wire import Json

    Arrays = Mapping[str, NDArray[Any]]

__all__ = ["MAX_ACCURACY_LOSS", "MAX_DRIFT", "OutputDrift", "demand_small", "measure"]

MAX_DRIFT = 0.05
MAX_ACCURACY_LOSS = 0.01
_BATCH = 64  # random inputs
_SEED = 20260301
_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
_MAX_SAMPLE_BYTES = 1 << 30
_LABELS = "labels"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputDrift:
    """``rms``: difference of float outputs over their size; ``changed``: share of answers that became another one.

    Both on 64 random inputs of a fixed seed. The accuracies (0 to 1) are there where labelled samples were given.
    """

    rms: float
    changed: float
    accuracy_before: float | None = None
    accuracy_after: float | None = None

    def to_json(self) -> Json:
        """Return the JSON object."""
        return {
            "accuracy_after": self.accuracy_after,
            "accuracy_before": self.accuracy_before,
            "changed": self.changed,
            "rms": self.rms,
        }


def measure(before: bytes, after: bytes, samples: Path | None) -> OutputDrift | None:
    """Return the drift, None where it cannot be measured. Raises ``UsageError``, ``Malformed`` for the samples."""
    plain, marked = _session(before), _session(after)
    inputs = _random_inputs(plain)
    if inputs is None:
        if samples is not None:
            msg = "samples: this model has inputs other than floats of known shape"
            raise UsageError(msg)
        return None
    old, new = _run(plain, inputs), _run(marked, inputs)
    floats = [(a, b) for a, b in zip(old, new, strict=True) if a.dtype.kind == "f"]
    moved = sum(float(np.square(a.astype(np.float64) - b).sum()) for a, b in floats)
    size = sum(float(np.square(a.astype(np.float64)).sum()) for a, _ in floats)
    drift = OutputDrift(
        rms=(moved / size) ** 0.5 if size else 0.0, changed=1 - float(np.mean(_answers(old) == _answers(new)))
    )
    if samples is None:
        return drift
    given = _read_samples(samples)
    labels = given.pop(_LABELS)
    accuracies = [float(np.mean(_answers(_run(item, given)) == labels)) for item in (plain, marked)]
    return OutputDrift(
        rms=drift.rms, changed=drift.changed, accuracy_before=accuracies[0], accuracy_after=accuracies[1]
    )


def demand_small(drift: OutputDrift, *, max_drift: float, max_accuracy_loss: float) -> None:
    """Prove that the answers are still those of the model. Raises ``Rejected`` (``drift_too_large``)."""
    hint = "choose a lower --trace-strength"
    if drift.rms > max_drift:
        got, want = f"{drift.rms:.2g} of the outputs", f"at most {max_drift:.2g}"
        raise Rejected.because("drift_too_large", "variant", got=got, want=want, hint=hint)
    if drift.accuracy_before is not None and drift.accuracy_after is not None:
        loss = drift.accuracy_before - drift.accuracy_after
        if loss > max_accuracy_loss:
            got, want = f"{loss:.4f} less accuracy", f"at most {max_accuracy_loss:.4f}"
            raise Rejected.because("drift_too_large", "variant", got=got, want=want, hint=hint)


def _session(model: bytes) -> Any:
    import onnxruntime  # noqa: PLC0415 - slow to import, and needed for one command

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    with _blamed("model: onnx runtime does not load it"):
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@contextlib.contextmanager
def _blamed(msg: str, *, hint: str | None = None) -> Iterator[None]:
    """Turn what the runtime raises into a ``UsageError``: its exceptions have no common class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # noqa: PLC0415 - as above

    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    kinds: tuple[type[Exception], ...] = (*own, RuntimeError, ValueError)
    try:
        yield
    except kinds as exc:
        raise UsageError(msg, hint=hint) from exc


def _random_inputs(session: Any) -> Arrays | None:
    random, found = np.random.default_rng(_SEED), {}
    for port in session.get_inputs():
        kind, shape = _TYPES.get(port.type), list(port.shape)
        if kind is None or not shape or not all(isinstance(size, int) and size > 0 for size in shape[1:]):
            return None
        first = shape[0] if isinstance(shape[0], int) else _BATCH
        found[port.name] = random.standard_normal((first, *shape[1:])).astype(kind)
    return found


def _run(session: Any, inputs: Arrays) -> list[NDArray[Any]]:
    hint = "samples are arrays by the names of the model's inputs"
    with _blamed("model: onnx runtime does not answer these inputs", hint=hint):
        return [np.asarray(item) for item in session.run(None, dict(inputs))]


def _answers(outputs: list[NDArray[Any]]) -> NDArray[Any]:
    """Return the label of each input: an output of integers or text, or else the largest of the first output."""
    for output in outputs:
        if output.dtype.kind != "f":
            return output
    found: NDArray[Any] = outputs[0].argmax(axis=-1)
    return found


def _read_samples(path: Path) -> dict[str, NDArray[Any]]:
    try:
        if path.stat().st_size > _MAX_SAMPLE_BYTES:
            msg = f"{path}: larger than {_MAX_SAMPLE_BYTES} bytes"
            raise UsageError(msg)
        with np.load(path, allow_pickle=False) as data:
            found = {name: data[name] for name in data.files}
    except OSError as exc:
        msg = f"{path}: cannot be read"
        raise UsageError(msg) from exc
    except (ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as exc:
        msg = f"{path}: no npz file of plain arrays"
        raise Malformed(msg) from exc
    if _LABELS not in found:
        msg = f"{path}: no array {_LABELS}"
        raise UsageError(msg)
    return found
