"""A certificate of a cloud vTPM's attestation key: ``chain`` (its own first) and, where it came along, ``root``.

Google's certificates name an instance, which then has to be whole; others are certificates of attestation keys as TCG
profiles them. A key that nobody showed cannot be compared with the certificate: that check says that it was not made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.azure.akcert import verify_azure_ak_certificate
from cloister.attest.chain import parse_certificates
from cloister.attest.dossier import Case
from cloister.attest.dossier.expectations import demand_files, refuse_member
from cloister.attest.findings import Findings
from cloister.attest.gce.akcert import verify_gce_ak_certificate
from cloister.attest.rats import TeeKind, VerifiedClaims
from cloister.attest.roots import vendor_certificate
from cloister.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from cloister.attest.chain import Certificate
    from cloister.wire import Json

__all__ = ["akcert_case", "certificates_in", "open_case"]

_PEM = b"-----BEGIN CERTIFICATE-----"

_AZURE, _GOOGLE = "azure-vtpm-root-2023", "gce-ek-ak-root"


def open_case(files: Mapping[str, bytes], expectations: Mapping[str, Json]) -> Case:
    """Open a chain. Raises ``Malformed``, ``Unavailable``."""
    demand_files(files, ("chain",), ("intermediate", "root"))
    for name in expectations:
        refuse_member(name)  # a certificate says nothing to compare with
    leaf, *between = certificates_in(files, "chain")
    between += certificates_in(files, "intermediate")
    roots = certificates_in(files, "root")
    return akcert_case("tpm-akcert", leaf, between, roots)


def certificates_in(files: Mapping[str, bytes], role: str) -> tuple[Certificate, ...]:
    """Return the certificates of a file that may be absent; text before PEM is allowed (RFC 7468 section 2)."""
    data = files.get(role, b"")
    return parse_certificates(data[max(data.find(_PEM), 0) :]) if data else ()


def akcert_case(
    tee: str, leaf: Certificate, between: Sequence[Certificate], roots: Sequence[Certificate], **claims: Json
) -> Case:
    """Return the case of one certificate; ``claims`` are said beside its subject."""
    issuer, verify_leaf = _issuer_of(leaf, between)

    def verify(now: datetime) -> VerifiedClaims:
        findings = Findings(f"{tee} evidence")
        # 1. Roots that came along are the clouds' own, and the one of this certificate's cloud is among them.
        known = {vendor_certificate(name).der for name in (_AZURE, _GOOGLE)}
        for root in roots:
            findings.expect(root.der in known, "untrusted_root", root.shown)
        if roots:
            among = issuer.der in {root.der for root in roots}
            findings.expect(among, "untrusted_root", "root", got=roots[0].shown, want=issuer.shown)
        # 2. Purpose and chain, to the root of the cloud whose form it has.
        try:
            verify_leaf(now)
            findings.expect(True, "chain_invalid", leaf.shown)  # noqa: FBT003 - the step above did not raise
        except Rejected as exc:
            findings.refused(exc)
        # 3. What files do not tell.
        findings.skip("key_binding_mismatch", "attestation key", "no key came along to compare with")
        findings.skip("revocation_unknown", leaf.shown, "the clouds publish no lists for attestation keys")
        checks = findings.settle()
        return VerifiedClaims(tee=TeeKind(tee), claims={"subject": leaf.shown}, report_data=b"", checks=checks)

    return Case(claims={**claims, "subject": leaf.x509.subject.rfc4514_string()}, verify=verify, rules={})


def _issuer_of(leaf: Certificate, between: Sequence[Certificate]) -> tuple[Certificate, Callable[[datetime], object]]:
    """Return the root of the cloud that the names in the chain speak of, and how its certificates are verified."""
    azure, google = vendor_certificate(_AZURE), vendor_certificate(_GOOGLE)
    names = {item.x509.issuer for item in (leaf, *between)}
    if google.x509.subject in names:
        return google, lambda now: verify_gce_ak_certificate(leaf, between, [google], now)
    return azure, lambda now: verify_azure_ak_certificate(leaf, between, [azure], now)
