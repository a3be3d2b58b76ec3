"""What our programs say aloud while they run: typed events with typed fields, one line of JSON each (T62, T84, T85).

Custodian, enclave, relay and proxy each have a vocabulary of events of their own (``JournalEvent``); the fields are
one closed set for all of them (``fields``). There is no free text, whoever writes: what libraries log, warn of or
raise goes the same way, without its words (``libraries``). ``Secret`` holds what must not get there by accident.

Not the audit log (``lending.audit``): these lines are signed by nobody, and one that cannot be written is lost.
"""

from __future__ import annotations

from cloister.journal.fields import NUMBERS, UNPRINTABLE, WORDS
from cloister.journal.libraries import LibraryHandler, libraries_to
from cloister.journal.log import EventLog, JournalEvent, LibraryEvent
from cloister.journal.secret import Secret

__all__ = [
    "NUMBERS",
    "UNPRINTABLE",
    "WORDS",
    "EventLog",
    "JournalEvent",
    "LibraryEvent",
    "LibraryHandler",
    "Secret",
    "libraries_to",
]
