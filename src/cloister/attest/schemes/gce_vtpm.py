"""GCE vTPM evidence: a quote by a key that Google certifies for an instance (docs/spec/evidence-vtpm.md).

What it proves: the virtual TPM of this instance had these PCRs when the verifier's nonce was fresh. What it does not:
that memory is encrypted. Google runs the TPM; SNP or TDX evidence of the machine is other evidence, not bound here.

Not done here: comparing report data (``verifier``), reference values (``appraise``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloister.attest.chain import Certificate, parse_certificates
from cloister.attest.findings import Findings
from cloister.attest.gce.akcert import verify_gce_ak_certificate
from cloister.attest.parts import parse_parts
from cloister.attest.rats import TeeKind, VerifiedClaims
from cloister.attest.roots import vendor_certificate
from cloister.attest.tpm.measured import MEASURED_CAPS, MEASURED_REQUIRED, claims_of, find_software, take_quoted
from cloister.attest.tpm.quoted import find_quoted, parse_key
from cloister.attest.tpm.structures import MAX_STRUCTURE_BYTES, Public
from cloister.errors import Malformed, Rejected, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cloister.attest.gce.instance import GceInstance
    from cloister.attest.rats import ClaimValue, Evidence

__all__ = ["GCE_VTPM", "GceVtpmScheme", "production_gce_vtpm_scheme"]

GCE_VTPM = TeeKind("gce-vtpm")
MAX_CHAIN_BYTES = 32 * 1024  # bytes of the attestation key's certificates, PEM, its own first
_CAPS = {**MEASURED_CAPS, "ak_public_tpmt": MAX_STRUCTURE_BYTES, "chain": MAX_CHAIN_BYTES}
_REQUIRED_PARTS = ("ak_public_tpmt", "chain", "pcrs", "quote", "signature_tpmt")


class GceVtpmScheme:
    """Verifies GCE vTPM evidence against pinned authorities."""

    tee: Final = GCE_VTPM
    report_data_bytes: Final = 32
    software_claims: Final = frozenset({"software"})
    required: Final = MEASURED_REQUIRED | {"instance", "project", "zone"}

    def __init__(self, roots: Sequence[Certificate]) -> None:
        """Pin the roots; none at all is a ``UsageError``."""
        if not roots:
            msg = "gce vtpm scheme: no root to trust"
            raise UsageError(msg)
        self._roots = tuple(roots)

    def needs(self, evidence: Evidence) -> tuple[str, ...]:
        """Return nothing: the chain travels inside the evidence."""
        del evidence
        return ()

    def verify(self, evidence: Evidence, endorsements: Mapping[str, bytes], now: datetime) -> VerifiedClaims:
        """Prove that the vTPM of an instance in production signed this quote over these PCRs.

        Raises ``Malformed``; ``Rejected`` with all of: the codes of ``verify_gce_ak_certificate`` and ``find_quoted``,
        ``key_binding_mismatch``.
        """
        del endorsements
        # 1. Every part parses to its end.
        parts = parse_parts(evidence.payload, what="gce vtpm evidence", caps=_CAPS, required=_REQUIRED_PARTS)
        leaf, *between = parse_certificates(parts["chain"])
        key = parse_key(parts["ak_public_tpmt"])
        if not isinstance(key, Public):
            msg = "gce vtpm evidence: attestation key without its attributes"
            raise Malformed(msg)
        quoted = take_quoted(parts)
        findings = Findings("gce vtpm evidence")
        # 2. Google certifies this key for an instance.
        instance = _find_certificate(findings, leaf, between, self._roots, now)
        findings.equal(_spki(key), leaf.public_key_der, "key_binding_mismatch", "attestation key")
        # 3. That attestation key signed a quote over exactly these PCRs; log and software explain them.
        explained = find_quoted(findings, quoted, key)
        find_software(findings, parts, quoted)
        # 4. What a quote cannot tell.
        why = "a tpm measures the machine; no hardware report is bound to this one"
        findings.skip("memory_not_protected", "memory encryption", why)
        findings.skip("revocation_unknown", leaf.shown, "google publishes no list for attestation keys")
        # 5. Only what is proven becomes a claim.
        checks = findings.settle()
        claims = claims_of(parts, quoted, explained) | _claims(instance) | {"ak": key.name.hex()}
        return VerifiedClaims(tee=GCE_VTPM, claims=claims, report_data=quoted.quote.extra_data, checks=checks)


def _spki(key: Public) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _find_certificate(
    findings: Findings,
    leaf: Certificate,
    between: Sequence[Certificate],
    roots: Sequence[Certificate],
    now: datetime,
) -> GceInstance | None:
    try:
        instance = verify_gce_ak_certificate(leaf, between, roots, now)
    except Rejected as exc:
        findings.refused(exc)
        return None
    findings.expect(True, "chain_invalid", "attestation key certificate", got=leaf.shown)  # noqa: FBT003 - it did not raise
    return instance


def _claims(instance: GceInstance | None) -> dict[str, ClaimValue]:
    """Return the claims of an instance; its numbers are text, for they use all of 64 bits."""
    if instance is None:
        return {}
    return {
        "instance": str(instance.instance),
        "instance_name": instance.instance_name,
        "project": instance.project,
        "project_number": str(instance.project_number),
        "zone": instance.zone,
    }


def production_gce_vtpm_scheme() -> GceVtpmScheme:
    """Return the scheme with Google's pinned root."""
    return GceVtpmScheme([vendor_certificate("gce-ek-ak-root")])
