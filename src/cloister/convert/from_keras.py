"""Keras, on its PyTorch backend, by its own exporter. Imported in the child process alone.

A saved Keras model is a configuration that says which classes to make. Before Keras sees it, it is held to have no
Lambda layer and no class from outside of Keras; ``safe_mode`` of Keras then says so a second time.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from cloister.convert.export import UnfitError
from cloister.sealed.formats.foreign import has_lambda

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cloister.convert.export import Request
    from cloister.convert.samples import Array
    from cloister.sealed.formats import Port

__all__ = ["export"]

_ROWS = 4  # samples that both models are asked about
_OPEN_SIZE = 8  # of other dimensions that the model leaves open
_MAX_CONFIG_BYTES = 16 << 20


def export(request: Request, out: Path) -> _Keras:
    """Load, write ``out``, return the model."""
    _demand_data(_config(request.source))
    model = keras.saving.load_model(request.source, compile=False, safe_mode=True)
    shapes = [tuple(_size(size, at) for at, size in enumerate(item.shape)) for item in model.inputs]
    blank = [np.zeros(shape, dtype=str(item.dtype)) for shape, item in zip(shapes, model.inputs, strict=True)]
    model(blank if len(blank) > 1 else blank[0], training=False)  # the exporter wants a model that was called
    model.export(str(out), format="onnx", verbose=False)
    return _Keras(model, shapes)


def _size(size: int | None, at: int) -> int:
    return size if size is not None else _ROWS if at == 0 else _OPEN_SIZE


def _config(source: Path) -> bytes:
    """Return the configuration as it is stored."""
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            return archive.open("config.json").read(_MAX_CONFIG_BYTES)
    import h5py  # noqa: PLC0415 - for the older format alone

    with h5py.File(source, "r") as file:
        found = file.attrs.get("model_config")
    if found is None:
        raise UnfitError("unsupported", "weights of Keras without their model")
    return found.encode() if isinstance(found, str) else bytes(found)


def _demand_data(config: bytes) -> None:
    if has_lambda(config):
        raise UnfitError("code", "a Lambda layer")
    foreign = sorted({name for name in _modules(json.loads(config)) if name.partition(".")[0] != "keras"})
    if foreign:
        raise UnfitError("code", f"classes from {', '.join(foreign)}"[:200])


def _modules(value: Any) -> Iterator[str]:
    """Yield every module that the configuration names a class of."""
    if isinstance(value, dict):
        if isinstance(value.get("module"), str):
            yield value["module"]
        for item in value.values():
            yield from _modules(item)
    elif isinstance(value, list):
        for item in value:
            yield from _modules(item)


@dataclass
class _Keras:
    model: Any
    shapes: list[tuple[int, ...]]
    taken: int = 0

    @property
    def library(self) -> str:
        return f"keras {keras.__version__}"

    def shape(self, port: Port) -> tuple[int, ...]:  # noqa: ARG002 - inputs come in the model's order
        self.taken += 1
        return self.shapes[self.taken - 1]

    def answer(self, inputs: Sequence[Array]) -> list[Array]:
        found = self.model.predict_on_batch(list(inputs) if len(inputs) > 1 else inputs[0])
        if isinstance(found, dict):
            found = list(found.values())
        return [np.asarray(item) for item in (found if isinstance(found, list | tuple) else [found])]
