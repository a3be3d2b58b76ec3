"""SNP evidence: a report and what came along with it (docs/spec/evidence-snp.md section 2).

Not done here: whether any of it is genuine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cloister.attest.amd.certificates import MAX_CERTIFICATES_BYTES
from cloister.attest.amd.certtable import MAX_TABLE_BYTES, parse_table
from cloister.attest.amd.report import REPORT_BYTES, Report, SigningKey
from cloister.attest.parts import parse_parts
from cloister.attest.rats import TeeKind

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CAPS", "SNP", "SnpEvidence"]

SNP = TeeKind("snp")

MAX_EVIDENCE_CRL_BYTES = 128 * 1024  # bytes of a revocation list inside evidence; AMD's have under 1 KiB
CAPS: Mapping[str, int] = {
    "report": REPORT_BYTES,
    "leaf": MAX_CERTIFICATES_BYTES,
    "intermediate": MAX_CERTIFICATES_BYTES,
    "root": MAX_CERTIFICATES_BYTES,
    "crl": MAX_EVIDENCE_CRL_BYTES,
    "certs": MAX_TABLE_BYTES,
}
"""Roles, and the most bytes of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpEvidence:
    """A report with the files beside it, still as bytes: the leaf or none, its issuers, roots, revocation lists."""

    report: Report
    leaf: bytes | None
    issuers: tuple[bytes, ...]
    roots: tuple[bytes, ...]
    crls: tuple[bytes, ...]

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """Parse the parts. Where both are there, a part counts before an entry of the table. Raises ``Malformed``."""
        parts = parse_parts(payload, what="snp evidence", caps=CAPS, required=("report",))
        table = parse_table(parts.get("certs", b""))
        report = Report.parse(parts["report"])
        signer = "vlek" if report.signing_key is SigningKey.VLEK else "vcek"
        return cls(
            report=report,
            leaf=parts.get("leaf", table.get(signer)),
            issuers=_there(parts.get("intermediate", table.get("ask"))),
            roots=_there(parts.get("root"), table.get("ark")),
            crls=_there(parts.get("crl"), table.get("crl")),
        )


def _there(*found: bytes | None) -> tuple[bytes, ...]:
    return tuple(data for data in found if data is not None)
