"""The audit log: order, allow-list, checkpoints, and every way to tamper with it (T83, T84, T85, T92)."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from cloister.crypto.sign import Label, SigningKey, Statement, VerifyKey
from cloister.errors import Malformed, Rejected, UsageError
from cloister.lending.audit import (
    FIRST_PREVIOUS,
    AuditEntry,
    Checkpoint,
    MerkleTree,
    next_entry,
    verify_checkpoint,
    verify_log,
    verify_one_face,
)
from cloister.lending.events import DETAILS, Event, EventKind, verify_details
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Callable

AT = datetime(2026, 1, 1, tzinfo=UTC)
KEY = SigningKey(b"c" * 32)
SIZE = 12


def log(size: int = SIZE) -> list[bytes]:
    lines: list[bytes] = []
    previous = FIRST_PREVIOUS
    kinds = list(EventKind)
    for index in range(size):
        event = Event(
            kind=kinds[index], actor="lender", subject="loan-a", details={"units": index, "reason": f"r {index}"}
        )
        entry = next_entry(event, index=index, at=AT + timedelta(seconds=index), previous=previous)
        lines.append(entry.dump())
        previous = entry.leaf
    return lines


def checkpoint(lines: list[bytes], size: int | None = None) -> Checkpoint:
    tree = MerkleTree()
    for line in lines[:size]:
        tree.append(line)
    return Checkpoint(
        origin=KEY.verify_key,
        size=tree.size,
        root=tree.root(),
        epoch=1,
        ledger_size=3,
        escrowed=7,
        block_version=2,
        at=AT,
    )


def test_a_whole_log_is_verified_against_any_of_its_checkpoints() -> None:
    lines = log()
    for size in range(SIZE + 1):
        verified = verify_log(lines, checkpoint(lines, size))
        assert (verified.size, verified.checked) == (SIZE, size)
    assert verify_log(lines, None).checked == 0
    assert verify_log([], None).last is None


@pytest.mark.parametrize("index", range(SIZE))
def test_t83_a_line_deleted_is_named(index: int) -> None:
    lines = log()
    with pytest.raises(Rejected) as caught:
        verify_log(lines[:index] + lines[index + 1 :], checkpoint(lines))
    want = ("audit_cut", f"entry {SIZE - 1}") if index == SIZE - 1 else ("audit_broken", f"entry {index}")
    assert (caught.value.code, caught.value.reasons[0].subject) == want


@pytest.mark.parametrize("index", range(SIZE))
def test_t83_a_line_altered_is_noticed(index: int) -> None:
    lines = log()
    whole = checkpoint(lines)
    lines[index] = lines[index].replace(b'"units":', b'"units":1')
    with pytest.raises(Rejected) as caught:
        verify_log(lines, whole)
    if index == SIZE - 1:
        assert caught.value.code == "audit_changed"
    else:
        assert caught.value.reasons[0].subject == f"entry {index + 1}"


def test_t83_lines_inserted_swapped_or_repeated_are_named() -> None:
    lines = log()
    whole = checkpoint(lines)
    bad = {
        4: [*lines[:4], lines[5], lines[4], *lines[6:]],
        3: [*lines[:3], lines[2], *lines[3:]],
        0: lines[1:],
    }
    for index, tampered in bad.items():
        with pytest.raises(Rejected) as caught:
            verify_log(tampered, whole)
        assert caught.value.reasons[0].subject == f"entry {index}"


def test_t83_a_log_rewritten_as_a_whole_does_not_fit_its_checkpoint() -> None:
    lines = log()
    other = log(SIZE - 1)
    entry = AuditEntry.parse(lines[-1])
    forged = replace(entry, details={"units": 99}, previous=AuditEntry.parse(other[-1]).leaf).dump()
    assert verify_log([*other, forged], None).size == SIZE
    with pytest.raises(Rejected) as caught:
        verify_log([*other, forged], checkpoint(lines))
    assert caught.value.code == "audit_changed"


def test_t83_time_that_runs_back_is_named() -> None:
    lines = log(2)
    entry = AuditEntry.parse(lines[1])
    with pytest.raises(Rejected, match="entry 1"):
        verify_log([lines[0], replace(entry, at=AT - timedelta(seconds=1)).dump()], None)


def test_t83_a_line_that_does_not_parse_is_named() -> None:
    lines = log(3)
    with pytest.raises(Malformed, match="audit entry 1"):
        verify_log([lines[0], lines[1] + b" ", lines[2]], None)


@pytest.mark.parametrize("bad", ["a\r\nb", "a\x1b[31m", "a\u2028b", "a\x00", "x" * 201, "a\x85b"])
def test_t84_nothing_that_breaks_a_line_enters_the_log(bad: str) -> None:
    with pytest.raises(UsageError):
        Event(kind=EventKind.BLOCKED, actor="lender", subject="loan-a", details={"reason": bad})
    with pytest.raises(UsageError):
        Event(kind=EventKind.BLOCKED, actor=bad, subject="loan-a")
    with pytest.raises(UsageError):
        Event(kind=EventKind.BLOCKED, actor="lender", subject=bad)


@pytest.mark.parametrize(
    "details",
    [
        {"input": "what the consumer asked"},
        {"units": "5"},
        {"units": True},
        {"units": 1.5},
        {"units": 2**53},
        {"stop": 1},
        {"codes": "Not A Code"},
        {"instance": "not hex"},
        {"loan": "spaces are no name"},
    ],
)
def test_t85_only_allowed_details_in_their_form_are_logged(details: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        verify_details(details)  # type: ignore[arg-type]  # that is the test
    line = json.loads(log(1)[0])
    line["details"] = details
    with pytest.raises(Malformed):
        AuditEntry.parse(json.dumps(line, sort_keys=True, separators=(",", ":")).encode())


def test_every_detail_has_a_form_and_fits_into_one_line() -> None:
    assert DETAILS
    for name in DETAILS:
        assert name == name.lower()


def test_t92_two_faces_of_one_log_convict() -> None:
    lines = log()
    first = checkpoint(lines)
    verify_one_face(first, replace(first, at=AT + timedelta(days=1)))
    verify_one_face(first, replace(checkpoint(lines, 3), root=bytes(32)))  # another size: takes a proof instead
    with pytest.raises(Rejected) as caught:
        verify_one_face(first, replace(first, root=bytes(32)))
    assert caught.value.code == "split_view"


def signed(value: Checkpoint, *, key: SigningKey = KEY, label: Label = Label.CHECKPOINT) -> bytes:
    return Statement.sign(key, label, value.dump()).dump()


def test_a_checkpoint_is_taken_from_its_own_custodian_only() -> None:
    value = checkpoint(log())
    assert verify_checkpoint(signed(value), KEY.verify_key) == value
    other = SigningKey(b"o" * 32)
    bad: dict[str, tuple[bytes, VerifyKey]] = {
        "unknown_key": (signed(value, key=other), KEY.verify_key),
        "wrong_origin": (signed(value, key=other), other.verify_key),
        "wrong_statement": (signed(value, label=Label.LEASE), KEY.verify_key),
    }
    for code, (statement, key) in bad.items():
        with pytest.raises(Rejected) as caught:
            verify_checkpoint(statement, key)
        assert caught.value.code == code


PARSERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "entry": (AuditEntry.parse, log(5)[4]),
    "checkpoint": (Checkpoint.parse, checkpoint(log()).dump()),
}


@pytest.mark.parametrize("name", PARSERS)
def test_ten_thousand_mutations_only_malformed(name: str) -> None:
    parse, good = PARSERS[name]
    parse(good)
    for data in mutated(good):
        try:
            value = parse(data)
        except Malformed:
            continue
        assert value.dump() == data  # type: ignore[attr-defined]  # what parses has one spelling


def test_ten_thousand_mutations_of_a_log_are_malformed_or_rejected() -> None:
    lines = log(4)
    whole = checkpoint(lines)
    for data in mutated(b"\n".join(lines)):
        try:
            verified = verify_log(data.split(b"\n"), whole)
        except (Malformed, Rejected):
            continue
        assert verified.checked == len(lines)
