"""A model of another library as ONNX, held against what it was made from: what ``model convert`` and ``seal`` share.

The library runs in a child process; the ONNX model runs here, in the engine that will serve it. Imported when it is
wanted: it brings NumPy and ONNX Runtime along.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cloister.convert.agreement import Agreement, demand_agreement
from cloister.convert.conversion import Conversion, Converted, convert_model
from cloister.convert.recognise import SourceKind, recognise
from cloister.enclave.engines.onnx import OnnxEngine
from cloister.enclave.engines.tensor import Datatype, Tensor
from cloister.errors import UsageError
from cloister.sealed.directory import PlainTree
from cloister.sealed.formats.places import plain_files
from cloister.sealed.memfd import MemoryFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloister.cli.terminal import Terminal
    from cloister.convert.samples import Array

__all__ = ["converted", "described"]

_INPUT = re.compile(
    r"([A-Za-z0-9_.:/-]{1,64})=(FP16|FP32|FP64|INT8|INT32|INT64|UINT8|BOOL):(\d{1,6}(?:,\d{1,6}){0,7}|)"
)
_MODEL = "model.onnx"


@contextlib.contextmanager
def converted(
    terminal: Terminal, source: Path, *, kind: str | None, trust_pickle: bool, inputs: tuple[str, ...], tolerance: float
) -> Iterator[tuple[Converted, Agreement]]:
    """Yield the model, in a folder that is removed afterwards, once it is proven to answer as ``source`` does."""
    (file, *others) = plain_files(PlainTree(source))
    if others:
        msg = f"{source}: a folder, and one file is converted"
        raise UsageError(msg)
    asked = Conversion(
        source=source,
        kind=SourceKind(kind) if kind else recognise(file),
        trust=trust_pickle,
        inputs=dict(map(_parse_input, inputs)),
    )
    with tempfile.TemporaryDirectory(prefix="cloister-convert-") as folder:
        with terminal.working(f"converting {source.name}"):
            found = convert_model(asked, Path(folder))
            ours = _run(found.model, found.inputs)
        yield found, demand_agreement(found.outputs, ours, tolerance=tolerance)


def _parse_input(text: str) -> tuple[str, tuple[str, tuple[int, ...]]]:
    match = _INPUT.fullmatch(text)
    if match is None:
        msg = f"--input {text[:60]!a}: want NAME=TYPE:SHAPE, as x=FP32:1,28,28"
        raise UsageError(msg)
    return match[1], (match[2], tuple(int(size) for size in match[3].split(",") if size))


def _run(model: Path, inputs: Mapping[str, Array]) -> list[Array]:
    """Return what the model answers in the engine."""
    with _InMemory(model.read_bytes()) as files:
        running = OnnxEngine().load(files)
        try:
            specs = {spec.name: spec for spec in running.signature.inputs}
            tensors = [Tensor(name=name, datatype=specs[name].datatype, array=array) for name, array in inputs.items()]
            names = [spec.name for spec in running.signature.outputs]
            return [_plain(tensor) for tensor in running.run(tensors, names)]
        finally:
            running.close()


def _plain(tensor: Tensor) -> Array:
    return tensor.array.astype(str) if tensor.datatype is Datatype.BYTES else tensor.array


class _InMemory:
    """One ``.onnx`` file as an engine gets it."""

    files = (_MODEL,)

    def __init__(self, data: bytes) -> None:
        self._memory = MemoryFile(len(data))
        self._memory.write(0, memoryview(data))
        self._memory.seal()

    def view(self, path: str) -> memoryview:  # noqa: ARG002 - there is one
        """Return the file's memory."""
        return self._memory.view()

    def move(self, path: str, to: int, start: int, size: int) -> None:  # noqa: ARG002
        """Move bytes within it."""
        self._memory.move(to, start, size)

    def fd_path(self, path: str) -> str:  # noqa: ARG002
        """Return a path into memory."""
        return f"/proc/self/fd/{self._memory.fd}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._memory.close()


def described(agreement: Agreement) -> str:
    """Return the outcome in words."""
    return (
        f"{agreement.values} values of {agreement.outputs} outputs agree: "
        f"largest difference {agreement.largest:.2g}, tolerance {agreement.tolerance:g}"
    )
