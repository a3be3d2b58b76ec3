"""Writes docs/reference/events.md from the kinds of the audit log and the vocabularies of the journal."""

from __future__ import annotations

import importlib

from cloister.journal import NUMBERS, WORDS
from cloister.lending.events import DETAILS, EventKind
from cloister.lending.retention import Retention, retention_of

NAME = "events.md"
_JOURNALS = {
    "custodian": "cloister.custodian.logs.Event",
    "enclave": "cloister.enclave.logs.Event",
    "attestation service": "cloister.verifier.logs.Event",
    "relay, attestation service, local pages": "cloister.serving.logs.ServingEvent",
    "all": "cloister.journal.log.LibraryEvent",
}
_HEAD = """# Every event

Made from the source by `make reference`.

## Audit log

What the custodian signs and keeps ([format](../spec/audit-log.md)), by the class that decides how long ([retention](../spec/audit-log.md#10-retention-holds-pruning)).
There are no others.

| Class | Kinds |
|---|---|
"""
_DETAILS = "\nDetails that an entry may have, each of a form of its own and none of free text but names of borrowers and reasons: "
_JOURNAL = """
## Journal

What programs say on standard error, signed by nobody and kept by nobody ([logs](logs.md)).

| Program | Events |
|---|---|
"""


def page() -> str:
    """Return the page."""
    parts = [_HEAD]
    for kept in Retention:
        kinds = [f"`{kind.value}`" for kind in EventKind if retention_of(kind) is kept]
        parts.append(f"| {kept.value} | {', '.join(kinds)} |\n")
    parts += [_DETAILS, ", ".join(f"`{name}`" for name in sorted(DETAILS)), ".\n", _JOURNAL]
    for program, place in _JOURNALS.items():
        module, _, name = place.rpartition(".")
        events = getattr(importlib.import_module(module), name)
        parts.append(f"| {program} | {', '.join(f'`{event.value}`' for event in events)} |\n")
    words = ", ".join(f"`{name}`" for name in sorted(NUMBERS | WORDS))
    parts.append(f"\nFields that a line may have beside `at` and `event`: {words}.\n")
    return "".join(parts)
