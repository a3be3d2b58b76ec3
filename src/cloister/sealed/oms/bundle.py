"""The file of a model signature: a Sigstore bundle v0.3 with a DSSE envelope, as JSON (OMS v1.0 section 4).

Reads what signs by key and by certificate. A keyless bundle is told apart, and refused by ``verify``. Entries of
transparency logs and time stamps are left where they are: they prove nothing to who does not hold the log's keys.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from cloister.attest.chain import MAX_CERTIFICATE_BYTES, Certificate
from cloister.errors import Malformed
from cloister.wire import Fields

if TYPE_CHECKING:
    from cloister.wire import Json

__all__ = ["MAX_BUNDLE_BYTES", "PAYLOAD_TYPE", "Bundle", "ByChain", "ByKey", "Keyless"]

MAX_BUNDLE_BYTES = 1 << 20  # bytes of the JSON document: 1024 files with long paths, and certificates
MAX_PAYLOAD_BYTES = 704 << 10  # bytes of the signed statement: what fits, as base64
_MAX_SIGNATURE_BYTES = 144  # bytes of an ECDSA signature in DER; P-521 has at most 139
_MAX_CERTIFICATES = 8
_MAX_ENTRIES = 16
_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"


@dataclass(frozen=True, slots=True)
class ByKey:
    """Signed by a bare key. ``hint`` is SHA-256 over its PEM in hex, which proves nothing; empty in older bundles."""

    hint: str


@dataclass(frozen=True, slots=True)
class ByChain:
    """Signed by the key of ``leaf``; ``between`` are the other certificates that came along."""

    leaf: Certificate
    between: tuple[Certificate, ...]


@dataclass(frozen=True, slots=True)
class Keyless:
    """Signed under an identity that Sigstore certified for minutes."""


Signer: TypeAlias = ByKey | ByChain | Keyless


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A signature as it came, not verified. ``payload`` is for ``verify`` to read, once it holds."""

    signer: Signer
    payload: bytes
    signature: bytes

    @classmethod
    def parse(cls, data: bytes) -> Bundle:
        """Parse. Raises ``Malformed``."""
        fields = Fields.parse(data, what="model signature", cap=MAX_BUNDLE_BYTES)
        fields.literal("mediaType", _MEDIA_TYPE)
        signer = _signer(fields.fields("verificationMaterial"))
        envelope = fields.fields("dsseEnvelope")
        fields.end()
        envelope.literal("payloadType", PAYLOAD_TYPE)
        payload = _base64(envelope, "payload", cap=MAX_PAYLOAD_BYTES)
        signatures = envelope.items("signatures", cap=1)
        envelope.end()
        if not signatures:
            envelope.fail("signatures", "want exactly one")
        entry = Fields(signatures[0], what="model signature: signatures")
        signature = _base64(entry, "sig", cap=_MAX_SIGNATURE_BYTES)
        entry.optional("keyid", entry.take)  # a hint that nothing proves: the pinned keys are tried
        entry.end()
        return cls(signer=signer, payload=payload, signature=signature)


def _signer(fields: Fields) -> Signer:
    kinds = [name for name in ("publicKey", "x509CertificateChain", "certificate") if name in fields]
    if len(kinds) != 1:
        fields.fail("verificationMaterial", "want one of publicKey, x509CertificateChain and certificate")
    inner = fields.fields(kinds[0])
    if "tlogEntries" in fields:
        fields.items("tlogEntries", cap=_MAX_ENTRIES)
    fields.optional("timestampVerificationData", fields.take)
    fields.end()
    match kinds[0]:
        case "publicKey":
            hint = inner.take("hint") if "hint" in inner else None
            if hint is not None and (not isinstance(hint, str) or len(hint) > 128):  # noqa: PLR2004 - hex of 64 bytes
                inner.fail("hint", "want a short string")
            for name in ("rawBytes", "keyDetails"):  # of bundles before 1.0; a key is never believed for lying here
                inner.optional(name, inner.take)
            inner.end()
            return ByKey(hint or "")
        case "x509CertificateChain":
            found = tuple(_certificate(item) for item in inner.items("certificates", cap=_MAX_CERTIFICATES))
            inner.end()
            if not found:
                inner.fail("certificates", "want at least one")
            return ByChain(found[0], found[1:])
        case _:
            return Keyless()


def _certificate(value: Json) -> Certificate:
    fields = Fields(value, what="model signature: certificate")
    der = _base64(fields, "rawBytes", cap=MAX_CERTIFICATE_BYTES)
    fields.end()
    return Certificate.parse(der)


def _base64(fields: Fields, name: str, *, cap: int) -> bytes:
    """Return the bytes of padded base64 (RFC 4648 section 4), which has one spelling here."""
    text = fields.text(name, cap=(cap + 2) // 3 * 4)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        msg = f"model signature: {name}: not base64"
        raise Malformed(msg) from exc
    if base64.b64encode(data).decode("ascii") != text:
        fields.fail(name, "base64 in a second spelling")
    return data
