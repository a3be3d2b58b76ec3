"""What a model answers, computed here, for holding servers' answers against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cloister.enclave.engines.onnx  # noqa: F401 - it keeps the library from reporting, if it is there first

import onnxruntime as ort  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable

    from race.nets import Floats, Net


def reference(net: Net) -> Callable[[Floats], Floats]:
    """Return the model as a function."""
    session = ort.InferenceSession(net.data, providers=["CPUExecutionProvider"])

    def run(inputs: Floats) -> Floats:
        outputs: list[Floats] = session.run(["y"], {"x": inputs})
        return outputs[0]

    return run
