"""TDX evidence: a quote of a trust domain on an Intel platform, and the log of its boot (docs/spec/evidence-intel.md).

What it proves: a TD with these measurements, under this TDX module, on a platform with this TCB, asked for the quote;
where the log came along, that it arrives at the quoted RTMRs. What it does not: what happened in the TD since it last
extended an RTMR, or that the host lets it run.

Not done here: comparing report data (``verifier``), reference values (``appraise``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cloister.attest.findings import Findings
from cloister.attest.intel.eventlog import MAX_CCEL_BYTES, CcelLog, record_replay
from cloister.attest.intel.quote import MAX_QUOTE_BYTES
from cloister.attest.intel.scheme import IntelVerifier
from cloister.attest.intel.td import TdReport
from cloister.attest.parts import parse_parts
from cloister.attest.rats import TeeKind, VerifiedClaims
from cloister.attest.roots import vendor_certificate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cloister.attest.chain import Certificate
    from cloister.attest.rats import Evidence
    from cloister.attest.rules import NotChecked

__all__ = ["TDX", "TdxScheme", "production_tdx_scheme"]

TDX = TeeKind("tdx")
_CAPS = {"quote": MAX_QUOTE_BYTES, "ccel": MAX_CCEL_BYTES}
_MEASURED = {"mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"}
_ATTRIBUTES = {
    "debug",
    "service_td",
    "td_attributes.migratable",
    "td_attributes.profiling",
    "td_attributes.reserved",
    "td_attributes.sept_ve_disable",
    "td_attributes.servtd_ext",
}


class TdxScheme:
    """Verifies TDX evidence to pinned roots."""

    tee: Final = TDX
    report_data_bytes: Final = 64
    software_claims: Final[frozenset[str]] = frozenset()

    def __init__(self, roots: Sequence[Certificate], *, without_collateral: NotChecked | None = None) -> None:
        """Pin ``roots``; there is no default. ``without_collateral`` leaves out revocation and TCB, and says why."""
        self._intel = IntelVerifier(roots, without_collateral=without_collateral)

    @property
    def required(self) -> frozenset[str]:
        """What runs, that nobody looks into it or moves it, on which TCB; whose Quoting Enclave where unchecked."""
        return self._intel.required | _MEASURED | _ATTRIBUTES

    def needs(self, evidence: Evidence) -> tuple[str, ...]:
        """Return the name of the platform's collateral. Raises as ``verify`` does for what does not parse."""
        return self._intel.needs(self._intel.read(_parts(evidence)["quote"], tdx=True))

    def verify(self, evidence: Evidence, endorsements: Mapping[str, bytes], now: datetime) -> VerifiedClaims:
        """Prove that an Intel platform signed this report at a TCB that Intel knows, and that a second verifier agrees.

        Raises ``Malformed``; ``Rejected`` with the codes of docs/spec/evidence-intel.md section 4.
        """
        parts = _parts(evidence)
        platform = self._intel.read(parts["quote"], tdx=True)
        log = CcelLog.parse(parts["ccel"]) if "ccel" in parts else None
        found = Findings("tdx evidence")
        body = platform.quote.body
        if log is not None and isinstance(body, TdReport):
            record_replay(found, log, body.rtmrs)
        proven = self._intel.verify(found, platform, endorsements, now)
        return VerifiedClaims(tee=TDX, claims=proven.claims, report_data=body.report_data, checks=found.checks)


def _parts(evidence: Evidence) -> dict[str, bytes]:
    return parse_parts(evidence.payload, what="tdx evidence", caps=_CAPS, required={"quote"})


def production_tdx_scheme() -> TdxScheme:
    """Return the scheme with Intel's root."""
    return TdxScheme([vendor_certificate("intel-sgx-root")])
