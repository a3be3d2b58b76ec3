"""SGX evidence: a quote of an enclave on an Intel platform (docs/spec/evidence-intel.md).

What it proves: an enclave with this MRENCLAVE, signed by this MRSIGNER, on a platform with this TCB, asked for the
quote. What it does not: that its code is free of what enclaves leak (side channels are the TCB status's business), or
that the host lets it run.

Not done here: comparing report data (``verifier``), reference values (``appraise``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cloister.attest.findings import Findings
from cloister.attest.intel.quote import MAX_QUOTE_BYTES
from cloister.attest.intel.scheme import IntelVerifier
from cloister.attest.parts import parse_parts
from cloister.attest.rats import TeeKind, VerifiedClaims
from cloister.attest.roots import vendor_certificate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cloister.attest.chain import Certificate
    from cloister.attest.intel.verify import Platform
    from cloister.attest.rats import Evidence
    from cloister.attest.rules import NotChecked

__all__ = ["SGX", "SgxScheme", "production_sgx_scheme"]

SGX = TeeKind("sgx")
_CAPS = {"quote": MAX_QUOTE_BYTES}


class SgxScheme:
    """Verifies SGX evidence to pinned roots."""

    tee: Final = SGX
    report_data_bytes: Final = 64
    software_claims: Final[frozenset[str]] = frozenset()

    def __init__(self, roots: Sequence[Certificate], *, without_collateral: NotChecked | None = None) -> None:
        """Pin ``roots``; there is no default. ``without_collateral`` leaves out revocation and TCB, and says why."""
        self._intel = IntelVerifier(roots, without_collateral=without_collateral)

    @property
    def required(self) -> frozenset[str]:
        """What runs, that nobody looks into it, and on which TCB; whose Quoting Enclave where that is not checked."""
        return self._intel.required | {"debug", "mrenclave"}

    def needs(self, evidence: Evidence) -> tuple[str, ...]:
        """Return the name of the platform's collateral. Raises as ``verify`` does for what does not parse."""
        return self._intel.needs(self._read(evidence))

    def verify(self, evidence: Evidence, endorsements: Mapping[str, bytes], now: datetime) -> VerifiedClaims:
        """Prove that an Intel platform signed this report at a TCB that Intel knows, and that a second verifier agrees.

        Raises ``Malformed``; ``Rejected`` with the codes of docs/spec/evidence-intel.md section 4.
        """
        found = Findings("sgx evidence")
        proven = self._intel.verify(found, self._read(evidence), endorsements, now)
        report_data = proven.platform.quote.body.report_data
        return VerifiedClaims(tee=SGX, claims=proven.claims, report_data=report_data, checks=found.checks)

    def _read(self, evidence: Evidence) -> Platform:
        parts = parse_parts(evidence.payload, what="sgx evidence", caps=_CAPS, required=_CAPS)
        return self._intel.read(parts["quote"], tdx=False)


def production_sgx_scheme() -> SgxScheme:
    """Return the scheme with Intel's root."""
    return SgxScheme([vendor_certificate("intel-sgx-root")])
