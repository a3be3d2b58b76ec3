"""Rows of tokens: found by hash, listed without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update

from cloister.custodian.store.tables import TOKEN, moment, stamp
from cloister.custodian.tokens import Role, TokenHash, TokenId, same_hash
from cloister.lending.terms import LoanId

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row

__all__ = ["TokenRow", "find_token", "find_token_by_id", "insert_token", "list_tokens", "revoke_token"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """What is stored of one token."""

    id: TokenId
    sha256: TokenHash
    role: Role
    name: str
    loan: LoanId | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    person: str | None = None

    def is_good(self, now: datetime) -> bool:
        """Tell whether the token still opens anything."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def _token(row: Row[tuple[object, ...]]) -> TokenRow:
    return TokenRow(
        id=TokenId(row.id),
        sha256=TokenHash(row.sha256),
        role=Role(row.role),
        name=row.name,
        loan=None if row.loan is None else LoanId(row.loan),
        created_at=moment(row.created_at),
        expires_at=None if row.expires_at is None else moment(row.expires_at),
        revoked_at=None if row.revoked_at is None else moment(row.revoked_at),
        person=row.person,
    )


def insert_token(connection: Connection, token: TokenRow) -> None:
    """Write a new token."""
    connection.execute(
        insert(TOKEN).values(
            id=token.id,
            sha256=token.sha256,
            role=token.role.value,
            name=token.name,
            loan=token.loan,
            created_at=stamp(token.created_at),
            expires_at=None if token.expires_at is None else stamp(token.expires_at),
            revoked_at=None,
            person=token.person,
        )
    )


def find_token(connection: Connection, sha256: TokenHash) -> TokenRow | None:
    """Return the token with this hash. The index finds it, the comparison in constant time decides."""
    row = connection.execute(select(TOKEN).where(TOKEN.c.sha256 == sha256)).one_or_none()
    if row is None or not same_hash(row.sha256, sha256):
        return None
    return _token(row)


def find_token_by_id(connection: Connection, token: str) -> TokenRow | None:
    """Return the token of this name, good or not."""
    row = connection.execute(select(TOKEN).where(TOKEN.c.id == token)).one_or_none()
    return None if row is None else _token(row)


def list_tokens(connection: Connection) -> Sequence[TokenRow]:
    """Return every token, oldest first."""
    return [_token(row) for row in connection.execute(select(TOKEN).order_by(TOKEN.c.created_at, TOKEN.c.id))]


def revoke_token(connection: Connection, token: TokenId, now: datetime) -> bool:
    """Make a token worthless; tells whether it was there and good."""
    found = connection.execute(
        update(TOKEN).where(TOKEN.c.id == token, TOKEN.c.revoked_at.is_(None)).values(revoked_at=stamp(now))
    )
    return found.rowcount == 1
