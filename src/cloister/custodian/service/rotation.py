"""Rotating the key-encryption key: by schedule, by hand, on incident (docs/spec/vault.md, key-status.md).

One transaction makes a new key, wraps every model's key under it, one key version up, and logs it: whoever reads
before its commit has the old key and old envelopes, whoever reads after it the new ones. Bulk, manifests and the
vault file are not touched. Retired keys are destroyed after ``kek_retention_days``, on incident at once.

An envelope that does not open stays as it is, is logged and stated, and moves once it opens. What an envelope
names, or might name where one cannot be read, is not destroyed, whatever the retention.

Not done here: wrapping anew (``service.rewrapping``); changing a model's own key. An enclave or thief that has one
keeps it; seal anew against that.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.crypto.sign import Statement
from cloister.custodian.service.rewrapping import late, move_all, needed_keks, stuck
from cloister.custodian.store.keys import (
    FIRST_EPOCH,
    KekRow,
    Schedule,
    behind,
    current_kek,
    destroy_kek,
    insert_kek,
    keks,
    live_instances,
    read_schedule,
    retire_keks,
    retired_keks,
    set_schedule,
)
from cloister.custodian.store.models import list_envelopes
from cloister.custodian.tokens import SYSTEM
from cloister.lending.events import EventKind
from cloister.lending.messages.keys import MAX_BEHIND, MAX_KEYS, MAX_STUCK, KekStanding, KeyStatus
from cloister.wire import dump_time

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from cloister.custodian.service.context import Context, Transaction
    from cloister.custodian.tokens import Actor
    from cloister.custodian.vaults import Vault
    from cloister.lending.messages.keys import Stuck
    from cloister.wire import Fields, Json

__all__ = ["key_status", "key_view", "rotate", "rotate_due", "schedule"]

_MIN_EVERY_S = 60
_MAX_EVERY_S = 3650 * 86_400
_MAX_REASON = 200


def rotate(transaction: Transaction, actor: Actor, body: Fields) -> Json:
    """Rotate now: ``{"reason", "incident"}``. On incident retired keys are destroyed in the same transaction."""
    incident = body.boolean("incident") if "incident" in body else False
    reason = body.text("reason", cap=_MAX_REASON) if "reason" in body else ""
    body.end()
    models, left = _rotate(transaction, actor, kind="incident" if incident else "by_hand", reason=reason)
    destroyed = _destroy(transaction, actor, before=transaction.now) if incident else 0
    return {
        **_view(transaction.connection, transaction.context.vault),
        "destroyed": destroyed,
        "kept": len(retired_keks(transaction.connection, transaction.now)),
        "rewrapped": models,
        "stuck": [item.to_json() for item in left],
    }


def schedule(transaction: Transaction, actor: Actor, body: Fields) -> Json:
    """Rotate by itself from now on: ``{"every_s"}``, 0 for never. The first time is one period from now."""
    every_s = body.integer("every_s", cap=_MAX_EVERY_S)
    body.end()
    if 0 < every_s < _MIN_EVERY_S:
        body.fail("every_s", f"want at least {_MIN_EVERY_S}, or 0")
    planned = None
    if every_s:
        every = timedelta(seconds=every_s)
        planned = Schedule(every=every, next_at=transaction.now + every)
    set_schedule(transaction.connection, planned)
    transaction.record(EventKind.ROTATION_SCHEDULED, actor, "keys", every_s=every_s)
    return _view(transaction.connection, transaction.context.vault)


def rotate_due(context: Context) -> bool:
    """Rotate where the schedule says so, move what was left behind, destroy what is past its retention.

    Tells whether anything was done. What was left behind moves once it opens. Of several custodians over one database
    one does it: it looks again inside the transaction, which runs alone.
    """
    keep, vault = timedelta(days=context.config.kek_retention_days), context.vault

    def due(connection: Connection, now: datetime) -> bool:
        planned = read_schedule(connection)
        return planned is not None and planned.next_at <= now

    def work(transaction: Transaction) -> None:
        if due(transaction.connection, transaction.now):
            _rotate(transaction, SYSTEM, kind="scheduled", reason="")
        _move_late(transaction)
        _destroy(transaction, SYSTEM, before=transaction.now - keep)

    with context.reading() as connection:
        now = context.now()
        waiting = due(connection, now) or bool(late(connection, vault) or _to_destroy(connection, vault, now - keep))
    if waiting:
        context.transact(work)
    return waiting


def _rotate(transaction: Transaction, actor: Actor, *, kind: str, reason: str) -> tuple[int, Sequence[Stuck]]:
    """Make a new key and wrap every model's under it; return how many there are, and which stay as they are."""
    connection, vault = transaction.connection, transaction.context.vault
    last = current_kek(connection)
    kek, wrapped = vault.make_kek()
    number = (FIRST_EPOCH if last is None else last.number) + 1
    retire_keks(connection, transaction.now)
    insert_kek(connection, KekRow(number=number, id=kek.id, wrapped=wrapped, made_at=transaction.now))
    envelopes = list_envelopes(connection)
    left = move_all(connection, vault, envelopes, kek)
    done = len(envelopes) - len(left)
    transaction.record(
        EventKind.KEYS_ROTATED, actor, kek.id,
        key_epoch=number, kind=kind, models=done, reason=reason, stuck=len(left),
    )  # fmt: skip
    for item in left:
        transaction.record(
            EventKind.ENVELOPE_STUCK, actor, item.model, codes=item.cause.value, key_epoch=number, model=item.model
        )
    planned = read_schedule(connection)
    if planned is not None:
        set_schedule(connection, Schedule(every=planned.every, next_at=transaction.now + planned.every))
    return done, left


