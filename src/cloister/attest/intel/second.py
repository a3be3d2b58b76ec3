"""The second verifier: ``dcap-qvl``, written by others in another language, has to come to the same verdict.

It has opinions of its own about attributes (no debugging, SEPT_VE_DISABLE, no service TD, ...), which here are the
policy's. It utters them last, after everything else holds for it: such a refusal is told apart by what it says.

Not done here: believing it where our own checks refuse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import dcap_qvl  # type: ignore[import-untyped]  # stubs of its extension, but no marker

if TYPE_CHECKING:
    from datetime import datetime

    from cloister.attest.chain import Certificate
    from cloister.attest.intel.collateral import Collateral
    from cloister.attest.intel.quote import Quote

__all__ = ["Opinion", "second_opinion"]

_REFUSED = "Verification failed: "
_ATTRIBUTES = {
    "Debug mode is enabled",
    "Invalid MR service TD",
    "Reserved bits in TD attributes are set",
    "SEPT_VE_DISABLE is not enabled",
    "SERVTD_EXT is enabled",
    "TD migration is enabled",
    "TD profiling is enabled",
}
_SHOWN_CHARS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What it said: accepted with a status and advisories, or refused for a reason."""

    accepted: bool
    status: str = ""
    advisories: tuple[str, ...] = ()
    refusal: str = ""

    @property
    def about_attributes(self) -> bool:
        """Whether it refused for attributes that are the policy's to judge, after all else held."""
        return self.refusal in _ATTRIBUTES


def second_opinion(quote: Quote, collateral: Collateral, root: Certificate, now: datetime) -> Opinion:
    """Return what the second verifier says at ``now``."""
    raw = collateral.raw
    given = dcap_qvl.QuoteCollateralV3(
        pck_crl_issuer_chain=raw["pck_crl_issuer_chain"],
        root_ca_crl=bytes.fromhex(raw["root_ca_crl"]),
        pck_crl=bytes.fromhex(raw["pck_crl"]),
        tcb_info_issuer_chain=raw["tcb_info_issuer_chain"],
        tcb_info=raw["tcb_info"],
        tcb_info_signature=bytes.fromhex(raw["tcb_info_signature"]),
        qe_identity_issuer_chain=raw["qe_identity_issuer_chain"],
        qe_identity=raw["qe_identity"],
        qe_identity_signature=bytes.fromhex(raw["qe_identity_signature"]),
    )
    seconds = max(0, int(now.timestamp()))
    try:
        report = dcap_qvl.verify_with_root_ca(quote.raw, given, root.der, seconds)
    except ValueError as exc:
        said = ascii(str(exc).removeprefix(_REFUSED))[1:-1]
        return Opinion(accepted=False, refusal=said[:_SHOWN_CHARS])
    return Opinion(accepted=True, status=report.status, advisories=tuple(report.advisory_ids))
