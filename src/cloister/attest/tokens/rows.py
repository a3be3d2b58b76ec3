"""Claims of an issuer by place and type, made into ours: one row each.

A claim that is absent, or null (NRAS writes null for what it could not compute), makes none of ours: a policy that
wants it fails. A claim of another type than the issuer documents makes the token malformed.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from cloister.errors import Malformed, UsageError
from cloister.wire import MAX_INT, dump_json
from cloister.wire.fields import STEERING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cloister.attest.rats import ClaimValue
    from cloister.wire import Json

__all__ = [
    "Row",
    "base64_bytes",
    "boolean",
    "debug_status",
    "digest_of",
    "flatten",
    "hexadecimal",
    "integer",
    "labels",
    "place",
    "text",
    "text_or_none",
    "whole",
    "words",
]

MAX_TEXT_CHARS = 2048  # characters of one claim
MAX_WORDS = 256  # members of a claim that is a set
_HEX = re.compile(r"[0-9a-fA-F]*")
_DEBUG = {
    "enabled": True,
    "disabled": False,
    "disabled-since-boot": False,
    "disabled-permanently": False,
    "disabled-fully-and-permanently": False,
}

Take: TypeAlias = "Callable[[Json, str], ClaimValue]"


@dataclass(frozen=True, slots=True)
class Row:
    """Our ``claim``, how its value is read, and where it is: names from the top down.

    ``may_be_empty`` says that an empty set is a claim: no advisory applies. Of credentials it is none, for an empty set
    satisfies every list, and nothing signed is not signed by those.
    """

    claim: str
    take: Take
    path: tuple[str, ...]
    may_be_empty: bool = False


def flatten(claims: Mapping[str, Json], rows: Iterable[Row]) -> dict[str, ClaimValue]:
    """Return our claims for the rows whose place is filled. Raises ``Malformed``."""
    found: dict[str, ClaimValue] = {}
    for row in rows:
        value = place(claims, *row.path)
        if value is None:
            continue
        taken = row.take(value, f"token: {'.'.join(row.path)}")
        if taken != () or row.may_be_empty:
            found[row.claim] = taken
    return found


def place(claims: Mapping[str, Json], *path: str) -> Json:
    """Return what is at ``path``, None where nothing is."""
    value: Json = claims
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def text(value: Json, what: str) -> str:
    """Return a string that steers no terminal (T84)."""
    if not isinstance(value, str) or len(value) > MAX_TEXT_CHARS or STEERING.search(value):
        msg = f"{what}: want a string of at most {MAX_TEXT_CHARS} characters"
        raise Malformed(msg)
    return value


def text_or_none(claims: Mapping[str, Json], *path: str) -> str | None:
    """Return the string at ``path``, None where nothing or something else is."""
    value = place(claims, *path)
    return value if isinstance(value, str) else None


def boolean(value: Json, what: str) -> bool:
    """Return true or false."""
    if not isinstance(value, bool):
        msg = f"{what}: want true or false"
        raise Malformed(msg)
    return value


def integer(value: Json, what: str) -> int:
    """Return an integer that a policy can name."""
    if type(value) is not int or not 0 <= value <= MAX_INT:
        msg = f"{what}: want an integer of 0 to 2**53-1"
        raise Malformed(msg)
    return value


def whole(value: Json, what: str) -> str:
    """Return an integer of any size as decimal text, or text as it is: identifiers."""
    return str(value) if type(value) is int else text(value, what)


def words(value: Json, what: str) -> tuple[str, ...]:
    """Return an array of strings as a set: sorted, each once."""
    return tuple(sorted({text(item, what) for item in _items(value, what)}))


def labels(value: Json, what: str) -> tuple[str, ...]:
    """Return an array of strings or integers as a set of words."""
    return tuple(sorted({whole(item, what) for item in _items(value, what)}))


def _items(value: Json, what: str) -> list[Json]:
    if not isinstance(value, list) or len(value) > MAX_WORDS:
        msg = f"{what}: want an array of at most {MAX_WORDS} members"
        raise Malformed(msg)
    return value


def hexadecimal(size: int) -> Take:
    """Return how ``size`` bytes in hexadecimal are read: lower-case afterwards."""

    def take(value: Json, what: str) -> str:
        if not isinstance(value, str) or len(value) != 2 * size or not _HEX.fullmatch(value):
            msg = f"{what}: want {2 * size} hexadecimal digits"
            raise Malformed(msg)
        return value.lower()

    return take


def debug_status(value: Json, what: str) -> bool:
    """Return whether debugging is possible (RFC 9711 section 4.2.9)."""
    if not isinstance(value, str) or value not in _DEBUG:
        msg = f"{what}: want one of {', '.join(_DEBUG)}"
        raise Malformed(msg)
    return _DEBUG[value]


def digest_of(value: Json, what: str) -> str:
    """Return SHA-256 of the canonical JSON: of values too long or too structured to be a reference value."""
    try:
        return hashlib.sha256(dump_json(value)).hexdigest()
    except UsageError as exc:
        msg = f"{what}: want json that can be written canonically"
        raise Malformed(msg) from exc


def base64_bytes(value: str) -> bytes:
    """Return the bytes of base64 in either alphabet, padded or not; nothing where it is neither."""
    body = value.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except ValueError:  # binascii's own, and letters that are not ascii
        return b""
