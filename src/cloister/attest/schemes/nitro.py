"""AWS Nitro Enclaves: a document signed by the Nitro Secure Module (docs/spec/evidence-nitro.md).

What it proves: the Nitro hypervisor of the instance in ``module_id`` measured these PCRs in an enclave that asked
for this document with this ``user_data``. What it does not: that AWS stays out, which is the trust this TEE has.

Not done here: comparing report data (``verifier``), reference values (``appraise``), revocation (``nitro.chain``
says why).
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric import ec

from cloister.attest.cose import ES384, CoseMessage, verify_message
from cloister.attest.findings import Findings
from cloister.attest.nitro.chain import NitroChain, parse_chain, verify_signer
from cloister.attest.nitro.document import MAX_DOCUMENT_BYTES, NitroDocument, parse_message
from cloister.attest.parts import parse_parts
from cloister.attest.rats import TeeKind, VerifiedClaims
from cloister.attest.roots import vendor_certificate
from cloister.errors import Rejected, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cloister.attest.chain import Certificate
    from cloister.attest.rats import ClaimValue, Evidence

__all__ = ["MAX_CLOCK_SKEW", "NITRO", "NITRO_CAPS", "NitroScheme", "production_nitro_scheme"]

NITRO = TeeKind("nitro")
NITRO_CAPS: Mapping[str, int] = {"document": MAX_DOCUMENT_BYTES}
"""Parts of the evidence and the most bytes of each."""

MAX_CLOCK_SKEW = timedelta(minutes=5)
"""How far the module's clock may be ahead of ours; a document from further ahead has no age."""


class NitroScheme:
    """Verifies documents against pinned roots."""

    tee: Final = NITRO
    report_data_bytes: Final = 64
    software_claims: Final = frozenset[str]()
    required: Final = frozenset({"debug", "pcr.0"})
    """PCR 0 measures the whole image; a policy that goes by the signer of it (PCR 8) says why PCR 0 is not checked."""

    def __init__(self, roots: Sequence[Certificate]) -> None:
        """Pin ``roots``; there is no default. None at all is a ``UsageError``."""
        self._roots = tuple(roots)
        if not self._roots:
            msg = "nitro scheme: no root to trust"
            raise UsageError(msg)

    def needs(self, evidence: Evidence) -> tuple[str, ...]:
        """Return nothing: the chain travels inside the document."""
        del evidence
        return ()

    def verify(self, evidence: Evidence, endorsements: Mapping[str, bytes], now: datetime) -> VerifiedClaims:
        """Prove that a module known to a pinned root signed this document.

        Raises ``Malformed``; ``Rejected`` with ``unsupported_format``, ``algorithm_not_allowed``,
        ``signature_invalid`` and the codes of ``verify_signer``.
        """
        del endorsements
        # 1. Everything parses to its end (sections 3.1, 3.2.2).
        parts = parse_parts(evidence.payload, what="nitro evidence", caps=NITRO_CAPS, required=NITRO_CAPS)
        message = parse_message(parts["document"])
        document = NitroDocument.parse(message.payload)
        chain = parse_chain(document)
        # 2. The chain ends in a pinned root, and its leaf signed these bytes (sections 3.2.3, 3.2.4).
        checks = _verify(message, chain, self._roots, now).settle()
        # 3. Only what is proven becomes a claim.
        return VerifiedClaims(
            tee=NITRO, claims=_claims(document, now), report_data=document.user_data or b"", checks=checks
        )


def _verify(message: CoseMessage, chain: NitroChain, roots: Sequence[Certificate], now: datetime) -> Findings:
    findings = Findings("nitro document")
    try:
        verify_signer(chain, roots, now)
        findings.expect(holds=True, code="chain_invalid", subject="certificate chain", got=chain[0].shown)
    except Rejected as refusal:
        findings.refused(refusal)
    # A chain that does not hold says nothing of the signature: both are looked at, so that both are named.
    try:
        verify_message(message, _signing_key(chain[0]), algorithms=(ES384,), subject="document signature")
        findings.expect(holds=True, code="signature_invalid", subject="document signature")
    except Rejected as refusal:
        findings.refused(refusal)
    return findings


def _signing_key(leaf: Certificate) -> ec.EllipticCurvePublicKey:
    key = leaf.x509.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise Rejected.because("algorithm_not_allowed", leaf.shown, got=type(key).__name__, want="a key on P-384")
    return key


def _claims(document: NitroDocument, now: datetime) -> dict[str, ClaimValue]:
    claims: dict[str, ClaimValue] = {f"pcr.{index}": value.hex() for index, value in document.pcrs.items()}
    claims |= {"debug": document.debug, "module_id": document.module_id}
    age = now - document.timestamp
    if age >= -MAX_CLOCK_SKEW:
        claims["age"] = max(0, int(age.total_seconds()))
    if document.nonce is not None:
        claims["nonce"] = document.nonce.hex()
    if document.public_key is not None:
        claims["public_key_sha256"] = hashlib.sha256(document.public_key).hexdigest()
    return claims


def production_nitro_scheme() -> NitroScheme:
    """Return the scheme with AWS's root of the commercial partitions."""
    return NitroScheme([vendor_certificate("aws-nitro-root-g1")])
