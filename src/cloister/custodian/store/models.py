"""Rows of published models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, insert, select, update

from cloister.custodian.store.tables import LOAN_MODEL, MODEL, moment, stamp
from cloister.lending.terms import LoanId, ModelDigest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row

__all__ = [
    "ModelRow",
    "find_model",
    "insert_model",
    "list_envelopes",
    "list_models",
    "loans_of_model",
    "replace_envelope",
    "withdraw_model",
    "withdrawn",
]

_WITHDRAWN = select(MODEL.c.digest).where(
    MODEL.c.digest.in_(bindparam("models", expanding=True)), MODEL.c.withdrawn_at.is_not(None)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """One published model: its signed manifest, and its key wrapped by the vault."""

    digest: ModelDigest
    name: str
    manifest: bytes
    signature: bytes
    envelope: bytes
    published_at: datetime
    withdrawn_at: datetime | None


def _model(row: Row[tuple[object, ...]]) -> ModelRow:
    return ModelRow(
        digest=ModelDigest(row.digest),
        name=row.name,
        manifest=row.manifest,
        signature=row.signature,
        envelope=row.envelope,
        published_at=moment(row.published_at),
        withdrawn_at=None if row.withdrawn_at is None else moment(row.withdrawn_at),
    )


def insert_model(connection: Connection, model: ModelRow) -> None:
    """Write a new model."""
    connection.execute(
        insert(MODEL).values(
            digest=model.digest,
            name=model.name,
            manifest=model.manifest,
            signature=model.signature,
            envelope=model.envelope,
            published_at=stamp(model.published_at),
            withdrawn_at=None,
        )
    )


def find_model(connection: Connection, digest: ModelDigest) -> ModelRow | None:
    """Return one model."""
    row = connection.execute(select(MODEL).where(MODEL.c.digest == digest)).one_or_none()
    return None if row is None else _model(row)


def list_models(connection: Connection, digests: Iterable[ModelDigest] | None = None) -> Sequence[ModelRow]:
    """Return every model, or those named, newest first."""
    query = select(MODEL).order_by(MODEL.c.published_at.desc(), MODEL.c.digest)
    if digests is not None:
        query = query.where(MODEL.c.digest.in_(tuple(digests)))
    return [_model(row) for row in connection.execute(query)]


def list_envelopes(connection: Connection) -> Sequence[tuple[ModelDigest, bytes]]:
    """Return the wrapped key of every model, without its manifest."""
    query = select(MODEL.c.digest, MODEL.c.envelope).order_by(MODEL.c.digest)
    return [(ModelDigest(row.digest), row.envelope) for row in connection.execute(query)]


def replace_envelope(connection: Connection, digest: ModelDigest, envelope: bytes) -> None:
    """Put a new envelope in the place of a model's: its key is wrapped anew."""
    connection.execute(update(MODEL).where(MODEL.c.digest == digest).values(envelope=envelope))


def withdraw_model(connection: Connection, digest: ModelDigest, now: datetime) -> bool:
    """Mark a model as no longer lent; tells whether that changed anything."""
    found = connection.execute(
        update(MODEL).where(MODEL.c.digest == digest, MODEL.c.withdrawn_at.is_(None)).values(withdrawn_at=stamp(now))
    )
    return found.rowcount == 1


def withdrawn(connection: Connection, digests: Iterable[ModelDigest]) -> frozenset[ModelDigest]:
    """Return which of these models are no longer lent."""
    found = connection.execute(_WITHDRAWN, {"models": list(digests)}).scalars()
    return frozenset(ModelDigest(digest) for digest in found)


def loans_of_model(connection: Connection, digest: ModelDigest) -> Sequence[LoanId]:
    """Return the loans that lend this model."""
    query = select(LOAN_MODEL.c.loan).where(LOAN_MODEL.c.digest == digest).distinct()
    return [LoanId(loan) for loan in connection.execute(query).scalars()]
