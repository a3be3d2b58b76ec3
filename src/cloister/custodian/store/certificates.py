"""Rows of authorities for peers, and of what they issued (docs/spec/certificates.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select, update

from cloister.custodian.store.tables import AUTHORITY, CERTIFICATE, moment, stamp
from cloister.custodian.tokens import TokenId

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row

__all__ = [
    "AuthorityRow",
    "CertificateRow",
    "authorities",
    "certificate_by_fingerprint",
    "certificate_of_key",
    "ended_certificates",
    "forget_certificates",
    "insert_authority",
    "list_certificates",
    "retire_authorities",
    "write_certificate",
]

MAX_LISTED = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityRow:
    """One authority: its certificate (DER), and its key as the vault wrapped it."""

    number: int
    certificate: bytes
    wrapped: bytes
    made_at: datetime
    issues_from: datetime
    ends_at: datetime
    retired_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRow:
    """One certificate that was issued: the last one of its key.

    ``der`` is the certificate itself, of an instance's listener alone; every other is with who asked for it.
    ``vouched_by`` is the token of staff by whose word its holder renews it, None for a certificate that just ends.
    """

    fingerprint: str
    spki_sha256: bytes
    name: str
    authority: int
    issued_at: datetime
    ends_at: datetime
    der: bytes | None = None
    vouched_by: TokenId | None = None


def authorities(connection: Connection) -> Sequence[AuthorityRow]:
    """Return every authority there ever was, oldest first."""
    return [_authority(row) for row in connection.execute(select(AUTHORITY).order_by(AUTHORITY.c.number))]


def _authority(row: Row[tuple[object, ...]]) -> AuthorityRow:
    return AuthorityRow(
        number=row.number,
        certificate=row.certificate,
        wrapped=row.wrapped,
        made_at=moment(row.made_at),
        issues_from=moment(row.issues_from),
        ends_at=moment(row.ends_at),
        retired_at=None if row.retired_at is None else moment(row.retired_at),
    )


def insert_authority(connection: Connection, row: AuthorityRow) -> None:
    """Write a new authority."""
    connection.execute(
        insert(AUTHORITY).values(
            number=row.number,
            certificate=row.certificate,
            wrapped=row.wrapped,
            made_at=stamp(row.made_at),
            issues_from=stamp(row.issues_from),
            ends_at=stamp(row.ends_at),
            retired_at=None,
        )
    )


def retire_authorities(connection: Connection, now: datetime) -> int:
    """Believe none of the authorities any more; returns how many were believed."""
    found = connection.execute(
        update(AUTHORITY)
        .where(AUTHORITY.c.retired_at.is_(None), AUTHORITY.c.ends_at > stamp(now))
        .values(retired_at=stamp(now))
    )
    return int(found.rowcount)


def write_certificate(connection: Connection, row: CertificateRow) -> None:
    """Note that a certificate was issued, in the place of an older one of the same key."""
    connection.execute(delete(CERTIFICATE).where(CERTIFICATE.c.spki_sha256 == row.spki_sha256))
    connection.execute(
        insert(CERTIFICATE).values(
            fingerprint=row.fingerprint,
            spki_sha256=row.spki_sha256,
            name=row.name,
            authority=row.authority,
            issued_at=stamp(row.issued_at),
            ends_at=stamp(row.ends_at),
            der=row.der,
            vouched_by=row.vouched_by,
        )
    )


def certificate_of_key(connection: Connection, spki_sha256: bytes) -> CertificateRow | None:
    """Return the certificate of a key, None for a key that never had one, or so long ago that it is forgotten."""
    row = connection.execute(select(CERTIFICATE).where(CERTIFICATE.c.spki_sha256 == spki_sha256)).one_or_none()
    return None if row is None else _certificate(row)


def certificate_by_fingerprint(connection: Connection, fingerprint: str) -> CertificateRow | None:
    """Return a certificate, None for one that is not known, or that a newer one of the same key took the place of."""
    row = connection.execute(select(CERTIFICATE).where(CERTIFICATE.c.fingerprint == fingerprint)).one_or_none()
    return None if row is None else _certificate(row)


def list_certificates(connection: Connection, now: datetime) -> Sequence[CertificateRow]:
    """Return the certificates that have not ended, newest first, up to a cap."""
    query = select(CERTIFICATE).where(CERTIFICATE.c.ends_at > stamp(now))
    rows = connection.execute(
        query.order_by(CERTIFICATE.c.issued_at.desc(), CERTIFICATE.c.fingerprint).limit(MAX_LISTED)
    )
    return [_certificate(row) for row in rows]


def _certificate(row: Row[tuple[object, ...]]) -> CertificateRow:
    return CertificateRow(
        fingerprint=row.fingerprint,
        spki_sha256=row.spki_sha256,
        name=row.name,
        authority=row.authority,
        issued_at=moment(row.issued_at),
        ends_at=moment(row.ends_at),
        der=row.der,
        vouched_by=None if row.vouched_by is None else TokenId(row.vouched_by),
    )


def ended_certificates(connection: Connection, before: datetime) -> bool:
    """Tell whether there are certificates that ended before then."""
    query = select(CERTIFICATE.c.fingerprint).where(CERTIFICATE.c.ends_at < stamp(before)).limit(1)
    return connection.execute(query).one_or_none() is not None


def forget_certificates(connection: Connection, before: datetime) -> None:
    """Forget what ended before then; the audit log still has it."""
    connection.execute(delete(CERTIFICATE).where(CERTIFICATE.c.ends_at < stamp(before)))
