"""What the readers of this room found in a model: values, for people and for whoever loads it next."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.wire import Json

__all__ = ["FileSummary", "ModelSummary", "Port", "Shape", "TensorEntry"]

Shape: TypeAlias = "tuple[int | str | None, ...]"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorEntry:
    """One tensor of weights: its type by the format's own name, its shape, its bytes and the file they lie in."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    file: str

    def to_json(self) -> Json:
        """Return the JSON object."""
        return {
            "bytes": self.size,
            "dtype": self.dtype,
            "file": self.file,
            "name": self.name,
            "shape": list(self.shape),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """One input or output; ``shape`` is None where even the rank is open, a dimension None or a symbol likewise."""

    name: str
    dtype: str
    shape: Shape | None

    def to_json(self) -> Json:
        """Return the JSON object."""
        return {
            "dtype": self.dtype,
            "name": self.name,
            "shape": None if self.shape is None else list(self.shape),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSummary:
    """One file: its format (``other`` where nothing of ours reads it) and what it holds."""

    path: str
    size: int
    format: str
    tensors: tuple[TensorEntry, ...] = ()
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    facts: Mapping[str, Json] = field(default_factory=dict)

    def to_json(self) -> Json:
        """Return the JSON object."""
        return {
            "bytes": self.size,
            "facts": self.facts,
            "format": self.format,
            "inputs": [port.to_json() for port in self.inputs],
            "outputs": [port.to_json() for port in self.outputs],
            "path": self.path,
            "tensors": [entry.to_json() for entry in self.tensors],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSummary:
    """Every file of a model, in the order of their paths."""

    files: tuple[FileSummary, ...]

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats of weights and graphs that it has, each once, sorted."""
        return tuple(sorted({entry.format for entry in self.files if entry.tensors or entry.outputs}))

    def to_json(self) -> Json:
        """Return the JSON object."""
        return {"files": [entry.to_json() for entry in self.files], "formats": list(self.formats)}
