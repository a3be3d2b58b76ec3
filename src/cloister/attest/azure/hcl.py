"""The attestation report of Azure's paravisor (HCL, OpenHCL), as it lies in NV index 0x01400001.

    header 32 | hardware report 1184 | runtime data header 20 | runtime claims (JSON) | zeros

Little-endian. Layout: microsoft/openvmm, openhcl_attestation_protocol/src/igvm_attest/get.rs
(IgvmAttestRequestBase, IgvmAttestRequestData) and "Confidential VM guest attestation design detail" of the
Azure documentation. The claims are kept as the exact bytes: their digest is what the hardware signed.

Not done here: comparing that digest, and believing any of it (``schemes/azure_vtpm``).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Self

from cryptography.hazmat.primitives.asymmetric import rsa

from cloister.errors import Malformed, Rejected
from cloister.wire import Fields, Json, Reader

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_HCL_BYTES", "HardwareKind", "HclReport", "RuntimeClaims"]

MAX_HCL_BYTES = 8192  # bytes of one report; the NV index holds 2,600
MAX_CLAIMS_BYTES = 4096  # bytes of the runtime claims; about 1,200 are usual
MAX_KEYS = 8  # keys the claims may name
_MAX_MEMBERS = 32  # settings of one machine
_MAX_RSA_BYTES = 512
_RSA_BITS = (2048, 3072, 4096)
_MAGIC = b"HCLA"
_VERSIONS = (1, 2)  # of the header: the paravisor before and after OpenHCL
_AK_CERT_REQUEST = 2  # IgvmAttestRequestType: the kind that carries the attestation key
_HARDWARE_BYTES = 1184  # ATTESTATION_REPORT_SIZE_MAX: an SNP report; shorter ones are padded
_TDREPORT_BYTES = 1024  # Intel TDX Module ABI specification, TDREPORT_STRUCT
_SNP_DATA = slice(0x50, 0x90)  # AMD 56860 table 23, REPORT_DATA
_TDREPORT_DATA = slice(128, 192)  # REPORTMACSTRUCT.REPORTDATA
_DATA_HEADER_BYTES = 20
_CAPABILITY_BYTES = 4  # IgvmAttestRequestDataExt, from version 2 of the request on
_SHA256 = 1  # IgvmAttestHashType
_AK_KID = "HCLAkPub"
_USER_DATA = re.compile(r"(?:[0-9A-Fa-f]{2}){0,64}")
_FIELD_BYTES = 64  # report data of SNP and TDX


class HardwareKind(Enum):
    """Which TEE the machine runs in (IgvmAttestReportType)."""

    SNP = "snp"
    TDX = "tdx"


_KINDS = {2: HardwareKind.SNP, 4: HardwareKind.TDX}


@dataclass(frozen=True, slots=True, kw_only=True)
class HclReport:
    """One report. ``hardware`` is the SNP report, or the TDREPORT from which the TD quote was made."""

    version: int
    kind: HardwareKind
    hardware: bytes
    claims: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a report with its padding. Raises ``Malformed``; ``Rejected``: ``unsupported_format``."""
        if len(data) > MAX_HCL_BYTES:
            msg = f"hcl report: {len(data)} bytes, want at most {MAX_HCL_BYTES}"
            raise Malformed(msg)
        reader = Reader(data, what="hcl report")
        version, size = _take_header(reader)
        hardware = reader.take(_HARDWARE_BYTES)
        kind, length = _take_data_header(reader)
        claims = reader.take(length)
        if size != reader.position:
            reader.fail(f"size {size} in the header, want {reader.position}")
        if any(reader.rest()):
            reader.fail("padding is not zero")
        if kind is HardwareKind.TDX:
            if any(hardware[_TDREPORT_BYTES:]):
                reader.fail("padding of the tdreport is not zero")
            hardware = hardware[:_TDREPORT_BYTES]
        return cls(version=version, kind=kind, hardware=hardware, claims=claims)

    @property
    def report_data(self) -> bytes:
        """What the hardware's report data must be: SHA-256 over the claims' bytes, padded with zeros."""
        return hashlib.sha256(self.claims).digest().ljust(_FIELD_BYTES, b"\x00")

    @property
    def carried(self) -> bytes:
        """The report data inside. Of a TDREPORT no signature covers it: the quote made from it carries it on."""
        return self.hardware[_SNP_DATA if self.kind is HardwareKind.SNP else _TDREPORT_DATA]


