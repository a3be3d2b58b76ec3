"""SPDM 1.1 GET_MEASUREMENTS and MEASUREMENTS, as the driver returns them (DMTF DSP0274 1.1.0, section of that name).

    report = request 37 | response
    request = 11 E0 | param1 01 | param2 FF | nonce 32 | slot 1
    response = 11 60 | param1 | param2 | blocks u8 | record length u24 | record | nonce 32 | opaque length u16 | opaque
               | signature 96
    record = blocks * (index u8 | specification 01 | size u16 | type u8 | value size u16 | value)

Integers are little-endian. The signature is over everything before it. The nonce that proves freshness is the one in
the *request*; the one in the response is the device's own.

Not done here: the signature (``report``), what opaque fields mean (``opaque``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.errors import Rejected
from cloister.wire import Reader

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_REPORT_BYTES", "NONCE_BYTES", "SIGNATURE_BYTES", "Measurement", "Request", "Response", "take_messages"]

MAX_REPORT_BYTES = 16 * 1024  # bytes; NVML's own buffer has 8 KiB (nvml.h, NVML_CC_GPU_ATTESTATION_REPORT_SIZE)
NONCE_BYTES = 32
SIGNATURE_BYTES = 96  # r || s of P-384
_VERSION_11 = 0x11
_GET_MEASUREMENTS, _MEASUREMENTS = 0xE0, 0x60
_SIGNATURE_REQUESTED = 0x01
_ALL_BLOCKS = 0xFF
_SLOT_MASK = 0x0F
_DMTF = 0x01  # the measurement specification that all blocks follow
_VALUE_HEADER_BYTES = 3
_RAW = 0x80  # bit 7 of the value type: the value itself and no digest of it
_MAX_RECORD_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the device was asked: every measurement block, signed, with this nonce."""

    nonce: bytes
    slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One block. ``kind`` is the DMTF value type without its highest bit; ``raw`` says that ``value`` is no digest."""

    index: int
    kind: int
    raw: bool
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What the device answered. ``measurements`` by block index, from 1."""

    slot: int
    measurements: Mapping[int, Measurement]
    nonce: bytes
    opaque: bytes
    signature: bytes


def take_messages(reader: Reader) -> tuple[Request, Response]:
    """Take both messages to their end.

    Raises ``Malformed``; ``Rejected`` (``unsupported_format``) for another version of SPDM or another question.
    """
    request = _take_request(reader)
    response = _take_response(reader)
    if response.slot != request.slot:
        reader.fail(f"answer from slot {response.slot}, asked for {request.slot}")
    return request, response


def _take_header(reader: Reader, code: int, what: str) -> None:
    version = reader.u8()
    if version != _VERSION_11:
        raise Rejected.because("unsupported_format", f"spdm {what}", got=f"version {version:#04x}", want="0x11")
    got = reader.u8()
    if got != code:
        reader.fail(f"{what} code {got:#04x}, want {code:#04x}")


def _take_request(reader: Reader) -> Request:
    _take_header(reader, _GET_MEASUREMENTS, "request")
    attributes = reader.u8()
    if attributes != _SIGNATURE_REQUESTED:
        reader.fail(f"request attributes {attributes:#04x}, want a signature requested")
    operation = reader.u8()
    if operation != _ALL_BLOCKS:
        raise Rejected.because(
            "unsupported_format", "spdm request", got=f"operation {operation:#04x}", want="all measurement blocks"
        )
    return Request(nonce=reader.take(NONCE_BYTES), slot=reader.u8() & _SLOT_MASK)


def _take_response(reader: Reader) -> Response:
    _take_header(reader, _MEASUREMENTS, "response")
    reader.u8()  # param1: reserved for this operation
    slot = reader.u8() & _SLOT_MASK
    count = reader.u8()
    size = reader.uint(3, little=True)
    if size > _MAX_RECORD_BYTES:
        reader.fail(f"measurement record of {size} bytes, want at most {_MAX_RECORD_BYTES}")
    measurements = _take_record(Reader(reader.take(size), what="spdm measurement record"), count)
    nonce = reader.take(NONCE_BYTES)
    opaque = reader.take(reader.uint(2, little=True))
    signature = reader.take(SIGNATURE_BYTES)
    reader.end()
    return Response(slot=slot, measurements=measurements, nonce=nonce, opaque=opaque, signature=signature)


def _take_record(reader: Reader, count: int) -> dict[int, Measurement]:
    if count == 0:
        reader.fail("no measurement block")
    blocks: dict[int, Measurement] = {}
    for _ in range(count):
        index = reader.u8()
        if index == 0 or index in blocks:
            reader.fail(f"block index {index} is 0 or twice")
        specification = reader.u8()
        if specification != _DMTF:
            reader.fail(f"block {index}: specification {specification:#04x}, want {_DMTF:#04x}")
        size = reader.uint(2, little=True)
        kind = reader.u8()
        value = reader.take(reader.uint(2, little=True))
        if size != len(value) + _VALUE_HEADER_BYTES:
            reader.fail(f"block {index}: {size} bytes around a value of {len(value)}")
        blocks[index] = Measurement(index=index, kind=kind & ~_RAW, raw=bool(kind & _RAW), value=value)
    reader.end()
    return blocks
