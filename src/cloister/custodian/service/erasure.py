"""Showing what the log hides to who may see it, and destroying what shows it (GDPR article 17).

Each is an entry of its own. Forgetting is for ever: with the key gone nobody finds out whose a pseudonym was, the
custodian included. Not done here: loans, usage records, receipts and copies of others, which name persons too;
backups keep a key until they are replaced (docs/spec/audit-log.md, section 7).
Whether a second person must agree to forgetting is said by its route (``routes.duties``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.custodian.service.holds import demand_free
from cloister.custodian.service.logbook import line_at
from cloister.custodian.service.transparency import entry_proof
from cloister.custodian.service.veiling import known_person, name_of, opening_label
from cloister.custodian.store.veils import destroy_openings_of, find_opening, forget_row
from cloister.errors import Rejected
from cloister.lending.audit import AuditEntry
from cloister.lending.commitment import FieldProof, Opening
from cloister.lending.events import EventKind
from cloister.lending.pruning import is_pruned

if TYPE_CHECKING:
    from cloister.custodian.service.context import Context, Transaction
    from cloister.custodian.store.veils import SubjectRow
    from cloister.custodian.tokens import Actor
    from cloister.wire import Fields, Json

__all__ = ["forget", "open_field", "resolve"]

_MAX_NAME = 128


def forget(transaction: Transaction, actor: Actor, body: Fields) -> Json:
    """Destroy ``{"subject"}``'s key, and the salts of what its entries commit to. A hold wins."""
    row = _person(transaction, body)
    if row.sealed is None:
        return {"forgotten": False, "pseudonym": row.pseudonym, "salts": 0}
    demand_free(transaction.connection, row.pseudonym)
    transaction.destroying()
    salts = destroy_openings_of(transaction.connection, row.pseudonym)
    forget_row(transaction.connection, row.pseudonym, transaction.now)
    transaction.record(EventKind.SUBJECT_FORGOTTEN, actor, row.pseudonym, size=salts)
    return {"forgotten": True, "pseudonym": row.pseudonym, "salts": salts}


def resolve(transaction: Transaction, actor: Actor, body: Fields) -> Json:
    """Return whose pseudonym ``{"subject"}`` is, or a person's pseudonym; who asked is logged."""
    row = _person(transaction, body)
    name = name_of(transaction.context, row)
    transaction.record(EventKind.PSEUDONYM_RESOLVED, actor, row.pseudonym)
    return {"name": name, "pseudonym": row.pseudonym}


def _person(transaction: Transaction, body: Fields) -> SubjectRow:
    subject = body.text("subject", cap=_MAX_NAME, floor=1)
    body.end()
    row = known_person(transaction.context, transaction.connection, subject)
    if row is None:
        raise Rejected.because("not_found", "subject", hint="no entry names this person, or it was forgotten by name")
    return row


def open_field(context: Context, actor: Actor, index: int, name: str, *, size: int | None, quorum: int) -> bytes:
    """Return the proof of one committed value of entry ``index``; who asked is logged first.

    Raises ``Rejected``: ``not_found`` (no such entry or field), ``forgotten`` (its salt was destroyed), as
    ``entry_proof``.
    """
    line = line_at(context, index)
    committed = None if line is None or is_pruned(line) else AuditEntry.parse(line).committed.get(name)
    if committed is None:
        raise Rejected.because("not_found", f"entry {index}: committed field")

    def work(transaction: Transaction) -> Opening:
        sealed = find_opening(transaction.connection, committed)
        if sealed is None:
            raise Rejected.because("forgotten", f"entry {index}: {name}", hint="its salt was destroyed")
        transaction.record(EventKind.FIELD_OPENED, actor, "log", field=name, index=index)
        return Opening.parse(context.vault.unwrap(sealed, aad=opening_label(committed)))

    opening = context.transact(work)
    return FieldProof(opening=opening, entry=entry_proof(context, actor, index, size=size, quorum=quorum)).dump()