def _take_header(reader: Reader) -> tuple[int, int]:
    """Return version and size from the header (IgvmAttestRequestHeader)."""
    reader.expect(_MAGIC)
    version = reader.uint(4, little=True)
    if version not in _VERSIONS:
        reader.fail(f"version {version}, want 1 or 2")
    size = reader.uint(4, little=True)
    request = reader.uint(4, little=True)
    if request != _AK_CERT_REQUEST:
        reader.fail(f"request of type {request}, want {_AK_CERT_REQUEST}")
    if any(reader.take(16)):
        reader.fail("status or reserved bytes are not zero")
    return version, size


def _take_data_header(reader: Reader) -> tuple[HardwareKind, int]:
    """Return kind of the hardware report and length of the claims (IgvmAttestRequestData)."""
    size, version, kind, hashed, length = (reader.uint(4, little=True) for _ in range(5))
    if version not in _VERSIONS:
        reader.fail(f"runtime data of version {version}, want 1 or 2")
    extension = 0 if version == 1 else _CAPABILITY_BYTES
    if size != _DATA_HEADER_BYTES + extension + length:
        reader.fail(f"runtime data of {size} bytes, want {_DATA_HEADER_BYTES + extension + length}")
    if length > MAX_CLAIMS_BYTES:
        reader.fail(f"runtime claims of {length} bytes, want at most {MAX_CLAIMS_BYTES}")
    if kind not in _KINDS:
        raise Rejected.because("unsupported_format", "hcl report type", got=str(kind), want="2 (snp) or 4 (tdx)")
    if hashed != _SHA256:
        raise Rejected.because("unsupported_format", "hcl hash type", got=str(hashed), want="1 (sha-256)")
    reader.take(extension)
    return _KINDS[kind], length


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeClaims:
    """What the paravisor says of the machine: the vTPM's attestation key, settings, bytes the guest wrote."""

    ak: rsa.RSAPublicKey
    configuration: Mapping[str, Json]
    user_data: str

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse the JSON of one report. Raises ``Malformed``, also where there is not exactly one attestation key."""
        fields = Fields.parse(data, what="hcl runtime claims", cap=MAX_CLAIMS_BYTES)
        found = [key for key in map(_parse_key, fields.items("keys", cap=MAX_KEYS)) if key is not None]
        if len(found) != 1:
            fields.fail("keys", f"{len(found)} keys {_AK_KID}, want 1")
        configuration = fields.members("vm-configuration", cap=_MAX_MEMBERS)
        user_data = fields.match("user-data", _USER_DATA) if "user-data" in fields else ""
        fields.end()
        return cls(ak=found[0], configuration=configuration, user_data=user_data)


def _parse_key(value: Json) -> rsa.RSAPublicKey | None:
    """Return the attestation key from its JWK (RFC 7517, RFC 7518 section 6.3.1), None for any other key."""
    jwk = Fields(value, what="hcl runtime claims: key")
    if jwk.text("kid", cap=64) != _AK_KID:
        return None
    jwk.literal("kty", "RSA")
    if jwk.texts("key_ops", cap=4) != ("sign",):
        jwk.fail("key_ops", "want sign alone")
    exponent, modulus = (int.from_bytes(jwk.b64u(name, cap=_MAX_RSA_BYTES), "big") for name in ("e", "n"))
    jwk.end()
    if modulus.bit_length() not in _RSA_BITS:
        jwk.fail("n", f"{modulus.bit_length()} bits")
    try:
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError as exc:
        msg = "hcl runtime claims: key: numbers that are no key"
        raise Malformed(msg) from exc
