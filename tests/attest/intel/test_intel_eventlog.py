"""Boot logs of TDs: what is extended, where a log ends, what it arrives at."""

from __future__ import annotations

import hashlib

import pytest

from cloister.attest.findings import Findings
from cloister.attest.intel.eventlog import MAX_CCEL_BYTES, CcelLog, record_replay, rtmrs_of
from cloister.errors import Malformed, Rejected
from cloister.testing.vendors.intel.eventlogs import ccel

EVENTS = [(1, b"firmware"), (1, b"variables"), (2, b"kernel"), (4, b"container")]
ZERO = bytes(48)


def extended(*measured: bytes) -> bytes:
    value = ZERO
    for data in measured:
        value = hashlib.sha384(value + hashlib.sha384(data).digest()).digest()
    return value


def test_each_register_is_extended_by_its_own_events_in_order() -> None:
    assert rtmrs_of(CcelLog.parse(ccel(EVENTS))) == (
        extended(b"firmware", b"variables"),
        extended(b"kernel"),
        ZERO,
        extended(b"container"),
    )


@pytest.mark.parametrize("padding", [b"\xff", b"\x00"])
def test_padding_of_the_table_ends_the_log(padding: bytes) -> None:
    plain = CcelLog.parse(ccel(EVENTS))
    size = len(ccel(EVENTS))
    for extra in (1, 3, 7, 8, 11, 12, 13, 4096):
        assert CcelLog.parse(ccel(EVENTS, size=size + extra, padding=padding)) == plain


def test_bytes_behind_the_padding_are_malformed() -> None:
    with pytest.raises(Malformed, match="padding"):
        CcelLog.parse(ccel(EVENTS, size=2000) + b"\x01")


def test_informative_events_are_not_extended() -> None:
    log = bytearray(ccel([(1, b"note")]))
    at = log.rindex((13).to_bytes(4, "little"))
    log[at : at + 4] = (3).to_bytes(4, "little")
    assert rtmrs_of(CcelLog.parse(bytes(log)))[0] == ZERO


def test_an_informative_event_may_be_about_no_register() -> None:
    log = bytearray(ccel([(1, b"note")]))
    at = len(ccel([]))
    log[at : at + 8] = b"\xff" * 4 + (3).to_bytes(4, "little")
    assert rtmrs_of(CcelLog.parse(bytes(log))) == (ZERO,) * 4


def test_a_log_cut_at_any_byte_is_malformed_or_a_shorter_log() -> None:
    whole = ccel(EVENTS)
    arrived = rtmrs_of(CcelLog.parse(whole))
    for size in range(len(whole)):
        try:
            assert rtmrs_of(CcelLog.parse(whole[:size])) != arrived
        except Malformed:
            continue


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Spec ID Event03", b"Spec ID Event02"),
        (b"\x0c\x00\x30\x00", b"\x0b\x00\x20\x00"),
        (b"\x01\x00\x00\x00\x0c\x00\x30", b"\x02\x00\x00\x00\x0c\x00\x30"),
        ((1).to_bytes(4, "little") + (3).to_bytes(4, "little"), (2).to_bytes(4, "little") + (3).to_bytes(4, "little")),
    ],
    ids=["older format", "another bank", "two banks", "another register"],
)
def test_logs_of_another_kind_are_malformed(old: bytes, new: bytes) -> None:
    whole = ccel(EVENTS)
    assert old in whole
    with pytest.raises(Malformed):
        CcelLog.parse(whole.replace(old, new, 1))


@pytest.mark.parametrize(
    ("at", "value"),
    [(0, 5), (8, 0), (8, 2), (12, 0x0B), (62, 0xFFFFFFFF)],
    ids=["register", "none", "two", "bank", "size"],
)
def test_an_event_out_of_form_is_malformed(at: int, value: int) -> None:
    log = bytearray(ccel([(1, b"x")]))
    first = len(ccel([]))
    size = 2 if at == 12 else 4
    log[first + at : first + at + size] = value.to_bytes(size, "little")
    with pytest.raises(Malformed):
        CcelLog.parse(bytes(log))


def test_too_many_events_and_too_many_bytes_are_malformed() -> None:
    with pytest.raises(Malformed, match="more than"):
        CcelLog.parse(ccel([(1, b"")] * 4097))
    with pytest.raises(Malformed, match="want at most"):
        CcelLog.parse(ccel([], size=MAX_CCEL_BYTES + 1))


def test_replay_names_each_register_it_does_not_arrive_at() -> None:
    log = CcelLog.parse(ccel(EVENTS))
    good = rtmrs_of(log)
    found = Findings("log")
    record_replay(found, log, good)
    assert len(found.settle()) == 4
    found = Findings("log")
    record_replay(found, log, (good[0], ZERO, good[2], ZERO))
    with pytest.raises(Rejected) as refusal:
        found.settle()
    assert [(reason.code, reason.subject) for reason in refusal.value.reasons] == [
        ("pcr_mismatch", "event log, rtmr 1"),
        ("pcr_mismatch", "event log, rtmr 3"),
    ]
