"""Whose word counts for consumers, as enclaves are told it (docs/spec/lease.md, section 12).

A lease names the version, an instance asks for what it is, and gets it sealed: the issuers with a rule that makes
somebody a consumer of its loan. Fetched keys go through the database, so that they change at one moment for everybody.

Not done here: fetching (``issuer_keys``), callers of the custodian itself (``identities``).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cloister.custodian.logs import LOG, Event
from cloister.custodian.service.issuers import issuer_id
from cloister.custodian.service.standing import instance_key, instance_row, loan_row
from cloister.custodian.store.issuers import fetched_keys, issuers_version, list_issuers, put_fetched_keys
from cloister.errors import Malformed, Rejected
from cloister.identity import Issuer
from cloister.identity.lent import dump_lent
from cloister.lending.introduction import answer_issuers, verify_issuers_request
from cloister.lending.state import InstanceStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from cloister.custodian.service.context import Context, Transaction
    from cloister.custodian.service.issuer_keys import IssuerKeys
    from cloister.lending.terms import InstanceId, Terms

__all__ = ["answer", "keep_fetched"]


def answer(context: Context, instance: InstanceId, statement: bytes) -> bytes:
    """Return whose word counts for the consumers of an instance's loan, sealed to it and signed. Writes nothing.

    Raises ``Malformed``; ``Rejected`` for what the instance did not sign, and for one that serves no more.
    """
    request, digest = verify_issuers_request(statement, instance_key(context, instance))
    with context.reading() as connection:
        state = instance_row(connection, instance).state
        if state.status is not InstanceStatus.ACTIVE or context.now() >= state.dead_at:
            raise Rejected.because("instance_dead", "instance", got=state.status.value)
        version = issuers_version(connection)
        lent = _lent(connection, loan_row(connection, state.loan).terms)
    return answer_issuers(request, digest, version=version, lent=lent, key=context.vault.signing_key)


def _lent(connection: Connection, terms: Terms) -> bytes:
    keys = fetched_keys(connection)
    found = []
    for row in list_issuers(connection):
        try:
            found.append((Issuer.parse(row.document), keys.get(row.id) or None))
        except Malformed:
            LOG.write(Event.ISSUER_UNREADABLE, digest=row.id)
    return dump_lent(found, terms.loan, frozenset(str(item.id) for item in terms.consumers or ()))


def keep_fetched(context: Context, keys: IssuerKeys, issuers: Iterable[Issuer]) -> None:
    """Write fetched keys that have changed, so that enclaves get them. Raises ``Unavailable``."""
    now = context.now()
    with context.reading() as connection:
        known = fetched_keys(connection)
    for issuer in issuers:
        name, data = issuer_id(issuer.name), None if issuer.keys is not None else keys.fetched(issuer, now)
        if data is not None and data != known.get(name, b""):
            context.transact(partial(_put, name, data))


def _put(name: str, keys: bytes, transaction: Transaction) -> None:
    put_fetched_keys(transaction.connection, name, keys)
