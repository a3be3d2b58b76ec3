"""Reading the audit log: entries, the signed checkpoint, and what of it concerns one loan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.custodian.checkpoint import sign_checkpoint
from cloister.custodian.store.log import entries_after
from cloister.lending.audit import AuditEntry
from cloister.lending.pruning import is_pruned
from cloister.wire import Json, parse_json

if TYPE_CHECKING:
    from cloister.custodian.service.context import Context
    from cloister.lending.terms import LoanId

__all__ = ["MAX_ENTRIES", "audit_page", "concerns", "entries_since", "line_at", "loan_page", "signed_checkpoint"]

MAX_ENTRIES = 1000  # entries in one answer


def audit_page(context: Context, *, after: int, limit: int) -> Json:
    """Return up to ``limit`` entries behind index ``after`` (-1: from the first).

    An entry's canonical JSON is its exact line, so that whoever reads it can compute the hashes himself.
    """
    with context.reading() as connection:
        lines = entries_after(connection, after + 1, limit=min(limit, MAX_ENTRIES))
    return {"entries": [parse_json(line, what="audit entry") for line in lines], "size": context.size}


def line_at(context: Context, index: int) -> bytes | None:
    """Return the exact line of entry ``index``, None for one that is not there."""
    with context.reading() as connection:
        return next(iter(entries_after(connection, index, limit=1)), None)


def signed_checkpoint(context: Context) -> bytes:
    """Return a checkpoint of the log as it stands, signed."""
    return sign_checkpoint(context.checkpoint(), context.vault.signing_key)


def entries_since(context: Context, after: int, *, loan: LoanId | None, limit: int) -> tuple[list[AuditEntry], int]:
    """Return entries behind index ``after``, those of one loan where it is named, and the last index read."""
    with context.reading() as connection:
        lines = entries_after(connection, after + 1, limit=limit)
    entries = [AuditEntry.parse(line) for line in lines if not is_pruned(line)]
    mine = [entry for entry in entries if loan is None or concerns(entry, loan)]
    return mine, after + len(lines)


def concerns(entry: AuditEntry, loan: LoanId | None) -> bool:
    """Tell whether an entry is about this loan: what its borrower may read. Nothing is about no loan."""
    return loan is not None and loan in (entry.subject, entry.details.get("loan"))


def loan_page(context: Context, loan: LoanId, *, after: int, limit: int) -> Json:
    """Return the entries about ``loan`` among the next ``limit`` behind index ``after``, and how far that was.

    Their indexes have gaps: what lies between is about others. Each can be proven (``transparency.entry_proof``).
    """
    entries, last = entries_since(context, after, loan=loan, limit=limit)
    found = [parse_json(entry.dump(), what="audit entry") for entry in entries]
    return {"entries": found, "last": last, "size": context.size}
