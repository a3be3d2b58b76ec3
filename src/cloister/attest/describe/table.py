"""Every describer, and the guess which of them a file is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.chain import Certificate
from cloister.attest.describe import Description, Field
from cloister.attest.describe.amd import SnpCertificateDescriber, SnpReportDescriber
from cloister.attest.describe.arm import CcaDescriber, PsaDescriber
from cloister.attest.describe.azure import AzureEvidenceDescriber, HclReportDescriber
from cloister.attest.describe.certificate import CertificateDescriber, CrlDescriber
from cloister.attest.describe.companions import (
    ArmAnchorsDescriber,
    CertificateTableDescriber,
    KeysDescriber,
    PcrsDescriber,
)
from cloister.attest.describe.intel import (
    CcelDescriber,
    IntelCollateralDescriber,
    SgxQuoteDescriber,
    SigstructDescriber,
    TdxQuoteDescriber,
)
from cloister.attest.describe.nitro import NitroDescriber
from cloister.attest.describe.nvidia import NvidiaReportDescriber, NvidiaRimDescriber
from cloister.attest.describe.token import TokenDescriber
from cloister.attest.describe.tpm import (
    AkCertificateDescriber,
    EventLogDescriber,
    TpmKeyDescriber,
    TpmQuoteDescriber,
    TpmSignatureDescriber,
)
from cloister.attest.parts import is_parts, parse_parts
from cloister.attest.tpm.evidence import TPM, TpmEvidence, is_tpm_evidence
from cloister.attest.tpm.measured import dump_pcrs
from cloister.errors import Malformed, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.describe import Describer

__all__ = ["DESCRIBERS", "PARTS_KIND", "explain"]

DESCRIBERS: tuple[Describer, ...] = (
    SgxQuoteDescriber(),
    TdxQuoteDescriber(),
    SnpReportDescriber(),
    CertificateTableDescriber(),
    NvidiaReportDescriber(),
    HclReportDescriber(),
    TpmQuoteDescriber(),
    CcelDescriber(),
    SigstructDescriber(),
    NvidiaRimDescriber(),
    IntelCollateralDescriber(),
    AzureEvidenceDescriber(),
    TokenDescriber(),
    NitroDescriber(),
    CcaDescriber(),
    PsaDescriber(),
    SnpCertificateDescriber(),
    AkCertificateDescriber(),
    EventLogDescriber(),
    TpmKeyDescriber(),
    TpmSignatureDescriber(),
    CertificateDescriber(),
    CrlDescriber(),
    PcrsDescriber(),
    ArmAnchorsDescriber(),
    KeysDescriber(),
)
"""In the order of asking: the surest marks first."""

PARTS_KIND = "parts"
_SOFTWARE = "software"
_MAX_PART_BYTES = 1 << 20  # bytes of one part
_ROLES = (
    "report", "quote", "document", "token", "ccel", "certs", "leaf", "intermediate", "root", "crl", "chain", "ocsp",
    "driver_rim", "vbios_rim", "hcl_report", "td_quote", "pcrs", "signature_tpmt", "ak_public_tpmt", "ak_certificate",
    "eventlog", "software",
)  # fmt: skip


def explain(data: bytes, *, kind: str | None = None) -> Description:
    """Return what ``data`` says, as ``kind`` or as the first kind that recognises it.

    Raises ``Malformed`` where no kind does, or where it does not parse as the kind it looks like; ``UsageError`` for a
    kind that nobody knows.
    """
    if kind is None and is_parts(data):
        parts = parse_parts(data, what="evidence", caps=dict.fromkeys(_ROLES, _MAX_PART_BYTES))
        return _explain_parts(PARTS_KIND, parts)
    if kind is None and is_tpm_evidence(data):
        return _explain_parts(TPM, _parts_of_tpm(TpmEvidence.parse(data)))
    if kind is not None:
        found = next((item for item in DESCRIBERS if item.kind == kind), None)
        if found is None:
            msg = f"inspect: no kind {kind[:64]!r}, want one of {', '.join(item.kind for item in DESCRIBERS)}"
            raise UsageError(msg)
        return found.describe(data)
    for item in DESCRIBERS:
        if item.recognises(data):
            return item.describe(data)
    msg = f"inspect: {len(data)} bytes of no kind we know"
    raise Malformed(msg, hint="name it with --kind")


def _parts_of_tpm(evidence: TpmEvidence) -> dict[str, bytes]:
    parts = {
        "ak_public_tpmt": evidence.ak_public,
        "chain": b"".join(Certificate.parse(item).pem for item in evidence.certificates),
        "eventlog": evidence.event_log,
        "pcrs": dump_pcrs(evidence.pcrs),
        "quote": evidence.attest,
        "signature_tpmt": evidence.signature,
        "software": evidence.software,
    }
    return {role: data for role, data in parts.items() if data}


def _explain_parts(kind: str, parts: Mapping[str, bytes]) -> Description:
    """Explain each part as if it were a file of its own; one that nobody knows is named with its size."""
    fields: list[Field] = []
    for role, part in parts.items():
        if role == _SOFTWARE:
            fields.append(Field(name=role, value=part.hex(), meaning="SHA-256 of the software manifest in PCR 23"))
            continue
        try:
            found = explain(part)
        except Malformed:
            fields.append(Field(name=role, value=f"{len(part)} bytes", meaning="a part that is explained nowhere"))
            continue
        fields.append(Field(name=role, value=f"{len(part)} bytes", meaning=found.title))
        fields += [Field(name=f"{role}: {item.name}", value=item.value, meaning=item.meaning) for item in found.fields]
    return Description(kind=kind, title=f"Evidence, parts: {len(parts)}", fields=tuple(fields))
