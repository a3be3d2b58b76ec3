"""What a platform's TCB is worth by Intel's published documents: the levels it reaches and the status they make.

Steps 4.1.2.4.11 and 4.1.2.4.17 of Intel's verifier. Nothing is judged here but the documents' fit: a missing level is
a finding with a name, a poor status one for the policy.

Not done here: who signed the documents (``verify``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.attest.intel.qeidentity import masked
from cloister.attest.intel.quote import TEE_SGX
from cloister.attest.intel.tcb import TcbStatus, advisories, converge, match_component, match_level, relaunch
from cloister.attest.intel.tcbinfo import module_name
from cloister.attest.intel.td import TdReport

if TYPE_CHECKING:
    from cloister.attest.intel.collateral import Collateral
    from cloister.attest.intel.pck import Pck
    from cloister.attest.intel.quote import Quote
    from cloister.attest.intel.tcb import ComponentLevel, TcbLevel
    from cloister.attest.intel.tcbinfo import ModuleIdentity, TcbInfo

__all__ = ["Assessment", "ModuleState", "assess", "collateral_differences", "module_differences"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleState:
    """The TDX module of a TD: its name, its published identity, the level it reaches where it has levels."""

    name: str
    identity: ModuleIdentity | None
    level: ComponentLevel | None

    @property
    def unmatched(self) -> bool:
        """Whether levels are published and none is reached, or no identity is published at all."""
        return self.identity is None or (bool(self.identity.levels) and self.level is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """The levels reached, None where none is, and the status they make together: None where one is missing.

    ``current`` is the status of the module that runs now: that of the launch where the report has no other.
    """

    platform: TcbLevel | None
    qe: ComponentLevel | None
    module: ModuleState | None
    current: TcbStatus | None
    status: TcbStatus | None
    advisories: tuple[str, ...]


def collateral_differences(quote: Quote, pck: Pck, collateral: Collateral) -> dict[str, tuple[str, str]]:
    """Return in what the documents are about another platform or TEE: got and want by field."""
    tee, qe = ("SGX", "QE") if quote.tee == TEE_SGX else ("TDX", "TD_QE")
    info, identity = collateral.tcb_info, collateral.qe_identity
    versions = (2,) if quote.tee == TEE_SGX else (2, 3)
    compared = {
        "tcb info id": (info.kind, tee),
        "tcb info fmspc": (info.fmspc.hex(), pck.fmspc.hex()),
        "tcb info pceid": (info.pceid.hex(), pck.pceid.hex()),
        "qe identity id": (identity.kind, qe),
        "qe identity version": (str(identity.version), str(identity.version if identity.version in versions else 2)),
    }
    return {name: (got, want) for name, (got, want) in compared.items() if got != want}


def assess(quote: Quote, pck: Pck, collateral: Collateral) -> Assessment:
    """Return what the platform of ``quote`` reaches. For documents that fit it (``collateral_differences``)."""
    info, report = collateral.tcb_info, quote.body
    qe = match_component(collateral.qe_identity.levels, quote.qe_report.isvsvn)
    if not isinstance(report, TdReport):
        platform, module = match_level(info.levels, pck.components, pck.pcesvn), None
        status = platform.status if platform is not None else None
    else:
        platform, module, status = _assess_svn(info, pck, report.tee_tcb_svn)
    current = status
    if isinstance(report, TdReport) and report.tee_tcb_svn2 is not None:
        # 4.1.2.4.17.4.3: the TD started on one TCB and the module may have been updated under it since.
        _, _, current = _assess_svn(info, pck, report.tee_tcb_svn2)
    return Assessment(
        platform=platform,
        qe=qe,
        module=module,
        current=current,
        status=_merge(status, current, qe.status if qe is not None else None),
        advisories=advisories((platform, qe, module.level if module is not None else None)),
    )


def _merge(launched: TcbStatus | None, current: TcbStatus | None, qe: TcbStatus | None) -> TcbStatus | None:
    """Return the status of all parts together. Launching a TD again is advised on a good Quoting Enclave only."""
    if launched is None or current is None or qe is None:
        return None
    if current is TcbStatus.REVOKED:
        return current
    return converge(relaunch(launched, current) if qe is TcbStatus.UP_TO_DATE else launched, qe)


def _assess_svn(info: TcbInfo, pck: Pck, svn: bytes) -> tuple[TcbLevel | None, ModuleState, TcbStatus | None]:
    platform = match_level(info.levels, pck.components, pck.pcesvn, svn)
    identity = info.module_for(svn)
    level = match_component(identity.levels, svn[0]) if identity is not None else None
    module = ModuleState(name=module_name(svn), identity=identity, level=level)
    if platform is None or module.unmatched:
        return platform, module, None
    return platform, module, converge(platform.status, level.status) if level is not None else platform.status


def module_differences(report: TdReport, identity: ModuleIdentity) -> dict[str, tuple[str, str]]:
    """Return what in the report is not this module's: got and want by field (4.1.2.4.11). Other bits are zero."""
    mask = identity.attributes_mask
    outside = masked(report.seam_attributes, bytes(0xFF ^ byte for byte in mask))
    compared = {
        "mrsignerseam": (report.mrsignerseam, identity.mrsigner),
        "seam attributes": (masked(report.seam_attributes, mask), masked(identity.attributes, mask)),
        "seam attributes outside the mask": (outside, bytes(len(mask))),
    }
    return {name: (got.hex(), want.hex()) for name, (got, want) in compared.items() if got != want}
