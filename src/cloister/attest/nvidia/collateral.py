"""Manifests and revocation answers of one verification: those sent along and those fetched.

``Relaxed`` says what is not demanded, each with its reason; by default everything is. What was relaxed and is there is
judged all the same.

Not done here: the device's own chain and signature (``schemes/nvidia``).
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from cloister.attest.nvidia.golden import conflicting_indices, mismatching_indices
from cloister.attest.nvidia.ocsp import parse_answers, verify_good
from cloister.attest.nvidia.opaque import FieldType
from cloister.attest.nvidia.rim import Rim
from cloister.attest.nvidia.rimsignature import verify_rim_chain, verify_rim_signature
from cloister.attest.rules import NotChecked
from cloister.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from cloister.attest.chain import Certificate
    from cloister.attest.findings import Findings
    from cloister.attest.nvidia.evidence import NvidiaEvidence
    from cloister.attest.nvidia.ocsp import Answer

__all__ = ["Collateral", "Relaxed", "below_root", "collected", "ocsp_name", "rim_name", "rim_parts"]

_STORED = NotChecked("a stored answer: its window bounds its age")


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaxed:
    """What is not demanded, each with its reason; everything is by default.

    ``revocation``: answers about the device's certificates. ``rim_revocation``: about the manifests' signers.
    ``hold``: admit a certificate on hold. ``driver_rim``, ``vbios_rim``: the manifests themselves.
    """

    revocation: NotChecked | None = None
    rim_revocation: NotChecked | None = None
    hold: NotChecked | None = None
    driver_rim: NotChecked | None = None
    vbios_rim: NotChecked | None = None

    def rim(self, part: str) -> NotChecked | None:
        """Return why the manifest in ``part`` is not demanded, None where it is."""
        return self.driver_rim if part == "driver_rim" else self.vbios_rim


def ocsp_name(certificate: Certificate) -> str:
    """Return the name of the answer about ``certificate``."""
    return f"nvidia/ocsp/{certificate.x509.serial_number:x}"


def rim_parts(parts: NvidiaEvidence) -> tuple[str, ...]:
    """Return which manifests a device of this kind has: a switch runs no driver."""
    return ("vbios_rim",) if parts.chain.is_switch else ("driver_rim", "vbios_rim")


def rim_name(part: str, parts: NvidiaEvidence) -> str:
    """Return the name of a manifest by what the report says. Raises ``Malformed`` where it can have none."""
    if part == "driver_rim":
        return f"nvidia/rim/{parts.report.driver_rim_id(parts.chain.chip)}"
    return f"nvidia/rim/{parts.report.vbios_rim_id(switch=parts.chain.is_switch)}"


def below_root(certificates: Sequence[Certificate]) -> tuple[Certificate, ...]:
    """Return the certificates that somebody else issued: all that a revocation service can be asked about."""
    return tuple(item for item in certificates if item.x509.subject != item.x509.issuer)


@contextmanager
def collected(findings: Findings) -> Iterator[None]:
    """Record a refusal among the findings and go on after the block."""
    try:
        yield
    except Rejected as exc:
        findings.refused(exc)


@dataclass(frozen=True, slots=True, kw_only=True)
class Collateral:
    """What a verification at ``now`` has to go by; it records into ``findings``."""

    parts: NvidiaEvidence
    endorsements: Mapping[str, bytes]
    rim_roots: Sequence[Certificate]
    relaxed: Relaxed
    now: datetime
    findings: Findings

    def verify_revocation(self, path: Sequence[Certificate], relaxed: NotChecked | None) -> None:
        """Judge every certificate of a verified path but its last, the root."""
        for certificate, issuer in pairwise(path):
            with collected(self.findings):
                self._verify_one(certificate, issuer, relaxed)

    def _verify_one(self, certificate: Certificate, issuer: Certificate, relaxed: NotChecked | None) -> None:
        subject = f"revocation of {certificate.shown}"
        answers = self._answers(certificate, relaxed)
        if relaxed is not None and not answers:
            self.findings.skip("revocation_unknown", subject, relaxed.why)
            return
        hold = self.relaxed.hold
        status = verify_good(certificate, issuer, answers, self.now, nonce=_STORED, hold=hold)
        if status == "hold" and hold is not None:
            self.findings.skip("revoked", subject, hold.why, got="certificate on hold")
        else:
            self.findings.expect(True, "revoked", subject, got=status)  # noqa: FBT003 - passed

    def _answers(self, certificate: Certificate, relaxed: NotChecked | None) -> tuple[Answer, ...]:
        """Return the answers that name the certificate's number: those fetched.

        Where none is demanded and none was fetched, those that the machine's owner sent along.
        """
        fetched = self.endorsements.get(ocsp_name(certificate), b"")
        along = self.parts.answers if relaxed is not None and not fetched else ()
        serial = certificate.x509.serial_number
        return tuple(item for item in (*parse_answers(fetched), *along) if serial in item.serials)

    def verify_rims(self) -> tuple[str, ...]:
        """Judge the manifests; return the parts that there are."""
        rims = {part: rim for part in rim_parts(self.parts) if (rim := self._find(part)) is not None}
        for part, rim in rims.items():
            self._verify_signer(part, rim)
            self._compare(part, rim)
        if len(rims) > 1:
            both = conflicting_indices(*(rim.manifest for rim in rims.values()))
            self.findings.expect(not both, "rim_conflict", "manifests", got=_listed(both), want="no index in both")
        return tuple(rims)

    def _find(self, part: str) -> Rim | None:
        if part in self.parts.rims:
            return self.parts.rims[part]
        why = self.relaxed.rim(part)
        if why is not None:
            self.findings.skip("measurement_mismatch", part, why.why)
            return None
        name = rim_name(part, self.parts)
        there = self.findings.expect(name in self.endorsements, "rim_missing", part, want=name)
        return Rim.parse(self.endorsements[name]) if there else None

    def _verify_signer(self, part: str, rim: Rim) -> None:
        with collected(self.findings):
            verify_rim_signature(rim)
            self.findings.expect(True, "rim_signature_invalid", part)  # noqa: FBT003 - passed
        with collected(self.findings):
            path = verify_rim_chain(rim, self.rim_roots, self.now)
            self.findings.expect(True, "chain_invalid", f"signer of {part}", got=path[0].shown)  # noqa: FBT003 - passed
            self.verify_revocation(path, self.relaxed.rim_revocation)

    def _compare(self, part: str, rim: Rim) -> None:
        """Demand the manifest of this version for this chip, and measurements as it says."""
        report, manifest = self.parts.report, rim.manifest
        wrong = mismatching_indices(report, manifest)
        subject = f"measurements of {part}"
        self.findings.expect(not wrong, "measurement_mismatch", subject, got=_listed(wrong), want="golden values")
        version = report.driver if part == "driver_rim" else report.vbios
        same = manifest.version.upper() == version.upper()
        self.findings.expect(same, "collateral_mismatch", f"{part} version", got=manifest.version, want=version[:64])
        chips = (self.parts.chain.chip.replace("_", ""), report.text(FieldType.CHIP_INFO))
        fits = manifest.product.upper() in {chip.upper() for chip in chips}
        want = " or ".join(chip[:64] for chip in chips if chip)
        self.findings.expect(fits, "collateral_mismatch", f"{part} product", got=manifest.product, want=want)


def _listed(indices: Sequence[int]) -> str:
    return f"index {', '.join(map(str, indices))}"[:256] if indices else ""
