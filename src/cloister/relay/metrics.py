"""The metrics of a relay: how many, how it went, how long; never who, nor how large."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.telemetry.registry import Registry, counter, gauge, histogram

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.telemetry.registry import Family

__all__ = ["LABELS", "METRICS", "RelayMetrics"]

METRICS: Mapping[str, Family] = {
    "cloister_relay_requests_total": counter("Requests by resource and class of status.", "resource", "status"),
    "cloister_relay_seconds": histogram("Seconds until the head of an answer was there.", "resource"),
    "cloister_relay_running": gauge("Requests under way."),
    "cloister_relay_renewals_total": counter("Tries to renew the relay's own certificate by how they went.", "result"),
}
"""Every metric there is."""

LABELS: Mapping[str, frozenset[str]] = {
    "resource": frozenset({"gateway", "keyset", "none"}),
    "result": frozenset({"failed", "internal_error", "renewed"}),
    "status": frozenset({"2xx", "3xx", "4xx", "5xx"}),
}


class RelayMetrics(Registry):
    """The values of one relay."""

    def __init__(self) -> None:
        """Start every series at zero."""
        super().__init__(METRICS, LABELS)
