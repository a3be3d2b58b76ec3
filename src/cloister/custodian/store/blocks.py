"""Rows of blocks and of requests for more."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from sqlalchemy import and_, bindparam, delete, insert, or_, select, update

from cloister.custodian.store.tables import BLOCK, EPOCH, REQUEST, moment, stamp
from cloister.lending.terms import LoanId, Meter

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row

__all__ = [
    "MAX_ASKS",
    "AskRow",
    "AskState",
    "BlockKind",
    "BlockRow",
    "blocks_on",
    "decide_ask",
    "delete_block",
    "find_ask",
    "find_block",
    "insert_ask",
    "insert_block",
    "list_asks",
    "list_blocks",
    "next_block_version",
]


MAX_ASKS = 100  # requests for more shown at once; a loan has had any number of them


class BlockKind(Enum):
    """What can be stopped."""

    MODEL = "model"
    LOAN = "loan"
    INSTANCE = "instance"
    CONSUMER = "consumer"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRow:
    """One block in force. ``loan`` is set for a consumer, whose id means nothing without it."""

    kind: BlockKind
    subject: str
    loan: LoanId | None
    reason: str
    by: str
    at: datetime


_ON_LOAN = select(BLOCK).where(
    or_(
        and_(BLOCK.c.kind == BlockKind.LOAN.value, BLOCK.c.subject == bindparam("of")),
        and_(BLOCK.c.kind == BlockKind.CONSUMER.value, BLOCK.c.loan == bindparam("of")),
        and_(BLOCK.c.kind == BlockKind.MODEL.value, BLOCK.c.subject.in_(bindparam("models", expanding=True))),
    )
)


def insert_block(connection: Connection, block: BlockRow) -> bool:
    """Write a block; tells whether it is new."""
    key = (BLOCK.c.kind == block.kind.value) & (BLOCK.c.subject == block.subject) & (BLOCK.c.loan == (block.loan or ""))
    if connection.execute(select(BLOCK.c.kind).where(key)).one_or_none() is not None:
        return False
    connection.execute(
        insert(BLOCK).values(
            kind=block.kind.value,
            subject=block.subject,
            loan=block.loan or "",
            reason=block.reason,
            by=block.by,
            at=stamp(block.at),
        )
    )
    return True


def delete_block(connection: Connection, kind: BlockKind, subject: str, loan: LoanId | None) -> bool:
    """Lift a block; tells whether there was one."""
    key = (BLOCK.c.kind == kind.value) & (BLOCK.c.subject == subject) & (BLOCK.c.loan == (loan or ""))
    return connection.execute(delete(BLOCK).where(key)).rowcount == 1


def find_block(connection: Connection, kind: str, subject: str, loan: LoanId | None) -> BlockRow | None:
    """Return one block in force."""
    key = (BLOCK.c.kind == kind) & (BLOCK.c.subject == subject) & (BLOCK.c.loan == (loan or ""))
    row = connection.execute(select(BLOCK).where(key)).one_or_none()
    return None if row is None else _block(row)


def list_blocks(connection: Connection) -> Sequence[BlockRow]:
    """Return every block in force, oldest first."""
    return [
        _block(row) for row in connection.execute(select(BLOCK).order_by(BLOCK.c.at, BLOCK.c.kind, BLOCK.c.subject))
    ]


def blocks_on(connection: Connection, loan: LoanId, models: Iterable[str]) -> Sequence[BlockRow]:
    """Return the blocks in force that touch one loan: itself, a consumer of it, one of these models."""
    return [_block(row) for row in connection.execute(_ON_LOAN, {"of": loan, "models": list(models)})]


def _block(row: Row[tuple[object, ...]]) -> BlockRow:
    return BlockRow(
        kind=BlockKind(row.kind),
        subject=row.subject,
        loan=LoanId(row.loan) if row.loan else None,
        reason=row.reason,
        by=row.by,
        at=moment(row.at),
    )


def next_block_version(connection: Connection) -> int:
    """Raise and return the count of blocks and unblocks (C9): it only ever grows (T48)."""
    connection.execute(update(EPOCH).values(block_version=EPOCH.c.block_version + 1))
    return int(connection.execute(select(EPOCH.c.block_version)).scalar_one())


class AskState(Enum):
    """Where a request for more stands."""

    OPEN = "open"
    APPROVED = "approved"
    DENIED = "denied"


@dataclass(frozen=True, slots=True, kw_only=True)
class AskRow:
    """A borrower's request for more units."""

    id: str
    loan: LoanId
    meter: Meter
    units: int
    reason: str
    state: AskState
    created_at: datetime
    decided_at: datetime | None = None
    decided_by: str | None = None
    granted: int | None = None
    answer: str | None = None


def _ask(row: Row[tuple[object, ...]]) -> AskRow:
    return AskRow(
        id=row.id,
        loan=LoanId(row.loan),
        meter=Meter(row.meter),
        units=row.units,
        reason=row.reason,
        state=AskState(row.state),
        created_at=moment(row.created_at),
        decided_at=None if row.decided_at is None else moment(row.decided_at),
        decided_by=row.decided_by,
        granted=row.granted,
        answer=row.answer,
    )


def insert_ask(connection: Connection, ask: AskRow) -> None:
    """Write a new request for more."""
    connection.execute(
        insert(REQUEST).values(
            id=ask.id,
            loan=ask.loan,
            meter=ask.meter,
            units=ask.units,
            reason=ask.reason,
            state=ask.state.value,
            created_at=stamp(ask.created_at),
        )
    )


def find_ask(connection: Connection, loan: LoanId, ask: str) -> AskRow | None:
    """Return one request of one loan."""
    row = connection.execute(select(REQUEST).where(REQUEST.c.id == ask, REQUEST.c.loan == loan)).one_or_none()
    return None if row is None else _ask(row)


def list_asks(connection: Connection, loan: LoanId) -> Sequence[AskRow]:
    """Return a loan's requests for more: those that wait, then the others, newest first, up to a cap."""
    decided = REQUEST.c.state != AskState.OPEN.value
    query = select(REQUEST).where(REQUEST.c.loan == loan)
    query = query.order_by(decided, REQUEST.c.created_at.desc(), REQUEST.c.id).limit(MAX_ASKS)
    return [_ask(row) for row in connection.execute(query)]


def decide_ask(connection: Connection, ask: AskRow) -> None:
    """Write the answer to a request."""
    connection.execute(
        update(REQUEST)
        .where(REQUEST.c.id == ask.id)
        .values(
            state=ask.state.value,
            decided_at=None if ask.decided_at is None else stamp(ask.decided_at),
            decided_by=ask.decided_by,
            granted=ask.granted,
            answer=ask.answer,
        )
    )
