"""AMD's certificates as they travel: DER, or PEM with several in one file (AMD 57230).

``cloister.attest.chain.parse_certificates`` refuses the serial number 0, which every VCEK and VLEK has; hence this.

Not done here: who signed them.
"""

from __future__ import annotations

import base64
import binascii
import re

from cloister.attest.chain import Certificate
from cloister.errors import Malformed

__all__ = ["MAX_CERTIFICATES_BYTES", "parse_certificates"]

MAX_CERTIFICATES_BYTES = 32 * 1024  # bytes of one file with certificates
_MAX_CERTIFICATES = 8
_DER = b"\x30"
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]*)-----END CERTIFICATE-----")


def parse_certificates(data: bytes, *, zero_serial: bool = False) -> tuple[Certificate, ...]:
    """Parse one DER certificate, or a PEM file with one or more and nothing but space between.

    ``zero_serial`` is for VCEKs and VLEKs; an authority has a number, by which it is revoked. Raises ``Malformed``.
    """
    if len(data) > MAX_CERTIFICATES_BYTES:
        msg = f"amd certificates: {len(data)} bytes, want at most {MAX_CERTIFICATES_BYTES}"
        raise Malformed(msg)
    if data.startswith(_DER):
        return (Certificate.parse(data, zero_serial=zero_serial),)
    blocks = _PEM.findall(data)
    if not 0 < len(blocks) <= _MAX_CERTIFICATES or _PEM.sub(b"", data).strip(b"\x00 \t\r\n"):
        msg = f"amd certificates: neither der nor pem with 1 to {_MAX_CERTIFICATES} certificates"
        raise Malformed(msg)
    return tuple(Certificate.parse(_decode(block), zero_serial=zero_serial) for block in blocks)


def _decode(block: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(block.split()), validate=True)
    except binascii.Error as exc:
        msg = "amd certificates: pem is no base64"
        raise Malformed(msg) from exc
