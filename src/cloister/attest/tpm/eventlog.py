"""The firmware's event log, parsed and replayed (TCG PC Client Platform Firmware Profile 1.06 section 10).

A log explains PCRs and proves nothing by itself: replayed, it must arrive at the values a TPM quoted.
Even then only digests are proven; the data of an event is proven where its digest is over that data.

Not done here: what an event means, but for Secure Boot, which policies ask for.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cloister.attest.tpm.algorithms import DIGEST_BYTES, Alg, digest
from cloister.attest.tpm.policy import extend
from cloister.attest.tpm.structures import PCR_COUNT
from cloister.errors import Malformed, Rejected
from cloister.wire import Reader

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["MAX_LOG_BYTES", "Event", "EventLog", "EventType", "replay", "secure_boot", "verify_replay"]

MAX_LOG_BYTES = 384 * 1024  # bytes of one log: must fit into one evidence
_MAX_EVENTS = 4096
_MAX_EVENT_BYTES = 128 * 1024  # UEFI dbx is the longest seen, below 64 KiB
_MAX_BANKS = 8
_NO_PCR = 0xFFFFFFFF
_SPEC_ID = b"Spec ID Event03\x00"
_LOCALITY = b"StartupLocality\x00"
_LOCALITIES = (0, 3, 4)
_DYNAMIC = range(17, 23)  # reset to ones, and to zero by a dynamic launch (PTP 1.05 section 4.6.2)
_HEADER_DIGEST = bytes(20)
_SECURE_BOOT_PCR = 7
_GLOBAL_VARIABLE = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")  # EFI_GLOBAL_VARIABLE, UEFI 2.10 section 3.3
_SECURE_BOOT = "SecureBoot".encode("utf-16-le")
_SEPARATORS = (bytes(4), b"\xff" * 4, (1).to_bytes(4, "little"))  # section 10.4.1: normal, either, or an error


class EventType:
    """Event types the replay looks at (section 10.4.1)."""

    NO_ACTION = 0x00000003
    SEPARATOR = 0x00000004
    VARIABLE_DRIVER_CONFIG = 0x80000001


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One TCG_PCR_EVENT2: ``digests`` by algorithm number, for banks we know and those we do not."""

    pcr: int
    kind: int
    digests: Mapping[int, bytes]
    data: bytes

    def proves_data(self, bank: Alg) -> bool:
        """Tell whether the digest is over the data, so that whoever proves the one proves the other."""
        return hmac.compare_digest(self.digests[bank], digest(bank, self.data))

    def dump(self) -> bytes:
        """Return the event as the firmware writes it."""
        entries = b"".join(_le(alg, 2) + value for alg, value in self.digests.items())
        head = _le(self.pcr, 4) + _le(self.kind, 4) + _le(len(self.digests), 4)
        return head + entries + _le(len(self.data), 4) + self.data


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLog:
    """A crypto-agile log: ``header`` is its first event, kept as bytes; ``banks`` digest sizes by algorithm number."""

    header: bytes
    banks: Mapping[int, int]
    events: tuple[Event, ...]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a log to its end. Raises ``Malformed``, also for the SHA-1 format of before 2016."""
        if len(data) > MAX_LOG_BYTES:
            msg = f"event log: {len(data)} bytes, want at most {MAX_LOG_BYTES}"
            raise Malformed(msg)
        reader = Reader(data, what="event log")
        banks = _take_header(reader)
        header = data[: reader.position]
        events: list[Event] = []
        while reader.left:
            if len(events) == _MAX_EVENTS:
                reader.fail(f"more than {_MAX_EVENTS} events")
            events.append(_take_event(reader, banks))
        return cls(header=header, banks=banks, events=tuple(events))

    def dump(self) -> bytes:
        """Return the log."""
        return self.header + b"".join(event.dump() for event in self.events)

    def only(self, pcrs: Collection[int]) -> Self:
        """Return the log without events of other PCRs: those replay as before."""
        kept = tuple(event for event in self.events if event.pcr in pcrs or event.kind == EventType.NO_ACTION)
        return type(self)(header=self.header, banks=self.banks, events=kept)


def _le(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")


def _take_header(reader: Reader) -> dict[int, int]:
    """Return digest sizes by algorithm from TCG_EfiSpecIDEvent (section 10.4.5.1)."""
    reader.expect(_le(0, 4) + _le(EventType.NO_ACTION, 4) + _HEADER_DIGEST)
    size = reader.uint(4, little=True)
    if size > _MAX_EVENT_BYTES:
        reader.fail(f"header of {size} bytes")
    inner = Reader(reader.take(size), what="event log header")
    inner.expect(_SPEC_ID)
    inner.take(4 + 3 + 1)  # platform class, version, size of UINTN
    count = inner.uint(4, little=True)
    if not 0 < count <= _MAX_BANKS:
        inner.fail(f"{count} banks, want 1 to {_MAX_BANKS}")
    banks: dict[int, int] = {}
    for _ in range(count):
        number, width = inner.uint(2, little=True), inner.uint(2, little=True)
        if number in banks or not 0 < width <= DIGEST_BYTES[Alg.SHA512]:
            inner.fail(f"bank {number:#06x} twice or of {width} bytes")
        if DIGEST_BYTES.get(_known(number), width) != width:
            inner.fail(f"bank {number:#06x} of {width} bytes")
        banks[number] = width
    inner.take(inner.u8())  # vendor information
    inner.end()
    return banks


def _known(number: int) -> Alg:
    return Alg(number) if number in tuple(DIGEST_BYTES) else Alg.NULL


def _take_event(reader: Reader, banks: Mapping[int, int]) -> Event:
    pcr, kind = reader.uint(4, little=True), reader.uint(4, little=True)
    if pcr >= PCR_COUNT and not (pcr == _NO_PCR and kind == EventType.NO_ACTION):
        reader.fail(f"event in pcr {pcr}")
    if reader.uint(4, little=True) != len(banks):
        reader.fail(f"event without one digest for each of {len(banks)} banks")
    digests: dict[int, bytes] = {}
    for _ in banks:
        number = reader.uint(2, little=True)
        if number in digests or number not in banks:
            reader.fail(f"digest for bank {number:#06x} twice or undeclared")
        digests[number] = reader.take(banks[number])
    size = reader.uint(4, little=True)
    if size > _MAX_EVENT_BYTES:
        reader.fail(f"event of {size} bytes, want at most {_MAX_EVENT_BYTES}")
    return Event(pcr=pcr, kind=kind, digests=digests, data=reader.take(size))


def _start(log: EventLog, pcr: int, bank: Alg) -> bytes:
    """Return the value a PCR starts with (section 10.4.5.3: PCR 0 starts with the locality of TPM2_Startup)."""
    size = DIGEST_BYTES[bank]
    if pcr in _DYNAMIC:
        return b"\xff" * size
    if pcr == 0:
        for event in log.events:
            if event.kind == EventType.NO_ACTION and event.data[: len(_LOCALITY)] == _LOCALITY:
                locality = event.data[len(_LOCALITY) :]
                if len(locality) != 1 or locality[0] not in _LOCALITIES:
                    msg = "event log: startup locality out of form"
                    raise Malformed(msg)
                return bytes(size - 1) + locality
    return bytes(size)


def replay(log: EventLog, *, bank: Alg = Alg.SHA256) -> dict[int, bytes]:
    """Return the PCRs a machine with this log has, for those PCRs that have events.

    Raises ``Malformed`` for a log without digests of ``bank``.
    """
    if bank not in log.banks:
        msg = f"event log: no digests for {bank.name}"
        raise Malformed(msg)
    pcrs: dict[int, bytes] = {}
    for event in log.events:
        if event.kind != EventType.NO_ACTION:  # informative: recorded and never extended
            before = pcrs[event.pcr] if event.pcr in pcrs else _start(log, event.pcr, bank)
            pcrs[event.pcr] = extend(before, event.digests[bank], bank=bank)
    return pcrs


def verify_replay(log: EventLog, pcrs: Mapping[int, bytes]) -> frozenset[int]:
    """Prove that the log arrives at the SHA-256 ``pcrs`` a TPM quoted; return the PCRs it explains.

    Each quoted PCR that has events must be met, whoever wrote them; a PCR without events is not
    explained. Raises ``Rejected`` (``pcr_mismatch``), naming the first.
    """
    replayed = replay(log)
    for index in sorted(replayed.keys() & pcrs.keys()):
        if not hmac.compare_digest(replayed[index], pcrs[index]):
            raise Rejected.because(
                "pcr_mismatch", f"event log, pcr {index}", got=replayed[index].hex(), want=pcrs[index].hex()
            )
    return frozenset(replayed.keys() & pcrs.keys())


def secure_boot(log: EventLog, *, bank: Alg = Alg.SHA256) -> bool | None:
    """Return whether the firmware measured Secure Boot as on; None where it measured nothing about it, or never let go.

    For a log that ``verify_replay`` has explained PCR 7 with, in ``bank``. Looks only at what the firmware measured
    before it let go (the separator), and only at data its digest proves (section 3.3.4.8). No digest covers what kind
    an event is said to be, so the separator is known by what it measures: whoever runs the system may measure more
    behind it, and name every event anew.
    """
    found: list[bool] = []
    separators = {digest(bank, data) for data in _SEPARATORS}
    for event in log.events:
        if event.pcr != _SECURE_BOOT_PCR:
            continue
        if event.digests[bank] in separators:
            return all(found) if found else None
        if event.kind == EventType.VARIABLE_DRIVER_CONFIG and event.proves_data(bank):
            name, value = _variable(event.data)
            if name == (_GLOBAL_VARIABLE, _SECURE_BOOT):
                found.append(value == b"\x01")
    return None


def _variable(data: bytes) -> tuple[tuple[bytes, bytes], bytes]:
    """Return identity and value of a UEFI_VARIABLE_DATA (section 10.2.6)."""
    reader = Reader(data, what="event log: uefi variable")
    vendor = reader.take(16)
    characters, size = reader.uint(8, little=True), reader.uint(8, little=True)
    name = reader.take(2 * characters)
    value = reader.take(size)
    reader.end()
    return (vendor, name), value
