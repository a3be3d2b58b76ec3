"""Azure's HCL reports, and vTPM evidence as projects pass it on, explained (docs/spec/evidence-vtpm.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cloister.attest.azure.evidence import AzureEvidence
from cloister.attest.azure.hcl import HardwareKind, HclReport, RuntimeClaims
from cloister.attest.describe import Description, Field
from cloister.attest.describe.tpm import pcr_fields, quote_fields
from cloister.attest.tpm.quoted import unwrapped
from cloister.attest.tpm.structures import Quote
from cloister.errors import Malformed, Rejected

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["AzureEvidenceDescriber", "HclReportDescriber"]

_MEANINGS = {
    "console-enabled": "whether the host can see a serial console",
    "current-time": "seconds since 1970 when the report was made",
    "filtered-vpci-devices-allowed": "whether some devices pass the paravisor's filter",
    "interactive-console-enabled": "whether the host can type into that console",
    "root-cert-thumbprint": "certificate the machine was provisioned with",
    "secure-boot": "whether Secure Boot was configured on; PCR 7 says what was booted",
    "tpm-enabled": "whether the machine has this vTPM",
    "tpm-persisted": "whether the vTPM keeps its state when the machine is off",
    "vmUniqueId": "the machine, as the hypervisor calls it",
}
_HEAD_BYTES = 128  # where a document names its members first


class HclReportDescriber:
    """Explains the report of NV index 0x01400001."""

    kind: Final = "azure-hcl"

    def recognises(self, data: bytes) -> bool:
        """Tell whether this has the magic."""
        return data.startswith(b"HCLA")

    def describe(self, data: bytes) -> Description:
        """Explain every field. Raises ``Malformed``."""
        fields = tuple(_hcl_fields(_parse(data)))
        return Description(kind=self.kind, title="Azure HCL report: a paravisor's word for its vTPM", fields=fields)


class AzureEvidenceDescriber:
    """Explains a document with a quote and the report behind its key."""

    kind: Final = "azure-vtpm"

    def recognises(self, data: bytes) -> bool:
        """Tell whether this is JSON that soon names a quote, a report or a platform of Azure's."""
        head = data[:_HEAD_BYTES]
        words = (b'"tpm_quote"', b'"hcl_report"', b'"quote"', b'"az-', b'"version"')
        return head.lstrip().startswith(b"{") and any(word in head for word in words) and b"report" in data

    def describe(self, data: bytes) -> Description:
        """Explain every field. Raises ``Malformed``."""
        document = AzureEvidence.parse(data)
        quote = Quote.parse(unwrapped(document.attest))
        fields = (*_hcl_fields(_parse(document.hcl_report)), *quote_fields(quote), *pcr_fields(document.pcrs))
        return Description(
            kind=self.kind, title="Azure vTPM evidence: a quote, and what vouches for its key", fields=fields
        )


def _parse(data: bytes) -> HclReport:
    try:
        return HclReport.parse(data)
    except Rejected as exc:  # of a TEE we do not know: nothing to explain
        raise Malformed(str(exc)) from exc


def _hcl_fields(hcl: HclReport) -> Iterator[Field]:
    runtime = RuntimeClaims.parse(hcl.claims)
    yield Field(name="version", value=str(hcl.version), meaning="format; 2 is written by OpenHCL")
    inside = "SNP report" if hcl.kind is HardwareKind.SNP else "TDREPORT, unsigned: the TD quote made from it counts"
    yield Field(name="report type", value=hcl.kind.value, meaning=f"the hardware's own report is inside: {inside}")
    same = hcl.carried == hcl.report_data
    yield Field(
        name="report data",
        value=hcl.carried.hex(),
        meaning="is the digest of the claims below" if same else "is NOT the digest of the claims below: altered",
    )
    yield Field(name="HCLAkPub", value=f"RSA {runtime.ak.key_size}", meaning="key that has to have signed the quote")
    for name, value in runtime.configuration.items():
        shown = str(value)[:128]
        shown = shown if shown.isprintable() else ascii(shown)
        yield Field(name=name, value=shown, meaning=_MEANINGS.get(name, "a setting without a description"))
    yield Field(
        name="user-data", value=runtime.user_data or "none", meaning="64 bytes the guest wrote through NV 0x01400002"
    )
