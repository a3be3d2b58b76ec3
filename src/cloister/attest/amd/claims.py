"""Claims of a verified report, flat, under the names that policies use (docs/spec/evidence-snp.md section 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.amd.bits import PLATFORM_BITS, POLICY_BITS
from cloister.attest.amd.fit import line_of
from cloister.attest.amd.report import SigningKey
from cloister.attest.amd.tcb import Tcb

if TYPE_CHECKING:
    from cloister.attest.amd.report import Report
    from cloister.attest.amd.vek import Vek
    from cloister.attest.rats import ClaimValue

__all__ = ["MASKED_CHIP", "REQUIRED", "claims_of"]

MASKED_CHIP = "00" * 64
"""``chip_id`` where nobody says which chip: a VLEK on a platform that hides it."""

REQUIRED = frozenset(
    {
        "chip_id",
        "debug",
        "host_data",
        "measurement",
        "migratable",
        "product",
        "tcb.bl",
        "tcb.snp",
        "tcb.tee",
        "tcb.ucode",
        "vmpl",
    }
)
"""What a policy must have a rule for."""

_VECTOR_BITS = 64


def claims_of(report: Report, vek: Vek) -> dict[str, ClaimValue]:
    """Return every claim. Call it with a report that was verified under ``vek``, or believe nothing of it."""
    return {
        **_identity(report, vek),
        **_guest(report),
        **_platform(report, vek),
        **_mitigations(report),
    }


def _identity(report: Report, vek: Vek) -> dict[str, ClaimValue]:
    # A VCEK is one chip's: its certificate says which, also where the report is masked.
    chip = vek.chip_id if vek.kind is SigningKey.VCEK else report.chip_id
    claims: dict[str, ClaimValue] = {
        "chip_id": chip.hex(),
        "chip_id_masked": report.chip_id_masked,
        "product": vek.product.key,
        "product_name": vek.product_name,
        "signing_key": vek.kind.name.lower(),
        "version": report.version,
    }
    if vek.csp:
        claims["csp"] = vek.csp
    if report.cpuid is not None:
        claims |= {
            "cpuid.family": report.cpuid.family,
            "cpuid.model": report.cpuid.model,
            "cpuid.stepping": report.cpuid.stepping,
        }
    return claims


def _guest(report: Report) -> dict[str, ClaimValue]:
    return {
        "author_key_digest": report.author_key_digest.hex(),
        "author_key_en": report.author_key_en,
        "family_id": report.family_id.hex(),
        "guest_policy": f"{report.policy:016x}",
        "guest_svn": report.guest_svn,
        "host_data": report.host_data.hex(),
        "id_key_digest": report.id_key_digest.hex(),
        "image_id": report.image_id.hex(),
        "measurement": report.measurement.hex(),
        "policy.abi_major": report.policy >> 8 & 0xFF,
        "policy.abi_minor": report.policy & 0xFF,
        "report_id": report.report_id.hex(),
        "report_id_ma": report.report_id_ma.hex(),
        "vmpl": report.vmpl,
        **{bit.claim: bit.of(report.policy) for bit in POLICY_BITS},
    }


def _platform(report: Report, vek: Vek) -> dict[str, ClaimValue]:
    claims: dict[str, ClaimValue] = {
        "committed_firmware": report.committed.number,
        "current_firmware": report.current.number,
        "mask_chip_key": report.mask_chip_key,
        "platform_info": f"{report.platform_info:016x}",
        **{bit.claim: bit.of(report.platform_info) for bit in PLATFORM_BITS},
    }
    for family, raw in (
        ("tcb", report.reported_tcb),
        ("committed_tcb", report.committed_tcb),
        ("current_tcb", report.current_tcb),
        ("launch_tcb", report.launch_tcb),
    ):
        claims |= {f"{family}.{name}": level for name, level in Tcb.read(raw, line_of(report, vek)).parts.items()}
    return claims


def _mitigations(report: Report) -> dict[str, ClaimValue]:
    """Return the vectors, and a claim for each bit that is set: a rule about one that is not fails for want of it."""
    claims: dict[str, ClaimValue] = {}
    for name, vector in (("launch", report.launch_mitigation), ("current", report.current_mitigation)):
        if vector is not None:
            claims[f"mitigation.{name}"] = f"{vector:016x}"
            claims |= {f"mitigation.{name}_{bit}": True for bit in range(_VECTOR_BITS) if vector >> bit & 1}
    return claims
