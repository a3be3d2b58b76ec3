"""Azure vTPM evidence: a quote by a key that the hardware's own report vouches for (docs/spec/evidence-vtpm.md).

    hardware report -> SHA-256 of the runtime claims -> attestation key of the vTPM -> quote -> PCRs, nonce

One class over two hardware schemes, SNP and TDX. What it proves: the paravisor that the hardware measured runs this
vTPM, which had these PCRs when the verifier's nonce was fresh. What it does not: that the paravisor is a good one (its
measurement is the policy's matter), and whatever the hardware's scheme does not prove.

Not done here: comparing report data (``verifier``), reference values (``appraise``), the hardware report itself (the
hardware's scheme), Azure's certificate for the same key (``azure.akcert``), which says less than the hardware does.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloister.attest.amd.certificates import MAX_CERTIFICATES_BYTES
from cloister.attest.azure.hcl import MAX_HCL_BYTES, HardwareKind, HclReport, RuntimeClaims
from cloister.attest.findings import Findings
from cloister.attest.intel.quote import MAX_QUOTE_BYTES
from cloister.attest.parts import dump_parts, parse_parts
from cloister.attest.rats import Evidence, TeeKind, VerifiedClaims
from cloister.attest.schemes.snp import production_snp_scheme
from cloister.attest.schemes.tdx import production_tdx_scheme
from cloister.attest.tpm.measured import MEASURED_CAPS, MEASURED_REQUIRED, claims_of, find_software, take_quoted
from cloister.attest.tpm.quoted import find_quoted
from cloister.errors import Malformed, Rejected, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cloister.attest.rats import ClaimValue
    from cloister.attest.verifier import Scheme

__all__ = ["AZURE_SNP_VTPM", "AZURE_TDX_VTPM", "SETTINGS", "AzureVtpmScheme", "production_azure_vtpm_schemes"]

AZURE_SNP_VTPM = TeeKind("azure-snp-vtpm")
AZURE_TDX_VTPM = TeeKind("azure-tdx-vtpm")

_KINDS = {"snp": (AZURE_SNP_VTPM, HardwareKind.SNP), "tdx": (AZURE_TDX_VTPM, HardwareKind.TDX)}
_REQUIRED_PARTS = ("hcl_report", "pcrs", "quote", "signature_tpmt")
_SNP_CAPS = {"leaf": MAX_CERTIFICATES_BYTES, "intermediate": MAX_CERTIFICATES_BYTES}
_TDX_CAPS = {"td_quote": MAX_QUOTE_BYTES}
_PARAVISOR_VMPL = 0
SETTINGS = {
    "console-enabled": "vm.console",
    "filtered-vpci-devices-allowed": "vm.vpci_devices",
    "interactive-console-enabled": "vm.interactive",
    "root-cert-thumbprint": "vm.root_cert",
    "secure-boot": "vm.secure_boot",
    "tpm-enabled": "vm.tpm",
    "tpm-persisted": "vm.tpm_persisted",
    "vmUniqueId": "vm.id",
}
"""Settings the paravisor vouches for, and their claims (AttestationVmConfig of the openvmm project)."""


class AzureVtpmScheme:
    """Verifies Azure vTPM evidence on top of ``hardware``, a scheme for SNP or for TDX."""

    report_data_bytes = 32
    software_claims = frozenset({"software"})

    def __init__(self, hardware: Scheme) -> None:
        """Take the scheme of the hardware; of any other TEE it is a ``UsageError``."""
        if hardware.tee not in _KINDS:
            msg = f"azure vtpm scheme: hardware {hardware.tee}, want {' or '.join(_KINDS)}"
            raise UsageError(msg)
        self._hardware = hardware
        self._tee, self._kind = _KINDS[hardware.tee]

    @property
    def tee(self) -> TeeKind:
        """``azure-snp-vtpm`` or ``azure-tdx-vtpm``."""
        return self._tee

    @property
    def required(self) -> frozenset[str]:
        """The hardware's, and those of a measured machine."""
        return self._hardware.required | MEASURED_REQUIRED

    def needs(self, evidence: Evidence) -> tuple[str, ...]:
        """Return what the hardware's scheme needs. Raises ``Malformed``, ``Rejected``."""
        parts, hcl = self._open(evidence)
        return self._hardware.needs(self._hardware_evidence(parts, hcl))

    def verify(self, evidence: Evidence, endorsements: Mapping[str, bytes], now: datetime) -> VerifiedClaims:
        """Prove that the hardware vouches for the key that signed this quote over these PCRs.

        Raises ``Malformed``; ``Rejected`` with all of: the hardware's codes, ``unsupported_format``,
        ``key_binding_mismatch``, ``vmpl_mismatch``, ``tpm_signature_invalid`` and those of ``find_quoted``.
        """
        # 1. Every part parses to its end.
        parts, hcl = self._open(evidence)
        runtime = RuntimeClaims.parse(hcl.claims)
        quoted = take_quoted(parts)
        findings = Findings(f"{self._tee} evidence")
        # 2. The hardware signed its report; the report carries the digest of the runtime claims, which name the key.
        inner = self._hardware_evidence(parts, hcl)
        hardware = _find_hardware(findings, self._hardware, inner, endorsements, now)
        _find_binding(findings, hcl, hardware)
        # 3. That key signed a quote over exactly these PCRs; log and software explain them.
        explained = find_quoted(findings, quoted, runtime.ak, code="tpm_signature_invalid")
        find_software(findings, parts, quoted)
        # 4. Only what is proven becomes a claim.
        checks = findings.settle()
        claims = claims_of(parts, quoted, explained) | _runtime_claims(runtime)
        claims |= {"hcl_version": hcl.version, "report_type": hcl.kind.value}
        if hardware is not None:
            claims, checks = {**hardware.claims, **claims}, (*hardware.checks, *checks)
        return VerifiedClaims(tee=self._tee, claims=claims, report_data=quoted.quote.extra_data, checks=checks)

    def _open(self, evidence: Evidence) -> tuple[dict[str, bytes], HclReport]:
        caps = {**MEASURED_CAPS, "hcl_report": MAX_HCL_BYTES}
        required: tuple[str, ...] = _REQUIRED_PARTS
        if self._kind is HardwareKind.TDX:
            caps, required = caps | _TDX_CAPS, (*required, "td_quote")
        else:
            caps |= _SNP_CAPS
        parts = parse_parts(evidence.payload, what=f"{self._tee} evidence", caps=caps, required=required)
        hcl = HclReport.parse(parts["hcl_report"])
        if hcl.kind is not self._kind:
            msg = f"{self._tee} evidence: hcl report of {hcl.kind.value}"
            raise Malformed(msg)
        return parts, hcl

    def _hardware_evidence(self, parts: Mapping[str, bytes], hcl: HclReport) -> Evidence:
        """Return the evidence that the hardware's scheme knows."""
        if hcl.kind is HardwareKind.TDX:
            inner = {"quote": parts["td_quote"]}
        else:
            inner = {"report": hcl.hardware, **{role: parts[role] for role in _SNP_CAPS if role in parts}}
        return Evidence(tee=self._hardware.tee, payload=dump_parts(inner))


