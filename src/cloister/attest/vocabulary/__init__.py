"""What every claim of every TEE means, and what a policy usually asks of it: data in ``<tee>.toml``, read here.

``cloister policy new`` proposes rules from it, ``explain`` takes its words, ``lint`` its closed sets. A test holds the
files to what the schemes really claim.

A file has one table for each claim, named as policies name it; ``pcr.*`` stands for every ``pcr.N``. Members:

- ``meaning``: one short sentence;
- ``type``: ``hex``, ``text``, ``integer``, ``boolean`` or ``words``;
- ``rule``, how a policy usually asks for it: ``pin`` (the value seen), ``exact`` and ``want``, ``minimum`` and
  ``maximum`` (the value seen, or ``want``), ``skip`` and ``why``, ``omit``;
- ``values``: every value there is, where they are few.

Not done here: appraisal. Nothing in these files decides anything.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.rats import ClaimValue, TeeKind

__all__ = ["TYPES", "USES", "ClaimInfo", "describe_claim", "described_tees", "vocabulary"]

TYPES = ("hex", "text", "integer", "boolean", "words")
USES = ("pin", "exact", "minimum", "maximum", "skip", "omit")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimInfo:
    """What one claim means. ``rule`` is how a policy usually asks for it; see the module's text."""

    meaning: str
    type: str
    rule: str
    want: str | int | bool | None = None
    why: str = ""
    values: tuple[str, ...] = ()


def described_tees() -> frozenset[str]:
    """Return the TEEs that have a vocabulary."""
    files = (item.name for item in resources.files(__name__).iterdir())
    return frozenset(name.removesuffix(".toml") for name in files if name.endswith(".toml"))


@cache
def vocabulary(tee: TeeKind) -> Mapping[str, ClaimInfo]:
    """Return what is known of the claims of ``tee``, by name or family; nothing for a TEE without a file."""
    if tee not in described_tees():
        return {}
    table = tomllib.loads(resources.files(__name__).joinpath(f"{tee}.toml").read_text(encoding="utf-8"))
    return {name: _load(entry) for name, entry in table.items()}


def _load(entry: Mapping[str, object]) -> ClaimInfo:
    values = entry.get("values", [])
    want = entry.get("want")
    return ClaimInfo(
        meaning=str(entry["meaning"]),
        type=str(entry["type"]),
        rule=str(entry["rule"]),
        want=want if isinstance(want, (str, int)) else None,
        why=str(entry.get("why", "")),
        values=tuple(map(str, values)) if isinstance(values, list) else (),
    )


def describe_claim(tee: TeeKind, name: str, value: ClaimValue | None = None) -> ClaimInfo:
    """Return what is known of one claim; of one nobody described, its type and no meaning."""
    known = vocabulary(tee)
    family = f"{name.partition('.')[0]}.*"
    if name in known or family in known:
        return known[name] if name in known else known[family]
    kinds = {bool: "boolean", int: "integer", tuple: "words"}
    return ClaimInfo(meaning="", type=kinds.get(type(value), "text"), rule="omit")
