"""An evidence index: recorded evidence with its time, its policy and, mostly, its expected verdict.

Format: docs/spec/evidence-index.md. An entry is judged from evidence, files, time and policy alone; what it
expects is compared afterwards and never looked at before.

Not done here: reading files (the caller), the judging itself (``judge``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from cloister.attest.dossier import judge
from cloister.attest.dossier.table import dossier_for
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.wire import STEERING, Fields, Json

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["UNDECIDED", "Entry", "Outcome", "judge_entry", "parse_index", "undecided"]

MAX_INDEX_BYTES = 4 << 20  # bytes of one index
MAX_ENTRIES = 4096
_MAX_FILES = 32
_MAX_MEMBERS = 256  # of a policy
_MAX_CLAIMS = 1024
_MAX_ID_CHARS = 200
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
    """One entry. ``expected`` are the verdicts that are right, none where the entry does not say.

    ``fault`` says why an entry cannot be judged: it is out of form, or its id is another's too.
    """

    id: str
    tee: str
    files: Mapping[str, str]
    verify_time: datetime | None
    policy: Mapping[str, Json]
    expected: tuple[str, ...]
    claims: Mapping[str, Json] | None
    fault: str = ""

    def agrees(self, outcome: Outcome) -> bool:
        """Tell whether an outcome is as the entry expects it, as far as it says. Nothing is as a broken one expects."""
        return (
            not self.fault and (not self.expected or outcome.verdict in self.expected) and not self.differing(outcome)
        )

    def differing(self, outcome: Outcome) -> tuple[str, ...]:
        """Return the names of expected claims that the outcome has otherwise or not at all."""
        wanted = self.claims or {}
        return tuple(
            name
            for name, value in wanted.items()
            if name not in outcome.claims or _spelled(outcome.claims[name]) != _spelled(value)
        )


def _spelled(value: Json) -> str:
    """Return a value as it is compared: 1 is neither true nor 1.0."""
    return json.dumps(value, sort_keys=True)


def parse_index(data: bytes) -> tuple[Entry, ...]:
    """Parse an index. Raises ``Malformed``; members that nobody needs for judging are passed over.

    An entry that is out of form does not spoil the others: it is there with its ``fault``.
    """
    fields = Fields.parse(data, what="evidence index", cap=MAX_INDEX_BYTES)
    fields.literal("format", 1)
    found: dict[str, Entry] = {}
    for number, item in enumerate(fields.items("entries", cap=MAX_ENTRIES), start=1):
        entry = _entry(item, number)
        if entry.id in found:
            entry = _broken(f"{entry.id}#{number}", f"entry {number} has the id of another: {entry.id}")
        found[entry.id] = entry
    return tuple(found.values())


def _entry(value: Json, number: int) -> Entry:
    try:
        return _take_entry(value)
    except Malformed as exc:
        name = value.get("id") if isinstance(value, dict) else None
        plain = isinstance(name, str) and 0 < len(name) <= _MAX_ID_CHARS and not STEERING.search(name)
        return _broken(str(name) if plain else f"#{number}", exc.message)


def _broken(name: str, fault: str) -> Entry:
    return Entry(id=name, tee="", files={}, verify_time=None, policy={}, expected=(), claims=None, fault=fault)


def _take_entry(value: Json) -> Entry:
    fields = Fields(value, what="evidence index: entry")
    files = fields.members("files", cap=_MAX_FILES)
    inner = Fields(files, what="evidence index: files")
    return Entry(
        id=fields.text("id", cap=_MAX_ID_CHARS, floor=1),
        tee=fields.text("tee", cap=32, floor=1),
        files={role: inner.text(role, cap=400, floor=1) for role in files},
        verify_time=_take_time(fields, _member(fields, "verify_time")),
        policy=_members(fields, "policy", _MAX_MEMBERS) or {},
        expected=_take_expected(fields),
        claims=_members(fields, "claims", _MAX_CLAIMS),
    )


def _take_expected(fields: Fields) -> tuple[str, ...]:
    """Return every verdict that is right; none where the entry does not say."""
    right = _member(fields, "all_reasons")
    expect = _member(fields, "expect")
    listed = Fields({"all_reasons": right or []}, what="evidence index: entry").texts(
        "all_reasons", cap=32, item_cap=64
    )
    if expect is None:
        return listed
    said = Fields({"expect": expect}, what="evidence index: entry").text("expect", cap=64)
    return listed if said in listed else (*listed, said)


def _member(fields: Fields, name: str) -> Json:
    """Return a member; null is the same as none."""
    return fields.take(name) if name in fields else None


def _members(fields: Fields, name: str, cap: int) -> dict[str, Json] | None:
    value = _member(fields, name)
    return None if value is None else Fields({name: value}, what="evidence index: entry").members(name, cap=cap)


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
    if entry.fault:
        return undecided(entry, entry.fault)
    try:
        dossier = dossier_for(entry.tee)
    except Rejected as exc:  # nobody here knows the kind: that says nothing about the evidence
        return undecided(entry, exc.message)
    try:
        case = dossier.open(files, entry.policy)
        judgement = judge(case, entry.verify_time or now)
    except Malformed as exc:
        return Outcome(id=entry.id, verdict="malformed", reasons=("malformed",), claims={}, detail=exc.message)
    except Rejected as exc:
        codes = _codes(tuple(reason.code for reason in exc.reasons))
        return Outcome(id=entry.id, verdict=codes[0], reasons=codes, claims={}, detail=exc.message)
    except (Unavailable, UsageError) as exc:
        return undecided(entry, exc.message)
    codes = _codes(tuple(reason.code for reason in judgement.reasons))
    return Outcome(id=entry.id, verdict=codes[0] if codes else OK, reasons=codes, claims=judgement.claims)


def undecided(entry: Entry, why: str) -> Outcome:
    """Return the outcome of an entry that could not be judged. It is never ok."""
    return Outcome(id=entry.id, verdict=UNDECIDED, reasons=(UNDECIDED,), claims={}, detail=why)


def _codes(codes: tuple[str, ...]) -> tuple[str, ...]:
    """Return each code once, in the words of an index."""
    return tuple(dict.fromkeys(_IN_THE_INDEX.get(code, code) for code in codes))
