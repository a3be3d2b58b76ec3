"""Whose word counts about callers: issuers registered, listed, removed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cloister.custodian.service.access import demand_lasting
from cloister.custodian.store.issuers import IssuerRow, delete_issuer, list_issuers, put_issuer
from cloister.custodian.store.loans import find_loan
from cloister.custodian.store.persons import note_admin
from cloister.custodian.tokens import Role
from cloister.errors import Malformed, Rejected
from cloister.identity import Issuer, parse_keys
from cloister.identity.issuers import MAX_ISSUERS
from cloister.lending.events import EventKind
from cloister.lending.terms import LOAN_ID, NAME, LoanId
from cloister.wire import Fields, Json, dump_time, lp

if TYPE_CHECKING:
    from cloister.custodian.service.context import Context, Transaction
    from cloister.custodian.service.issuer_keys import IssuerKeys
    from cloister.custodian.tokens import Actor
    from cloister.identity import Rule

__all__ = ["GIVEN", "issuer_id", "issuer_list", "remove_issuer", "set_issuer"]

_ID_LABEL = b"cloister/custodian/issuer"
_ID_BYTES = 8
GIVEN = {role.value: role for role in Role if role is not Role.OPERATOR}
"""Roles that a rule may give; a host gives its own."""


def issuer_id(name: str) -> str:
    """Return what an issuer is called in paths and logs: ``iss-`` and 16 hexadecimal digits of its name's hash."""
    return f"iss-{hashlib.sha256(_ID_LABEL + lp(name.encode())).digest()[:_ID_BYTES].hex()}"


def set_issuer(transaction: Transaction, actor: Actor, body: Fields) -> Json:
    """Register an issuer by its document (docs/spec/identity.md), in the place of the one of its name."""
    issuer = Issuer.take(body)
    demand_lasting(actor)
    if issuer.keys is not None:
        parse_keys(issuer.kind, issuer.keys)
    for rule in issuer.rules:
        _demand_rule(transaction, rule)
    name, document = issuer_id(issuer.name), issuer.dump()
    known = {row.id for row in list_issuers(transaction.connection)}
    if name not in known and len(known) >= MAX_ISSUERS:
        raise Rejected.because("too_many_issuers", "issuers", want=f"at most {MAX_ISSUERS}")
    replaced = put_issuer(transaction.connection, IssuerRow(id=name, document=document, set_at=transaction.now))
    for rule in issuer.rules:
        if rule.grants.role == Role.ADMIN.value and rule.grants.person is not None:
            note_admin(transaction.connection, rule.grants.person, transaction.now)
    digest = hashlib.sha256(document).hexdigest()
    transaction.record(EventKind.ISSUER_SET, actor, name, digest=digest, kind=issuer.kind.value)
    return {"id": name, "issuer": issuer.name, "replaced": replaced, "rules": len(issuer.rules)}


def _demand_rule(transaction: Transaction, rule: Rule) -> None:
    """Demand that a rule gives what there is here: a role, and a loan that exists where the role is a borrower's."""
    granted = rule.grants
    body = Fields(granted.to_json(), what="rule: grants")
    if granted.consumer is not None:
        body.match("consumer", NAME)  # whether a loan has one of this name, its lease says
    elif granted.role not in GIVEN:
        body.fail("role", f"want {', '.join(sorted(GIVEN))}")
    elif (granted.role == Role.BORROWER.value) != (granted.loan is not None):
        body.fail("loan", "wanted for a borrower, and only there")
    if granted.loan is not None:
        loan = LoanId(body.match("loan", LOAN_ID))
        if find_loan(transaction.connection, loan) is None:
            raise Rejected.because("not_found", "loan")


def remove_issuer(transaction: Transaction, actor: Actor, issuer: str) -> Json:
    """Trust an issuer no longer: from the commit on nobody is proven by it."""
    if not delete_issuer(transaction.connection, issuer):
        raise Rejected.because("not_found", "issuer")
    transaction.record(EventKind.ISSUER_REMOVED, actor, issuer)
    return {"id": issuer, "removed": True}


def issuer_list(context: Context, keys: IssuerKeys) -> Json:
    """Return every issuer with its document, and how it stands with its keys."""
    with context.reading() as connection:
        rows = list_issuers(connection)
    return {
        "issuers": [
            {**_document_json(row.document, keys, context), "id": row.id, "set_at": dump_time(row.set_at)}
            for row in rows
        ]
    }


def _document_json(document: bytes, keys: IssuerKeys, context: Context) -> dict[str, Json]:
    """Return what a document says; one of another version, which we cannot read, says nothing and can be removed."""
    try:
        issuer = Issuer.parse(document)
    except Malformed as exc:
        nothing: Json = {"count": 0, "fetched_at": None, "problem": exc.message[:200], "source": "document"}
        return {"document": None, "issuer": None, "keys": nothing, "kind": None}
    return {
        "document": issuer.to_json(),
        "issuer": issuer.name,
        "keys": _keys_json(issuer, keys, context),
        "kind": issuer.kind.value,
    }


def _keys_json(issuer: Issuer, keys: IssuerKeys, context: Context) -> Json:
    found = keys.of(issuer, context.now())
    standing = keys.standing(issuer)
    fetched = issuer.keys is None
    return {
        "count": len(found.tokens.keys) + len(found.roots),
        "fetched_at": dump_time(standing.fetched_at) if fetched and standing.fetched_at else None,
        "problem": standing.problem if fetched else None,
        "source": "fetched" if fetched else "document",
    }
