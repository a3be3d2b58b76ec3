"""The metrics of a custodian: a table, the closed sets of its labels, and what is counted from committed events.

Labels are routes, codes, kinds of TEEs and of events. Loans are named where the setting ``metrics_loans`` says so, by
their ids; borrowers, consumers and tokens never. Counts are this process's own; gauges are the database's, as every
custodian over it sees them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.rats import TrustTier
from cloister.lending.events import EventKind
from cloister.lending.watch import WatchKind
from cloister.telemetry.registry import Registry, counter, gauge, histogram

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cloister.lending.events import Event
    from cloister.telemetry.registry import Family

__all__ = ["LABELS", "METRICS", "CustodianMetrics"]

METRICS: Mapping[str, Family] = {
    "cloister_custodian_requests_total": counter("Requests by route and class of status.", "route", "status"),
    "cloister_custodian_request_seconds": histogram("Seconds until a request was answered.", "route"),
    "cloister_custodian_events_total": counter("Events that this process committed to the audit log.", "event"),
    "cloister_custodian_attestations_total": counter("Attestations by TEE and verdict.", "tee", "verdict"),
    "cloister_custodian_leases_total": counter("Lease requests by what was answered.", "result"),
    "cloister_custodian_clock_anomalies_total": counter("Renewals that did not come as T says.", "anomaly"),
    "cloister_custodian_extraction_alarms_total": counter("Alarms that enclaves told of how consumers ask.", "watch"),
    "cloister_custodian_units_total": counter("Units of loans that moved, by where to.", "account"),
    "cloister_custodian_commit_seconds": histogram("Seconds that the database took to commit."),
    "cloister_custodian_vault_errors_total": counter("Calls that the vault did not answer.", "error"),
    "cloister_custodian_instances_live": gauge("Instances that may serve."),
    "cloister_custodian_instances_late": gauge("Instances not heard of for two renewal intervals."),
    "cloister_custodian_units_left": gauge("Units that all loans together may still spend."),
    "cloister_custodian_loans_low": gauge("Loans in use that have little left."),
    "cloister_custodian_loan_units_left": gauge("Units that a loan may still spend.", "loan"),
    "cloister_custodian_requests_open": gauge("Requests for more units that wait for a person."),
    "cloister_custodian_log_entries": gauge("Entries of the audit log."),
    "cloister_custodian_checkpoint_behind_entries": gauge("Entries that the checkpoint outside does not have yet."),
    "cloister_custodian_checkpoint_age_seconds": gauge("Seconds since the checkpoint outside was written."),
    "cloister_custodian_witnesses_behind": gauge("Witnesses that have not cosigned what they should have."),
    "cloister_custodian_key_age_seconds": gauge("Age of the key-encryption key in use."),
    "cloister_custodian_certificate_seconds_left": gauge("Seconds until a certificate ends.", "certificate"),
    "cloister_custodian_endorsements_seconds_left": gauge("Seconds until the endorsement bundle ends; 0 for none."),
    "cloister_custodian_disk_free_bytes": gauge("Bytes free where this lies.", "place"),
    "cloister_custodian_health": gauge("1 while a check is in this state.", "check", "state"),
    "cloister_custodian_alarms": gauge("1 while an alarm is active.", "alarm"),
}
"""Every metric there is."""

_LEASE_CODES = frozenset({
    "allowance_exhausted", "blocked", "contract_changed", "evidence_too_old", "fork_detected", "instance_closed",
    "instance_dead", "overdrawn", "policy_changed", "recovering", "stale_epoch", "usage_missing",
    "wrong_seq",
})  # fmt: skip
CHECKS = frozenset({"checkpoint", "clock", "database", "disk", "endorsements", "vault"})
ALARMS = frozenset({
    "allowance_low", "attestations_failing", "certificate_ending", "checkpoint_stale", "clock_anomaly", "disk_low",
    "endorsements_ending", "extraction", "fork_detected", "heartbeat_missing", "key_old", "requests_waiting",
    "unhealthy", "vault_failing", "witness_behind",
})  # fmt: skip
LABELS: Mapping[str, frozenset[str]] = {
    "account": frozenset({"granted", "spent", "withdrawn", "written_off"}),
    "alarm": ALARMS,
    "anomaly": frozenset({"renewal_late", "renewals_early"}),
    "certificate": frozenset({"authority", "server"}),
    "check": CHECKS,
    "error": frozenset({"rejected", "unavailable", "usage"}),
    "event": frozenset(kind.value for kind in EventKind),
    "place": frozenset({"checkpoint", "database"}),
    "result": _LEASE_CODES | {"granted", "other"},
    "state": frozenset({"ok", "degraded", "failed"}),
    "status": frozenset({"2xx", "4xx", "5xx"}),
    "verdict": frozenset(tier.value for tier in TrustTier) | {"refused"},
    "watch": frozenset(kind.value for kind in WatchKind),
}
"""Every label but three: ``tee``, whose values are the verifier's, ``route`` and ``loan``."""


class CustodianMetrics(Registry):
    """The values of one custodian's process. ``tees`` are those that it can verify."""

    def __init__(self, tees: Iterable[str] = ()) -> None:
        """Start every series at zero."""
        sets = {**LABELS, "tee": {*tees, "unknown"}, "route": (), "loan": ()}
        super().__init__(METRICS, sets, growing=frozenset({"route", "loan"}))
        self._tees = frozenset(tees)

    def count(self, events: Iterable[Event], units: Mapping[str, int]) -> None:
        """Count what one transaction has committed. Raises nothing: what is in no set counts as ``other``."""
        released: dict[str, tuple[str, str]] = {}
        for event in events:
            self.add("cloister_custodian_events_total", label=event.kind.value)
            match event.kind:
                case EventKind.LEASE_GRANTED:
                    self.add("cloister_custodian_leases_total", label="granted")
                case EventKind.LEASE_REFUSED:
                    self.add("cloister_custodian_leases_total", label=_first(event, _LEASE_CODES))
                case EventKind.CLOCK_ANOMALY | EventKind.EXTRACTION_ALARM:
                    self._noticed(event)
                case EventKind.KEY_RELEASED:  # one for each model; an attestation is one for an instance
                    released[event.subject] = (self._known(event), str(event.details.get("tier", "none")))
                case EventKind.ATTESTATION_REFUSED:
                    self.add("cloister_custodian_attestations_total", label=(self._known(event), "refused"))
                case _:
                    pass
        for label in released.values():
            self.add("cloister_custodian_attestations_total", label=label)
        for account, moved in units.items():
            self.add("cloister_custodian_units_total", moved, account)

    def _noticed(self, event: Event) -> None:
        """Count what looked odd of an enclave's clock, or to an enclave in how consumers ask."""
        code = str(event.details.get("codes", ""))
        if event.kind is EventKind.CLOCK_ANOMALY and code in LABELS["anomaly"]:
            self.add("cloister_custodian_clock_anomalies_total", label=code)
        if event.kind is EventKind.EXTRACTION_ALARM and code in LABELS["watch"]:
            self.add("cloister_custodian_extraction_alarms_total", int(event.details.get("alarms", 0)), code)

    def _known(self, event: Event) -> str:
        tee = str(event.details.get("tee", "unknown"))
        return tee if tee in self._tees else "unknown"


def _first(event: Event, known: frozenset[str]) -> str:
    """Return the first code of a refusal, ``other`` for one that has no series."""
    code = str(event.details.get("codes", "")).partition(",")[0]
    return code if code in known else "other"
