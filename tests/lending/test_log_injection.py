"""The list of log injections (T84, item 66) in every field of the audit log: refused, or harmless in every sink."""

from __future__ import annotations

import json
import re

import pytest
from exports_kit import AT
from journal_kit import INJECTIONS, harmless

from cloister.errors import CloisterError, UsageError
from cloister.lending.audit import FIRST_PREVIOUS, AuditEntry, next_entry
from cloister.lending.events import DETAILS, Event, EventKind
from cloister.lending.exports import FORMATS
from cloister.wire import Fields

WORDS = sorted(name for name, form in DETAILS.items() if isinstance(form, re.Pattern))


def event(field: str, text: str) -> Event:
    """Return an event with ``text`` in one field."""
    names = {"actor": "admin:tok-1", "subject": "loan-a"}
    if field in names:
        return Event(kind=EventKind.BLOCKED, **{**names, field: text})
    return Event(kind=EventKind.BLOCKED, **names, details={field: text})


@pytest.mark.parametrize("field", ["actor", "subject", *WORDS])
def test_t84_every_injection_in_every_field_is_refused_or_harmless_in_every_format(field: str) -> None:
    kept = 0
    for text in INJECTIONS:
        try:
            line = next_entry(event(field, text), index=0, at=AT, previous=FIRST_PREVIOUS).dump()
        except UsageError as exc:
            assert harmless(exc.message), field  # noqa: PT017 - what is refused is not said in the clear either
            continue
        kept += 1
        assert b"\n" not in line
        assert b"\r" not in line
        assert AuditEntry.parse(line).dump() == line
        for name, made in FORMATS.items():
            record = made.dump(line)
            assert made.take(record) == line
            assert name == "jsonl" or harmless(record.decode("ascii"))
    if field not in {"borrower", "reason"}:  # the two lines of free text, which entries commit to
        assert kept == 0


def test_what_steers_a_terminal_does_not_come_in_by_the_api() -> None:
    """Free text comes from request bodies: the one reader of those takes nothing that steers."""
    for text in INJECTIONS:
        try:
            got = Fields.parse(json.dumps({"reason": text}).encode(), what="body").text("reason", cap=200)
        except CloisterError:
            continue
        assert harmless(got)
