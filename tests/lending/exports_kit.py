"""A log with every event there is, its details as hostile as their forms allow."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from cloister.crypto.sign import SigningKey
from cloister.lending.audit import FIRST_PREVIOUS, next_entry
from cloister.lending.events import DETAILS, Event, EventKind
from cloister.lending.exports.manifest import Manifest, Writing
from cloister.lending.frontier import Frontier
from cloister.lending.merkle import MerkleTree, leaf_hash
from cloister.lending.pruning import PrunedEntry
from cloister.lending.tlog.checkpoint import sign_log_checkpoint

AT = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
KEY = SigningKey(bytes(range(32)))
HOSTILE = r'a|b=c\d "quoted" %s ${x} | rawEvent=CEF:0|' + "\u202e\u2066é\U0001f600 \u200b"
"""Allowed in a line of free text by the reader of entries, and wrong in every format that forgets to escape."""


def _value(name: str) -> str | int | bool:
    form = DETAILS[name]
    if form is bool:
        return True
    if form is int:
        return 2**53 - 1
    assert isinstance(form, re.Pattern)
    for candidate in (HOSTILE, "A-:@/._z", "a_b,c", "ab12"):
        if form.fullmatch(candidate):
            return candidate
    raise AssertionError(name)


def every_event() -> list[bytes]:
    """Return a log with each kind once without details, once with all of them, and one committed field."""
    lines: list[bytes] = []
    previous = FIRST_PREVIOUS
    whole = {name: _value(name) for name in DETAILS if name != "reason"}
    for number, (kind, details) in enumerate((kind, details) for kind in EventKind for details in ({}, whole)):
        if kind is EventKind.LOG_PRUNED:
            continue
        committed = {"reason": bytes(32)} if details else {}
        event = Event(kind=kind, actor="admin:p:" + "0" * 32, subject="A@b/c:d", details=details, committed=committed)
        entry = next_entry(event, index=len(lines), at=AT + timedelta(seconds=number), previous=previous)
        lines.append(entry.dump())
        previous = entry.leaf
    return lines


def pruned(lines: list[bytes], *gone: int) -> list[bytes]:
    """Return the log without the bodies of some entries."""
    return [
        PrunedEntry(index=at, leaf=leaf_hash(line), pruning=1).dump() if at in gone else line
        for at, line in enumerate(lines)
    ]


def exported(lines: list[bytes], name: str, *, first: int = 0) -> tuple[list[bytes], Manifest]:
    """Return the records of entries from ``first`` on, with their manifest."""
    before = Frontier()
    tree = MerkleTree()
    for line in lines[:first]:
        before = before.add(leaf_hash(line))
    writing = Writing(name, before)
    records = [writing.add(line) for line in lines[first:]]
    for line in lines:
        tree.append(line) if line.startswith(b'{"actor"') else tree.append_hash(PrunedEntry.parse(line).leaf)
    note = sign_log_checkpoint(KEY, size=len(lines), root=tree.root())
    manifest = Manifest(
        format=name, before=before, after=writing.frontier, digest=writing.digest(), checkpoint=note.dump()
    )
    return records, manifest
