"""Persons in events, commitments, retention classes: the pure rules (T61, T85; GDPR 4(5))."""

from __future__ import annotations

import hmac

import pytest

from cloister.errors import Malformed, Rejected, UsageError
from cloister.lending.commitment import Opening
from cloister.lending.events import Event, EventKind
from cloister.lending.persons import PSEUDONYM, persons_in, pseudonym_of, veiled
from cloister.lending.pruning import PrunedEntry, Prunings, is_pruned, pruning_digest
from cloister.lending.retention import Retention, retention_of
from mutations import mutated

KEY = bytes(range(32))


def event(
    what: EventKind = EventKind.CONSUMER_ADDED, actor: str = "admin:tok-1", about: str = "loan-a", **details: object
) -> Event:
    return Event(kind=what, actor=actor, subject=about, details=details)  # type: ignore[arg-type]


CASES = [
    (event(consumer="ward-a"), {"ward-a"}),
    (event(meter="consumer:ward-a"), {"ward-a"}),
    (event(meter="loan"), set()),
    (event(meter="model:scan"), set()),
    (event(EventKind.BLOCKED, about="ward-a", kind="consumer"), {"ward-a"}),
    (event(EventKind.BLOCKED, about="loan-a", kind="loan"), set()),
    (event(EventKind.DRILL_RECORDED, about="ab12", kind="model"), set()),
    (event(EventKind.DRILL_RECORDED, kind="consumer", subject="x"), {"x"}),
    (event(), set()),
    (event(EventKind.ACCESS_DENIED, actor="stranger", about="ip:192.0.2.7"), {"192.0.2.7"}),
    (event(EventKind.ACCESS_DENIED, actor="stranger", about="ip:2001:db8::1"), {"2001:db8::1"}),
    (event(actor="viewer:alice@example.org"), {"alice@example.org"}),
    (event(actor="admin:idn-" + "0" * 32), {"idn-" + "0" * 32}),
    (event(actor="admin:tok-" + "0" * 16), set()),
    (event(actor="alice@example.org", consumer="bob@example.org"), {"alice@example.org", "bob@example.org"}),
]


@pytest.mark.parametrize(("before", "persons"), CASES)
def test_every_person_is_found_and_replaced(before: Event, persons: set[str]) -> None:
    assert persons_in(before) == persons
    after = veiled(before, {person: pseudonym_of(person, KEY) for person in persons})
    assert persons_in(after) == set()
    text = f"{after.actor} {after.subject} {sorted(map(str, after.details.values()))}"
    assert not [person for person in persons if person in text]
    assert text.count("p:") >= len(persons)
    assert veiled(after, {}) == after


def test_a_pseudonym_takes_name_and_key() -> None:
    names = {pseudonym_of(name, key) for name in ("a", "b") for key in (KEY, bytes(32))}
    assert len(names) == 4
    assert all(PSEUDONYM.fullmatch(name) for name in names)
    want = hmac.digest(KEY, b"cloister/audit/pseudonym/v1\x00ward-a", "sha256").hex()[:32]
    assert pseudonym_of("ward-a", KEY) == f"p:{want}"


def test_what_stands_before_a_name_stays() -> None:
    after = veiled(
        event(actor="viewer:alice@example.org", meter="consumer:w"),
        {"alice@example.org": "p:" + "0" * 32, "w": "p:" + "1" * 32},
    )
    assert after.actor == "viewer:p:" + "0" * 32
    assert after.details["meter"] == "consumer:p:" + "1" * 32


def test_a_commitment_takes_name_value_type_and_salt() -> None:
    salt = bytes(32)
    openings = [
        Opening(name=name, value=value, salt=held)
        for name, value, held in (
            ("reason", "1", salt), ("borrower", "1", salt), ("units", 1, salt), ("stop", True, salt),
            ("units", 0, salt),
            ("reason", "", salt), ("reason", "1", bytes(31) + b"\x01"),
        )
    ]  # fmt: skip
    assert len({opening.commitment for opening in openings}) == len(openings)
    for opening in openings:
        assert Opening.parse(opening.dump()) == opening
        assert salt.hex() not in repr(opening)


def test_an_opening_has_one_spelling_and_raises_one_error() -> None:
    whole = Opening(name="reason", value="x", salt=bytes(32)).dump()
    for bad in mutated(whole, count=2000, seed=5):
        try:
            assert Opening.parse(bad).dump() == bad
        except Malformed:
            continue


def test_a_pruned_line_has_one_spelling_and_raises_one_error() -> None:
    whole = PrunedEntry(index=7, leaf=bytes(32), pruning=1).dump()
    assert is_pruned(whole)
    for bad in mutated(whole, count=2000, seed=6):
        try:
            assert PrunedEntry.parse(bad).dump() == bad
        except Malformed:
            continue


def test_an_event_cannot_commit_to_what_it_shows_or_what_no_entry_has() -> None:
    for committed in ({"reason": bytes(32)}, {"password": bytes(32)}, {"units": bytes(31)}):
        with pytest.raises(UsageError):
            Event(kind=EventKind.BLOCKED, actor="a", subject="b", details={"reason": "x"}, committed=committed)


def test_every_kind_has_a_class_and_what_accounts_for_the_log_is_kept() -> None:
    classes = {kind: retention_of(kind) for kind in EventKind}
    assert set(classes.values()) == set(Retention)
    for kind in (
        EventKind.CUSTODIAN_INITIALISED, EventKind.LOG_PRUNED, EventKind.SUBJECT_FORGOTTEN, EventKind.HOLD_PLACED,
        EventKind.HOLD_LIFTED, EventKind.CUSTODIAN_RECOVERED,
    ):  # fmt: skip
        assert classes[kind] is Retention.RECORD


def said(prunings: Prunings, index: int, taken: list[tuple[int, bytes]], number: int = 1) -> None:
    prunings.says(index, {"seq": number, "size": len(taken), "root": pruning_digest(taken)})


def test_what_is_missing_must_be_what_was_taken() -> None:
    taken = [(1, bytes(32)), (4, b"\x01" * 32)]
    whole = Prunings()
    for index, leaf in taken:
        whole.lacks(PrunedEntry(index=index, leaf=leaf, pruning=1))
    with pytest.raises(Rejected):
        whole.verify()
    said(whole, 5, taken)
    whole.verify()
    assert whole.size == 2
    for lie in (taken[:1], [*taken, (9, bytes(32))], [taken[1], taken[0]], [(2, bytes(32)), taken[1]]):
        other = Prunings()
        for index, leaf in taken:
            other.lacks(PrunedEntry(index=index, leaf=leaf, pruning=1))
        said(other, 5, lie)
        with pytest.raises(Rejected) as refused:
            other.verify()
        assert refused.value.code == "audit_withheld"
    early = Prunings()
    early.lacks(PrunedEntry(index=4, leaf=bytes(32), pruning=1))
    said(early, 3, [(4, bytes(32))])
    with pytest.raises(Rejected):
        early.verify()
    with pytest.raises(Rejected):
        said(early, 8, [(4, bytes(32))])