def _find_hardware(
    findings: Findings, scheme: Scheme, evidence: Evidence, endorsements: Mapping[str, bytes], now: datetime
) -> VerifiedClaims | None:
    """Return what the hardware's scheme proves; record why where it proves nothing."""
    try:
        return scheme.verify(evidence, endorsements, now)
    except Rejected as exc:
        findings.refused(exc)
        return None


def _find_binding(findings: Findings, hcl: HclReport, hardware: VerifiedClaims | None) -> None:
    """Record whether the report carries the digest of the runtime claims, and came from the paravisor."""
    findings.equal(hcl.carried, hcl.report_data, "key_binding_mismatch", "digest of the runtime claims")
    if hardware is None:
        return
    if hcl.kind is HardwareKind.TDX:  # what counts is the quote: nothing signs the tdreport in the hcl report
        findings.equal(hardware.report_data, hcl.report_data, "key_binding_mismatch", "report data of the td quote")
    else:
        # The guest itself may ask for reports at its own level, over any key: only the paravisor's counts.
        vmpl = hardware.claims.get("vmpl")
        findings.expect(vmpl == _PARAVISOR_VMPL, "vmpl_mismatch", "vmpl", got=str(vmpl), want=str(_PARAVISOR_VMPL))


def _runtime_claims(runtime: RuntimeClaims) -> dict[str, ClaimValue]:
    """Return what the paravisor says; a setting of another type than its kind is no claim."""
    spki = runtime.ak.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    claims: dict[str, ClaimValue] = {"ak": hashlib.sha256(spki).hexdigest(), "user_data": runtime.user_data.lower()}
    for name, claim in SETTINGS.items():
        value = runtime.configuration.get(name)
        if isinstance(value, (bool, str)):
            claims[claim] = value
    return claims


def production_azure_vtpm_schemes() -> tuple[AzureVtpmScheme, AzureVtpmScheme]:
    """Return both schemes with the pinned roots of AMD and Intel, lists and collateral demanded."""
    return AzureVtpmScheme(production_snp_scheme()), AzureVtpmScheme(production_tdx_scheme())
