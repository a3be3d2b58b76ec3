"""Attestation documents of an AWS Nitro enclave, from its security module ``/dev/nsm``.

Linux, include/uapi/linux/nsm.h: one ioctl carries a CBOR request and its answer. AWS, aws-nitro-enclaves-nsm-api,
attestation_process.md: ``{"Attestation": {"user_data", "nonce", "public_key"}}``.
"""

from __future__ import annotations

import ctypes
from io import BytesIO
from typing import TYPE_CHECKING, Final

import cbor2

from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence, TeeKind
from cloister.enclave.attesters.field import demand_field
from cloister.enclave.attesters.files import cannot
from cloister.errors import Malformed, Rejected

if TYPE_CHECKING:
    from cloister.enclave.attesters.files import Devices

__all__ = ["NSM", "NsmAttester", "parse_answer"]

NSM = "dev/nsm"
NSM_IOCTL_RAW = 0xC0200A00  # _IOWR(0x0A, 0, struct nsm_raw), which has 32 bytes
MAX_RESPONSE_BYTES = 0x3000  # NSM_RESPONSE_MAX_SIZE
_MAX_ERROR_CHARS = 64
_REPORT_DATA_BYTES = 64


class Raw(ctypes.Structure):
    """struct nsm_raw: where the request is and where the answer goes; the kernel writes the answer's length."""

    _fields_ = (
        ("request_address", ctypes.c_uint64),
        ("request_length", ctypes.c_uint64),
        ("response_address", ctypes.c_uint64),
        ("response_length", ctypes.c_uint64),
    )


class NsmAttester:
    """Attestation documents of a Nitro enclave.

    Contract of ``collect``: ``UsageError`` for report data that are not 64 bytes; ``Unavailable`` where the device
    is missing or may not be used; ``Rejected`` (``tee_refused``) where the module says no, with its word;
    ``Malformed`` for an answer out of form.
    """

    tee: Final = TeeKind("nitro")
    report_data_bytes: Final = _REPORT_DATA_BYTES

    def __init__(self, devices: Devices) -> None:
        """Ask the module under the root of ``devices``."""
        self._devices = devices

    def collect(self, report_data: bytes) -> Evidence:
        """Return a document whose ``user_data`` are ``report_data``; see the class for what is raised."""
        demand_field(report_data, _REPORT_DATA_BYTES, what="nitro report data")
        asked = {"Attestation": {"user_data": report_data, "nonce": None, "public_key": None}}
        document = parse_answer(self._exchange(cbor2.dumps(asked)))
        return Evidence(tee=self.tee, payload=dump_parts({"document": document}))

    def _exchange(self, request: bytes) -> bytes:
        sent = ctypes.create_string_buffer(request, len(request))
        room = ctypes.create_string_buffer(MAX_RESPONSE_BYTES)
        raw = Raw(
            request_address=ctypes.addressof(sent),
            request_length=len(request),
            response_address=ctypes.addressof(room),
            response_length=MAX_RESPONSE_BYTES,
        )
        try:
            with self._devices.device(NSM) as device:
                device.ioctl(NSM_IOCTL_RAW, raw)
        except OSError as exc:
            raise cannot(f"nsm: /{NSM}", exc) from exc
        if raw.response_length > MAX_RESPONSE_BYTES:
            msg = f"nsm response: {raw.response_length} bytes, want at most {MAX_RESPONSE_BYTES}"
            raise Malformed(msg)
        return room.raw[: raw.response_length]


def parse_answer(answer: bytes) -> bytes:
    """Return the document out of the module's answer. Raises ``Malformed``, ``Rejected`` (``tee_refused``)."""
    stream = BytesIO(answer)
    try:
        value = cbor2.load(stream)
    except (cbor2.CBORError, ValueError, OverflowError, RecursionError) as exc:
        msg = "nsm response: not cbor"
        raise Malformed(msg) from exc
    match value:
        case {"Error": str(word)}:
            shown = word[:_MAX_ERROR_CHARS] if word.isprintable() else "an unprintable word"
            raise Rejected.because("tee_refused", "nsm", got=shown)
        case {"Attestation": {"document": bytes(document)}} if stream.tell() == len(answer):
            return document
    msg = "nsm response: no attestation document"
    raise Malformed(msg)
