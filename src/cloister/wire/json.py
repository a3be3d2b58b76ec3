"""Canonical JSON (RFC 8785) of the I-JSON subset (RFC 7493).

No double keys, no numbers that are not finite, integers within 2**53 - 1, no lone surrogates, bounded
depth and size.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NoReturn, TypeAlias

import rfc8785

from cloister.errors import Malformed, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "MAX_DEPTH",
    "MAX_INT",
    "MAX_JSON_BYTES",
    "Json",
    "dump_json",
    "no_double_keys",
    "parse_json",
    "refuse_constant",
]

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

MAX_INT = 2**53 - 1  # RFC 7493 section 2.2: what every JSON reader keeps exactly
MAX_JSON_BYTES = 1 << 20  # bytes of one JSON document
MAX_DEPTH = 32  # nested arrays and objects
_PLAIN = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, sort_keys=True, separators=(",", ":")
)
"""Writes what ``_is_plain`` the way RFC 8785 does: the same escapes, and ASCII names in the same order."""
_ESCAPE = re.compile(r"\\.", re.DOTALL)
_STRING = re.compile(r'"[^"]*"?')  # without escapes; one without an end is one to the end
_BRACKET = re.compile(r"[\[\]{}]")
_EXPONENT_FORM = 1e21  # from here on RFC 8785 (ECMAScript) writes numbers with an exponent


def dump_json(value: Json) -> bytes:
    """Return canonical JSON (RFC 8785). Raises ``UsageError`` for a value JSON cannot carry exactly.

    What is returned parses back to an equal value: a float that would be written as an integer beyond
    ``MAX_INT`` is refused, as the integer is (RFC 7493 section 2.2).
    """
    try:
        if _is_plain(value):
            return _PLAIN.encode(value).encode("utf-8")
        _demand_exact(value)
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, ValueError, RecursionError) as exc:
        msg = "json: value cannot be written canonically"
        raise UsageError(msg) from exc


def _is_plain(value: Json) -> bool:
    """Tell whether the standard library writes this value canonically too, and several times as fast.

    It does where there is no float, no integer out of range and no name whose order depends on the encoding.
    Types are compared exactly: a subclass may write itself in its own way.
    """
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return True
    if kind is int:
        return -MAX_INT <= value <= MAX_INT  # type: ignore[operator]  # narrowed by type() above
    if kind is dict:
        for name, member in value.items():  # type: ignore[union-attr]  # narrowed by type() above
            if not (type(name) is str and name.isascii() and (type(member) is str or _is_plain(member))):
                return False
        return True
    if kind is list or kind is tuple:
        return all(map(_is_plain, value))  # type: ignore[arg-type]  # narrowed by type() above
    return False


def _demand_exact(value: Json) -> None:
    if isinstance(value, float):
        if MAX_INT < abs(value) < _EXPONENT_FORM:
            msg = "float written as an integer out of range"
            raise ValueError(msg)
    elif isinstance(value, dict):
        for member in value.values():
            _demand_exact(member)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _demand_exact(item)


def no_double_keys(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    """Return the members of one object, for ``json.loads``. Raises ``ValueError`` for a double key."""
    members = dict(pairs)
    if len(members) != len(pairs):
        msg = "double key"
        raise ValueError(msg)
    return members


def refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and the infinities, for ``json.loads``. Raises ``ValueError``."""
    msg = f"{name} is not JSON"
    raise ValueError(msg)


def _bounded_int(digits: str) -> int:
    if len(digits) > 17:  # noqa: PLR2004 - sign and 16 digits hold 2**53; longer would only cost time
        msg = "integer out of range"
        raise ValueError(msg)
    value = int(digits)
    if abs(value) > MAX_INT or digits == "-0":
        msg = "integer out of range"
        raise ValueError(msg)
    return value


def _finite_float(digits: str) -> float:
    value = float(digits)
    if abs(value) == float("inf") or MAX_INT < abs(value) < _EXPONENT_FORM:
        msg = "number out of range"
        raise ValueError(msg)
    if value == 0 and (digits.startswith("-") or any(digit in "123456789" for digit in digits.lower().split("e")[0])):
        msg = "minus zero, or a number too small to keep"
        raise ValueError(msg)
    return value


def _too_deep(text: str) -> bool:
    """Tell whether brackets nest deeper than ``MAX_DEPTH``, counting none inside strings.

    Escapes go first: an expression that repeats over them remembers each, sixty bytes for one. Outside of a string a
    backslash is no JSON, and the parser gets no further than to it.
    """
    depth = 0
    if "\\" in text:
        text = _ESCAPE.sub("", text)
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            return True
    return False


def _has_lone_surrogate(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _strings_are_whole(value: Json) -> bool:
    if isinstance(value, str):
        return not _has_lone_surrogate(value)
    if isinstance(value, dict):
        return all(_strings_are_whole(key) and _strings_are_whole(member) for key, member in value.items())
    if isinstance(value, list):
        return all(_strings_are_whole(item) for item in value)
    return True


def parse_json(data: bytes, *, what: str, cap: int = MAX_JSON_BYTES, canonical: bool = False) -> Json:
    """Return the value of one I-JSON document.

    ``canonical`` demands the RFC 8785 bytes themselves: used for everything that is signed, so that a
    value has one spelling. Raises ``Malformed``.
    """
    if len(data) > cap:
        msg = f"{what}: {len(data)} bytes of json, want at most {cap}"
        raise Malformed(msg)
    try:
        text = data.decode("utf-8")
        if text.count("{") + text.count("[") > MAX_DEPTH and _too_deep(text):
            msg = f"{what}: nested deeper than {MAX_DEPTH}"
            raise Malformed(msg)
        value: Json = json.loads(
            text,
            object_pairs_hook=no_double_keys,
            parse_constant=refuse_constant,
            parse_int=_bounded_int,
            parse_float=_finite_float,
        )
    except (ValueError, RecursionError) as exc:
        msg = f"{what}: not strict json"
        raise Malformed(msg) from exc
    if "\\u" in text and not _strings_are_whole(value):
        msg = f"{what}: lone surrogate"
        raise Malformed(msg)
    if canonical and dump_json(value) != data:
        msg = f"{what}: not canonical json"
        raise Malformed(msg)
    return value
