"""What tests of the formats share: cases of the vectors, and files of a model that are bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cloister.sealed.formats import ModelFile

VECTORS = Path(__file__).parents[2] / "vectors" / "model-formats"
GROUPS = ("foreign", "gguf", "onnx", "safetensors")


def cases() -> list[dict[str, Any]]:
    """Return every case, its files as bytes."""
    found = []
    for group in GROUPS:
        for item in json.loads((VECTORS / f"{group}.json").read_text(encoding="utf-8")):
            files = {path: b"".join(map(_piece, pieces)) for path, pieces in item["files"].items()}
            found.append({**item, "files": files})
    return found


def _piece(piece: str | list[Any]) -> bytes:
    return bytes.fromhex(piece) if isinstance(piece, str) else bytes.fromhex(piece[0]) * piece[1]


def model_file(path: str, data: bytes) -> ModelFile:
    """Return bytes as a file of a model."""
    return ModelFile(path=path, size=len(data), read=lambda at, size: data[at : at + size])


def model_files(files: dict[str, bytes]) -> list[ModelFile]:
    """Return these files."""
    return [model_file(path, data) for path, data in files.items()]
