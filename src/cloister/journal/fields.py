"""The closed set of fields that a line may have, and the form of each.

Fields are numbers, or words from a small alphabet that can hold an id, a code or a name, never a sentence out of a
request. Whoever needs another field adds it here.
"""

from __future__ import annotations

import math
import re

from cloister.errors import UsageError

__all__ = ["NUMBERS", "UNPRINTABLE", "WORDS", "printable"]

NUMBERS = frozenset({"bytes", "count", "port", "seconds", "seq", "status", "units", "wanted"})
WORDS = frozenset({
    "code", "digest", "error", "instance", "level", "loan", "logger", "model", "result", "route", "state", "step",
    "tee", "tenant", "version",
})  # fmt: skip
UNPRINTABLE = "(unprintable)"
"""What stands in the place of a word that is none."""

_WORD = re.compile(r"[A-Za-z0-9_.:/+-]{1,128}")


def printable(name: str, value: object) -> str | int | float:
    """Return what may stand in a line as the field ``name``.

    Raises ``UsageError`` for a field that is not in the table or not of its type: a mistake of ours.
    """
    if name in NUMBERS and isinstance(value, int | float) and not isinstance(value, bool):
        return value if math.isfinite(value) else UNPRINTABLE
    if name in WORDS and isinstance(value, str):
        # What does not look like an id is replaced, not shown: better a poor log than a leak.
        return str(value) if _WORD.fullmatch(value) else UNPRINTABLE
    msg = f"log: field {name[:40]!r} is not in the table of fields, or not of its type"
    raise UsageError(msg)
