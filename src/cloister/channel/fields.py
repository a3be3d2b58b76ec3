"""Header and trailer field lines of one HTTP message: what a name and a value may be.

RFC 9110 section 5 and RFC 9113 section 8.2, which RFC 9292 section 3.6 demands. Stricter than both in
two things: no pseudo-field at all (control data has its own place in binary HTTP), and no control
character but tab in a value, so that a message can be replayed over HTTP/1.1 without being split.

Not done here: what a field means.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias

from cloister.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["FieldLine", "FieldLines", "content_length", "line_fault", "value_of"]

FieldLine: TypeAlias = tuple[str, str]
FieldLines: TypeAlias = tuple[FieldLine, ...]
"""Name and value pairs in order; names lower case, values as latin-1 text."""

MAX_NAME_BYTES = 256  # bytes of one field name
MAX_VALUE_BYTES = 32 * 1024  # bytes of one field value

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_LENGTH = re.compile(r"0|[1-9][0-9]{0,15}")
_CONNECTION_FIELDS = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"})


def line_fault(name: str, value: str) -> str | None:
    """Return what is wrong with a field line, or None. The value itself is never repeated."""
    if len(name) > MAX_NAME_BYTES or not _NAME.fullmatch(name):
        return "field name is no lower-case token"
    if len(value) > MAX_VALUE_BYTES or not _VALUE.fullmatch(value):
        return f"field {name}: value has a forbidden character or is longer than {MAX_VALUE_BYTES} bytes"
    if value != value.strip(" \t"):
        return f"field {name}: white space around the value"  # RFC 9113 section 8.2.1
    if name in _CONNECTION_FIELDS or (name == "te" and value != "trailers"):
        return f"field {name}: connection-specific"  # RFC 9113 section 8.2.2
    return None


def value_of(lines: Iterable[FieldLine], name: str) -> str | None:
    """Return the value of the one line called ``name``, None where there is none.

    Raises ``Malformed`` where there are two: a field that decides something has one value.
    """
    found: str | None = None
    for key, value in lines:  # of a handful, several times an inference: a comprehension is a call more
        if key == name:
            if found is not None:
                msg = f"field {name}: 2 lines or more, want one"
                raise Malformed(msg)
            found = value
    return found


def content_length(lines: Iterable[FieldLine]) -> int | None:
    """Return the content-length, None where there is none. Raises ``Malformed`` for two or no number."""
    value = value_of(lines, "content-length")
    if value is None:
        return None
    if not _LENGTH.fullmatch(value):
        msg = "field content-length: not a number"
        raise Malformed(msg)
    return int(value)
