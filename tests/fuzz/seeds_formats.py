"""Readers of model formats as fuzzing targets: a file under each format's name, and as one of no format."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloister.sealed.formats import ModelFile, parse_model

if TYPE_CHECKING:
    from targets import Target

__all__ = ["TARGETS"]

_VECTORS = Path(__file__).parents[1] / "vectors" / "model-formats"
_MAX_SEED_BYTES = 2048
_BESIDE = bytes(64)  # weights that a model may point to


def _parse(name: str, data: bytes) -> object:
    files = {name: data, "w.bin": _BESIDE}
    return parse_model(
        ModelFile(path=path, size=len(content), read=lambda at, size, content=content: content[at : at + size])
        for path, content in files.items()
    )


def _seeds(group: str, name: str) -> list[bytes]:
    """Return the good vectors of one file, or of one file and ``w.bin``."""
    found = []
    for case in json.loads((_VECTORS / f"{group}.json").read_text(encoding="utf-8")):
        files = dict(case["files"])
        files.pop("w.bin", None)
        if case["expect"] == "ok" and len(files) == 1:
            data = b"".join(map(_piece, *files.values()))
            if len(data) <= _MAX_SEED_BYTES and (name in files or group == "foreign"):
                found.append(data)
    return found


def _piece(piece: str | list[Any]) -> bytes:
    return bytes.fromhex(piece) if isinstance(piece, str) else bytes.fromhex(piece[0]) * piece[1]


TARGETS: dict[str, Target] = {
    f"format-{group}": (partial(_parse, name), partial(_seeds, group, name))
    for group, name in (
        ("foreign", "file"),
        ("gguf", "model.gguf"),
        ("onnx", "model.onnx"),
        ("safetensors", "model.safetensors"),
    )
}
