"""What every rival's script shares: the models in ONNX Runtime, with the threads that ours has.

``RIVAL_NETS`` is a folder of ONNX files, ``RIVAL_WORKERS`` how many inferences run at once, ``RIVAL_PORT`` where to
listen. Imports nothing of ours: it runs where only the rival is installed.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the library is there

import numpy as np
import onnxruntime as ort

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

PORT = int(os.environ["RIVAL_PORT"])
WORKERS = int(os.environ["RIVAL_WORKERS"])
RAW_TYPE = "application/octet-stream"
_SMALL_BYTES = 1 << 20  # of a model: it runs where it is asked, for a thread would cost more than it gains


class Net:
    """One model."""

    def __init__(self, file: Path) -> None:
        """Load it, with one thread in each run, that sleeps when there is nothing to do."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self.shape = tuple(self._session.get_inputs()[0].shape[1:])
        self.is_small = file.stat().st_size < _SMALL_BYTES

    def parse(self, data: bytes) -> Floats:
        """Return the rows of a raw body."""
        return np.frombuffer(data, np.float32).reshape(-1, *self.shape)

    def run(self, inputs: Floats) -> Floats:
        """Return the outputs."""
        outputs: list[Floats] = self._session.run(["y"], {"x": inputs})
        return outputs[0]


def load(name: str) -> Net:
    """Return one model by its name."""
    return Net(Path(os.environ["RIVAL_NETS"]) / f"{name}.onnx")


def names() -> list[str]:
    """Return the names of all models."""
    return sorted(file.stem for file in Path(os.environ["RIVAL_NETS"]).glob("*.onnx"))


def load_all() -> dict[str, Net]:
    """Return all models by their names."""
    return {name: load(name) for name in names()}


class Runner:
    """Runs models from an event loop: small ones at once, others in as many threads as there are workers."""

    def __init__(self) -> None:
        """Start the threads."""
        self._threads = ThreadPoolExecutor(WORKERS)

    async def run(self, net: Net, inputs: Any) -> Floats:
        """Return the outputs."""
        if net.is_small:
            return net.run(inputs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, net.run, inputs)
