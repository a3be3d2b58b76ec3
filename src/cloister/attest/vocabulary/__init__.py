"""What every claim of every TEE means, and what a policy usually asks of it: data in ``<tee>.toml``, read here.

``cloister policy new`` proposes rules from it, ``explain`` takes its words, ``lint`` its closed sets. A test holds the
files to what the schemes really claim.

A file has one table for each claim, named as policies name it; ``pcr.*`` stands for every ``pcr.N`` without a table of
its own. ``include`` names files whose tables it has too, other TEEs' or those in ``shared/``; of two tables for one
claim the later counts, its own last. Members:

- ``meaning``: one short sentence;
- ``type``: ``hex``, ``text``, ``integer``, ``boolean`` or ``words``;
- ``rule``, how a policy usually asks for it: ``pin`` (the value seen), ``exact`` and ``want``, ``keep`` and ``want``
  (exact, where the value seen is that), ``minimum`` and ``maximum`` (the value seen, or ``want``), ``skip`` and
  ``why``, ``omit``;
- ``values``: every value there is, where they are few; where it is one, the claim is made or not;
- ``bytes``: how many there may be, of hex and of words that are hex.

Not done here: appraisal. Nothing in these files decides anything.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from cloister.wire import MAX_INT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.rats import ClaimValue, TeeKind

__all__ = ["TYPES", "USES", "ClaimInfo", "describe_claim", "described_tees", "vocabulary"]

TYPES = ("hex", "text", "integer", "boolean", "words")
USES = ("pin", "exact", "keep", "minimum", "maximum", "skip", "omit")
_HEX = re.compile(r"[0-9a-f]*")
_KINDS = {bool: "boolean", int: "integer", tuple: "words"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimInfo:
    """What one claim means. ``rule`` is how a policy usually asks for it; see the module's text."""

    meaning: str
    type: str
    rule: str
    want: str | int | bool | None = None
    why: str = ""
    values: tuple[str | int | bool, ...] = ()
    bytes: tuple[int, ...] = ()

    def may_be(self, value: str | int | bool) -> bool:  # noqa: FBT001 - claims may be booleans
        """Tell whether evidence can say ``value``; of a set, whether it can be a member."""
        if self.values:
            return any(type(value) is type(item) and value == item for item in self.values)
        if not isinstance(value, str):
            return _KINDS[type(value)] == self.type and 0 <= value <= MAX_INT
        if self.type in {"boolean", "integer"}:
            return False
        hexadecimal = self.type == "hex" or bool(self.bytes)
        sized = not self.bytes or len(value) in {2 * size for size in self.bytes}
        return sized and (not hexadecimal or bool(_HEX.fullmatch(value)))

    @property
    def form(self) -> str:
        """What a value looks like, for a person."""
        if self.values:
            return " or ".join(str(item).lower() if isinstance(item, bool) else str(item) for item in self.values)
        if self.type == "integer":
            return f"0 to {MAX_INT}"
        if self.type == "boolean":
            return "true or false"
        if self.bytes:
            return f"{' or '.join(map(str, self.bytes))} bytes in lower-case hex"
        return "lower-case hex" if self.type == "hex" else "text"


_DEVICES = ClaimInfo(meaning="Number of devices of this kind that are bound to it.", type="integer", rule="pin")


def described_tees() -> frozenset[str]:
    """Return the TEEs that have a vocabulary."""
    files = (item.name for item in resources.files(__name__).iterdir())
    return frozenset(name.removesuffix(".toml") for name in files if name.endswith(".toml"))


@cache
def vocabulary(tee: TeeKind) -> Mapping[str, ClaimInfo]:
    """Return what is known of the claims of ``tee``, by name or family; nothing for a TEE without a file."""
    return _read(tee) if tee in described_tees() else {}


def _read(name: str) -> dict[str, ClaimInfo]:
    path = resources.files(__name__).joinpath(*f"{name}.toml".split("/"))
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    found: dict[str, ClaimInfo] = {}
    for other in table.pop("include", ()):
        found |= _read(other)
    return found | {claim: _load(entry) for claim, entry in table.items()}


def _load(entry: Mapping[str, object]) -> ClaimInfo:
    want, values, sizes = entry.get("want"), entry.get("values", []), entry.get("bytes", [])
    return ClaimInfo(
        meaning=str(entry["meaning"]),
        type=str(entry["type"]),
        rule=str(entry["rule"]),
        want=want if isinstance(want, (str, int)) else None,
        why=str(entry.get("why", "")),
        values=tuple(values) if isinstance(values, list) else (),
        bytes=tuple(sizes) if isinstance(sizes, list) else (),
    )


def describe_claim(tee: TeeKind, name: str, value: ClaimValue | None = None) -> ClaimInfo:
    """Return what is known of one claim; of one nobody described, its type and no meaning."""
    known = vocabulary(tee)
    family, _, part = name.partition(".")
    found = known.get(name) or known.get(f"{family}.*")
    if found is None and family == "devices" and part.replace("_", "-") in described_tees():
        found = _DEVICES
    return found or ClaimInfo(meaning="", type=_KINDS.get(type(value), "text"), rule="omit")
