"""The JSON of a token's payload: strict in form, wide in numbers.

Issuers write integers beyond 2**53 (chip ids, instance numbers) and fractions (times). Both are read: integers
exactly, to ``MAX_DIGITS`` digits, fractions as the nearest double. None of them becomes a claim of ours beyond
2**53 - 1, and no claim of ours is a fraction: where one is wanted as an integer, the token is malformed.

Refused: double keys (two readers would see two tokens), NaN and infinities, nesting beyond ``MAX_DEPTH``, lone
surrogates, anything but one object.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from cloister.errors import Malformed
from cloister.wire import no_double_keys, refuse_constant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.wire import Json

__all__ = ["MAX_DEPTH", "MAX_DIGITS", "parse_claimset", "parse_value"]

MAX_DEPTH = 32  # nested arrays and objects
MAX_DIGITS = 40  # digits of one number, sign included: 128 bits


def parse_claimset(data: bytes, *, what: str) -> Mapping[str, Json]:
    """Return the members of one JSON object. Raises ``Malformed``."""
    value = parse_value(data, what=what)
    if not isinstance(value, dict):
        msg = f"{what}: want a json object"
        raise Malformed(msg)
    return value


def parse_value(data: bytes, *, what: str) -> Json:
    """Return one JSON value. The caller has bounded ``data``. Raises ``Malformed``."""
    try:
        value: Json = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=no_double_keys,
            parse_constant=refuse_constant,
            parse_int=_bounded_int,
            parse_float=_finite_float,
        )
        _demand_sound(value, MAX_DEPTH)
    except (ValueError, RecursionError) as exc:
        msg = f"{what}: not strict json"
        raise Malformed(msg) from exc
    return value


def _bounded_int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        msg = "number too long"
        raise ValueError(msg)
    return int(digits)


def _finite_float(digits: str) -> float:
    value = float(digits) if len(digits) <= MAX_DIGITS else math.inf
    if not math.isfinite(value):
        msg = "number out of range"
        raise ValueError(msg)
    return value


def _demand_sound(value: Json, depth: int) -> None:
    """Demand bounded nesting, and strings that are whole."""
    if isinstance(value, str):
        value.encode("utf-8")  # a lone surrogate is an error here
    elif isinstance(value, (dict, list)):
        if depth == 0:
            msg = "nested too deep"
            raise ValueError(msg)
        for item in (*value, *value.values()) if isinstance(value, dict) else value:
            _demand_sound(item, depth - 1)
