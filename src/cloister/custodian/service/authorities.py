"""Authorities for peers, one after the other (docs/spec/certificates.md section 2).

Halfway through its life one gets a successor, which is believed at once, everywhere, and issues a quarter of a life
later. Their keys rest in the database, wrapped by the vault.

Not done here: what they issue (``certificates``).
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cloister.custodian.certificates.issuing import make_authority
from cloister.custodian.store.certificates import AuthorityRow, authorities, insert_authority
from cloister.custodian.tls import load_authority
from cloister.custodian.tokens import SYSTEM
from cloister.lending.events import EventKind
from cloister.lending.peer import fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from cryptography import x509

    from cloister.custodian.service.context import Transaction
    from cloister.custodian.tokens import Actor

__all__ = ["authority_key", "is_due", "issuer_of", "make", "standing", "succeed"]

_LABEL = b"cloister/custodian/authority"


def succeed(transaction: Transaction, domain: str) -> None:
    """Make an authority if one is still due: another custodian may have been faster."""
    rows = standing(authorities(transaction.connection), transaction.now)
    if not is_due(rows, transaction.now):
        return
    quarter = timedelta(days=transaction.context.config.authority_life_days) / 4
    last = rows[-1].ends_at - timedelta(seconds=transaction.context.config.certificate_max_life_s) if rows else None
    begins = transaction.now if last is None else max(transaction.now, min(transaction.now + quarter, last))
    make(transaction, SYSTEM, domain, issues_from=begins)


def make(transaction: Transaction, actor: Actor, domain: str, *, issues_from: datetime) -> x509.Certificate:
    """Make an authority that is believed at once and issues from then on."""
    known = authorities(transaction.connection)
    number = known[-1].number + 1 if known else 1
    key = ec.generate_private_key(ec.SECP256R1())
    life = timedelta(days=transaction.context.config.authority_life_days)
    name = f"{number} {transaction.context.vault.signing_key.key_id}"
    made = make_authority(key, domain=domain, name=name, now=transaction.now, life=life)
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    row = AuthorityRow(
        number=number,
        certificate=made.public_bytes(Encoding.DER),
        wrapped=transaction.context.vault.wrap(plain, aad=_aad(number)),
        made_at=transaction.now,
        issues_from=issues_from,
        ends_at=made.not_valid_after_utc,
    )
    insert_authority(transaction.connection, row)
    transaction.record(
        EventKind.AUTHORITY_MADE, actor, domain,
        fingerprint=fingerprint(made), ends_at=int(row.ends_at.timestamp()),
    )  # fmt: skip
    return made


def authority_key(transaction: Transaction, row: AuthorityRow) -> ec.EllipticCurvePrivateKey:
    """Return an authority's key, for one certificate."""
    return load_authority(transaction.context.vault.unwrap(row.wrapped, aad=_aad(row.number)))


def standing(rows: Iterable[AuthorityRow], now: datetime) -> tuple[AuthorityRow, ...]:
    """Return the authorities that are believed now."""
    return tuple(row for row in rows if row.retired_at is None and now < row.ends_at)


def issuer_of(rows: tuple[AuthorityRow, ...], now: datetime) -> AuthorityRow | None:
    """Return the newest authority whose time to issue has come."""
    return next((row for row in reversed(rows) if row.issues_from <= now < row.ends_at), None)


def is_due(rows: tuple[AuthorityRow, ...], now: datetime) -> bool:
    """Tell whether another authority is to be made: none issues, or the newest is halfway through its life."""
    if issuer_of(rows, now) is None:
        return True
    return now >= rows[-1].made_at + (rows[-1].ends_at - rows[-1].made_at) / 2


def _aad(number: int) -> bytes:
    return _LABEL + b"/%d" % number
