"""NVIDIA GPUs and NVSwitches: a signed SPDM report, compared with NVIDIA's manifests (docs/spec/evidence-nvidia.md).

What it proves: a genuine chip, whose firmware holds the attestation key, measured these values when the nonce was
fresh, and NVIDIA's signed manifests for exactly these versions say that they are right. What it does not: that the
device is in this machine (composite evidence binds it), that a version is recent (policy), that all devices are there.

Not done here: comparing report data (``verifier``), reference values of our own (``appraise``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cloister.attest.findings import Findings
from cloister.attest.nvidia.collateral import (
    Collateral,
    Relaxed,
    below_root,
    collected,
    ocsp_name,
    rim_name,
    rim_parts,
)
from cloister.attest.nvidia.devicechain import verify_device_chain
from cloister.attest.nvidia.dice import fwid_of
from cloister.attest.nvidia.evidence import NvidiaEvidence
from cloister.attest.nvidia.opaque import FieldType
from cloister.attest.nvidia.report import verify_signature
from cloister.attest.nvidia.rim import Rim
from cloister.attest.nvidia.spdm import NONCE_BYTES
from cloister.attest.rats import TeeKind, VerifiedClaims
from cloister.attest.roots import vendor_certificate
from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cloister.attest.chain import Certificate
    from cloister.attest.rats import ClaimValue, Evidence

__all__ = ["NVIDIA_GPU", "NVIDIA_SWITCH", "NvidiaScheme", "Relaxed", "production_nvidia_schemes", "rim_needs"]

NVIDIA_GPU = TeeKind("nvidia-gpu")
NVIDIA_SWITCH = TeeKind("nvidia-switch")
_REQUIRED = {
    NVIDIA_GPU: frozenset({"arch", "device", "driver", "vbios"}),
    NVIDIA_SWITCH: frozenset({"arch", "device", "vbios"}),
}
_DEMANDED = Relaxed()
_PDI_DIGITS = 16
_TEXTS = {"project": FieldType.PROJECT, "project_sku": FieldType.PROJECT_SKU, "chip_sku": FieldType.CHIP_SKU}


class NvidiaScheme:
    """Verifies one kind of device against pinned roots: ``nvidia-gpu`` or ``nvidia-switch``."""

    report_data_bytes: Final = NONCE_BYTES
    software_claims: Final[frozenset[str]] = frozenset()

    def __init__(
        self,
        tee: TeeKind,
        *,
        device_roots: Sequence[Certificate],
        rim_roots: Sequence[Certificate],
        relaxed: Relaxed = _DEMANDED,
    ) -> None:
        """Pin the roots of devices and of manifests; there is no default. None at all is a ``UsageError``."""
        if tee not in _REQUIRED or not device_roots or not rim_roots:
            msg = "nvidia scheme: want a kind of device, its roots and the roots of its manifests"
            raise UsageError(msg)
        self._tee = tee
        self._device_roots = tuple(device_roots)
        self._rim_roots = tuple(rim_roots)
        self._relaxed = relaxed

    @property
    def tee(self) -> TeeKind:
        """The kind of device."""
        return self._tee

    @property
    def required(self) -> frozenset[str]:
        """Which device, and which versions: a manifest proves that a version is genuine, not that it is the newest."""
        return _REQUIRED[self._tee]

    def needs(self, evidence: Evidence) -> tuple[str, ...]:
        """Return the manifests that were not sent along, and always the answers about revocation.

        An answer that came along stands in nobody's place: the machine's owner would choose which, for as long as its
        window is open. The signers of manifests are known once these are there: then ``rim_needs`` names the answers
        about them. Raises ``Malformed``, ``Rejected``.
        """
        parts = NvidiaEvidence.parse(evidence.payload)
        absent = [part for part in rim_parts(parts) if part not in parts.rims and self._relaxed.rim(part) is None]
        names = [rim_name(part, parts) for part in absent]
        asked: list[Certificate] = []
        if self._relaxed.revocation is None:
            # The leaf is issued by the chip itself: nobody can be asked about it.
            asked += below_root(parts.chain.certificates[1:])
        if self._relaxed.rim_revocation is None:
            asked += [item for rim in parts.rims.values() for item in below_root(rim.certificates)]
        return tuple(dict.fromkeys((*names, *map(ocsp_name, asked))))

    def verify(self, evidence: Evidence, endorsements: Mapping[str, bytes], now: datetime) -> VerifiedClaims:
        """Prove that a chip below a pinned root signed the report, and that manifests explain what it measured.

        Raises ``Malformed``; ``Rejected`` with every reason (docs/spec/evidence-nvidia.md section 4).
        """
        # 1. Every part parses to its end.
        parts = NvidiaEvidence.parse(evidence.payload)
        findings = Findings(f"{self._tee} evidence")
        collateral = Collateral(
            parts=parts,
            endorsements=endorsements,
            rim_roots=self._rim_roots,
            relaxed=self._relaxed,
            now=now,
            findings=findings,
        )
        # 2. The pinned root vouches for the key; nobody revoked what is between; the chip is of this kind.
        path: tuple[Certificate, ...] = ()
        with collected(findings):
            path = verify_device_chain(parts.chain, self._device_roots, now)
            findings.expect(True, "chain_invalid", "device certificates", got=path[-1].shown)  # noqa: FBT003 - passed
            collateral.verify_revocation(path[1:], self._relaxed.revocation)
        with collected(findings):
            kind = NVIDIA_SWITCH if parts.chain.arch.is_switch else NVIDIA_GPU
            findings.expect(kind == self._tee, "chain_invalid", "kind of device", got=kind, want=self._tee)
        # 3. The key belongs to the firmware that the report names.
        certified = fwid_of(parts.chain.leaf)
        if parts.report.fwid is not None:
            findings.equal(certified or b"", parts.report.fwid, "key_binding_mismatch", "firmware digest")
        # 4. That key signed request and response.
        with collected(findings):
            verify_signature(parts.report, parts.chain.leaf)
            findings.expect(True, "signature_invalid", "spdm report")  # noqa: FBT003 - passed
        # 5. Manifests of exactly these versions explain the measurements.
        rims = collateral.verify_rims()
        checks = findings.settle()
        # 6. Only what is proven becomes a claim.
        claims = _claims(parts, path, certified) | {f"rim.{part.removesuffix('_rim')}": "match" for part in rims}
        return VerifiedClaims(tee=self._tee, claims=claims, report_data=parts.report.request.nonce, checks=checks)


def rim_needs(rim: bytes) -> tuple[str, ...]:
    """Return the names of the answers about a manifest's signer. Raises ``Malformed``."""
    return tuple(ocsp_name(item) for item in below_root(Rim.parse(rim).certificates))


