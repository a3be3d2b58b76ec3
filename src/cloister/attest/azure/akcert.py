"""The certificate Azure issues for a vTPM's attestation key (NV index 0x01C101D0).

    Azure Virtual TPM Root Certificate Authority 2023 -> Global Virtual TPM CA - NN -> CN=....ConfidentialVM.Azure...

Source: Azure documentation, "Trusted launch FAQ" and "Confidential VM guest attestation design detail"; TCG
"EK Credential Profile" 2.5 section 3.2.16 for the key purposes. The intermediate comes along: Azure renews it yearly.

Not done here: what the key signed (``tpm.quoted``), and revocation, for which the certificates name no list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from cloister.attest.chain import MAX_CERTIFICATE_BYTES, Certificate, verify_chain
from cloister.attest.tpm.akcert import AK_USAGE, verify_signing_leaf
from cloister.errors import Malformed, Rejected

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

__all__ = ["MAX_NV_BYTES", "parse_nv_certificate", "verify_azure_ak_certificate"]

MAX_NV_BYTES = MAX_CERTIFICATE_BYTES  # bytes of the NV index, padding included
_SEQUENCE = 0x30
_LONG_FORM = 0x80


def parse_nv_certificate(blob: bytes) -> Certificate:
    """Parse the certificate in an NV blob: DER says its own length, zeros fill the rest. Raises ``Malformed``."""
    if len(blob) > MAX_NV_BYTES:
        msg = f"nv blob: {len(blob)} bytes, want at most {MAX_NV_BYTES}"
        raise Malformed(msg)
    size = _der_size(blob)
    if any(blob[size:]):
        msg = "nv blob: padding behind the certificate is not zero"
        raise Malformed(msg)
    return Certificate.parse(blob[:size])


def _der_size(data: bytes) -> int:
    """Return the bytes of the DER SEQUENCE in front (X.690 section 8.1.3), whether or not they are all there."""
    if len(data) < 2 or data[0] != _SEQUENCE:  # noqa: PLR2004 - tag and length
        msg = "nv blob: no der sequence"
        raise Malformed(msg)
    if data[1] < _LONG_FORM:
        return 2 + data[1]
    count = data[1] - _LONG_FORM
    return 2 + count + int.from_bytes(data[2 : 2 + count], "big")


def verify_azure_ak_certificate(
    leaf: Certificate, between: Sequence[Certificate], roots: Sequence[Certificate], now: datetime
) -> tuple[Certificate, ...]:
    """Prove that Azure certifies an attestation key at ``now``; return the path.

    Raises ``Rejected``: the codes of ``verify_chain``; ``chain_invalid`` for a certificate of another purpose.
    """
    path = verify_chain(leaf, between, roots, now)
    verify_signing_leaf(leaf)
    found = {extension.oid: extension.value for extension in leaf.x509.extensions}
    usages = found.get(ExtensionOID.EXTENDED_KEY_USAGE)
    if not isinstance(usages, x509.ExtendedKeyUsage) or AK_USAGE not in usages:
        raise Rejected.because("chain_invalid", leaf.shown, got="extended key usage", want=AK_USAGE.dotted_string)
    return path
