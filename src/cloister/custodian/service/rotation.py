"""Rotating the key-encryption key: by schedule, by hand, on incident (docs/spec/vault.md, key-status.md).

One transaction makes a new key, wraps every model's key under it, one key version up, and logs it: whoever reads
before its commit has the old key and old envelopes, whoever reads after it the new ones. Bulk, manifests and the
vault file are not touched. Retired keys are destroyed after ``kek_retention_days``, on incident at once.

Not done here: changing a model's own key. An enclave or thief that has one keeps it; seal anew against that.
"""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.crypto.sign import Statement
from cloister.custodian.store.keys import (
    FIRST_EPOCH,
    KekRow,
    Schedule,
    behind,
    current_kek,
    destroy_kek,
    find_kek,
    insert_kek,
    keks,
    live_instances,
    read_schedule,
    retire_keks,
    retired_keks,
    set_schedule,
)
from cloister.custodian.store.models import list_envelopes, replace_envelope
from cloister.custodian.tokens import SYSTEM
from cloister.custodian.vaults import unwrap_dek, wrap_dek
from cloister.lending.events import EventKind
from cloister.lending.messages.keys import MAX_BEHIND, MAX_KEYS, KekStanding, KeyStatus
from cloister.sealed.envelope import Envelope
from cloister.wire import dump_time

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from cloister.custodian.service.context import Context, Transaction
    from cloister.custodian.tokens import Actor
    from cloister.custodian.vaults import FindKek, Vault
    from cloister.custodian.vaults.kek import Kek
    from cloister.wire import Fields, Json

__all__ = ["held_keks", "key_status", "key_view", "newest_kek", "rewrapped", "rotate", "rotate_due", "schedule"]

_MIN_EVERY_S = 60
_MAX_EVERY_S = 3650 * 86_400
_MAX_REASON = 200


def held_keks(connection: Connection, vault: Vault) -> FindKek:
    """Return what opens a key-encryption key that a rotation made, by its name; None for one that is destroyed."""

    @functools.cache
    def find(kek_id: str) -> Kek | None:
        row = find_kek(connection, kek_id)
        return None if row is None or row.wrapped is None else vault.open_kek(row.id, row.wrapped)

    return find


def newest_kek(connection: Connection, vault: Vault) -> Kek | None:
    """Return the key-encryption key in use, None where it is the vault file's own."""
    row = current_kek(connection)
    return None if row is None or row.wrapped is None else vault.open_kek(row.id, row.wrapped)


def rewrapped(vault: Vault, envelope: Envelope, held: FindKek, kek: Kek) -> Envelope:
    """Return the envelope with this vault's entry wrapped anew, one key version up; others' entries stay."""
    dek, version = unwrap_dek(vault, envelope, held)
    entry = wrap_dek(vault, dek, manifest_digest=envelope.manifest_digest, key_version=version + 1, kek=kek)
    others = tuple(item for item in envelope.recipients if item.kid != vault.kid)
    return Envelope(manifest_digest=envelope.manifest_digest, recipients=(entry, *others))


def rotate(transaction: Transaction, actor: Actor, body: Fields) -> Json:
    """Rotate now: ``{"reason", "incident"}``. On incident retired keys are destroyed in the same transaction."""
    incident = body.boolean("incident") if "incident" in body else False
    reason = body.text("reason", cap=_MAX_REASON) if "reason" in body else ""
    body.end()
    models = _rotate(transaction, actor, kind="incident" if incident else "by_hand", reason=reason)
    destroyed = _destroy(transaction, actor, before=transaction.now) if incident else 0
    return {**_view(transaction.connection, transaction.context.vault), "destroyed": destroyed, "rewrapped": models}


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
    """Rotate where the schedule says so, destroy what is past its retention; tells whether anything was done.

    Of several custodians over one database one does it: it looks again inside the transaction, which runs alone.
    """
    keep = timedelta(days=context.config.kek_retention_days)

    def due(connection: Connection, now: datetime) -> tuple[bool, bool]:
        planned = read_schedule(connection)
        return planned is not None and planned.next_at <= now, bool(retired_keks(connection, now - keep))

    def work(transaction: Transaction) -> None:
        rotates, _ = due(transaction.connection, transaction.now)
        if rotates:
            _rotate(transaction, SYSTEM, kind="scheduled", reason="")
        _destroy(transaction, SYSTEM, before=transaction.now - keep)

    with context.reading() as connection:
        waiting = any(due(connection, context.now()))
    if waiting:
        context.transact(work)
    return waiting


def _rotate(transaction: Transaction, actor: Actor, *, kind: str, reason: str) -> int:
    """Make a new key and wrap every model's under it; return how many there are."""
    connection, vault = transaction.connection, transaction.context.vault
    held, last = held_keks(connection, vault), current_kek(connection)
    kek, wrapped = vault.make_kek()
    number = (FIRST_EPOCH if last is None else last.number) + 1
    retire_keks(connection, transaction.now)
    insert_kek(connection, KekRow(number=number, id=kek.id, wrapped=wrapped, made_at=transaction.now))
    envelopes = list_envelopes(connection)
    for digest, data in envelopes:
        replace_envelope(connection, digest, rewrapped(vault, Envelope.parse(data), held, kek).dump())
    transaction.record(
        EventKind.KEYS_ROTATED, actor, kek.id, key_epoch=number, kind=kind, models=len(envelopes), reason=reason
    )
    planned = read_schedule(connection)
    if planned is not None:
        set_schedule(connection, Schedule(every=planned.every, next_at=transaction.now + planned.every))
    return len(envelopes)


def _destroy(transaction: Transaction, actor: Actor, *, before: datetime) -> int:
    """Destroy keys that were retired before a time and that no envelope names; return how many."""
    connection = transaction.connection
    waiting = retired_keks(connection, before)
    if not waiting:
        return 0
    needed = {
        entry.kek_id for _, data in list_envelopes(connection) for entry in Envelope.parse(data).recipients
    }  # a rotation leaves none, and what opens a model is never destroyed on that belief alone
    gone = [row for row in waiting if row.id not in needed]
    for row in gone:
        destroy_kek(connection, row.number, transaction.now)
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


def _kek_of(envelope: bytes, vault: Vault) -> str:
    return Envelope.parse(envelope).recipient(vault.kid).kek_id


def key_status(context: Context) -> bytes:
    """Return the signed statement that every live lease is of the newest key epoch, or which are not."""
    now = context.now().replace(microsecond=0)
    with context.reading() as connection:
        keys = _standings(connection, context.vault)
        listed, count = behind(connection, now, key_epoch=keys[0].key_epoch, cap=MAX_BEHIND)
        message = KeyStatus(
            custodian=context.vault.signing_key.verify_key,
            issued_at=now,
            key_epoch=keys[0].key_epoch,
            keys=keys,
            models=sum(_kek_of(data, context.vault) == keys[0].kek_id for _, data in list_envelopes(connection)),
            live=live_instances(connection, now),
            behind_count=count,
            behind=tuple(listed),
        )
    return Statement.sign(context.vault.signing_key, KeyStatus.LABEL, message.dump()).dump()
