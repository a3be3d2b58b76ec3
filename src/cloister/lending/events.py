"""What an audit log can say: a closed set of events and a closed set of details (docs/spec/audit-log.md).

Nothing here can carry content: every detail has a form of its own, and there is no free text but
short names and reasons that a person of the custodian wrote.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

from cloister.errors import UsageError
from cloister.lending.terms import MAX_UNITS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DETAILS", "DetailValue", "Event", "EventKind", "verify_details"]

DetailValue: TypeAlias = "str | int | bool"
COMMITMENT_BYTES = 32


class EventKind(Enum):
    """Everything that is ever logged."""

    CUSTODIAN_INITIALISED = "custodian_initialised"
    CUSTODIAN_STARTED = "custodian_started"
    CUSTODIAN_STOPPED = "custodian_stopped"
    CUSTODIAN_RECOVERED = "custodian_recovered"
    TOKEN_CREATED = "token_created"  # noqa: S105 - the name of an event
    TOKEN_REVOKED = "token_revoked"  # noqa: S105 - the name of an event
    SESSION_OPENED = "session_opened"
    SESSION_RENEWED = "session_renewed"
    SESSION_ENDED = "session_ended"
    PROPOSAL_MADE = "proposal_made"
    PROPOSAL_APPROVED = "proposal_approved"
    PROPOSAL_DENIED = "proposal_denied"
    PROPOSAL_WITHDRAWN = "proposal_withdrawn"
    PROPOSAL_EXPIRED = "proposal_expired"
    PROPOSAL_EXECUTED = "proposal_executed"
    PROPOSAL_REFUSED = "proposal_refused"
    PERMIT_ISSUED = "permit_issued"
    PERMIT_REVOKED = "permit_revoked"
    PERMIT_USED = "permit_used"
    VAULT_CHANGED = "vault_changed"
    ISSUER_SET = "issuer_set"
    ISSUER_REMOVED = "issuer_removed"
    ACCESS_DENIED = "access_denied"
    MODEL_PUBLISHED = "model_published"
    MODEL_WITHDRAWN = "model_withdrawn"
    LOAN_CREATED = "loan_created"
    TERMS_CHANGED = "terms_changed"
    CONTRACT_OFFERED = "contract_offered"
    CONTRACT_SIGNED = "contract_signed"
    POLICY_CHANGED = "policy_changed"
    CONSUMER_ADDED = "consumer_added"
    ALLOWANCE_ADDED = "allowance_added"
    ALLOWANCE_SET = "allowance_set"
    ALLOWANCE_WRITTEN_OFF = "allowance_written_off"
    MORE_REQUESTED = "more_requested"
    MORE_APPROVED = "more_approved"
    MORE_DENIED = "more_denied"
    CHALLENGE_ISSUED = "challenge_issued"
    ATTESTATION_REFUSED = "attestation_refused"
    KEY_RELEASED = "key_released"
    KEYS_ROTATED = "keys_rotated"
    KEY_DESTROYED = "key_destroyed"
    ENVELOPE_STUCK = "envelope_stuck"
    ENVELOPE_MOVED = "envelope_moved"
    ROTATION_SCHEDULED = "rotation_scheduled"
    LEASE_GRANTED = "lease_granted"
    LEASE_REFUSED = "lease_refused"
    USAGE_REPORTED = "usage_reported"
    USAGE_REFUSED = "usage_refused"
    USAGE_STATED = "usage_stated"
    VOUCHER_ISSUED = "voucher_issued"
    VOUCHER_REFUSED = "voucher_refused"
    VOUCHER_SETTLED = "voucher_settled"
    OVERDRAFT_BOOKED = "overdraft_booked"
    OVERDRAFT_REPAID = "overdraft_repaid"
    TICKET_GRANTED = "ticket_granted"
    TICKET_REFUSED = "ticket_refused"
    INSTANCE_CLOSED = "instance_closed"
    INSTANCE_WRITTEN_OFF = "instance_written_off"
    FORK_DETECTED = "fork_detected"
    OVERDRAFT_DETECTED = "overdraft_detected"
    CLOCK_ANOMALY = "clock_anomaly"
    EXTRACTION_ALARM = "extraction_alarm"
    DRILL_RECORDED = "drill_recorded"
    BLOCKED = "blocked"
    UNBLOCKED = "unblocked"
    DEVICE_ENROLLED = "device_enrolled"
    DEVICE_REFUSED = "device_refused"
    DEVICE_NAMED = "device_named"
    DEVICE_RETIRED = "device_retired"
    DEVICE_READMITTED = "device_readmitted"
    CERTIFICATE_ISSUED = "certificate_issued"
    CERTIFICATE_REFUSED = "certificate_refused"
    AUTHORITY_MADE = "authority_made"
    AUTHORITIES_RETIRED = "authorities_retired"
    ENDORSEMENTS_ACCEPTED = "endorsements_accepted"
    RECALLED = "recalled"
    TENANT_CREATED = "tenant_created"
    TENANT_SUSPENDED = "tenant_suspended"
    TENANT_RESUMED = "tenant_resumed"
    TENANT_REMOVAL_ASKED = "tenant_removal_asked"
    TENANT_ERASED = "tenant_erased"
    SUBJECT_FORGOTTEN = "subject_forgotten"
    PSEUDONYM_RESOLVED = "pseudonym_resolved"
    FIELD_OPENED = "field_opened"
    HOLD_PLACED = "hold_placed"
    HOLD_LIFTED = "hold_lifted"
    LOG_PRUNED = "log_pruned"
    ALARM_RAISED = "alarm_raised"
    ALARM_CLEARED = "alarm_cleared"


_HEX = re.compile(r"[0-9a-f]{1,128}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}")
_CODES = re.compile(r"[a-z][a-z0-9_]{0,63}(?:,[a-z][a-z0-9_]{0,63}){0,63}")
_LINE = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{0,200}")

DETAILS: Mapping[str, re.Pattern[str] | type[int | bool]] = {
    "alarms": int,
    "before": _NAME,
    "block_version": int,
    "borrower": _LINE,
    "bound": bool,
    "bundle": _HEX,
    "clock": _NAME,
    "codes": _CODES,
    "consumer": _NAME,
    "contract": _HEX,
    "custodian": _HEX,
    "debit": int,
    "device": _NAME,
    "digest": _HEX,
    "envelope": _HEX,
    "epoch": int,
    "every_s": int,
    "ends_at": int,
    "exceeded": bool,
    "fallen": int,
    "fingerprint": _HEX,
    "field": _NAME,
    "first": int,
    "hold": _NAME,
    "holders": int,
    "index": int,
    "instance": _HEX,
    "judged": int,
    "kek": _NAME,
    "key_epoch": int,
    "key_version": int,
    "kind": _NAME,
    "ledger_size": int,
    "last": int,
    "limit": int,
    "loan": _NAME,
    "measured_ms": int,
    "meter": _NAME,
    "model": _HEX,
    "models": int,
    "name": _NAME,
    "need": int,
    "of": int,
    "operation": _NAME,
    "operations": _CODES,
    "own": bool,
    "policy_digest": _HEX,
    "promised_ms": int,
    "promised_units": int,
    "reason": _LINE,
    "reply_digest": _HEX,
    "req_digest": _HEX,
    "request": _NAME,
    "role": _NAME,
    "root": _HEX,
    "seq": int,
    "size": int,
    "software": _HEX,
    "split": _HEX,
    "stop": bool,
    "stuck": int,
    "subject": _NAME,
    "tee": _NAME,
    "terms_version": int,
    "tier": _NAME,
    "token": _NAME,
    "undecided": int,
    "units": int,
    "used": int,
    "vault": _HEX,
    "version": _NAME,
}
"""The allow-list: every detail that an event may have, and its form."""


def verify_details(details: Mapping[str, DetailValue]) -> None:
    """Prove that every detail is allowed and in its form. Raises ``UsageError``."""
    for name, value in details.items():
        form = DETAILS.get(name)
        if form is None:
            msg = f"audit: detail {name!r} is not on the allow-list"
            raise UsageError(msg)
        if isinstance(form, re.Pattern):
            fits = isinstance(value, str) and form.fullmatch(value) is not None
        else:
            fits = type(value) is form and (type(value) is bool or abs(int(value)) <= MAX_UNITS)
        if not fits:
            msg = f"audit: detail {name} is not in its form"
            raise UsageError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened, not yet in the log. ``actor`` did it, ``subject`` is what it happened to.

    ``committed`` holds commitments to details that the log does not show (``commitment``).
    """

    kind: EventKind
    actor: str
    subject: str
    details: Mapping[str, DetailValue] = field(default_factory=dict)
    committed: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what the log cannot carry. Raises ``UsageError``."""
        if not _NAME.fullmatch(self.actor) or not _NAME.fullmatch(self.subject):
            msg = f"audit: actor {self.actor[:40]!r} or subject {self.subject[:40]!r} is not a name"
            raise UsageError(msg)
        verify_details(self.details)
        for name, digest in self.committed.items():
            if name not in DETAILS or name in self.details or len(digest) != COMMITMENT_BYTES:
                msg = f"audit: detail {name[:40]!r} cannot be committed to"
                raise UsageError(msg)
