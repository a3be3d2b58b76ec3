"""A reference integrity manifest of NVIDIA judged from a file (docs/spec/evidence-nvidia.md section 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.chain import parse_certificates
from cloister.attest.dossier import Bound, Case
from cloister.attest.dossier.expectations import demand_files, refuse_member
from cloister.attest.findings import Findings
from cloister.attest.nvidia.collateral import collected
from cloister.attest.nvidia.rim import Rim
from cloister.attest.nvidia.rimsignature import verify_rim_chain, verify_rim_signature, window
from cloister.attest.rats import TeeKind, VerifiedClaims
from cloister.attest.roots import vendor_certificate

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cloister.attest.chain import Certificate
    from cloister.wire import Json

__all__ = ["open_case", "open_rim", "rim_claims"]

_NVIDIA_RIM = TeeKind("nvidia-rim")


def open_case(files: Mapping[str, bytes], expectations: Mapping[str, Json]) -> Case:
    """Return the case of a ``rim`` below NVIDIA's own root (``open_rim``)."""
    return open_rim(files, expectations, vendor_certificate("nvidia-rim-root"))


def open_rim(files: Mapping[str, bytes], expectations: Mapping[str, Json], pinned: Certificate) -> Case:
    """Return the case of a ``rim``; where a ``root`` is given, it has to be the pinned one.

    Raises ``Malformed`` and ``Unavailable``.
    """
    demand_files(files, ("rim",), ("root",))
    rim = Rim.parse(files["rim"])
    given = parse_certificates(files["root"]) if "root" in files else (pinned,)
    claims = rim_claims(rim)

    def verify(now: datetime) -> VerifiedClaims:
        findings = Findings("nvidia rim")
        for root in given:
            findings.expect(root.der == pinned.der, "untrusted_root", root.shown, want=pinned.shown)
        with collected(findings):
            verify_rim_signature(rim)
            findings.expect(True, "rim_signature_invalid", "rim")  # noqa: FBT003 - passed
        with collected(findings):
            signer = verify_rim_chain(rim, (pinned,), now)[0]
            findings.expect(True, "chain_invalid", "signer", got=signer.shown)  # noqa: FBT003 - passed
        findings.skip("revocation_unknown", "signer", "no answer of the revocation service is among the files")
        said = {"tag": rim.manifest.tag, "version": rim.manifest.version, "product": rim.manifest.product}
        return VerifiedClaims(tee=_NVIDIA_RIM, claims=said, report_data=b"", checks=findings.settle())

    return Case(
        claims=claims, verify=verify, rules={}, bound=tuple(_bound(claims, *item) for item in expectations.items())
    )


def rim_claims(rim: Rim) -> dict[str, Json]:
    """Return what a manifest says in the words of the index."""
    return {
        "active": len(rim.manifest.active),
        "tag": rim.manifest.tag,
        "version": rim.manifest.version,
        "window": [str(moment) for moment in window(rim.certificates)],
    }


def _bound(claims: Mapping[str, Json], name: str, value: Json) -> Bound:
    if name not in claims or isinstance(value, list):
        refuse_member(name)
    got, want = str(claims[name]).encode(), str(value).encode()
    return Bound(code="collateral_mismatch", subject=name, got=got, want=want)
