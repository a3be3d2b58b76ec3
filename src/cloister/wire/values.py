"""Values that are made for each inference: frozen where types are checked, plain where they are made.

A frozen dataclass sets each field by a call, a plain one by an instruction; some twenty values are made for one
inference, and their making was a ninth of all its processor time (ADR 0056). mypy refuses every assignment to a
field of either. For values that are made seldom there is nothing to win: they are frozen dataclasses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

__all__ = ["hot_value"]

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True, eq_default=True, field_specifiers=(field,))
def hot_value(cls: type[T]) -> type[T]:
    """Return ``cls`` as a dataclass whose fields are named where it is made, and assigned to by nobody after that."""
    return dataclass(slots=True, kw_only=True, unsafe_hash=True)(cls)
