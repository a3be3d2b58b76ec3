"""PyTorch by its own exporters: ``torch.export`` programs and TorchScript. Imported in the child process alone.

Both files may hold pickles that PyTorch loads, so both run code on the owner's word only. A state dictionary is no
model and is refused before. A TorchScript file that was scripted, not traced, says nothing of its inputs: they are
given.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from cloister.convert.export import UnfitError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cloister.convert.export import Request
    from cloister.convert.samples import Array
    from cloister.sealed.formats import Port

__all__ = ["export"]

_TYPES = {
    "FP32": torch.float32, "FP64": torch.float64, "FP16": torch.float16, "INT64": torch.int64, "INT32": torch.int32,
    "INT8": torch.int8, "UINT8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def export(request: Request, out: Path) -> _Torch:
    """Load, write ``out``, return the model."""
    return _exported(request, out) if request.kind == "torch-export" else _scripted(request, out)


def _exported(request: Request, out: Path) -> _Torch:
    program = torch.export.load(request.source)
    args, kwargs = program.example_inputs
    if kwargs or not all(isinstance(item, torch.Tensor) for item in args):
        raise UnfitError("unsupported", "inputs that are no tensors, or have names")
    torch.onnx.export(program, dynamo=True, verbose=False).save(str(out), external_data=False)
    return _Torch(program.module(), [tuple(item.shape) for item in args])


def _scripted(request: Request, out: Path) -> _Torch:
    module = torch.jit.load(request.source, map_location="cpu").eval()
    if not request.inputs:
        raise UnfitError("unsupported", "TorchScript, which does not say its inputs: give them with --input")
    shapes = [tuple(int(size) for size in given[1:]) for given in request.inputs.values()]
    kinds = [_TYPES[str(given[0])] for given in request.inputs.values()]
    blank = tuple(torch.zeros(shape, dtype=kind) for shape, kind in zip(shapes, kinds, strict=True))
    names = list(request.inputs)
    batch = {name: {0: "batch"} for name, shape in zip(names, shapes, strict=True) if shape}
    with warnings.catch_warnings():
        # The exporter of TorchScript is deprecated, and the only one that takes it.
        warnings.simplefilter("ignore")
        torch.onnx.export(module, blank, str(out), dynamo=False, input_names=names, dynamic_axes=batch)
    return _Torch(module, shapes)


@dataclass
class _Torch:
    module: Any
    shapes: list[tuple[int, ...]]
    taken: int = 0

    @property
    def library(self) -> str:
        return f"torch {torch.__version__}"

    def shape(self, port: Port) -> tuple[int, ...]:  # noqa: ARG002 - inputs come in the program's order
        self.taken += 1
        return self.shapes[self.taken - 1]

    def answer(self, inputs: Sequence[Array]) -> list[Array]:
        with torch.no_grad():
            found = self.module(*(torch.from_numpy(item.copy()) for item in inputs))
        flat = torch.utils._pytree.tree_leaves(found)  # noqa: SLF001 - what the exporter itself flattens with
        return [item.detach().cpu().numpy() for item in flat]
