"""Untrusted bytes to values and back: exact, bounded, to the end.

``reader`` has byte strings, ``text`` base64url and times, ``json`` canonical JSON, ``fields`` typed
members of an object, ``reasons`` why something was rejected; ``markup`` writes text as HTML. Every ``parse`` raises
``Malformed`` and nothing else, whatever the bytes.
Not done here: what a value means.
"""

from __future__ import annotations

from cloister.wire.fields import STEERING, Fields
from cloister.wire.json import (
    MAX_DEPTH,
    MAX_INT,
    MAX_JSON_BYTES,
    Json,
    dump_json,
    no_double_keys,
    parse_json,
    refuse_constant,
)
from cloister.wire.reader import Reader, dump_varint, lp
from cloister.wire.reasons import CODE, reason_json, take_reasons
from cloister.wire.text import dump_b64u, dump_time, parse_b64u, parse_time

__all__ = [
    "CODE",
    "MAX_DEPTH",
    "MAX_INT",
    "MAX_JSON_BYTES",
    "STEERING",
    "Fields",
    "Json",
    "Reader",
    "dump_b64u",
    "dump_json",
    "dump_time",
    "dump_varint",
    "lp",
    "no_double_keys",
    "parse_b64u",
    "parse_json",
    "parse_time",
    "reason_json",
    "refuse_constant",
    "take_reasons",
]
