"""Event logs: replay arrives at the PCRs or the evidence is refused."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace

import pytest

from cloister.attest.tpm.algorithms import Alg
from cloister.attest.tpm.eventlog import MAX_LOG_BYTES, EventLog, replay, secure_boot, verify_replay
from cloister.errors import Malformed, Rejected
from tpm_log import IPL, LOG, NO_ACTION, PCRS, SEPARATOR, VARIABLE, event, extended, header, variable


def test_a_log_comes_back_and_arrives_at_the_pcrs() -> None:
    log = EventLog.parse(LOG)
    assert log.dump() == LOG
    assert replay(log) == {index: value for index, value in PCRS.items() if index != 23}
    assert verify_replay(log, PCRS) == {0, 4, 7}
    assert secure_boot(log) is True


def test_every_event_tampered_with_is_refused() -> None:
    log = EventLog.parse(LOG)
    for position, item in enumerate(log.events):
        for bad in (altered(log, position), without(log, position), repeated(log, position)):
            with pytest.raises(Rejected) as refused:
                verify_replay(EventLog.parse(bad), PCRS)
            assert refused.value.code == "pcr_mismatch"
            assert f"pcr {item.pcr}" in refused.value.message


def altered(log: EventLog, position: int) -> bytes:
    item = log.events[position]
    other = replace(item, digests=dict(item.digests) | {Alg.SHA256: bytes(32)})
    return replace(log, events=(*log.events[:position], other, *log.events[position + 1 :])).dump()


def without(log: EventLog, position: int) -> bytes:
    kept = [item for at, item in enumerate(log.events) if at != position]
    # an empty PCR would not be explained at all: another event takes the place
    return log.header + b"".join(item.dump() for item in kept) + event(log.events[position].pcr, IPL, b"other")


def repeated(log: EventLog, position: int) -> bytes:
    return log.dump() + log.events[position].dump()


def test_events_in_another_order_are_refused() -> None:
    swapped = header() + event(0, SEPARATOR, bytes(4)) + event(0, 8, b"firmware")
    with pytest.raises(Rejected, match="pcr 0"):
        verify_replay(EventLog.parse(swapped), PCRS)


def test_a_log_with_nothing_in_it_explains_nothing() -> None:
    assert verify_replay(EventLog.parse(header()), PCRS) == frozenset()


def test_pcrs_that_were_not_quoted_are_not_compared() -> None:
    log = EventLog.parse(LOG + event(9, IPL, b"kernel"))
    assert verify_replay(log, PCRS) == {0, 4, 7}
    assert EventLog.parse(log.only([4]).dump()).events == (log.events[4],)


def test_data_is_proven_only_where_its_digest_is_over_it() -> None:
    log = EventLog.parse(LOG)
    assert [item.proves_data(Alg.SHA256) for item in log.events] == [True, True, True, True, False]


@pytest.mark.parametrize(
    ("events", "want"),
    [
        ((event(7, VARIABLE, variable("SecureBoot", b"\0")),), False),
        ((event(7, VARIABLE, variable("SecureBoot", b"")),), False),
        ((event(7, VARIABLE, variable("SecureBoot", b"\1")), event(7, VARIABLE, variable("SecureBoot", b"\0"))), False),
        # an operating system that adds what firmware did not say comes after the separator
        ((event(7, SEPARATOR, bytes(4)), event(7, VARIABLE, variable("SecureBoot", b"\1"))), None),
        # data that its digest does not prove
        ((event(7, VARIABLE, variable("SecureBoot", b"\1"), over=variable("SecureBoot", b"\0")),), None),
        ((event(7, VARIABLE, variable("SecureBoot", b"\1", bytes(16))),), None),
        ((event(7, VARIABLE, variable("SetupMode", b"\1")),), None),
        ((event(1, VARIABLE, variable("SecureBoot", b"\1")),), None),
        ((), None),
    ],
)
def test_secure_boot_is_what_firmware_measured_and_nothing_else(events: tuple[bytes, ...], want: bool | None) -> None:  # noqa: FBT001
    let_go = event(7, SEPARATOR, bytes(4))
    assert secure_boot(EventLog.parse(header() + b"".join(events) + let_go)) is want


def test_a_variable_out_of_form_is_malformed() -> None:
    data = variable("SecureBoot", b"\1")[:-1]
    with pytest.raises(Malformed, match="uefi variable"):
        secure_boot(EventLog.parse(header() + event(7, VARIABLE, data)))


def test_pcr_0_starts_with_the_startup_locality() -> None:
    locality = event(0, NO_ACTION, b"StartupLocality\0\x03")
    log = EventLog.parse(header() + locality + event(0, 8, b"firmware"))
    assert replay(log)[0] == extended(b"firmware", start=bytes(31) + b"\x03")
    for bad in (b"\x05", b"", b"\x03\x03"):
        with pytest.raises(Malformed, match="locality"):
            replay(EventLog.parse(header() + event(0, NO_ACTION, b"StartupLocality\0" + bad) + event(0, 8, b"x")))


def test_dynamic_pcrs_start_with_ones() -> None:
    assert replay(EventLog.parse(header() + event(17, 8, b"x")))[17] == extended(b"x", start=b"\xff" * 32)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "left"),
        (LOG + b"\0", "left"),
        (LOG[:-1], "left"),
        (bytes(32), "want"),
        (header(banks=()), "0 banks"),
        (header(banks=((0x0B, 32),) * 2), "twice"),
        (header(banks=((0x0B, 20),)), "of 20 bytes"),
        (header(banks=((0x99, 0),)), "of 0 bytes"),
        (header(banks=tuple((0x90 + i, 32) for i in range(9))), "9 banks"),
        (header() + event(24, 8, b""), "pcr 24"),
        (header() + event(0xFFFFFFFF, 8, b""), "pcr 4294967295"),
        (header() + struct.pack("<III", 0, 8, 1) + bytes(64), "one digest for each"),
        (header() + struct.pack("<III", 0, 8, 2) + 2 * (struct.pack("<H", 4) + bytes(20)) + bytes(4), "twice"),
        (header() + event(0, 8, b"")[:-4] + b"\xff\xff\xff\xff", "4294967295 bytes"),
        (bytes(MAX_LOG_BYTES + 1), "at most"),
        (header() + event(0, 8, b"") * 4097, "more than 4096"),
    ],
)
def test_logs_out_of_form_are_malformed(data: bytes, word: str) -> None:
    with pytest.raises(Malformed, match=word):
        EventLog.parse(data)


def test_a_log_without_our_bank_is_malformed_when_replayed() -> None:
    log = EventLog.parse(header(banks=((4, 20),)))
    with pytest.raises(Malformed, match="SHA256"):
        replay(log)


def test_banks_nobody_knows_and_events_of_no_pcr_are_carried() -> None:
    data = header(banks=((0x12, 32), (0x0B, 32)), vendor=b"vendor")
    digests = struct.pack("<H", 0x12) + bytes(32) + struct.pack("<H", 0x0B) + hashlib.sha256(b"x").digest()
    data += struct.pack("<III", 1, 8, 2) + digests + struct.pack("<I", 1) + b"x"
    data += struct.pack("<III", 0xFFFFFFFF, NO_ACTION, 2) + digests + struct.pack("<I", 0)
    log = EventLog.parse(data)
    assert log.dump() == data
    assert replay(log) == {1: extended(b"x")}
