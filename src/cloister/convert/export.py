"""What the child of a conversion and the libraries' modules say to one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cloister.convert.samples import Array
    from cloister.sealed.formats import Port

__all__ = ["Export", "Request", "UnfitError"]


class UnfitError(Exception):
    """The source cannot be converted: ``problem`` is ``untrusted``, ``code`` or ``unsupported``."""

    def __init__(self, problem: str, text: str) -> None:
        """Keep both."""
        super().__init__(text)
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the parent asked for."""

    kind: str
    source: Path
    trust: bool
    inputs: dict[str, list[str | int]]


class Export(Protocol):
    """A loaded source model that wrote itself as ONNX."""

    @property
    def library(self) -> str:
        """Name and version of its library."""

    def shape(self, port: Port) -> tuple[int, ...]:
        """Return a shape that this input takes."""

    def answer(self, inputs: Sequence[Array]) -> Sequence[Array]:
        """Return what the source model says, in the order of the ONNX model's outputs."""
