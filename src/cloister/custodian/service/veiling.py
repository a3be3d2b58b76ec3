"""What an event must not show, taken out before it gets into the log: names of persons, free text (T85).

Persons become pseudonyms under a key of their own, details that the setting ``audit_committed`` names become
commitments. Keys, names, salts and values are kept in the database, wrapped by the vault: what ``erasure`` destroys.

In the use case's own transaction, so that an entry never waits in the clear.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from typing import TYPE_CHECKING

from cloister.custodian.store.veils import (
    SubjectRow,
    find_person,
    find_subject,
    insert_opening,
    insert_subject,
    read_lookup_key,
    write_lookup_key,
)
from cloister.lending.commitment import SALT_BYTES, Opening
from cloister.lending.persons import KEY_BYTES, PSEUDONYM, persons_in, pseudonym_of, veiled
from cloister.wire import Fields, dump_json

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from cloister.custodian.service.context import Context, Transaction
    from cloister.lending.events import Event

__all__ = ["known_person", "name_of", "opening_label", "veil"]

_LOOKUP_LABEL = b"cloister/custodian/audit/lookup"
_SUBJECT_LABEL = b"cloister/custodian/audit/subject/"
_OPENING_LABEL = b"cloister/custodian/audit/opening/"


def veil(transaction: Transaction) -> None:
    """Take what must not be shown out of everything that this transaction has recorded so far."""
    events = transaction.batch.events
    events[:] = [_veiled(transaction, event) for event in events]


def _veiled(transaction: Transaction, event: Event) -> Event:
    persons = persons_in(event)
    hidden = [name for name in transaction.context.config.audit_committed if name in event.details]
    if not persons and not hidden:
        return event
    names = {person: _pseudonym(transaction, person) for person in sorted(persons)}
    event = veiled(event, names)
    openings = [
        Opening(name=name, value=event.details[name], salt=transaction.context.rng(SALT_BYTES)) for name in hidden
    ]
    for opening in openings:
        sealed = transaction.context.vault.wrap(opening.dump(), aad=opening_label(opening.commitment))
        insert_opening(transaction.connection, opening.commitment, sealed, names.values())
    shown = {name: value for name, value in event.details.items() if name not in hidden}
    return replace(event, details=shown, committed={item.name: item.commitment for item in openings})


def opening_label(commitment: bytes) -> bytes:
    """Return what a wrapped opening is bound to."""
    return _OPENING_LABEL + commitment


def _pseudonym(transaction: Transaction, person: str) -> str:
    """Return a person's pseudonym, a new one for a person that no entry names, or none any more."""
    context, connection = transaction.context, transaction.connection
    lookup = _lookup(transaction, person)
    known = find_person(connection, lookup)
    if known is not None:
        return known.pseudonym
    key = context.rng(KEY_BYTES)
    pseudonym = pseudonym_of(person, key)
    held = dump_json({"key": key.hex(), "name": person})
    sealed = context.vault.wrap(held, aad=_SUBJECT_LABEL + pseudonym.encode())
    insert_subject(connection, SubjectRow(pseudonym=pseudonym, lookup=lookup, sealed=sealed), transaction.now)
    return pseudonym


def _lookup(transaction: Transaction, person: str) -> bytes:
    """Return what finds a person in the database, where there is no name in the clear to search for."""
    context = transaction.context
    wrapped = read_lookup_key(transaction.connection)
    if wrapped is None:
        wrapped = context.vault.wrap(context.rng(KEY_BYTES), aad=_LOOKUP_LABEL)
        write_lookup_key(transaction.connection, wrapped)
    return _hash(context, wrapped, person)


def _hash(context: Context, wrapped: bytes, person: str) -> bytes:
    key = context.vault.unwrap(wrapped, aad=_LOOKUP_LABEL)
    return hmac.digest(key, person.encode(), hashlib.sha256)


def known_person(context: Context, connection: Connection, subject: str) -> SubjectRow | None:
    """Return a person by name or pseudonym, None for one that no entry names; one that was forgotten has no key."""
    if PSEUDONYM.fullmatch(subject):
        return find_subject(connection, subject)
    wrapped = read_lookup_key(connection)
    return None if wrapped is None else find_person(connection, _hash(context, wrapped, subject))


def name_of(context: Context, row: SubjectRow) -> str | None:
    """Return whose pseudonym this is, proven by its key; None once that was destroyed. Raises ``Rejected``."""
    if row.sealed is None:
        return None
    opened = context.vault.unwrap(row.sealed, aad=_SUBJECT_LABEL + row.pseudonym.encode())
    fields = Fields.parse(opened, what="subject", canonical=True)
    name, key = fields.text("name", cap=128), fields.hex("key", size=KEY_BYTES)
    fields.end()
    return name if pseudonym_of(name, key) == row.pseudonym else None
