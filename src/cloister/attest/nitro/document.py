"""The attestation document of the Nitro Secure Module.

AWS Nitro Enclaves, "Nitro Enclaves Attestation Process" (aws-nitro-enclaves-nsm-api, attestation_process.md),
sections 2.2 (fields), 3.1 (COSE) and 3.2.2 (sizes). Where that page forbids null and the module sends it (optional
fields of requests that had none), the module is followed.

Not done here: chain (``chain``), signature, what PCRs should be.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self

from cloister.attest.cbor import CborMap, parse_cbor
from cloister.attest.cose import COSE_SIGN1, CoseMessage
from cloister.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_DOCUMENT_BYTES", "NitroDocument", "parse_message"]

MAX_DOCUMENT_BYTES = 20 * 1024  # bytes of one signed document
MAX_PAYLOAD_BYTES = 16 * 1024  # section 3.1: bstr .size (1..16384)
_MAX_CERTIFICATE_BYTES = 1024  # section 2.2
_MAX_BUNDLE = 8  # certificates; four in the field
_MAX_PCRS = 32
_PCR_SIZES = (32, 48, 64)
_MAX_PUBLIC_KEY_BYTES = 1024
_MAX_USER_BYTES = 512  # of user_data and of nonce
_MAX_MODULE_CHARS = 256
_MAX_TIMESTAMP_MS = 253_402_300_799_999  # milliseconds since 1970: the end of the year 9999
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WHAT = "nitro document"


@dataclass(frozen=True, slots=True, kw_only=True)
class NitroDocument:
    """What the module signed; unverified. Absent and null are the same: None."""

    module_id: str
    timestamp: datetime
    digest: str
    pcrs: Mapping[int, bytes]
    certificate: bytes
    cabundle: tuple[bytes, ...]
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """Parse the payload of a message, to its end. Raises ``Malformed``.

        ``Rejected`` (``unsupported_format``) for the document of a NitroTPM, which is about an instance.
        """
        fields = CborMap(parse_cbor(payload, what=_WHAT, cap=MAX_PAYLOAD_BYTES, indefinite=True), what=_WHAT)
        if "nitrotpm_pcrs" in fields:
            raise Rejected.because("unsupported_format", _WHAT, got="nitrotpm_pcrs", want="pcrs")
        digest = fields.text("digest", cap=16)
        if digest != "SHA384":
            fields.fail("digest", "want SHA384")
        document = cls(
            module_id=fields.text("module_id", cap=_MAX_MODULE_CHARS),
            timestamp=_EPOCH + timedelta(milliseconds=fields.integer("timestamp", floor=1, cap=_MAX_TIMESTAMP_MS)),
            digest=digest,
            pcrs=_take_pcrs(fields),
            certificate=fields.data("certificate", range(1, _MAX_CERTIFICATE_BYTES + 1)),
            cabundle=_take_bundle(fields),
            public_key=_take_optional(fields, "public_key", range(1, _MAX_PUBLIC_KEY_BYTES + 1)),
            user_data=_take_optional(fields, "user_data", range(_MAX_USER_BYTES + 1)),
            nonce=_take_optional(fields, "nonce", range(_MAX_USER_BYTES + 1)),
        )
        fields.end()  # section 3.2.2.1 lists the allowed fields
        return document

    @property
    def debug(self) -> bool:
        """Whether the enclave runs in debug mode: PCR 0 is zero then, or says nothing at all."""
        return not any(self.pcrs.get(0, b""))


def parse_message(data: bytes) -> CoseMessage:
    """Parse the COSE_Sign1 around a document, tagged or not (section 3.1). Raises ``Malformed``."""
    return CoseMessage.parse(data, what=_WHAT, kinds=(COSE_SIGN1,), cap=MAX_PAYLOAD_BYTES, untagged=COSE_SIGN1)


def _take_pcrs(fields: CborMap) -> dict[int, bytes]:
    got = fields.take("pcrs")
    if not isinstance(got, dict) or not 0 < len(got) <= _MAX_PCRS:
        fields.fail("pcrs", f"want a map of 1 to {_MAX_PCRS}")
    inner = CborMap(got, what=f"{_WHAT}: pcrs")
    for index in got:
        if not isinstance(index, int) or not 0 <= index < _MAX_PCRS:
            inner.fail(index, f"want an index below {_MAX_PCRS}")
    return {index: inner.data(index, _PCR_SIZES) for index in sorted(map(int, got))}


def _take_bundle(fields: CborMap) -> tuple[bytes, ...]:
    found = fields.items("cabundle", floor=1, cap=_MAX_BUNDLE)
    inner = CborMap(dict(enumerate(found)), what=f"{_WHAT}: cabundle")
    return tuple(inner.data(index, range(1, _MAX_CERTIFICATE_BYTES + 1)) for index in range(len(found)))


def _take_optional(fields: CborMap, name: str, sizes: range) -> bytes | None:
    if name not in fields:
        return None
    got = fields.take(name)
    if got is None:
        return None
    return CborMap({name: got}, what=_WHAT).data(name, sizes)
