"""All files of a model, each by the reader of its format, and the rules between files.

The one way in: the same at seal time, before hours of work, and in the enclave, over the sealed memory, before an
engine sees a byte (docs/spec/model-formats.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.sealed.formats.foreign import demand_harmless
from cloister.sealed.formats.gguf import GGUF_MAGIC, parse_gguf
from cloister.sealed.formats.onnx import parse_onnx
from cloister.sealed.formats.safetensors import parse_safetensors
from cloister.sealed.formats.safetensors_index import INDEX_SUFFIX, parse_safetensors_index
from cloister.sealed.formats.summary import FileSummary, ModelSummary

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloister.sealed.formats.window import ModelFile

__all__ = ["parse_model"]


def parse_model(files: Iterable[ModelFile]) -> ModelSummary:
    """Return what the model holds, once every file is proven sound in its format, and none is a pickle or an archive.

    Reads headers only. A file of no format known here is kept as it is: no engine of ours loads it. Raises
    ``Malformed`` or ``Rejected``, for the first cause in the order of paths.
    """
    files = tuple(files)
    sizes = {file.path: file.size for file in files}
    found: dict[str, FileSummary] = {}
    for file in files:
        found[file.path] = _parse(file, sizes)
    for file in files:
        if file.name.endswith(INDEX_SUFFIX):
            shards = {path: entry for path, entry in found.items() if entry.format == "safetensors"}
            found[file.path] = parse_safetensors_index(file, shards)
    return ModelSummary(files=tuple(found[path] for path in sorted(found)))


def _parse(file: ModelFile, sizes: dict[str, int]) -> FileSummary:
    if file.name.endswith(".gguf") or file.read(0, len(GGUF_MAGIC)) == GGUF_MAGIC:
        return parse_gguf(file)
    if file.name.endswith(".safetensors"):
        return parse_safetensors(file)
    if file.name.endswith(".onnx"):
        return parse_onnx(file, sizes)
    demand_harmless(file)
    return FileSummary(path=file.path, size=file.size, format="other")
