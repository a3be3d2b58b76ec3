"""What a small server may say aloud on standard error: its vocabulary of events (T85)."""

from __future__ import annotations

from datetime import UTC, datetime

from cloister.journal import EventLog, JournalEvent

__all__ = ["LOG", "ServingEvent"]


class ServingEvent(JournalEvent):
    """What relays, local pages and the attestation service say of their certificates, and of bugs."""

    TLS_CHANGED = "tls_changed"
    TLS_KEPT = "tls_kept"
    CERTIFICATE_RENEWED = "certificate_renewed"
    CERTIFICATE_FAILED = "certificate_failed"
    INTERNAL_ERROR = "internal_error"


LOG = EventLog(lambda: datetime.now(UTC))
"""The one journal of a small server's process."""
