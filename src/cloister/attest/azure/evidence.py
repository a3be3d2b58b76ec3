"""Azure vTPM evidence in the JSON of those who collect it, as parts of ours.

Shapes in the field (confidential-containers/trustee, deps/verifier/src/az_snp_vtpm/compat.rs and
az_tdx_vtpm; attestation-rs wraps the same in ``platform`` and ``evidence``):

    version 0   quote or tpm_quote {message, signature, pcrs}, report or hcl_report: arrays of bytes; vcek: PEM
    1, 2        version; tpm_quote in hex; hcl_report, vcek (DER), td_quote in base64url, padded or not
    certs       in place of vcek: vcekCert and certificateChain as Azure's metadata service returns them, PEM

Bytes are read in whichever of these spellings they come; which members there are decides the TEE.

Not done here: believing any of it.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.attest.azure.hcl import MAX_HCL_BYTES
from cloister.attest.chain import MAX_CERTIFICATE_BYTES
from cloister.attest.tpm.structures import MAX_STRUCTURE_BYTES, PCR_COUNT
from cloister.errors import Malformed
from cloister.wire import Fields, Json

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_EVIDENCE_JSON_BYTES", "MAX_TD_QUOTE_BYTES", "AzureEvidence"]

MAX_EVIDENCE_JSON_BYTES = 256 * 1024  # bytes of one document; arrays of numbers are four times what they say
MAX_TD_QUOTE_BYTES = 16 * 1024  # bytes of a TD quote with its certificates and padding
_MAX_CHAIN_BYTES = 16 * 1024  # bytes of AMD's two certificates, PEM
_VERSIONS = (1, 2)
_PLATFORMS = ("az-snp", "az-tdx", "azsnpvtpm", "aztdxvtpm", "az-snp-vtpm", "az-tdx-vtpm")
_SHA256_BYTES = 32
_BYTE = range(256)
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})*")
_PEM = "-----BEGIN CERTIFICATE-----"
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]*={0,2}")
_URL_SAFE = str.maketrans("-_", "+/")


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureEvidence:
    """The parts of one document. SNP has ``leaf`` (VCEK) and, where it came along, ``chain``; TDX ``td_quote``."""

    hcl_report: bytes
    attest: bytes
    signature: bytes
    pcrs: Mapping[int, bytes]
    leaf: bytes
    chain: bytes
    td_quote: bytes

    @classmethod
    def parse(cls, data: bytes) -> AzureEvidence:
        """Parse one document. Raises ``Malformed``, also for members nobody knows."""
        fields = Fields.parse(data, what="azure evidence", cap=MAX_EVIDENCE_JSON_BYTES)
        if "evidence" in fields:
            if fields.text("platform", cap=32) not in _PLATFORMS:
                fields.fail("platform", f"want one of {', '.join(_PLATFORMS)}")
            inner = fields.fields("evidence")
            fields.end()
            fields = inner
        if "version" in fields and fields.integer("version") not in _VERSIONS:
            fields.fail("version", "want 1 or 2")
        quote = fields.fields("tpm_quote" if "tpm_quote" in fields else "quote")
        leaf, chain = _take_certificates(fields)
        evidence = cls(
            hcl_report=_take_bytes(fields, "hcl_report" if "hcl_report" in fields else "report", cap=MAX_HCL_BYTES),
            attest=_take_bytes(quote, "message", cap=MAX_STRUCTURE_BYTES),
            signature=_take_bytes(quote, "signature", cap=MAX_STRUCTURE_BYTES),
            pcrs=_take_pcrs(quote),
            leaf=leaf,
            chain=chain,
            td_quote=_take_optional(fields, "td_quote", cap=MAX_TD_QUOTE_BYTES),
        )
        if "report_data" in fields:  # what was asked for, said again: the quote carries it
            _take_bytes(fields, "report_data", cap=MAX_STRUCTURE_BYTES)
        quote.end()
        fields.end()
        if bool(evidence.leaf) == bool(evidence.td_quote):
            fields.fail("vcek, td_quote", "want exactly one of them")
        return evidence


def _take_certificates(fields: Fields) -> tuple[bytes, bytes]:
    """Return the chip's certificate and its chain, each empty where it is not there."""
    if "certs" not in fields:
        return _take_optional(fields, "vcek", cap=MAX_CERTIFICATE_BYTES), b""
    certs = fields.fields("certs")
    found = _take_bytes(certs, "vcekCert", cap=MAX_CERTIFICATE_BYTES)
    chain = _take_bytes(certs, "certificateChain", cap=_MAX_CHAIN_BYTES)
    for name in ("tcbm", "cacheControl"):  # the metadata service's own remarks
        certs.optional(name, lambda member: certs.text(member, cap=64))
    certs.end()
    return found, chain


def _take_optional(fields: Fields, name: str, *, cap: int) -> bytes:
    return _take_bytes(fields, name, cap=cap) if name in fields else b""


def _take_pcrs(quote: Fields) -> dict[int, bytes]:
    """Return the SHA-256 PCRs 0 to n-1, in order."""
    items = quote.items("pcrs", cap=PCR_COUNT)
    pcrs = [_take_bytes(Fields({"pcrs": item}, what="azure evidence"), "pcrs", cap=_SHA256_BYTES) for item in items]
    if any(len(value) != _SHA256_BYTES for value in pcrs):
        quote.fail("pcrs", f"want {_SHA256_BYTES} bytes each")
    return dict(enumerate(pcrs))


def _take_bytes(fields: Fields, name: str, *, cap: int) -> bytes:
    """Return the bytes of a member: an array of numbers, hex, PEM or base64."""
    value = fields.take(name)
    data = _from_array(fields, name, value) if isinstance(value, list) else _from_text(fields, name, value)
    if len(data) > cap:
        fields.fail(name, f"{len(data)} bytes, want at most {cap}")
    return data


def _from_array(fields: Fields, name: str, value: list[Json]) -> bytes:
    numbers = [item for item in value if type(item) is int and item in _BYTE]
    if len(numbers) != len(value):
        fields.fail(name, "want numbers of 0 to 255")
    return bytes(numbers)


def _from_text(fields: Fields, name: str, value: Json) -> bytes:
    if not isinstance(value, str):
        fields.fail(name, "want an array of numbers or a string")
    if value.startswith(_PEM):
        return value.encode()
    if _HEX.fullmatch(value):
        return bytes.fromhex(value)
    if not _BASE64.fullmatch(value):
        fields.fail(name, "neither hex, base64 nor pem")
    bare = value.rstrip("=").translate(_URL_SAFE)
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except binascii.Error as exc:
        msg = f"azure evidence: {name}: not base64"
        raise Malformed(msg) from exc
