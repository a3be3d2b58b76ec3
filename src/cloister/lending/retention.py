"""How long entries are kept: a class for every kind of event (docs/spec/audit-log.md, section 10).

A class has a period by setting; 0 is for ever. ``RECORD`` has none: these entries say whose log it is and what was
done to it, and a log that lost them could not account for what it lacks. A kind that no class names is ``SECURITY``.
"""

from __future__ import annotations

from enum import Enum

from cloister.lending.events import EventKind

__all__ = ["Retention", "retention_of"]


class Retention(Enum):
    """Classes, each with a period of its own."""

    SECURITY = "security"
    BILLING = "billing"
    ACCESS = "access"
    OPERATIONAL = "operational"
    RECORD = "record"


_CLASSES = {
    Retention.RECORD: (
        "custodian_initialised custodian_recovered log_pruned hold_placed hold_lifted subject_forgotten "
        "keys_rotated key_destroyed"
    ),
    Retention.BILLING: (
        "loan_created terms_changed contract_offered contract_signed allowance_added allowance_set "
        "allowance_written_off more_requested more_approved more_denied lease_granted usage_reported usage_stated "
        "voucher_issued voucher_settled overdraft_booked overdraft_repaid ticket_granted instance_closed "
        "instance_written_off overdraft_detected"
    ),
    Retention.ACCESS: ("token_created token_revoked access_denied consumer_added pseudonym_resolved field_opened"),
    Retention.OPERATIONAL: (
        "custodian_started custodian_stopped challenge_issued lease_refused usage_refused voucher_refused "
        "ticket_refused rotation_scheduled envelope_moved envelope_stuck endorsements_accepted drill_recorded"
    ),
}
_BY_KIND = {EventKind(name): kept for kept, names in _CLASSES.items() for name in names.split()}


def retention_of(kind: EventKind) -> Retention:
    """Return the class of an entry."""
    return _BY_KIND.get(kind, Retention.SECURITY)
