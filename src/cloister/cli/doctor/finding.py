"""One thing that was looked at on a host: what is there, what should be, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloister.wire import Json

__all__ = ["Finding", "State", "failed", "good", "note", "warned"]


class State(Enum):
    """How it stands, worst last."""

    GOOD = "good"
    NOTE = "note"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """``name`` is stable (docs/reference/doctor.md explains each); ``fix`` is empty where nothing is to be done."""

    name: str
    state: State
    found: str
    fix: str = ""

    def to_json(self) -> Json:
        """Return the members."""
        return {"fix": self.fix, "found": self.found, "name": self.name, "state": self.state.value}


def good(name: str, found: str) -> Finding:
    """Return what is as it should be."""
    return Finding(name=name, state=State.GOOD, found=found)


def note(name: str, found: str, fix: str = "") -> Finding:
    """Return what is worth knowing and hinders nothing."""
    return Finding(name=name, state=State.NOTE, found=found, fix=fix)


def warned(name: str, found: str, fix: str) -> Finding:
    """Return what works and should be better."""
    return Finding(name=name, state=State.WARNING, found=found, fix=fix)


def failed(name: str, found: str, fix: str) -> Finding:
    """Return what will not work."""
    return Finding(name=name, state=State.FAILED, found=found, fix=fix)
