"""Certificates and revocation lists of any vendor, explained (RFC 5280)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cloister.attest.chain import Certificate, parse_certificates
from cloister.attest.crl import RevocationList
from cloister.attest.describe import Description, Field
from cloister.attest.roots import pinned
from cloister.wire import dump_time

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CertificateDescriber", "CrlDescriber"]

_SEQUENCE = b"\x30\x82"  # DER of everything here is a sequence of 256 bytes and more
_SHOWN_REVOKED = 32
_PEM = b"-----BEGIN CERTIFICATE-----"


class CertificateDescriber:
    """Explains one certificate, or a chain of them as PEM."""

    kind: Final = "certificate"

    def recognises(self, data: bytes) -> bool:
        """Tell by the PEM mark, or by a DER sequence that holds a sequence and an explicit version."""
        return _PEM in data[:4096] or (data[:2] == _SEQUENCE and data[4:6] == _SEQUENCE and data[8:9] == b"\xa0")

    def describe(self, data: bytes) -> Description:
        """Explain each certificate, in the order they come."""
        found = parse_certificates(data[max(0, data.find(_PEM)) :])  # people write notes in front of PEM
        fields = [field for index, item in enumerate(found) for field in _certificate(item, index, len(found))]
        title = "Certificate" if len(found) == 1 else f"Chain of {len(found)} certificates"
        return Description(kind=self.kind, title=title, fields=tuple(fields))


def _certificate(item: Certificate, index: int, count: int) -> Iterator[Field]:
    inner = item.x509
    front = f"{index}: " if count > 1 else ""
    known = next((pin.name for pin in pinned().values() if pin.certificate == item), "")
    yield Field(name=f"{front}subject", value=inner.subject.rfc4514_string(), meaning="whom it is about")
    yield Field(name=f"{front}issuer", value=inner.issuer.rfc4514_string(), meaning="who says so")
    yield Field(name=f"{front}serial", value=f"{inner.serial_number:x}", meaning="its number in revocation lists")
    yield Field(name=f"{front}not before", value=dump_time(inner.not_valid_before_utc), meaning="good from here")
    yield Field(name=f"{front}not after", value=dump_time(inner.not_valid_after_utc), meaning="good until here")
    oid = inner.signature_algorithm_oid.dotted_string
    yield Field(name=f"{front}signature", value=oid, meaning="algorithm of the issuer's signature")
    yield Field(
        name=f"{front}pinned", value=known or "no", meaning="whether this build pins it as a vendor's own certificate"
    )


class CrlDescriber:
    """Explains a certificate revocation list."""

    kind: Final = "crl"

    def recognises(self, data: bytes) -> bool:
        """Tell by the PEM mark, or by a DER sequence that holds a sequence and a bare version."""
        return data.lstrip()[:24] == b"-----BEGIN X509 CRL-----" or (
            data[:1] == b"\x30" and b"\x02\x01\x01\x30" in data[4:16]
        )

    def describe(self, data: bytes) -> Description:
        """Explain the list: whose, when, and whom it revokes."""
        crl = RevocationList.parse(data)
        inner = crl.x509
        until = "never" if inner.next_update_utc is None else dump_time(inner.next_update_utc)
        serials = ", ".join(f"{number:x}" for number in sorted(crl.revoked)[:_SHOWN_REVOKED]) or "none"
        fields = (
            Field(name="issuer", value=inner.issuer.rfc4514_string(), meaning="whose certificates it is about"),
            Field(name="this update", value=dump_time(inner.last_update_utc), meaning="when it was made"),
            Field(name="next update", value=until, meaning="after this it says nothing any more"),
            Field(name="revoked", value=str(len(crl.revoked)), meaning="certificates that count no more"),
            Field(name="serials", value=serials, meaning="their numbers, the first of them"),
        )
        return Description(kind=self.kind, title="Certificate revocation list", fields=fields)
