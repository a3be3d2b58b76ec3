"""Quotes of versions 3, 4 and 5.

Sources: Intel SGX ECDSA Quote Library API, appendix A; Intel TDX DCAP Quoting Library API, appendix A.3.

    quote = header 48 | body | length u32 | signature data
    v3 body = enclave report; v4 body by tee type; v5 body = type u16 | size u32 | report

Integers are little-endian. Bytes after the quote are allowed (drivers pad their buffers) and never looked at.

Not done here: any signature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from cloister.attest.intel.enclave import ENCLAVE_REPORT_BYTES, EnclaveReport
from cloister.attest.intel.td import TD10_BYTES, TD15_BYTES, TD15EX_BYTES, TdReport
from cloister.errors import Rejected
from cloister.wire import Reader

__all__ = ["INTEL_QE_VENDOR", "MAX_QUOTE_BYTES", "TEE_SGX", "TEE_TDX", "Quote"]

MAX_QUOTE_BYTES = 32 * 1024  # bytes of one quote with padding; 5 KiB and buffers of 8 KiB are usual
_MAX_AUTH_BYTES = 24 * 1024  # bytes of signature data; three certificates in PEM are most of it

TEE_SGX: Final = 0x00
TEE_TDX: Final = 0x81
INTEL_QE_VENDOR: Final = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_ECDSA_P256 = 2
_V3, _V4, _V5 = 3, 4, 5
_PCK_CHAIN = 5  # concatenated PCK certificate chain, PEM
_QE_REPORT = 6  # QE report and its own certification data
_BODIES = {
    1: (TEE_SGX, ENCLAVE_REPORT_BYTES),
    2: (TEE_TDX, TD10_BYTES),
    3: (TEE_TDX, TD15_BYTES),
    4: (TEE_TDX, TD15EX_BYTES),
}
"""Tee and size of a body by its type in version 5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """One quote, unverified. ``signed`` is what the attestation key signs; ``raw`` ends where the quote does.

    ``pck_chain`` is PEM, the leaf first. ``qe_svn`` and ``pce_svn`` of the header are advice: what counts is certified.
    """

    raw: bytes
    signed: bytes
    version: int
    tee: int
    body_type: int
    qe_svn: int
    pce_svn: int
    qe_vendor: bytes
    user_data: bytes
    body: EnclaveReport | TdReport
    signature: bytes
    attestation_key: bytes
    qe_report: EnclaveReport
    qe_signature: bytes
    qe_auth: bytes
    pck_chain: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse one quote at the front of ``data``.

        Raises ``Malformed``; ``Rejected`` (``unsupported_format``) for a version, attestation key or certification
        data that we do not verify: without the certificate chain inside nobody can say whose quote it is.
        """
        reader = Reader(data, what="quote")
        if len(data) > MAX_QUOTE_BYTES:
            reader.fail(f"{len(data)} bytes, want at most {MAX_QUOTE_BYTES}")
        version, key_type, tee = (reader.uint(size, little=True) for size in (2, 2, 4))
        _demand(version in (_V3, _V4, _V5), "quote version", version, "3, 4 or 5")
        _demand(key_type == _ECDSA_P256, "attestation key type", key_type, "2: ecdsa p-256")
        _demand(tee == TEE_SGX or (tee == TEE_TDX and version != _V3), "tee type", tee, "0, or 129 from version 4")
        qe_svn, pce_svn = reader.uint(2, little=True), reader.uint(2, little=True)
        qe_vendor, user_data = reader.take(16), reader.take(20)
        body_type, size = _take_body_type(reader, version, tee)
        body = reader.take(size)
        signed = data[: reader.position]
        auth = _take_sized(reader, 4, cap=_MAX_AUTH_BYTES)
        raw = data[: reader.position]
        inner = Reader(auth, what="quote signature data")
        signature, attestation_key = inner.take(64), inner.take(64)
        if version != _V3:
            inner = Reader(_take_certification(inner, _QE_REPORT), what="quote qe report data")
        qe_report, qe_signature = inner.take(ENCLAVE_REPORT_BYTES), inner.take(64)
        qe_auth = _take_sized(inner, 2, cap=_MAX_AUTH_BYTES)
        pck_chain = _take_certification(inner, _PCK_CHAIN)
        return cls(
            raw=raw,
            signed=signed,
            version=version,
            tee=tee,
            body_type=body_type,
            qe_svn=qe_svn,
            pce_svn=pce_svn,
            qe_vendor=qe_vendor,
            user_data=user_data,
            body=EnclaveReport.parse(body) if tee == TEE_SGX else TdReport.parse(body),
            signature=signature,
            attestation_key=attestation_key,
            qe_report=EnclaveReport.parse(qe_report),
            qe_signature=qe_signature,
            qe_auth=qe_auth,
            pck_chain=pck_chain,
        )


def _demand(holds: bool, subject: str, got: int, want: str) -> None:  # noqa: FBT001 - the finding itself
    if not holds:
        raise Rejected.because("unsupported_format", subject, got=str(got), want=want)


def _take_body_type(reader: Reader, version: int, tee: int) -> tuple[int, int]:
    """Return type and size of the body; before version 5 they follow from the tee."""
    if version != _V5:
        return (1, ENCLAVE_REPORT_BYTES) if tee == TEE_SGX else (2, TD10_BYTES)
    body_type, size = reader.uint(2, little=True), reader.uint(4, little=True)
    _demand(body_type in _BODIES, "quote body type", body_type, "1 to 4")
    if _BODIES[body_type] != (tee, size):
        reader.fail(f"body type {body_type} of {size} bytes for tee {tee:#x}, want {_BODIES[body_type][1]}")
    return body_type, size


def _take_sized(reader: Reader, size_bytes: int, *, cap: int) -> bytes:
    size = reader.uint(size_bytes, little=True)
    if size > cap:
        reader.fail(f"part of {size} bytes at {reader.position}, want at most {cap}")
    return reader.take(size)


def _take_certification(reader: Reader, want: int) -> bytes:
    """Take certification data of type ``want`` to the end of its container."""
    kind = reader.uint(2, little=True)
    _demand(kind == want, "certification data type", kind, str(want))
    data = _take_sized(reader, 4, cap=_MAX_AUTH_BYTES)
    reader.end()
    return data
