"""A bundle: signed, of today, never older than the last; nothing in it wider than it says of itself."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from cloister.attest.endorse import FirstOf, Given
from cloister.attest.endorse.bundle import (
    MAX_BUNDLE_BYTES,
    MAX_BUNDLE_LIFE,
    MAX_ENTRIES,
    Accepted,
    Bundle,
    BundleFile,
    Entry,
    verify_bundle,
)
from cloister.attest.endorse.names import amd_crl, intel_collateral, jwks, parse_name
from cloister.attest.endorse.window import ALWAYS, Window, window_of
from cloister.crypto.sign import Label, SigningKey, Statement
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.testing.vendors.amd.authority import Issue
from cloister.wire import dump_json, lp
from endorse_kit import NOW, amd, intel, key_set

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = SigningKey(b"k" * 32)
KEYS = (KEY.verify_key,)
WEEK = timedelta(days=7)
TDX, CRL, TOKENS = intel_collateral("tdx", "00806f050000", "platform"), amd_crl("milan"), jwks("tokens.example")
WINDOW = Window(NOW, NOW + 4 * WEEK)


def entry(name: str, data: bytes, window: Window | None = None) -> Entry:
    parsed = parse_name(name)
    own = window_of(parsed, data)
    return Entry(name=parsed, data=data, source="https://vendor", window=window or (WINDOW if own == ALWAYS else own))


def crl() -> bytes:
    return amd().crl(issue=Issue(not_before=NOW - WEEK, not_after=NOW + WEEK))


def bundle(**changes: Any) -> Bundle:
    entries = (
        entry(CRL, crl()),
        entry(TDX, intel().published(tdx=True).dump()),
        entry(TOKENS, key_set()),
    )
    return Bundle(**{"version": 7, "window": WINDOW, "entries": entries, **changes})


@pytest.fixture(scope="module")
def signed() -> bytes:
    return bundle().sign(KEY)


def refusal(data: bytes, **changes: Any) -> str:
    members = {"keys": KEYS, "now": NOW, "last": None, **changes}
    with pytest.raises(Rejected) as caught:
        verify_bundle(data, members["keys"], members["now"], last=members["last"])
    return caught.value.code


# what it gives


def test_a_signed_bundle_of_today_gives_what_it_holds(signed: bytes) -> None:
    verified = verify_bundle(signed, KEYS, NOW, last=None)
    found = verified.fetch((CRL, TDX), NOW)
    assert found[TDX] == intel().published(tdx=True).dump() or found[TDX]
    assert verified.key_id == KEY.key_id
    assert verified.accepted == Accepted(version=7, sha256=hashlib.sha256(signed).digest())


def test_the_same_content_has_the_same_bytes() -> None:
    made = bundle()
    assert made.sign(KEY) == made.sign(KEY)
    assert made.dump() == replace(made).dump()
    assert BundleFile.parse(made.sign(KEY)).read() == made
    assert BundleFile.parse(made.dump()).read() == made


def test_each_entry_is_refused_outside_its_own_window(signed: bytes) -> None:
    verified = verify_bundle(signed, KEYS, NOW, last=None)
    last_moment = NOW + WEEK
    assert verified.fetch((CRL,), last_moment)
    with pytest.raises(Unavailable, match=f"{CRL}: it is good from"):
        verified.fetch((CRL,), last_moment + timedelta(seconds=1))
    assert verified.fetch((TDX,), last_moment + timedelta(seconds=1))


def test_nothing_is_given_once_the_bundle_is_over(signed: bytes) -> None:
    verified = verify_bundle(signed, KEYS, NOW, last=None)
    assert verified.fetch((TOKENS, TDX), WINDOW.not_after)
    with pytest.raises(Unavailable, match="the bundle is good from"):
        verified.fetch((TDX,), WINDOW.not_after + timedelta(seconds=1))


def test_what_is_not_in_it_is_unavailable_by_name(signed: bytes) -> None:
    verified = verify_bundle(signed, KEYS, NOW, last=None)
    with pytest.raises(Unavailable, match="nvidia/rim/X: not in the bundle of version 7"):
        verified.fetch(("nvidia/rim/X",), NOW)
    with pytest.raises(Unavailable, match="names"):
        verified.fetch(["x"] * 257, NOW)


def test_the_first_source_that_has_a_name_gives_it(signed: bytes) -> None:
    verified = verify_bundle(signed, KEYS, NOW, last=None)
    sources = FirstOf(Given({CRL: b"given"}), verified)
    assert sources.fetch((CRL, TOKENS), NOW)[CRL] == b"given"
    with pytest.raises(Unavailable, match="nobody gave it; not in the bundle"):
        sources.fetch(("nvidia/rim/X",), NOW)
    with pytest.raises(Unavailable, match="no source"):
        FirstOf().fetch((CRL,), NOW)


# who may speak


def test_a_draft_is_accepted_by_nobody() -> None:
    assert refusal(bundle().dump()) == "bundle_unsigned"


def test_a_key_that_is_not_pinned_is_refused(signed: bytes) -> None:
    assert refusal(signed, keys=(SigningKey(b"x" * 32).verify_key,)) == "unknown_key"
    assert refusal(signed, keys=()) == "unknown_key"


def test_a_changed_index_is_refused() -> None:
    statement = Statement.sign(KEY, Label.ENDORSEMENTS, bundle().dump_index())
    forged = replace(statement, payload=bundle(version=8).dump_index())
    objects = b"".join(item.data for item in bundle().entries)
    assert refusal(_file(forged.dump(), objects)) == "signature_invalid"


def test_another_statement_of_the_same_key_is_no_bundle() -> None:
    statement = Statement.sign(KEY, Label.POLICY, bundle().dump_index())
    assert refusal(_file(statement.dump(), b"")) == "wrong_statement"


def test_a_swapped_object_is_refused_though_the_signature_holds() -> None:
    made = bundle()
    other = bytearray(made.sign(KEY))
    other[-1] ^= 1
    with pytest.raises(Malformed, match="digest"):
        verify_bundle(bytes(other), KEYS, NOW, last=None)


# of today


def test_before_and_after_its_window_it_is_refused(signed: bytes) -> None:
    assert refusal(signed, now=WINDOW.not_before - timedelta(seconds=1)) == "bundle_not_yet_valid"
    assert refusal(signed, now=WINDOW.not_after + timedelta(seconds=1)) == "bundle_expired"
    verify_bundle(signed, KEYS, WINDOW.not_before, last=None)
    verify_bundle(signed, KEYS, WINDOW.not_after, last=None)


def test_an_older_bundle_than_the_last_accepted_is_refused(signed: bytes) -> None:
    accepted = verify_bundle(signed, KEYS, NOW, last=None).accepted
    assert verify_bundle(signed, KEYS, NOW, last=accepted).accepted == accepted, "the same again is no older one"
    newer = bundle(version=8).sign(KEY)
    assert verify_bundle(newer, KEYS, NOW, last=accepted).accepted.version == 8
    after = verify_bundle(newer, KEYS, NOW, last=accepted).accepted
    assert refusal(signed, last=after) == "bundle_version_old"
    same_version = bundle(entries=bundle().entries[:1]).sign(KEY)
    assert refusal(same_version, last=accepted) == "bundle_version_old"


# what a writer refuses, and a reader of one who did not


@pytest.mark.parametrize(
    "changes",
    [
        {"entries": ()},
        {"window": Window(NOW, NOW)},
        {"window": Window(NOW, NOW - WEEK)},
        {"window": Window(NOW, NOW + MAX_BUNDLE_LIFE + timedelta(seconds=1))},
    ],
)
def test_a_bundle_of_nothing_or_of_forever_is_not_made(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        bundle(**changes)


def test_entries_stand_in_order_each_once() -> None:
    first, second, third = bundle().entries
    for entries in ((second, first), (first, first), (first, third, second)):
        with pytest.raises(UsageError, match="each name once"):
            bundle(entries=entries)


def test_a_window_wider_than_the_objects_own_is_refused_by_writer_and_reader() -> None:
    own = window_of(parse_name(CRL), crl())
    for wide in (Window(own.not_before, own.not_after + WEEK), Window(own.not_before - WEEK, own.not_after)):
        with pytest.raises(UsageError, match="wider"):
            entry(CRL, crl(), wide)
    assert entry(CRL, crl(), Window(NOW, own.not_after))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda index: index["entries"][0].update(not_after="2030-01-01T00:00:00Z"), "wider"),
        (lambda index: index["entries"][0].update(name="amd/milan/CRL"), "no name"),
        (lambda index: index["entries"][0].update(name=index["entries"][1]["name"]), "json"),
        (lambda index: index["entries"][0].update(size=0), "outside"),
        (lambda index: index["entries"][0].update(size=2**31), "outside"),
        (lambda index: index["entries"][0].update(size=index["entries"][0]["size"] + 1), "digest"),
        (lambda index: index["entries"][-1].update(size=index["entries"][-1]["size"] + 1), "left"),
        (lambda index: index["entries"][-1].update(size=index["entries"][-1]["size"] - 1), "digest"),
        (lambda index: index["entries"][0].update(sha256="00" * 32), "digest"),
        (lambda index: index["entries"][0].update(source="two\nlines"), "control"),
        (lambda index: index["entries"].reverse(), "digest"),
        (lambda index: index["entries"].pop(), "after the end"),
        (lambda index: index.update(entries=[]), "after the end"),
        (lambda index: index.update(version=0), "outside"),
        (lambda index: index.update(v=2), "want 1"),
        (lambda index: index.update(extra=1), "unknown member"),
        (lambda index: index["entries"][0].update(extra=1), "unknown member"),
        (lambda index: index.update(not_after=index["not_before"]), "window"),
        (lambda index: index.update(not_after="2031-01-01T00:00:00Z"), "window"),
    ],
)
def test_an_index_that_does_not_fit_is_malformed_whoever_signed_it(
    change: Callable[[dict[str, Any]], object], why: str
) -> None:
    made = bundle()
    index = json.loads(made.dump_index())
    change(index)
    statement = Statement.sign(KEY, Label.ENDORSEMENTS, dump_json(index)).dump()
    with pytest.raises(Malformed) as caught:
        verify_bundle(_file(statement, b"".join(item.data for item in made.entries)), KEYS, NOW, last=None)
    assert why in caught.value.message or why == "json"


def test_more_entries_or_bytes_than_the_caps_are_refused() -> None:
    index = {"entries": [{}] * (MAX_ENTRIES + 1), "not_after": "x", "not_before": "x", "v": 1, "version": 1}
    with pytest.raises(Malformed):
        BundleFile.parse(_file(dump_json(index), b"", state=0)).read()
    with pytest.raises(Malformed, match="at most"):
        BundleFile.parse(bytes(MAX_BUNDLE_BYTES + 1))
    with pytest.raises(UsageError, match="0 bytes"):
        Entry(name=parse_name(CRL), data=b"", source="", window=WINDOW)
    with pytest.raises(UsageError, match="source"):
        Entry(name=parse_name(CRL), data=crl(), source="x" * 301, window=WINDOW)


def _file(head: bytes, objects: bytes, state: int = 1) -> bytes:
    return b"CLOISTER-ENDORSEMENTS\x00\x01" + bytes((state,)) + lp(head) + objects


@pytest.mark.parametrize("size", [0, 1, 2**31, 2**32 - 1])
def test_a_length_that_points_elsewhere_is_malformed(signed: bytes, size: int) -> None:
    data = signed[:24] + size.to_bytes(4, "big") + signed[28:]
    with pytest.raises((Malformed, Rejected)):
        verify_bundle(data, KEYS, NOW, last=None)


def test_versions_and_states_of_others_are_malformed(signed: bytes) -> None:
    for at, value in ((22, 0), (22, 2), (22, 255), (23, 2), (23, 255)):
        data = bytearray(signed)
        data[at] = value
        with pytest.raises(Malformed):
            BundleFile.parse(bytes(data))


def test_every_byte_cut_off_is_refused() -> None:
    small = bundle(entries=bundle().entries[2:]).sign(KEY)
    verify_bundle(small, KEYS, NOW, last=None)
    for size in range(len(small)):
        with pytest.raises((Malformed, Rejected)):
            verify_bundle(small[:size], KEYS, NOW, last=None)
    with pytest.raises((Malformed, Rejected)):
        verify_bundle(small + b"\x00", KEYS, NOW, last=None)


def test_every_bit_flipped_is_refused() -> None:
    small = bundle(entries=bundle().entries[2:]).sign(KEY)
    for place in range(len(small)):
        data = bytearray(small)
        data[place] ^= 1 << (place % 8)
        with pytest.raises((Malformed, Rejected)):
            verify_bundle(bytes(data), KEYS, NOW, last=None)
