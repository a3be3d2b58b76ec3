"""Clauses of a loan as words on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.errors import UsageError

if TYPE_CHECKING:
    from cloister.wire import Json

__all__ = ["mark_ticketed", "offline_term"]


def offline_term(text: str) -> Json:
    """Return the offline term of SECONDS:UNITS[:OVERDRAFT]. Raises ``UsageError``."""
    names = ("lasts_s", "units", "overdraft")  # the last is optional
    parts = text.split(":")
    if not len(names) - 1 <= len(parts) <= len(names) or not all(part.isascii() and part.isdecimal() for part in parts):
        msg = f"--offline {text}: want SECONDS:UNITS or SECONDS:UNITS:OVERDRAFT"
        raise UsageError(msg)
    return {name: int(part) for name, part in zip(names, parts, strict=False)}


def mark_ticketed(models: list[dict[str, Json]], names: tuple[str, ...]) -> list[Json]:
    """Mark the models that take tickets. Raises ``UsageError`` for a name that is no model of the loan."""
    unknown = set(names) - {model["name"] for model in models}
    if unknown:
        msg = f"--ticketed {min(unknown)}: no such --model"
        raise UsageError(msg)
    return [model | ({"ticketed": True} if model["name"] in names else {}) for model in models]
