"""What an attestation service may say aloud on standard error: its vocabulary of events (T85)."""

from __future__ import annotations

from datetime import UTC, datetime

from cloister.journal import EventLog, JournalEvent

__all__ = ["LOG", "Event"]


class Event(JournalEvent):
    """Everything that can happen here and is worth a line."""

    RESULT_ISSUED = "result_issued"
    EVIDENCE_REFUSED = "evidence_refused"
    KEYS_CHANGED = "keys_changed"
    INTERNAL_ERROR = "internal_error"


LOG = EventLog(lambda: datetime.now(UTC))
"""The service's one journal of this process."""
