"""Counters and gauges in Prometheus text (exposition format 0.0.4), with closed sets of labels.

Labels are outcomes from the tables below and names of lent models, which the keyset publishes anyway. No
consumer, no content, nothing free. No library is needed for this.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CLOCK_CODES", "METRICS", "METRICS_TYPE", "Metrics"]

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

METRICS: Mapping[str, tuple[str, str, str]] = {
    # name: kind, label ("" for none), help
    "cloister_exchanges_total": ("counter", "outcome", "Outer exchanges by how they ended."),
    "cloister_answers_total": ("counter", "code", "Inner answers by problem code; ok for none."),
    "cloister_inferences_total": ("counter", "model", "Inferences that were charged."),
    "cloister_units_total": ("counter", "model", "Units charged."),
    "cloister_receipt_signatures_total": ("counter", "", "Signatures over receipts, each over one or more of them."),
    "cloister_engine_seconds_total": ("counter", "model", "Seconds spent in the engine."),
    "cloister_batches_total": ("counter", "model", "Runs of several inferences, or of one that waited for others."),
    "cloister_batched_inferences_total": ("counter", "model", "Inferences in those runs."),
    "cloister_queue_seconds_total": (
        "counter",
        "model",
        "Seconds that inferences waited for a turn at the engine.",
    ),
    "cloister_queue_refused_total": ("counter", "reason", "Inferences that left the queue without a run."),
    "cloister_renewals_total": ("counter", "result", "Lease renewals by result."),
    "cloister_clock_anomalies_total": ("counter", "kind", "Times the lease was voided because clocks did not fit."),
    "cloister_exchanges_running": ("gauge", "", "Exchanges under way."),
    "cloister_queue_length": ("gauge", "", "Inferences that wait for their turn at the engine."),
    "cloister_lease_active": ("gauge", "", "1 while a lease is active."),
    "cloister_lease_seconds_left": ("gauge", "", "Seconds until the lease ends unless renewed."),
    "cloister_units_remaining": ("gauge", "model", "Units left as far as this instance knows."),
    "cloister_model_loaded": ("gauge", "model", "1 while the model is in memory."),
    "cloister_model_loads_total": ("counter", "model", "Times the model was opened again after an eviction."),
    "cloister_model_evictions_total": (
        "counter",
        "model",
        "Times the model left memory for another, or for its newer version.",
    ),
    "cloister_models_bytes": ("gauge", "", "Bytes of the models in memory."),
    "cloister_memory_budget_bytes": ("gauge", "", "Bytes that models may take together; 0 for no bound."),
    "cloister_keyset_seconds_left": ("gauge", "", "Seconds until the keyset is replaced."),
}
"""Every metric there is."""

CLOCK_CODES = frozenset({"clock_step", "clock_rate", "clock_gap", "clock_frozen", "clock_slow", "clock_fast"})
_OUTCOMES = frozenset({"answered", "cut", "ohttp_key", "undecipherable", "replayed", "too_large", "busy", "failed"})
_RESULTS = frozenset({"lease", "refusal", "stop", "unavailable", "rejected"})
_REASONS = frozenset({"full", "displaced", "deadline", "gone", "ended"})
_CODES = frozenset(
    {
        "ok",
        "allowance_exhausted",
        "blocked",
        "budget_spent",
        "clock_step",
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


class Metrics:
    """The values. ``models`` are the lent models' names."""

    def __init__(self, models: tuple[str, ...] = ()) -> None:
        """Start every series at zero, so that a rate has a beginning."""
        self._labels = {
            "outcome": _OUTCOMES,
            "result": _RESULTS,
            "reason": _REASONS,
            "code": _CODES,
            "kind": CLOCK_CODES,
            "model": frozenset(models),
        }
        self._lock = threading.Lock()
        self._values: dict[tuple[str, str], float] = {}
        for name, (_, label, _) in METRICS.items():
            for value in sorted(self._labels[label]) if label else ("",):
                self._values[name, value] = 0

    def add(self, name: str, amount: float = 1, label: str = "") -> None:
        """Add to a series."""
        with self._lock:
            self._values[self._series(name, label)] += amount

    def set(self, name: str, value: float, label: str = "") -> None:
        """Set a gauge."""
        with self._lock:
            self._values[self._series(name, label)] = value

    def value(self, name: str, label: str = "") -> float:
        """Return a series' value."""
        with self._lock:
            return self._values[self._series(name, label)]

    def _series(self, name: str, label: str) -> tuple[str, str]:
        if (name, label) not in self._values:
            msg = f"metric {name}: label is not in the table"
            raise UsageError(msg)
        return name, label

    def dump(self) -> str:
        """Return all of it as text."""
        with self._lock:
            values = dict(self._values)
        lines = []
        for name, (kind, label, text) in METRICS.items():
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            series = {value: amount for (metric, value), amount in values.items() if metric == name}
            lines += [
                f'{name}{{{label}="{value}"}} {amount:g}' if label else f"{name} {amount:g}"
                for value, amount in series.items()
            ]
        return "\n".join(lines) + "\n"
