"""Evidence explained to a person: every field, its value, what it means (``cloister attest inspect``).

One file per kind. Nothing is verified here: a description is of what the bytes say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Describer", "Description", "Field"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field: ``name`` as the specification spells it, ``value`` printable, ``meaning`` one short sentence."""

    name: str
    value: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What one file is: ``kind`` as policies spell it, ``title`` for a person, fields in their order."""

    kind: str
    title: str
    fields: tuple[Field, ...]


class Describer(Protocol):
    """Explains one kind of file. Contract: ``describe`` raises ``Malformed`` and nothing else."""

    @property
    def kind(self) -> str:
        """The kind this describer knows."""
        ...

    def recognises(self, data: bytes) -> bool:
        """Tell cheaply, by magic or size, whether ``data`` may be of this kind; never raises."""
        ...

    def describe(self, data: bytes) -> Description:
        """Explain every field."""
        ...
