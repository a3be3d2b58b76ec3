"""The index that ties the shards of one model together: ``model.safetensors.index.json`` (Hugging Face layout).

``metadata.total_size`` is not held against anything: what published models say there is often wrong, and nothing
loads by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.errors import Malformed, Rejected
from cloister.sealed.formats.safetensors import MAX_HEADER_BYTES
from cloister.sealed.formats.summary import FileSummary
from cloister.sealed.formats.window import ModelFile, Window, shown
from cloister.wire import Json, parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["INDEX_SUFFIX", "parse_safetensors_index"]

INDEX_SUFFIX = ".safetensors.index.json"
_WHAT = "safetensors index"


def parse_safetensors_index(file: ModelFile, shards: Mapping[str, FileSummary]) -> FileSummary:
    """Return the index once it is proven to say exactly what its shards hold: every tensor, each in one place.

    ``shards`` are the safetensors files of the package by path. Raises ``Malformed``, or ``Rejected``:
    ``shard_missing``, ``tensor_missing``.
    """
    subject = f"{_WHAT} {shown(file.path)}"
    window = Window(file, what=_WHAT)
    if window.left > MAX_HEADER_BYTES:
        window.fail(f"{window.left} bytes, want at most {MAX_HEADER_BYTES}")
    value = parse_json(window.take(window.left), what=subject, cap=MAX_HEADER_BYTES)
    if not isinstance(value, dict) or not set(value) <= {"metadata", "weight_map"}:
        window.fail("want metadata and weight_map")
    weights = value.get("weight_map")
    if not isinstance(weights, dict) or not weights or not isinstance(value.get("metadata", {}), dict):
        window.fail("weight_map or metadata is no object, or no weights")
    wanted: dict[str, set[str]] = {}
    for name, shard in weights.items():
        if not isinstance(shard, str):
            msg = f"{subject}: the shard of {shown(name)} is no string"
            raise Malformed(msg)
        if "/" in shard or file.folder + shard not in shards:
            raise Rejected.because("shard_missing", subject, got=shown(shard), want="a safetensors file beside it")
        wanted.setdefault(file.folder + shard, set()).add(name)
    for shard, names in wanted.items():
        if odd := names ^ {entry.name for entry in shards[shard].tensors}:
            want = "the same tensors in shard and index"
            raise Rejected.because("tensor_missing", subject, got=shown(min(odd)), want=want)
    facts: dict[str, Json] = {"shards": sorted(wanted), "weights": len(weights)}
    return FileSummary(path=file.path, size=file.size, format="safetensors-index", facts=facts)
