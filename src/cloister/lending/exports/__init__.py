"""The audit log for others' tools: a record a line, and out of each the exact entry (docs/reference/audit-export.md).

A ``Format`` is two functions: ``dump`` makes the record of a line of the log, ``take`` returns the line of a record. A
record is made in one way only, so that a reader who makes it again finds every byte that is not the log's. What proves
that none is missing is ``manifest``.
"""

from __future__ import annotations

from cloister.lending.exports.form import Format
from cloister.lending.exports.manifest import Manifest, verify_export
from cloister.lending.exports.table import FORMATS

__all__ = ["FORMATS", "Format", "Manifest", "verify_export"]
