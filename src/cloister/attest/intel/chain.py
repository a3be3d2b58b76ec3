"""Who vouches: certificates, revocation lists and signed texts, each to the pinned root.

Sources: Intel SGX PCK Certificate and CRL Profile Specification section 1.3; Intel PCS API version 4.

Each function records what it finds and goes on where later checks still mean something.

Not done here: what the certified things say (``assess``, ``verify``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import NameOID

from cloister.attest.chain import verify_chain
from cloister.attest.crl import verify_crl
from cloister.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cloister.attest.chain import Certificate
    from cloister.attest.crl import RevocationList
    from cloister.attest.findings import Findings
    from cloister.attest.intel.collateral import Signed

__all__ = [
    "PCK_NAME",
    "TCB_SIGNING_NAME",
    "is_signed",
    "verify_path",
    "verify_revocation",
    "verify_signed",
    "verify_window",
]

PCK_NAME = "Intel SGX PCK Certificate"
TCB_SIGNING_NAME = "Intel SGX TCB Signing"


def is_signed(key: object, signature: bytes, data: bytes) -> bool:
    """Tell whether ``signature`` (r and s, 32 bytes each) is P-256 ECDSA with SHA-256 over ``data``."""
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        return False
    encoded = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    try:
        key.verify(encoded, data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def verify_path(
    found: Findings,
    chain: Sequence[Certificate],
    roots: Sequence[Certificate],
    now: datetime,
    *,
    subject: str,
    name: str,
) -> tuple[Certificate, ...]:
    """Record whether a pinned root vouches for the first certificate, which has to be called ``name`` and may sign.

    Returns the path from leaf to root, empty where there is none. Codes: those of ``chain.verify_chain``.
    """
    leaf = chain[0]
    names = [attribute.value for attribute in leaf.x509.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    found.expect(names == [name], "chain_invalid", f"{subject} name", got=leaf.shown, want=name)
    usage = [item.value for item in leaf.x509.extensions if isinstance(item.value, x509.KeyUsage)]
    may_sign = bool(usage) and usage[0].digital_signature
    found.expect(may_sign, "chain_invalid", f"{subject} key usage", want="digitalSignature")
    try:
        path = verify_chain(leaf, chain[1:], roots, now)
    except Rejected as exc:
        found.refused(exc)
        return ()
    found.expect(True, "chain_invalid", f"{subject} chain", got=path[-1].shown)  # noqa: FBT003 - it held
    return path


def verify_revocation(
    found: Findings, listed: RevocationList | None, issuer: Certificate, issued: Sequence[Certificate], now: datetime
) -> None:
    """Record whether ``issuer``, already trusted, has a list in its window that leaves out all it ``issued``.

    Codes: ``revoked``, ``revocation_unknown`` where there is no list, and those of ``crl.verify_crl``.
    """
    subject = f"crl of {issuer.shown}"
    if not found.expect(listed is not None, "revocation_unknown", subject, want="a list") or listed is None:
        return
    try:
        verify_crl(listed, issuer, now)
    except Rejected as exc:
        found.refused(exc)
        return
    for certificate in issued:
        number = certificate.x509.serial_number
        found.expect(number not in listed.revoked, "revoked", certificate.shown, got=f"serial {number:x}")


def verify_signed(found: Findings, signed: Signed, *, subject: str) -> None:
    """Record whether the first certificate of its chain signed the exact text (``collateral_signature_invalid``)."""
    key = signed.chain[0].x509.public_key()
    found.expect(is_signed(key, signed.signature, signed.text), "collateral_signature_invalid", f"{subject} signature")


def verify_window(found: Findings, issued: datetime, until: datetime, now: datetime, *, subject: str) -> None:
    """Record whether a text is in its window (``collateral_not_yet_valid``, ``collateral_expired``)."""
    at = now.isoformat()
    found.expect(issued <= now, "collateral_not_yet_valid", f"{subject} issue date", got=at, want=issued.isoformat())
    found.expect(now <= until, "collateral_expired", f"{subject} next update", got=at, want=until.isoformat())
