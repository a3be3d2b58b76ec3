"""The metrics of an enclave: a table, and the closed sets of its labels.

Labels are outcomes from the sets below and names of lent models, which the keyset publishes anyway. No consumer, no
content, nothing free. The mechanism is ``telemetry``'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.lending.watch import WatchKind
from cloister.telemetry.registry import Registry, counter, gauge, histogram

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.telemetry.registry import Family

__all__ = ["CLOCK_CODES", "LABELS", "METRICS", "Metrics"]

EXCHANGE_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""No more than the host sees on its network."""

METRICS: Mapping[str, Family] = {
    "cloister_exchanges_total": counter("Outer exchanges by how they ended.", "outcome"),
    "cloister_exchange_seconds": histogram(
        "Seconds from the head of an outer exchange to its end.", buckets=EXCHANGE_SECONDS
    ),
    "cloister_answers_total": counter("Inner answers by problem code; ok for none.", "code"),
    "cloister_inferences_total": counter("Inferences that were charged.", "model"),
    "cloister_units_total": counter("Units charged.", "model"),
    "cloister_receipt_signatures_total": counter("Signatures over receipts, each over one or more of them."),
    "cloister_engine_seconds_total": counter("Seconds spent in the engine.", "model"),
    "cloister_batches_total": counter("Runs of several inferences, or of one that waited for others.", "model"),
    "cloister_batched_inferences_total": counter("Inferences in those runs.", "model"),
    "cloister_queue_seconds_total": counter("Seconds that inferences waited for a turn at the engine.", "model"),
    "cloister_queue_refused_total": counter("Inferences that left the queue without a run.", "reason"),
    "cloister_renewals_total": counter("Lease renewals by result.", "result"),
    "cloister_clock_anomalies_total": counter("Times the lease was voided because clocks did not fit.", "kind"),
    "cloister_extraction_alarms_total": counter("Alarms about how consumers ask, by what was noticed.", "watch"),
    "cloister_exchanges_running": gauge("Exchanges under way."),
    "cloister_queue_length": gauge("Inferences that wait for their turn at the engine."),
    "cloister_lease_active": gauge("1 while a lease is active."),
    "cloister_lease_seconds_left": gauge("Seconds until the lease ends unless renewed."),
    "cloister_lease_ceiling_units": gauge("Units up to which the lease lets this instance serve, since it began."),
    "cloister_lease_used_units": gauge("Units of these that it has served."),
    "cloister_units_remaining": gauge("Units left as far as this instance knows.", "model"),
    "cloister_model_loaded": gauge("1 while the model is in memory.", "model"),
    "cloister_model_loads_total": counter("Times the model was opened again after an eviction.", "model"),
    "cloister_model_evictions_total": counter(
        "Times the model left memory for another, or for its newer version.", "model"
    ),
    "cloister_models_bytes": gauge("Bytes of the models in memory."),
    "cloister_memory_budget_bytes": gauge("Bytes that models may take together; 0 for no bound."),
    "cloister_keyset_seconds_left": gauge("Seconds until the keyset is replaced."),
}
"""Every metric there is."""


CLOCK_CODES = frozenset({"clock_step", "clock_rate", "clock_gap", "clock_frozen", "clock_slow", "clock_fast"})
_OUTCOMES = frozenset(
    {"answered", "cut", "ohttp_key", "undecipherable", "replayed", "too_large", "busy", "failed", "peer_refused"}
)
_RESULTS = frozenset({"lease", "refusal", "stop", "unavailable", "rejected"})
_REASONS = frozenset({"full", "displaced", "deadline", "gone", "ended"})
_CODES = frozenset(
    {
        "ok",
        "allowance_exhausted",
        "blocked",
        "budget_spent",
        "clock_step",
        "consumer_stopped",
        "date_missing",
        "date_skewed",
        "deadline_passed",
        "draining",
        "engine_failed",
        "input",
        "internal",
        "lease_expired",
        "malformed",
        "method_not_allowed",
        "not_found",
        "output",
        "output_withheld",
        "outside_hours",
        "parameter_refused",
        "rate_limited",
        "request_id_reused",
        "request_id_too_long",
        "request_in_flight",
        "revocations_missing",
        "sub_allowance_exhausted",
        "sub_allowance_expired",
        "sub_allowance_invalid",
        "sub_allowance_rate",
        "sub_allowance_revoked",
        "sub_allowance_scope",
        "sub_allowances_busy",
        "sub_allowances_off",
        "ticket_expired",
        "ticket_refused",
        "too_large",
        "unauthorized",
        "unavailable",
        "unknown_model",
        "usage_unreported",
    }
)

LABELS: Mapping[str, frozenset[str]] = {
    "outcome": _OUTCOMES,
    "result": _RESULTS,
    "reason": _REASONS,
    "code": _CODES,
    "kind": CLOCK_CODES,
    "watch": frozenset(kind.value for kind in WatchKind),
}
"""Every label but ``model``, whose values are the lent models' names."""


class Metrics(Registry):
    """The values of one instance. ``models`` are the lent models' names."""

    def __init__(self, models: tuple[str, ...] = ()) -> None:
        """Start every series at zero."""
        super().__init__(METRICS, {**LABELS, "model": models})
