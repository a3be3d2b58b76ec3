"""Members of the index's policy object as rules and as values to be carried (docs/spec/evidence-index.md).

A value is hex, a number, a word, or a list of those: any of them will do. Not done here: which member means what
(each TEE's own file).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn

from cloister.attest.dossier import Bound
from cloister.attest.rules import AtLeast, AtMost, Exact, OneOf, Rule
from cloister.errors import Unavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cloister.wire import Json

__all__ = ["bare", "carried", "demand_files", "refuse_member", "rule_of", "usual"]

_PREFIXED = re.compile(r"0[xX]([0-9a-fA-F]+)")
_BOUND = re.compile(r"minimum_(?P<least>\w+)|(?P<name>\w+)_(?P<kind>min|max)")


def demand_files(files: Mapping[str, bytes], required: Collection[str], optional: Collection[str] = ()) -> None:
    """Raise ``Unavailable`` where a file is missing, or one is there that nobody would look at."""
    for role in required:
        if role not in files:
            msg = f"evidence: no file {role}"
            raise Unavailable(msg)
    for role in files:
        if role not in required and role not in optional:
            msg = f"evidence: nobody looks at a file {role[:64]}"
            raise Unavailable(msg)


def usual(name: str) -> str:
    """Return a member's name with bounds where they stand here: ``isvsvn_min`` is ``min_isvsvn``."""
    found = _BOUND.fullmatch(name)
    if found is None:
        return name
    return f"min_{found['least']}" if found["least"] else f"{found['kind']}_{found['name']}"


def bare(value: Json) -> Json:
    """Return hex without ``0x`` in front, in lower case, and a list of it alike; anything else as it is."""
    if isinstance(value, list):
        return [bare(item) for item in value]
    found = _PREFIXED.fullmatch(value) if isinstance(value, str) else None
    return value if found is None else found[1].lower()


def carried(code: str, name: str, value: Json, got: bytes | None) -> Bound:
    """Return what has to be carried: one of the byte strings in ``value``; an absent field carries none of them."""
    options = [_bytes(name, item) for item in (value if isinstance(value, list) else [value])]
    if not options:
        refuse_member(name, "an empty list")
    have = got if got is not None else b""
    want = have if got is not None and have in options else next((item for item in options if item != have), b"\x00")
    return Bound(code=code, subject=name, got=have, want=want)


def rule_of(name: str, value: Json) -> Rule:
    """Return the rule for a scalar or a list; ``min_`` and ``max_`` in front of the name make it a bound."""
    value = bare(value)
    try:
        if isinstance(value, int) and not isinstance(value, bool) and name.startswith(("min_", "max_")):
            return AtLeast(value) if name.startswith("min_") else AtMost(value)
        if isinstance(value, list):
            return OneOf(tuple(item for item in value if isinstance(item, str | int)))
        return Exact(value) if isinstance(value, str | int) else refuse_member(name, "want a word or a number")
    except UsageError as exc:
        refuse_member(name, exc.message)


def refuse_member(name: str, why: str = "nobody understands it") -> NoReturn:
    """Raise ``Unavailable`` about a member of the policy: what is not understood is never passed over."""
    msg = f"policy member {name[:64]}: {why}"
    raise Unavailable(msg)


def _bytes(name: str, value: Json) -> bytes:
    value = bare(value)
    try:
        return bytes.fromhex(value) if isinstance(value, str) else refuse_member(name, "want hex")
    except ValueError:
        refuse_member(name, "want hex")
