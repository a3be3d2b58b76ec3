"""The log of a TD's boot as the ACPI table CCEL holds it (UEFI 2.10 section 38.4; TCG crypto-agile format).

Each event names a measurement register: 0 is MRTD, 1 to 4 are RTMR0 to RTMR3. The firmware's buffer is longer than the
log and filled with ones (or zeros) behind it. A log explains RTMRs and proves nothing by itself: replayed, it has to
arrive at the quoted values, and even then only digests are proven.

Not done here: what an event means; logs of other banks than SHA-384 (a TD has no other).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from cloister.attest.tpm.algorithms import Alg
from cloister.attest.tpm.eventlog import Event, EventType
from cloister.wire import Reader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.attest.findings import Findings

__all__ = ["MAX_CCEL_BYTES", "RTMRS", "CcelLog", "record_replay", "rtmrs_of"]

MAX_CCEL_BYTES = 384 * 1024  # bytes of one table with its padding: must fit into one evidence
RTMRS: Final = 4
_MAX_EVENTS = 4096
_MAX_EVENT_BYTES = 128 * 1024  # UEFI dbx is the longest seen, below 64 KiB
_DIGEST_BYTES = 48
_NO_REGISTER = 0xFFFFFFFF
_REGISTERS = 1 + RTMRS
_SPEC_ID = b"Spec ID Event03\x00"
_UNUSED = b"\xff" * 8  # where the next event would name its register and type
_ZEROS = bytes(12)  # ... and its count of digests: no event has none


@dataclass(frozen=True, slots=True, kw_only=True)
class CcelLog:
    """One log: every event after the header, with its one digest."""

    events: tuple[Event, ...]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a log to its end or its padding. Raises ``Malformed``."""
        reader = Reader(data, what="tdx event log")
        if len(data) > MAX_CCEL_BYTES:
            reader.fail(f"{len(data)} bytes, want at most {MAX_CCEL_BYTES}")
        _take_header(reader)
        events: list[Event] = []
        while reader.left and not _is_padding(data[reader.position : reader.position + len(_ZEROS)]):
            if len(events) == _MAX_EVENTS:
                reader.fail(f"more than {_MAX_EVENTS} events")
            events.append(_take_event(reader))
        if len(set(reader.rest())) > 1:
            reader.fail("bytes behind the end that are no padding")
        return cls(events=tuple(events))


def _is_padding(front: bytes) -> bool:
    return front[: len(_UNUSED)] == _UNUSED[: len(front)] or front == _ZEROS[: len(front)]


def _take_header(reader: Reader) -> None:
    """Take the first event, which says that there is one bank, SHA-384 (TCG PFP 1.06 section 10.4.5.1)."""
    register, kind = reader.uint(4, little=True), reader.uint(4, little=True)
    if register > 1 or kind != EventType.NO_ACTION:  # firmware differs in whom it says it is about
        reader.fail(f"first event is of type {kind} in register {register}")
    reader.expect(bytes(20))
    inner = Reader(_take_sized(reader), what="tdx event log header")
    inner.expect(_SPEC_ID)
    inner.take(4 + 3 + 1)  # platform class, version, size of UINTN
    if inner.uint(4, little=True) != 1:
        inner.fail("want one bank")
    inner.expect(Alg.SHA384.to_bytes(2, "little") + _DIGEST_BYTES.to_bytes(2, "little"))
    inner.take(inner.u8())  # vendor information
    inner.end()


def _take_event(reader: Reader) -> Event:
    register, kind, count = (reader.uint(4, little=True) for _ in range(3))
    if register >= _REGISTERS and not (register == _NO_REGISTER and kind == EventType.NO_ACTION):
        reader.fail(f"event in register {register}, want at most {_REGISTERS - 1}")
    if count != 1:
        reader.fail(f"event with {count} digests, want 1")
    reader.expect(Alg.SHA384.to_bytes(2, "little"))
    measured = reader.take(_DIGEST_BYTES)
    return Event(pcr=register, kind=kind, digests={Alg.SHA384: measured}, data=_take_sized(reader))


def _take_sized(reader: Reader) -> bytes:
    size = reader.uint(4, little=True)
    if size > _MAX_EVENT_BYTES:
        reader.fail(f"event of {size} bytes, want at most {_MAX_EVENT_BYTES}")
    return reader.take(size)


def rtmrs_of(log: CcelLog) -> tuple[bytes, bytes, bytes, bytes]:
    """Return RTMR0 to RTMR3 of a TD with this log: reference values, or what a quote has to say."""
    found = [bytes(_DIGEST_BYTES)] * _REGISTERS
    for event in log.events:
        if event.kind != EventType.NO_ACTION:  # informative: recorded and never extended
            found[event.pcr] = hashlib.sha384(found[event.pcr] + event.digests[Alg.SHA384]).digest()
    return found[1], found[2], found[3], found[4]


def record_replay(found: Findings, log: CcelLog, rtmrs: Sequence[bytes], chosen: Sequence[int] = range(RTMRS)) -> None:
    """Record whether the log arrives at the quoted RTMRs (``pcr_mismatch``).

    Systems extend RTMR2 and RTMR3 from their own logs too: a log that misses those events does not arrive.
    """
    replayed = rtmrs_of(log)
    for index in chosen:
        same = hmac.compare_digest(replayed[index], rtmrs[index])
        got, want = replayed[index].hex(), rtmrs[index].hex()
        found.expect(same, "pcr_mismatch", f"event log, rtmr {index}", got=got, want=want)