def _claims(parts: NvidiaEvidence, path: Sequence[Certificate], certified: bytes | None) -> dict[str, ClaimValue]:
    report, chain = parts.report, parts.chain
    # The ROM key's number by the path that was proven: in the chain as sent anything may stand in its place.
    device = f"{path[1].x509.serial_number:x}"
    claims: dict[str, ClaimValue] = {
        "arch": chain.arch.value,
        "chip": chain.chip,
        "device": device,
        "measurements": report.measurements_digest.hex(),
        "pdi": device[-_PDI_DIGITS:],
        "serial": str(chain.leaf.x509.serial_number),
    }
    texts = {"driver": report.driver, "vbios": report.vbios, "cc_mode": report.mode}
    texts |= {name: report.text(kind) for name, kind in _TEXTS.items()}
    claims |= {name: value for name, value in texts.items() if value}
    if certified is not None:
        claims["fwid"] = certified.hex()
    if chain.arch.is_switch:
        claims["gpus"] = report.wired_gpus
        lock = report.opaque.get(FieldType.LOCK_STATUS)
        claims |= {} if lock is None else {"lock_status": lock.hex()}
    elif report.opaque.get(FieldType.PDI) is not None:
        claims["switches"] = report.wired_switches
    return claims


def production_nvidia_schemes(relaxed: Relaxed = _DEMANDED) -> tuple[NvidiaScheme, NvidiaScheme]:
    """Return the schemes for GPUs and for switches, with NVIDIA's own roots pinned."""
    devices, rims = (vendor_certificate("nvidia-device-identity-root"),), (vendor_certificate("nvidia-rim-root"),)
    return (
        NvidiaScheme(NVIDIA_GPU, device_roots=devices, rim_roots=rims, relaxed=relaxed),
        NvidiaScheme(NVIDIA_SWITCH, device_roots=devices, rim_roots=rims, relaxed=relaxed),
    )
