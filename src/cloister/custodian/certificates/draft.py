"""How every certificate of the custodian's begins, for its servers and for peers alike (RFC 5280 section 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

__all__ = ["draft"]


def draft(
    subject: x509.Name,
    issuer: x509.Name,
    key: CertificatePublicKeyTypes,
    *,
    begins: datetime,
    ends: datetime,
    authority: bool = False,
) -> x509.CertificateBuilder:
    """Return a certificate to be added to and signed, with a random serial number.

    An ``authority`` signs certificates, but no other authority's; without it, none at all.
    """
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
    )
