"""AMD SEV-SNP: a report that the security processor signed about one guest (docs/spec/evidence-snp.md).

What it proves: AMD's root vouches for the key that signed this report, and the processor with that key measured this
guest at launch under this policy. What it does not: that the guest is well behaved, that the machine is where
somebody says, or that nobody with a probe on the memory bus is near it.

Not done here: comparing report data (``verifier``), reference values (``appraise``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cloister.attest.amd.authority import AmdTrust, Authority, pinned_trust
from cloister.attest.amd.certificates import parse_certificates
from cloister.attest.amd.claims import REQUIRED, claims_of
from cloister.attest.amd.evidence import SNP, SnpEvidence
from cloister.attest.amd.fit import verify_fit, verify_form, verify_signature
from cloister.attest.amd.memo import Memo
from cloister.attest.amd.report import REPORT_DATA_BYTES, SigningKey
from cloister.attest.amd.vek import Vek
from cloister.attest.endorse.names import amd_ca, amd_crl, amd_vcek, amd_vlek_ca
from cloister.attest.findings import Findings
from cloister.attest.rats import VerifiedClaims
from cloister.errors import Malformed, Rejected

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cloister.attest.amd.products import Product
    from cloister.attest.amd.report import Report
    from cloister.attest.chain import Certificate
    from cloister.attest.rats import Evidence
    from cloister.attest.rules import NotChecked

__all__ = ["SNP", "SnpScheme", "production_snp_scheme"]

_MAX_LEAVES = 256  # parsed certificates that are remembered


def production_snp_scheme() -> SnpScheme:
    """Return the scheme that trusts AMD's published roots and demands AMD's revocation lists."""
    return SnpScheme(pinned_trust())


class SnpScheme:
    """Verifies SNP evidence against pinned AMD root keys."""

    tee: Final = SNP
    report_data_bytes: Final = REPORT_DATA_BYTES
    required: Final = REQUIRED
    software_claims: Final[frozenset[str]] = frozenset()

    def __init__(self, trust: AmdTrust, *, revocation: NotChecked | None = None) -> None:
        """Pin ``trust``; there is no default. Revocation lists are demanded unless ``revocation`` says why not."""
        self._authority = Authority(trust)
        self._revocation = revocation
        self._veks: Memo[Vek] = Memo(_MAX_LEAVES)
        self._certificates: Memo[tuple[Certificate, ...]] = Memo(_MAX_LEAVES)

    def needs(self, evidence: Evidence) -> tuple[str, ...]:
        """Return the names of what did not come along: chip certificate, authority, and always the revocation list.

        A list that came along is looked at too, but in its place nobody's: the machine's owner would choose which.
        Raises ``Malformed``, and ``Rejected`` (``chain_invalid``) where no certificate can be asked for.
        """
        snp = SnpEvidence.parse(evidence.payload)
        product = self._line(snp)
        names = [] if snp.leaf is not None else [_leaf_name(snp.report, product)]
        if not self._at_hand(snp, product):
            names.append(_authority_name(snp.report, product))
        if self._revocation is None:
            names.append(amd_crl(product.key))
        return tuple(names)

    def verify(self, evidence: Evidence, endorsements: Mapping[str, bytes], now: datetime) -> VerifiedClaims:
        """Prove that a key AMD certified signed this report, and that the two fit.

        Raises ``Malformed``; ``Rejected`` with every code of ``verify_form``, ``Authority``, ``verify_signature``,
        ``verify_fit``, and ``revocation_unknown`` where the list is missing.
        """
        # 1. Every part parses to its end.
        snp = SnpEvidence.parse(evidence.payload)
        report = snp.report
        vek = self._vek(snp, endorsements)
        findings = Findings("snp evidence")
        # 2. A format we know.
        verify_form(report, findings)
        # 3. The pinned ARK vouches for the key, now, and took nothing back.
        issuers = self._issuers(snp, endorsements, vek)
        roots = tuple(item for data in snp.roots for item in self._parse(data))
        path = self._authority.verify_path(vek, issuers, roots, now, findings)
        if path is not None:
            lists = self._lists(snp, endorsements, vek.product, findings)
            self._authority.verify_revocation(path, lists, now, findings)
        # 4. That key signed these bytes; certificate and report are about one machine and one firmware.
        verify_signature(report, vek, findings)
        verify_fit(report, vek, findings)
        # 5. Only what is proven becomes a claim.
        checks = findings.settle()
        return VerifiedClaims(tee=SNP, claims=claims_of(report, vek), report_data=report.report_data, checks=checks)

    def _line(self, snp: SnpEvidence) -> Product:
        """Return the line of processors: by CPUID, else by the certificate."""
        if snp.report.product is not None:
            return snp.report.product
        if snp.leaf is None:
            raise Rejected.because("chain_invalid", "certificate of the report's key", want="one sent along")
        return self._parse_vek(snp.leaf).product

    def _parse_vek(self, data: bytes) -> Vek:
        return self._veks.recall((data,), lambda: _only_vek(data))

    def _parse(self, data: bytes) -> tuple[Certificate, ...]:
        return self._certificates.recall((data,), lambda: parse_certificates(data))

    def _vek(self, snp: SnpEvidence, endorsements: Mapping[str, bytes]) -> Vek:
        if snp.leaf is not None:
            return self._parse_vek(snp.leaf)
        name = _leaf_name(snp.report, self._line(snp))
        if name not in endorsements:
            raise Rejected.because("chain_invalid", name, want="the certificate")
        return self._parse_vek(endorsements[name])

    def _at_hand(self, snp: SnpEvidence, product: Product) -> bool:
        """Tell whether some issuer of the leaf came along or is known."""
        kind = snp.report.signing_key or SigningKey.VCEK
        return bool(snp.issuers or self._authority.trust.intermediate(product, kind))

    def _issuers(self, snp: SnpEvidence, endorsements: Mapping[str, bytes], vek: Vek) -> tuple[Certificate, ...]:
        """Return what came along; where nothing did, the issuer at hand, else what was fetched."""
        if snp.issuers:
            return tuple(item for data in snp.issuers for item in self._parse(data))
        known = self._authority.trust.intermediate(vek.product, vek.kind)
        name = amd_vlek_ca(vek.product.key) if vek.kind is SigningKey.VLEK else amd_ca(vek.product.key)
        return known or (self._parse(endorsements[name]) if name in endorsements else ())

    def _lists(
        self, snp: SnpEvidence, endorsements: Mapping[str, bytes], product: Product, findings: Findings
    ) -> tuple[bytes, ...]:
        """Return the revocation lists to look at: the one that was fetched, and those that came along."""
        name = amd_crl(product.key)
        fetched = endorsements.get(name)
        if fetched is not None:
            return (fetched, *snp.crls)
        if self._revocation is None:
            findings.expect(False, "revocation_unknown", name, want="a list")  # noqa: FBT003 - a failure
        else:
            findings.skip("revocation_unknown", name, self._revocation.why)
        return snp.crls


def _only_vek(data: bytes) -> Vek:
    certificates = parse_certificates(data, zero_serial=True)
    if len(certificates) != 1:
        msg = f"amd endorsement certificate: {len(certificates)} in one file, want 1"
        raise Malformed(msg)
    return Vek.parse(certificates[0])


def _leaf_name(report: Report, product: Product) -> str:
    """Return the name of the chip's certificate at the reported TCB."""
    if report.signing_key is not SigningKey.VCEK or report.chip_id_masked:
        # AMD gives a VLEK certificate to its cloud alone, and a hidden chip cannot be asked for.
        raise Rejected.because("chain_invalid", "certificate of the report's key", want="one sent along")
    return amd_vcek(product.key, report.chip_id[: product.hwid_bytes].hex(), report.reported_tcb.hex())


def _authority_name(report: Report, product: Product) -> str:
    return amd_vlek_ca(product.key) if report.signing_key is SigningKey.VLEK else amd_ca(product.key)
