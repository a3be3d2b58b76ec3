"""Blocks: a stop on a model, loan, instance or consumer, with the bound in which it takes (walk 4, C9)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.custodian.service.leases import parse_instance_id
from cloister.custodian.service.models import parse_digest
from cloister.custodian.service.standing import loan_row, parse_loan_id
from cloister.custodian.store.blocks import (
    BlockKind,
    BlockRow,
    delete_block,
    insert_block,
    list_blocks,
    next_block_version,
)
from cloister.custodian.store.book import read_epoch
from cloister.custodian.store.instances import find_instance, save_instance, standing_instances
from cloister.custodian.store.loans import find_loan, list_loans
from cloister.custodian.store.models import find_model
from cloister.errors import Rejected
from cloister.lending.ending import Bound, block_bound, is_live
from cloister.lending.events import EventKind
from cloister.lending.state import InstanceStatus
from cloister.lending.terms import NAME, LoanId
from cloister.wire import Fields, Json, dump_time

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from cloister.custodian.service.context import Context, Transaction
    from cloister.custodian.tokens import Actor
    from cloister.lending.state import InstanceState

__all__ = ["block", "block_list", "bound_of", "take_kind", "unblock"]


def block(transaction: Transaction, actor: Actor, body: Fields) -> Json:
    """Stop ``{"kind", "subject", "loan"?, "reason"}`` and say within which bound it stops."""
    kind = take_kind(body)
    subject = body.text("subject", cap=128, floor=1)
    loan = body.optional("loan", lambda member: parse_loan_id(body.text(member, cap=64)))
    reason = body.text("reason", cap=200)
    body.end()
    _demand_subject(transaction.connection, kind, subject, loan)
    row = BlockRow(kind=kind, subject=subject, loan=loan, reason=reason, by=actor.id, at=transaction.now)
    version = transaction.epoch.block_version
    if insert_block(transaction.connection, row):
        version = next_block_version(transaction.connection)
        if kind is BlockKind.INSTANCE:
            _stop_instance(transaction, subject)
        transaction.record(
            EventKind.BLOCKED, actor, subject, kind=kind.value, reason=reason, block_version=version,
            **({} if loan is None else {"loan": str(loan)}),
        )  # fmt: skip
    bound, instances = _bound(transaction.connection, transaction.now, kind, subject, loan)
    return {
        "block_version": version,
        "bound": {"seconds": bound.seconds, "units": bound.units},
        "instances": [{"instance": item, "units": units} for item, units in instances.items()],
    }


def unblock(transaction: Transaction, actor: Actor, kind_text: str, subject: str, loan: LoanId | None) -> Json:
    """Lift a block. A blocked instance does not come back: its keys are gone; it starts anew."""
    kind = next((item for item in BlockKind if item.value == kind_text), None)
    if kind is None or not delete_block(transaction.connection, kind, subject, loan):
        raise Rejected.because("not_found", "block")
    version = next_block_version(transaction.connection)
    transaction.record(
        EventKind.UNBLOCKED, actor, subject, kind=kind.value, block_version=version,
        **({} if loan is None else {"loan": str(loan)}),
    )  # fmt: skip
    return {"block_version": version}


def block_list(context: Context) -> Json:
    """Return every block in force."""
    with context.reading() as connection:
        rows = list_blocks(connection)
        version = read_epoch(connection).block_version
    blocks: list[Json] = [
        {
            "at": dump_time(row.at),
            "by": row.by,
            "kind": row.kind.value,
            "loan": row.loan,
            "reason": row.reason,
            "subject": row.subject,
        }
        for row in rows
    ]
    return {"block_version": version, "blocks": blocks}


def bound_of(context: Context, kind: BlockKind, subject: str, loan: LoanId | None = None) -> Bound:
    """Return within which bound a block would stop what is named, if it were made now: what is said beside a button."""
    with context.reading() as connection:
        return _bound(connection, context.now(), kind, subject, loan)[0]


def take_kind(body: Fields) -> BlockKind:
    """Return what kind of thing a block is about. Raises ``Malformed``."""
    text = body.text("kind", cap=16)
    kind = next((item for item in BlockKind if item.value == text), None)
    if kind is None:
        body.fail("kind", "want model, loan, instance or consumer")
    return kind


def _demand_subject(connection: Connection, kind: BlockKind, subject: str, loan: LoanId | None) -> None:
    """Prove that there is something to block: a block that misspells its subject would stop nothing."""
    if (kind is BlockKind.CONSUMER) != (loan is not None):
        raise Rejected.because("loan_wanted", "block", hint="name the loan for a consumer, and only there")
    match kind:
        case BlockKind.LOAN:
            found = find_loan(connection, parse_loan_id(subject)) is not None
        case BlockKind.MODEL:
            found = find_model(connection, parse_digest(subject)) is not None
        case BlockKind.INSTANCE:
            found = find_instance(connection, parse_instance_id(subject)) is not None
        case BlockKind.CONSUMER:
            consumers = () if loan is None else loan_row(connection, loan).terms.consumers or ()
            found = NAME.fullmatch(subject) is not None and any(item.id == subject for item in consumers)
    if not found:
        raise Rejected.because("not_found", kind.value)


def _stop_instance(transaction: Transaction, subject: str) -> None:
    row = find_instance(transaction.connection, parse_instance_id(subject))
    if row is not None and row.state.status is InstanceStatus.ACTIVE:
        save_instance(transaction.connection, replace(row.state, status=InstanceStatus.BLOCKED))


def _bound(
    connection: Connection, now: datetime, kind: BlockKind, subject: str, loan: LoanId | None
) -> tuple[Bound, dict[str, int]]:
    """Return within how many seconds, after how many units at most, all has stopped; and the units of each instance."""
    ttls, instances = _affected(connection, kind, subject, loan)
    ttl = max(ttls, default=timedelta(0))
    live = [item for item in instances if is_live(item, now=now)]
    each = {str(item.id): block_bound([item], ttl=ttl, now=now).units for item in live}
    return block_bound(live, ttl=ttl, now=now), each


def _affected(
    connection: Connection, kind: BlockKind, subject: str, loan: LoanId | None
) -> tuple[Sequence[timedelta], list[InstanceState]]:
    """Return how long leases live in the loans that a block reaches, and the instances that it stops."""
    if kind is BlockKind.INSTANCE:
        row = find_instance(connection, parse_instance_id(subject))
        return ([], []) if row is None else ([loan_row(connection, row.state.loan).terms.ttl], [row.state])
    if kind is BlockKind.MODEL:
        digest = parse_digest(subject)
        terms = [row.terms for row in list_loans(connection)]
        lent = {item.loan: item.ttl for item in terms if any(digest in model.standing for model in item.models)}
        states = [row.state for row in standing_instances(connection)]
        return list(lent.values()), [state for state in states if state.loan in lent]
    of = parse_loan_id(subject) if loan is None else loan
    return [loan_row(connection, of).terms.ttl], [row.state for row in standing_instances(connection, loan=of)]
