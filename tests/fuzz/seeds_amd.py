"""Fuzzing targets of AMD SEV-SNP: a parser, and honest inputs of a synthetic chip to start from."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from cloister.attest.amd.certificates import parse_certificates
from cloister.attest.amd.certtable import parse_table
from cloister.attest.amd.evidence import SnpEvidence
from cloister.attest.amd.idblock import IdAuth, IdBlock
from cloister.attest.amd.launch import Launch, launch_digest
from cloister.attest.amd.products import Product
from cloister.attest.amd.report import Report
from cloister.attest.amd.vek import Vek
from cloister.attest.crl import RevocationList
from cloister.attest.describe.amd import SnpCertificateDescriber, SnpReportDescriber
from cloister.errors import Malformed, UsageError
from cloister.testing.vendors.amd import AmdAttester, Chip, ReportValues, SyntheticAmd
from cloister.testing.vendors.amd.firmware import synthetic_firmware
from cloister.testing.vendors.amd.identity import synthetic_identity

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TARGETS"]


@cache
def _chips() -> tuple[Chip, ...]:
    milan, turin = SyntheticAmd.generate(), SyntheticAmd.generate(Product.TURIN)
    return (Chip(milan), Chip(milan, csp="CN=cloud.example"), Chip(turin))


def _reports() -> list[bytes]:
    return [chip.report(ReportValues(version=version)) for chip in _chips() for version in (2, 5)]


def _leaves() -> list[bytes]:
    return [chip.leaf().der for chip in _chips()]


def _vek(data: bytes) -> object:
    return [Vek.parse(item) for item in parse_certificates(data, zero_serial=True)]


def _launch(data: bytes) -> object:
    try:
        return launch_digest(Launch(firmware=data, vcpus=2, vcpu_type="EPYC-v4", kernel=b"kernel"))
    except UsageError as exc:  # the size is our caller's business
        raise Malformed(exc.message) from exc


def _evidence() -> list[bytes]:
    return [_chips()[0].evidence().payload, AmdAttester(_chips()[1]).collect(bytes(64)).payload]


TARGETS: dict[str, tuple[Callable[[bytes], object], Callable[[], list[bytes]]]] = {
    "snp-evidence": (SnpEvidence.parse, _evidence),
    "snp-report": (Report.parse, _reports),
    "snp-report-described": (SnpReportDescriber().describe, _reports),
    "snp-certificate": (_vek, _leaves),
    "snp-certificate-described": (SnpCertificateDescriber().describe, _leaves),
    "snp-certificates-as-pem": (_vek, lambda: [chip.leaf().pem for chip in _chips()]),
    "snp-certificate-table": (parse_table, lambda: [chip.table() for chip in _chips()]),
    "snp-revocation-list": (RevocationList.parse, lambda: [_chips()[0].vendor.crl(1, 2)]),
    "snp-id-block": (IdBlock.parse, lambda: [synthetic_identity().block.dump()]),
    "snp-id-authentication": (IdAuth.parse, lambda: [synthetic_identity().auth]),
    "snp-launch": (_launch, lambda: [synthetic_firmware()]),
}
"""Name to parser and seeds. A parser raises ``Malformed`` and nothing else."""
