"""Fuzzing targets of cloud vTPMs and predicted PCRs: a parser, and honest inputs of synthetic clouds to start from."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import TYPE_CHECKING

from cloister.attest.azure.akcert import parse_nv_certificate
from cloister.attest.azure.evidence import AzureEvidence
from cloister.attest.azure.hcl import HclReport, RuntimeClaims
from cloister.attest.describe.azure import AzureEvidenceDescriber, HclReportDescriber
from cloister.attest.describe.tpm import (
    AkCertificateDescriber,
    EventLogDescriber,
    TpmKeyDescriber,
    TpmQuoteDescriber,
    TpmSignatureDescriber,
)
from cloister.attest.gce.instance import GceInstance
from cloister.attest.tpm.predict import uki_sections
from cloister.attest.tpm.quoted import parse_any_signature, parse_key, parse_pcrs
from cloister.errors import Malformed, Rejected
from cloister.testing.vendors.azure import AzureAttester, SnpHardware, SyntheticAzure, TdxHardware
from cloister.testing.vendors.gce import GceAttester, Instance, SyntheticGoogle, certificate
from cloister.testing.vendors.vtpm import rsa_key

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TARGETS"]

_SOFTWARE = hashlib.sha256(b"software manifest").digest()


@cache
def _parts() -> tuple[dict[str, bytes], ...]:
    vms = AzureAttester(SnpHardware(), _SOFTWARE), AzureAttester(TdxHardware(), _SOFTWARE)
    return (*(vm.parts(bytes(32)) for vm in vms), GceAttester(SyntheticGoogle(), _SOFTWARE).parts(bytes(32)))


def _each(role: str) -> Callable[[], list[bytes]]:
    return lambda: [parts[role] for parts in _parts() if role in parts]


def _documents() -> list[bytes]:
    made = []
    for parts in _parts()[:2]:
        inner = {"vcek": parts["leaf"].hex()} if "leaf" in parts else {"td_quote": parts["td_quote"].hex()}
        pcrs = [value for _, value in sorted(json.loads(parts["pcrs"]).items(), key=lambda item: int(item[0]))]
        quote = {"message": parts["quote"].hex(), "signature": parts["signature_tpmt"].hex(), "pcrs": pcrs}
        made.append(json.dumps({"version": 1, "tpm_quote": quote, "hcl_report": parts["hcl_report"].hex(), **inner}))
    return [document.encode() for document in made]


def _hcl(data: bytes) -> object:
    try:
        return HclReport.parse(data)
    except Rejected as exc:  # of another TEE, which is well formed
        raise Malformed(str(exc)) from exc


def _certificates() -> list[bytes]:
    return [
        certificate(rsa_key(0), SyntheticAzure().issue()).der + bytes(16),
        certificate(rsa_key(0), SyntheticGoogle().issue(Instance())).der,
    ]


def _image() -> list[bytes]:
    """Return a small image: headers, one section."""
    optional = (
        (0x20B).to_bytes(2, "little") + bytes(58) + (400).to_bytes(4, "little") + bytes(44) + (16).to_bytes(4, "little")
    )
    section = b".linux\0\0" + b"".join(value.to_bytes(4, "little") for value in (16, 0, 16, 400)) + bytes(16)
    coff = b"\x64\x86\x01\x00" + bytes(12) + (240).to_bytes(2, "little") + b"\x22\x00"
    head = b"MZ".ljust(60, b"\x00") + (64).to_bytes(4, "little") + b"PE\0\0" + coff + optional + bytes(128) + section
    return [head.ljust(400, b"\x00") + b"k" * 16]


TARGETS: dict[str, tuple[Callable[[bytes], object], Callable[[], list[bytes]]]] = {
    "azure-hcl-report": (_hcl, _each("hcl_report")),
    "azure-hcl-report-described": (HclReportDescriber().describe, _each("hcl_report")),
    "azure-runtime-claims": (
        RuntimeClaims.parse,
        lambda: [HclReport.parse(p["hcl_report"]).claims for p in _parts()[:2]],
    ),
    "azure-evidence": (AzureEvidence.parse, _documents),
    "azure-evidence-described": (AzureEvidenceDescriber().describe, _documents),
    "azure-nv-certificate": (parse_nv_certificate, _certificates),
    "vtpm-certificate-described": (AkCertificateDescriber().describe, _certificates),
    "gce-instance": (GceInstance.parse, lambda: [Instance().dump(), Instance(properties=None).dump()]),
    "tpm-pcrs": (parse_pcrs, _each("pcrs")),
    "tpm-key": (parse_key, _each("ak_public_tpmt")),
    "tpm-key-described": (TpmKeyDescriber().describe, _each("ak_public_tpmt")),
    "tpm-signature": (parse_any_signature, _each("signature_tpmt")),
    "tpm-signature-described": (TpmSignatureDescriber().describe, _each("signature_tpmt")),
    "tpm-quote-described": (TpmQuoteDescriber().describe, _each("quote")),
    "tpm-event-log-described": (EventLogDescriber().describe, _each("eventlog")),
    "unified-kernel-image": (uki_sections, _image),
}
"""Name to parser and seeds. A parser raises ``Malformed`` and nothing else."""
