"""Rows of permits that are good no more, of vault files that were seen, and of the rule that a start was under."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select

from cloister.custodian.duty import Operation
from cloister.custodian.store.tables import PERMIT_END, START_RULE, VAULT_FILE, stamp

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sqlalchemy import Connection

__all__ = [
    "PermitEnd",
    "StartRule",
    "end_permit",
    "find_permit_end",
    "known_vault_files",
    "last_start_rule",
    "note_start_rule",
    "note_vault_files",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PermitEnd:
    """Why a permit is good no more: used for this split, or revoked."""

    split: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRule:
    """Which operations the settings named when a custodian last started, and whether it spelled them out."""

    operations: frozenset[Operation]
    spelled: bool


def find_permit_end(connection: Connection, proposal: str) -> PermitEnd | None:
    """Return how the permit of this proposal ended, None while it is good."""
    row = connection.execute(select(PERMIT_END).where(PERMIT_END.c.proposal == proposal)).one_or_none()
    return None if row is None else PermitEnd(split=row.split)


def end_permit(connection: Connection, proposal: str, *, now: datetime, split: str | None) -> None:
    """Write that a permit is good no more. There is one end of each: a second one fails."""
    connection.execute(insert(PERMIT_END).values(proposal=proposal, ended_at=stamp(now), split=split))


def known_vault_files(connection: Connection) -> frozenset[str]:
    """Return the digests of the vault files that a start has seen."""
    return frozenset(connection.execute(select(VAULT_FILE.c.digest)).scalars())


def note_vault_files(connection: Connection, digests: Iterable[str], now: datetime) -> None:
    """Write that these vault files were seen; none of them was before."""
    rows = [{"digest": digest, "noted_at": stamp(now)} for digest in digests]
    if rows:
        connection.execute(insert(VAULT_FILE), rows)


def note_start_rule(connection: Connection, rule: StartRule) -> None:
    """Write which operations need two persons from this start on."""
    names = ",".join(sorted(item.value for item in rule.operations))
    connection.execute(delete(START_RULE))
    connection.execute(insert(START_RULE).values(id=1, operations=names, spelled=int(rule.spelled)))


def last_start_rule(connection: Connection) -> StartRule:
    """Return the rule of the last start; where there was none yet, that of no operation."""
    row = connection.execute(select(START_RULE)).one_or_none()
    names = [] if row is None else [name for name in row.operations.split(",") if name]
    return StartRule(operations=frozenset(map(Operation, names)), spelled=row is not None and bool(row.spelled))
