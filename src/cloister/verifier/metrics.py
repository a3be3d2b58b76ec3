"""The metrics of an attestation service: how many, how it went, how long; never who asked, nor about which machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.rats import TrustTier
from cloister.errors import Malformed, Rejected, Unavailable
from cloister.telemetry.registry import Registry, counter, gauge, histogram
from cloister.verifier.routes import ROUTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.telemetry.registry import Family

__all__ = ["LABELS", "METRICS", "VerifierMetrics", "outcome_of"]

METRICS: Mapping[str, Family] = {
    "cloister_attestation_requests_total": counter("Requests by route and class of status.", "route", "status"),
    "cloister_attestation_results_total": counter("Verifications by model and how they went.", "model", "outcome"),
    "cloister_attestation_seconds": histogram("Seconds from a request's body to its result.", "model"),
    "cloister_attestation_running": gauge("Verifications under way or in line."),
}
"""Every metric there is."""

LABELS: Mapping[str, frozenset[str]] = {
    "model": frozenset({"attest", "verify"}),
    "outcome": frozenset({*(tier.value for tier in TrustTier), "malformed", "refused", "undecided", "failed"}),
    "route": frozenset(route.name for route in ROUTES),
    "status": frozenset({"2xx", "4xx", "5xx"}),
}


class VerifierMetrics(Registry):
    """The values of one service."""

    def __init__(self) -> None:
        """Start every series at zero."""
        super().__init__(METRICS, LABELS)


def outcome_of(error: Exception) -> str:
    """Return how a verification went that ended in ``error``."""
    match error:
        case Malformed():
            return "malformed"
        case Rejected():
            return "refused"
        case Unavailable():
            return "undecided"
        case _:
            return "failed"
