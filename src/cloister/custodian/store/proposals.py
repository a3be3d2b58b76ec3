"""Rows of proposals: what one person asked for and another has to approve."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select, update

from cloister.custodian.duty import Operation
from cloister.custodian.store.tables import PROPOSAL, moment, stamp
from cloister.custodian.tokens import Role

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row

__all__ = [
    "ProposalRow",
    "ProposalState",
    "close_proposal",
    "expired_proposals",
    "find_open",
    "find_proposal",
    "insert_proposal",
    "list_proposals",
    "open_proposals",
    "purge_proposals",
    "wipe_body",
]

_SHOWN = 200  # proposals listed at once, newest first


class ProposalState(Enum):
    """Where a proposal stands. All but ``open`` are final."""

    OPEN = "open"
    EXECUTED = "executed"
    REFUSED = "refused"
    DENIED = "denied"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalRow:
    """One proposal. ``request`` is canonical JSON of route, parameters and query.

    ``basis`` is canonical JSON of the state it was made on, ``outcome`` of the result of what was executed, or of the
    reasons of what was refused.
    """

    id: str
    operation: Operation
    request: bytes
    body: bytes
    basis: bytes
    digest: bytes
    actor: str
    role: Role
    name: str
    person: str
    created_at: datetime
    expires_at: datetime
    state: ProposalState = ProposalState.OPEN
    decided_at: datetime | None = None
    decided_by: str | None = None
    reason: str = ""
    outcome: bytes | None = None


def _row(row: Row[tuple[object, ...]]) -> ProposalRow:
    return ProposalRow(
        id=row.id,
        operation=Operation(row.operation),
        request=row.request,
        body=row.body,
        basis=row.basis,
        digest=row.digest,
        actor=row.actor,
        role=Role(row.role),
        name=row.name,
        person=row.person,
        created_at=moment(row.created_at),
        expires_at=moment(row.expires_at),
        state=ProposalState(row.state),
        decided_at=None if row.decided_at is None else moment(row.decided_at),
        decided_by=row.decided_by,
        reason=row.reason,
        outcome=row.outcome,
    )


def insert_proposal(connection: Connection, row: ProposalRow) -> None:
    """Write a new, open proposal."""
    connection.execute(
        insert(PROPOSAL).values(
            id=row.id,
            operation=row.operation.value,
            request=row.request,
            body=row.body,
            basis=row.basis,
            digest=row.digest,
            actor=row.actor,
            role=row.role.value,
            name=row.name,
            person=row.person,
            created_at=stamp(row.created_at),
            expires_at=stamp(row.expires_at),
            state=row.state.value,
            reason="",
        )
    )


def find_proposal(connection: Connection, proposal: str) -> ProposalRow | None:
    """Return one proposal, whatever became of it."""
    row = connection.execute(select(PROPOSAL).where(PROPOSAL.c.id == proposal)).one_or_none()
    return None if row is None else _row(row)


def find_open(connection: Connection, like: ProposalRow, now: datetime) -> ProposalRow | None:
    """Return the open proposal of the same person for the same, made on the same state."""
    query = select(PROPOSAL).where(
        PROPOSAL.c.state == ProposalState.OPEN.value,
        PROPOSAL.c.expires_at > stamp(now),
        PROPOSAL.c.person == like.person,
        PROPOSAL.c.actor == like.actor,
        PROPOSAL.c.request == like.request,
        PROPOSAL.c.body == like.body,
        PROPOSAL.c.basis == like.basis,
    )
    row = connection.execute(query.limit(1)).one_or_none()
    return None if row is None else _row(row)


def list_proposals(connection: Connection) -> Sequence[ProposalRow]:
    """Return the newest proposals, the newest first."""
    query = select(PROPOSAL).order_by(PROPOSAL.c.created_at.desc(), PROPOSAL.c.id).limit(_SHOWN)
    return [_row(row) for row in connection.execute(query)]


def open_proposals(connection: Connection, now: datetime) -> int:
    """Return how many wait to be decided."""
    query = select(func.count()).where(PROPOSAL.c.state == ProposalState.OPEN.value, PROPOSAL.c.expires_at > stamp(now))
    return int(connection.execute(query).scalar_one())


def expired_proposals(connection: Connection, now: datetime) -> Sequence[ProposalRow]:
    """Return open proposals whose time is over."""
    query = select(PROPOSAL).where(PROPOSAL.c.state == ProposalState.OPEN.value, PROPOSAL.c.expires_at <= stamp(now))
    return [_row(row) for row in connection.execute(query.order_by(PROPOSAL.c.created_at, PROPOSAL.c.id))]


def close_proposal(
    connection: Connection,
    proposal: str,
    state: ProposalState,
    *,
    now: datetime,
    by: str,
    reason: str = "",
    outcome: bytes | None = None,
) -> None:
    """Write down what became of an open proposal."""
    connection.execute(
        update(PROPOSAL)
        .where(PROPOSAL.c.id == proposal, PROPOSAL.c.state == ProposalState.OPEN.value)
        .values(state=state.value, decided_at=stamp(now), decided_by=by, reason=reason, outcome=outcome)
    )


def wipe_body(connection: Connection, proposal: str) -> None:
    """Forget what a decided proposal asked for; its digest stays."""
    connection.execute(update(PROPOSAL).where(PROPOSAL.c.id == proposal).values(body=b""))


def purge_proposals(connection: Connection, before: datetime) -> None:
    """Forget what was decided before a time; the audit log remembers."""
    connection.execute(delete(PROPOSAL).where(PROPOSAL.c.decided_at < stamp(before)))
