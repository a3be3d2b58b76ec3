"""Who may come in: tokens made, listed, revoked, and a bearer token turned into an actor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.custodian.store.loans import find_loan
from cloister.custodian.store.tokens import TokenRow, find_token, insert_token, list_tokens, revoke_token
from cloister.custodian.tokens import Actor, Role, TokenHash, TokenId, hash_token, new_token
from cloister.errors import Rejected
from cloister.lending.events import EventKind
from cloister.lending.terms import LOAN_ID, LoanId
from cloister.wire import Fields, Json, dump_time

if TYPE_CHECKING:
    from datetime import timedelta

    from cloister.custodian.service.context import Context, Transaction

__all__ = ["authenticate", "create_token", "issue_token", "token_list", "withdraw_token"]

_ID_BYTES = 8
_MAX_LIFE_S = 10 * 365 * 86_400  # seconds
_STAFF = {role.value for role in Role}


def issue_token(
    transaction: Transaction,
    actor: Actor | str,
    *,
    role: Role,
    name: str,
    loan: LoanId | None = None,
    life: timedelta | None = None,
) -> str:
    """Return a fresh token, of which only the hash is stored. It is shown once."""
    token = new_token(transaction.context.rng)
    row = TokenRow(
        id=TokenId(f"tok-{transaction.context.rng(_ID_BYTES).hex()}"),
        sha256=hash_token(token),
        role=role,
        name=name,
        loan=loan,
        created_at=transaction.now,
        expires_at=None if life is None else transaction.now + life,
        revoked_at=None,
    )
    insert_token(transaction.connection, row)
    bound = {} if loan is None else {"loan": str(loan)}
    transaction.record(EventKind.TOKEN_CREATED, actor, row.id, role=role.value, **bound)
    return token


def authenticate(context: Context, sha256: TokenHash) -> Actor:
    """Return who holds this token.

    Raises ``Rejected`` (``unauthenticated``) for unknown, expired and revoked tokens alike.
    """
    with context.reading() as connection:
        row = find_token(connection, sha256)
    if row is None or not row.is_good(context.now()):
        raise Rejected.because("unauthenticated", "bearer token", hint="ask the custodian for a fresh token")
    return Actor(id=row.id, role=row.role, name=row.name, loan=row.loan)


def create_token(transaction: Transaction, actor: Actor, body: Fields) -> Json:
    """Make a token from ``{"role", "name", "loan"?, "life_s"?}``; the answer shows it once."""
    role = body.text("role", cap=16)
    name = body.text("name", cap=100, floor=1)
    loan = body.optional("loan", lambda member: LoanId(body.match(member, LOAN_ID)))
    life = body.optional("life_s", lambda member: body.seconds(member, floor=60, cap=_MAX_LIFE_S))
    body.end()
    if role not in _STAFF:
        body.fail("role", "want admin, lender, auditor, viewer or borrower")
    if (role == Role.BORROWER.value) != (loan is not None):
        body.fail("loan", "wanted for a borrower, and only there")
    if loan is not None and find_loan(transaction.connection, loan) is None:
        raise Rejected.because("not_found", "loan")
    token = issue_token(transaction, actor, role=Role(role), name=name, loan=loan, life=life)
    return {"name": name, "role": role, "token": token, **({} if loan is None else {"loan": loan})}


def token_list(context: Context) -> Json:
    """Return every token without its hash."""
    with context.reading() as connection:
        rows = list_tokens(connection)
    now = context.now()
    return {
        "tokens": [
            {
                "created_at": dump_time(row.created_at),
                "expires_at": None if row.expires_at is None else dump_time(row.expires_at),
                "good": row.is_good(now),
                "id": row.id,
                "loan": row.loan,
                "name": row.name,
                "role": row.role.value,
            }
            for row in rows
        ]
    }


def withdraw_token(transaction: Transaction, actor: Actor, token: str) -> Json:
    """Revoke a token, but never the last one that opens everything: nobody could make another."""
    admins = {
        row.id
        for row in list_tokens(transaction.connection)
        if row.role is Role.ADMIN and row.is_good(transaction.now) and row.expires_at is None
    }
    if admins == {token}:
        raise Rejected.because("last_admin", "token", hint="make another admin token that does not expire first")
    if not revoke_token(transaction.connection, TokenId(token), transaction.now):
        raise Rejected.because("not_found", "token")
    transaction.record(EventKind.TOKEN_REVOKED, actor, token)
    return {"id": token, "revoked": True}
