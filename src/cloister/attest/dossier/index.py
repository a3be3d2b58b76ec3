"""An evidence index: recorded evidence with its time, its policy and, mostly, its expected verdict.

Format: docs/spec/evidence-index.md. An entry is judged from evidence, files, time and policy alone; what it
expects is compared afterwards and never looked at before.

Not done here: reading files (the caller), the judging itself (``judge``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from cloister.attest.dossier import judge
from cloister.attest.dossier.table import dossier_for
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.wire import Fields, Json

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Entry", "Outcome", "judge_entry", "parse_index"]

MAX_INDEX_BYTES = 4 << 20  # bytes of one index
MAX_ENTRIES = 4096
_MAX_FILES = 32
_MAX_MEMBERS = 64
OK = "ok"
UNDECIDED = "undecided"
_IN_THE_INDEX = {"untrusted_root": "chain_invalid"}
"""Codes of ours that the vocabulary of an index has under another name: there, a root nobody pinned is a bad chain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one entry was judged. ``verdict`` is ``ok``, the first reason, or ``undecided``."""

    id: str
    verdict: str
    reasons: tuple[str, ...]
    claims: Mapping[str, Json]
    detail: str = ""

    def to_json(self) -> Json:
        """Return the object of docs/spec/evidence-index.md section 2."""
        document: dict[str, Json] = {
            "claims": dict(self.claims),
            "id": self.id,
            "reasons": list(self.reasons),
            "verdict": self.verdict,
        }
        return {**document, "detail": self.detail} if self.detail else document


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry. ``expected`` are the verdicts that are right, none where the entry does not say."""

    id: str
    tee: str
    files: Mapping[str, str]
    verify_time: datetime | None
    policy: Mapping[str, Json]
    expected: tuple[str, ...]
    claims: Mapping[str, Json] | None

    def agrees(self, outcome: Outcome) -> bool:
        """Tell whether an outcome is as the entry expects it, as far as it says."""
        return (not self.expected or outcome.verdict in self.expected) and not self.differing(outcome)

    def differing(self, outcome: Outcome) -> tuple[str, ...]:
        """Return the names of expected claims that the outcome has otherwise or not at all."""
        wanted = self.claims or {}
        return tuple(name for name, value in wanted.items() if outcome.claims.get(name, _NOTHING) != value)


_NOTHING = object()


def parse_index(data: bytes) -> tuple[Entry, ...]:
    """Parse an index. Raises ``Malformed``; members that nobody needs for judging are passed over."""
    fields = Fields.parse(data, what="evidence index", cap=MAX_INDEX_BYTES)
    fields.literal("format", 1)
    return tuple(_take_entry(item) for item in fields.items("entries", cap=MAX_ENTRIES))


def _take_entry(value: Json) -> Entry:
    fields = Fields(value, what="evidence index: entry")
    files = fields.members("files", cap=_MAX_FILES)
    inner = Fields(files, what="evidence index: files")
    right = fields.optional("all_reasons", lambda name: fields.texts(name, cap=32, item_cap=64)) or ()
    expect = fields.optional("expect", lambda name: fields.text(name, cap=64))
    return Entry(
        id=fields.text("id", cap=200, floor=1),
        tee=fields.text("tee", cap=32, floor=1),
        files={role: inner.text(role, cap=400, floor=1) for role in files},
        verify_time=_take_time(fields, fields.take("verify_time")),
        policy=fields.members("policy", cap=_MAX_MEMBERS) if "policy" in fields else {},
        expected=(*right, *((expect,) if expect is not None and expect not in right else ())),
        claims=fields.optional("claims", lambda name: fields.members(name, cap=_MAX_MEMBERS)),
    )


def _take_time(fields: Fields, value: Json) -> datetime | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        fields.fail("verify_time", "want a time with its offset, or null")
    return moment


def judge_entry(entry: Entry, files: Mapping[str, bytes], now: datetime) -> Outcome:
    """Return how ``entry`` is judged; ``now`` stands in where any time is as good as another. Raises nothing."""
    try:
        case = dossier_for(entry.tee).open(files, entry.policy)
        judgement = judge(case, entry.verify_time or now)
    except Malformed as exc:
        return Outcome(id=entry.id, verdict="malformed", reasons=("malformed",), claims={}, detail=exc.message)
    except Rejected as exc:
        codes = _codes(tuple(reason.code for reason in exc.reasons))
        return Outcome(id=entry.id, verdict=codes[0], reasons=codes, claims={}, detail=exc.message)
    except (Unavailable, UsageError) as exc:
        return Outcome(id=entry.id, verdict=UNDECIDED, reasons=(UNDECIDED,), claims={}, detail=exc.message)
    codes = _codes(tuple(reason.code for reason in judgement.reasons))
    return Outcome(id=entry.id, verdict=codes[0] if codes else OK, reasons=codes, claims=judgement.claims)


def _codes(codes: tuple[str, ...]) -> tuple[str, ...]:
    """Return each code once, in the words of an index."""
    return tuple(dict.fromkeys(_IN_THE_INDEX.get(code, code) for code in codes))
