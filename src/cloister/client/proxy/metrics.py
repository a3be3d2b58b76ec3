"""The metrics of a proxy: what passed, how it went, and how long its proof of the enclave still holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.telemetry.registry import Registry, counter, gauge, histogram

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.client.proxy.upstream import Upstream
    from cloister.telemetry.registry import Family

__all__ = ["LABELS", "METRICS", "ProxyMetrics"]

METRICS: Mapping[str, Family] = {
    "cloister_proxy_requests_total": counter("Requests over HTTP by class of status.", "status"),
    "cloister_proxy_seconds": histogram("Seconds until a request over HTTP was answered."),
    "cloister_proxy_running": gauge("Requests over HTTP under way."),
    "cloister_proxy_passed_total": counter("Requests passed on to the enclave, over HTTP and gRPC."),
    "cloister_proxy_proven_total": counter("Receipts proven."),
    "cloister_proxy_receipts_owed": gauge("Receipts that are not on the disk yet."),
    "cloister_proxy_verified": gauge("1 while the enclave is verified."),
    "cloister_proxy_keys_seconds_left": gauge("Seconds until the verified keys end."),
}
"""Every metric there is."""

LABELS: Mapping[str, frozenset[str]] = {"status": frozenset({"2xx", "3xx", "4xx", "5xx"})}


class ProxyMetrics(Registry):
    """The values of one proxy."""

    def __init__(self) -> None:
        """Start every series at zero."""
        super().__init__(METRICS, LABELS)

    def measure(self, upstream: Upstream) -> None:
        """Bring up to date what the proxy knows of itself."""
        enclave, receipts = upstream.verified, upstream.receipts
        left = 0.0 if enclave is None else max(0.0, (enclave.keyset.exp - upstream.now()).total_seconds())
        self.set("cloister_proxy_passed_total", upstream.passed)
        self.set("cloister_proxy_proven_total", upstream.proven)
        self.set("cloister_proxy_receipts_owed", 0 if receipts is None else receipts.owed)
        self.set("cloister_proxy_verified", int(enclave is not None))
        self.set("cloister_proxy_keys_seconds_left", round(left, 3))
