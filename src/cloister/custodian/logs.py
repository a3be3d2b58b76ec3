"""What a custodian may say aloud on standard error: its vocabulary of events (T85). What it signs is the audit log."""

from __future__ import annotations

from datetime import UTC, datetime

from cloister.journal import EventLog, JournalEvent

__all__ = ["LOG", "Event"]


class Event(JournalEvent):
    """Everything that can happen here, has no place in the audit log, and is worth a line."""

    SWEEP_FAILED = "sweep_failed"
    ROTATION_FAILED = "rotation_failed"
    UPKEEP_FAILED = "upkeep_failed"
    ACME_FAILED = "acme_failed"
    TLS_CHANGED = "tls_changed"
    TLS_KEPT = "tls_kept"
    WATCH_FAILED = "watch_failed"
    LOG_NOT_FOLLOWED = "log_not_followed"
    INTERNAL_ERROR = "internal_error"
    DATABASE_NOT_DURABLE = "database_not_durable"
    ISSUER_UNREADABLE = "issuer_unreadable"
    KEYS_NOT_FETCHED = "keys_not_fetched"
    DESCRIPTORS_FEW = "descriptors_few"
    TENANT_NOT_UP = "tenant_not_up"
    TENANT_STOP_UNLOGGED = "tenant_stop_unlogged"
    STRANGERS_NOT_RENEWED = "strangers_not_renewed"


LOG = EventLog(lambda: datetime.now(UTC))
"""The custodian's one journal of this process."""
