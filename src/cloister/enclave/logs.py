"""What an enclave may say aloud: its vocabulary of events (T62, T85). How they are written is ``journal``'s."""

from __future__ import annotations

from cloister.journal import EventLog, JournalEvent

__all__ = ["Event", "EventLog"]


class Event(JournalEvent):
    """Everything that can happen here and is worth a line."""

    HARDENED = "hardened"
    MEMORY_PAGES = "memory_pages"
    ATTESTED = "attested"
    MODEL_LOADED = "model_loaded"
    MODEL_EVICTED = "model_evicted"
    MODEL_NOT_OPENED = "model_not_opened"
    MODEL_NOT_BATCHED = "model_not_batched"
    MODEL_ROLLED_OUT = "model_rolled_out"
    ROLLOUT_FAILED = "rollout_failed"
    READY = "ready"
    LEASE_RENEWED = "lease_renewed"
    LEASE_REFUSED = "lease_refused"
    RENEWAL_FAILED = "renewal_failed"
    CERTIFICATE_RENEWED = "certificate_renewed"
    CERTIFICATE_FAILED = "certificate_failed"
    LISTENER_CERTIFIED = "listener_certified"
    LISTENER_UNCERTIFIED = "listener_uncertified"
    CLOCK_SOURCE = "clock_source"
    CLOCK_STEP = "clock_step"
    KEYS_ROTATED = "keys_rotated"
    ROTATION_FAILED = "rotation_failed"
    DRAINING = "draining"
    ENDING = "ending"
    WIPED = "wiped"
    VOUCHER_ASKED = "voucher_asked"
    VOUCHER_ACCEPTED = "voucher_accepted"
    VOUCHER_FAILED = "voucher_failed"
    REVOCATIONS_ACCEPTED = "revocations_accepted"
    REVOCATIONS_FAILED = "revocations_failed"
    ISSUERS_TAKEN = "issuers_taken"
    ISSUERS_FAILED = "issuers_failed"
    CLOSED = "closed"
    REPORT_FAILED = "report_failed"
    CLOSE_FAILED = "close_failed"
    INTERNAL_ERROR = "internal_error"