def _move_late(transaction: Transaction) -> None:
    """Wrap under the key in use what an earlier rotation had to leave behind."""
    connection, vault = transaction.connection, transaction.context.vault
    waiting, row = late(connection, vault), current_kek(connection)
    if not waiting or row is None or row.wrapped is None:
        return
    left = {item.model for item in move_all(connection, vault, waiting, vault.open_kek(row.id, row.wrapped))}
    for model, _ in waiting:
        if model not in left:
            transaction.record(EventKind.ENVELOPE_MOVED, SYSTEM, model, key_epoch=row.number, model=model)


def _to_destroy(connection: Connection, vault: Vault, before: datetime) -> Sequence[KekRow]:
    """Return keys that were retired before a time and that no envelope names, none where one cannot be read."""
    waiting = retired_keks(connection, before)
    needed = needed_keks(connection, vault) if waiting else None
    return [] if needed is None else [row for row in waiting if row.id not in needed]


def _destroy(transaction: Transaction, actor: Actor, *, before: datetime) -> int:
    """Destroy keys that were retired before a time and that nothing depends on; return how many."""
    gone = _to_destroy(transaction.connection, transaction.context.vault, before)
    for row in gone:
        destroy_kek(transaction.connection, row.number, transaction.now)
        transaction.record(EventKind.KEY_DESTROYED, actor, row.id, key_epoch=row.number)
    return len(gone)


def key_view(context: Context) -> Json:
    """Return the keys and the schedule as staff sees them."""
    with context.reading() as connection:
        return _view(connection, context.vault)


def _view(connection: Connection, vault: Vault) -> dict[str, Json]:
    planned = read_schedule(connection)
    keys = _standings(connection, vault)
    return {
        "every_s": None if planned is None else int(planned.every.total_seconds()),
        "kek_id": keys[0].kek_id,
        "key_epoch": keys[0].key_epoch,
        "keys": [key.to_json() for key in keys],
        "next_at": None if planned is None else dump_time(planned.next_at),
    }


def _standings(connection: Connection, vault: Vault) -> tuple[KekStanding, ...]:
    """Return the keys, newest first; the vault file's own is the last."""
    made = keks(connection)
    first = KekStanding(
        kek_id=vault.kek_id,
        key_epoch=FIRST_EPOCH,
        retired_at=made[-1].made_at if made else None,
        destroyed_at=None,
    )
    shown = [
        KekStanding(kek_id=row.id, key_epoch=row.number, retired_at=row.retired_at, destroyed_at=row.destroyed_at)
        for row in made[: MAX_KEYS - 1]
    ]
    return (*shown, first)


def key_status(context: Context) -> bytes:
    """Return the signed statement that every live lease and model's key is of the newest epoch, or which are not."""
    now = context.now().replace(microsecond=0)
    with context.reading() as connection:
        keys = _standings(connection, context.vault)
        listed, count = behind(connection, now, key_epoch=keys[0].key_epoch, cap=MAX_BEHIND)
        left = stuck(connection, context.vault)
        message = KeyStatus(
            custodian=context.vault.signing_key.verify_key,
            issued_at=now,
            key_epoch=keys[0].key_epoch,
            keys=keys,
            models=len(list_envelopes(connection)) - len(left),
            live=live_instances(connection, now),
            behind_count=count,
            behind=tuple(listed),
            stuck_count=len(left),
            stuck=tuple(left[:MAX_STUCK]),
        )
    return Statement.sign(context.vault.signing_key, KeyStatus.LABEL, message.dump()).dump()
