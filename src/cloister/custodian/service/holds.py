"""Legal holds: what is neither pruned nor forgotten while a dispute or an inquiry needs it.

A hold is over everything, a class, a loan or a person. It wins over every period and over forgetting: GDPR article
17(3)(e) keeps what legal claims need. Placing and lifting are entries. Whether a second person must agree to lifting
is said by its route (``routes.duties``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.custodian.service.veiling import known_person
from cloister.custodian.store.retention import (
    HoldRow,
    bodies_before,
    find_hold,
    insert_hold,
    lift_hold,
    list_holds,
)
from cloister.custodian.store.tables import moment
from cloister.errors import Rejected
from cloister.lending.audit import AuditEntry
from cloister.lending.events import EventKind
from cloister.lending.persons import veiled_scope
from cloister.lending.retention import Retention, retention_of
from cloister.lending.terms import LOAN_ID
from cloister.wire import dump_time

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from cloister.custodian.service.context import Context, Transaction
    from cloister.custodian.tokens import Actor
    from cloister.wire import Fields, Json

__all__ = ["demand_free", "hold_list", "holds_entry", "lift", "place"]

ALL = "all"
_CLASS, _LOAN, _SUBJECT = "class:", "loan:", "subject:"
_ID_BYTES = 8
_EVER = moment((1 << 53) - 1)


def place(transaction: Transaction, actor: Actor, body: Fields) -> Json:
    """Hold ``{"scope", "reason"}``: ``all``, ``class:NAME``, ``loan:ID`` or ``subject:PERSON``."""
    scope = _scope(transaction, body)
    reason = body.text("reason", cap=200, floor=1)
    body.end()
    row = HoldRow(
        id=f"hold-{transaction.context.rng(_ID_BYTES).hex()}", scope=scope, reason=reason, placed_at=transaction.now,
        placed_by=actor.id,
    )  # fmt: skip
    insert_hold(transaction.connection, row)
    transaction.record(EventKind.HOLD_PLACED, actor, scope, hold=row.id, reason=reason)
    return _view(row)


def _scope(transaction: Transaction, body: Fields) -> str:
    """Return a scope as it is kept: a person by pseudonym. Raises ``Malformed``, ``Rejected`` (``not_found``)."""
    scope = body.text("scope", cap=128)
    if scope == ALL or (scope.removeprefix(_CLASS) in _CLASSES and scope.startswith(_CLASS)):
        return scope
    if scope.startswith(_LOAN) and LOAN_ID.fullmatch(scope.removeprefix(_LOAN)):
        return scope
    if not scope.startswith(_SUBJECT):
        body.fail("scope", "want all, class:NAME, loan:ID or subject:PERSON")
    row = known_person(transaction.context, transaction.connection, scope.removeprefix(_SUBJECT))
    if row is None:
        raise Rejected.because("not_found", "subject", hint="no entry names this person")
    return _SUBJECT + row.pseudonym


_CLASSES = frozenset(item.value for item in Retention)


def lift(transaction: Transaction, actor: Actor, hold: str) -> Json:
    """Let a hold be in force no longer."""
    row = find_hold(transaction.connection, hold)
    if row is None or not lift_hold(transaction.connection, hold, transaction.now):
        raise Rejected.because("not_found", "hold")
    transaction.record(EventKind.HOLD_LIFTED, actor, row.scope, hold=row.id)
    return {"hold": row.id, "lifted": True}


def hold_list(context: Context) -> Json:
    """Return every hold there ever was."""
    with context.reading() as connection:
        return {"holds": [_view(row) for row in list_holds(connection, standing=False)]}


def _view(row: HoldRow) -> dict[str, Json]:
    return {
        "hold": row.id,
        "lifted_at": None if row.lifted_at is None else dump_time(row.lifted_at),
        "placed_at": dump_time(row.placed_at),
        "placed_by": row.placed_by,
        "reason": row.reason,
        "scope": row.scope,
    }


def holds_entry(holds: Iterable[HoldRow], entry: AuditEntry) -> bool:
    """Tell whether any of these holds is over an entry."""
    return any(_covers(row.scope, entry) for row in holds)


def _covers(scope: str, entry: AuditEntry) -> bool:
    if scope.startswith(_CLASS):
        return retention_of(entry.kind).value == scope.removeprefix(_CLASS)
    if scope.startswith(_LOAN):
        return scope.removeprefix(_LOAN) in (entry.subject, entry.details.get("loan"))
    return scope == ALL or _names(entry, scope.removeprefix(_SUBJECT))


def _names(entry: AuditEntry, pseudonym: str) -> bool:
    words = {entry.actor, entry.subject, *entry.details.values()}
    return any(word in words for word in veiled_scope(pseudonym, pseudonym)) or entry.actor.endswith(f":{pseudonym}")


def demand_free(connection: Connection, pseudonym: str) -> None:
    """Refuse to forget a person that a hold needs: its own, or one over an entry that names it.

    Raises ``Rejected`` (``held``).
    """
    holds = list_holds(connection, standing=True)
    wide = [row for row in holds if row.scope.startswith((_CLASS, _LOAN))]
    found = next((row for row in holds if row.scope in (ALL, _SUBJECT + pseudonym)), None)
    if found is None and wide:
        entries = (AuditEntry.parse(line) for _, _, line in bodies_before(connection, _EVER))
        found = next(
            (row for item in entries if _names(item, pseudonym) for row in wide if _covers(row.scope, item)), None
        )
    if found is not None:
        raise Rejected.because(
            "held", "subject", got=found.id, want="no hold", hint="cloister audit hold lift, if it may be"
        )
