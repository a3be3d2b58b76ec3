"""Rows of enclave instances: what ``lending.state.InstanceState`` says, and what only we need beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select, update

from cloister.crypto.sign import VerifyKey
from cloister.custodian.store.tables import INSTANCE, INSTANCE_METER, NONCE, moment, stamp
from cloister.lending.state import InstanceState, InstanceStatus
from cloister.lending.terms import InstanceId, LoanId, Meter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from sqlalchemy import Connection, Row, Select

    from cloister.attest.rats import Nonce

__all__ = [
    "MAX_LISTED",
    "InstanceRow",
    "NonceRow",
    "dead_instances",
    "find_instance",
    "insert_instance",
    "insert_nonce",
    "list_instances",
    "open_nonces",
    "purge_nonces",
    "save_instance",
    "standing_instances",
    "take_nonce",
]


MAX_LISTED = 1000  # instances shown at once; a loan has had any number of them


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRow:
    """One instance: its state, the digest of its attested KEM key, its attestation result as a token."""

    state: InstanceState
    kem_digest: bytes
    tee: str
    tier: str
    result: str


def _state_values(state: InstanceState) -> dict[str, object]:
    return {
        "epoch": state.epoch,
        "seq": state.seq,
        "req_digest": state.req_digest,
        "reply": state.reply,
        "chain_head": state.chain_head,
        "committed_at": stamp(state.committed_at),
        "dead_at": stamp(state.dead_at),
        "status": state.status.value,
        "written_off": int(state.written_off),
        "voucher_until": None if state.voucher_until is None else stamp(state.voucher_until),
    }


def insert_instance(connection: Connection, row: InstanceRow) -> None:
    """Register an instance."""
    state = row.state
    connection.execute(
        insert(INSTANCE).values(
            id=state.id,
            loan=state.loan,
            pub=state.key.raw,
            kem_digest=row.kem_digest,
            tee=row.tee,
            tier=row.tier,
            result=row.result,
            policy_digest=state.policy_digest,
            attested_at=stamp(state.attested_at),
            clone_proof=int(state.clone_proof),
            **_state_values(state),
        )
    )
    _save_meters(connection, state)


def save_instance(connection: Connection, state: InstanceState) -> None:
    """Write what changed in an instance's state."""
    connection.execute(update(INSTANCE).where(INSTANCE.c.id == state.id).values(**_state_values(state)))
    _save_meters(connection, state)


def _save_meters(connection: Connection, state: InstanceState) -> None:
    connection.execute(delete(INSTANCE_METER).where(INSTANCE_METER.c.instance == state.id))
    meters = sorted({*state.limits, *state.used, *state.reach})
    rows = [
        {
            "instance": state.id,
            "meter": meter,
            "ceiling": state.limits.get(meter, 0),
            "used": state.used.get(meter, 0),
            "filed": state.filed.get(meter, 0),
            "reach": state.reach.get(meter, 0),
        }
        for meter in meters
    ]
    if rows:
        connection.execute(insert(INSTANCE_METER), rows)


def _read(connection: Connection, query: Select[tuple[object, ...]]) -> Sequence[InstanceRow]:
    rows = connection.execute(query).all()
    meters: dict[str, dict[Meter, Row[tuple[object, ...]]]] = {row.id: {} for row in rows}
    if rows:
        # As a query, not as a list of ids: SQLite takes only so many values in one statement.
        found = connection.execute(
            select(INSTANCE_METER).where(INSTANCE_METER.c.instance.in_(query.with_only_columns(INSTANCE.c.id)))
        )
        for meter in found:
            meters[meter.instance][Meter(meter.meter)] = meter
    return [_instance(row, meters[row.id]) for row in rows]


def _instance(row: Row[tuple[object, ...]], meters: dict[Meter, Row[tuple[object, ...]]]) -> InstanceRow:
    state = InstanceState(
        id=InstanceId(row.id),
        loan=LoanId(row.loan),
        key=VerifyKey(row.pub),
        epoch=row.epoch,
        policy_digest=row.policy_digest,
        attested_at=moment(row.attested_at),
        committed_at=moment(row.committed_at),
        dead_at=moment(row.dead_at),
        status=InstanceStatus(row.status),
        limits={meter: counts.ceiling for meter, counts in meters.items()},
        used={meter: counts.used for meter, counts in meters.items()},
        filed={meter: counts.filed for meter, counts in meters.items() if counts.filed},
        reach={meter: counts.reach for meter, counts in meters.items() if counts.reach},
        voucher_until=None if row.voucher_until is None else moment(row.voucher_until),
        chain_head=row.chain_head,
        seq=row.seq,
        req_digest=row.req_digest,
        reply=row.reply,
        written_off=bool(row.written_off),
        clone_proof=bool(row.clone_proof),
    )
    return InstanceRow(state=state, kem_digest=row.kem_digest, tee=row.tee, tier=row.tier, result=row.result)


def find_instance(connection: Connection, instance: InstanceId) -> InstanceRow | None:
    """Return one instance."""
    found = _read(connection, select(INSTANCE).where(INSTANCE.c.id == instance))
    return found[0] if found else None


def list_instances(connection: Connection, *, loan: LoanId | None = None) -> Sequence[InstanceRow]:
    """Return the instances of a loan or of all: those not written off, then the others, newest first, up to a cap."""
    query = select(INSTANCE).order_by(INSTANCE.c.written_off, INSTANCE.c.attested_at.desc(), INSTANCE.c.id)
    return _read(connection, (query if loan is None else query.where(INSTANCE.c.loan == loan)).limit(MAX_LISTED))


def standing_instances(connection: Connection, *, loan: LoanId | None = None) -> Sequence[InstanceRow]:
    """Return every instance of a loan, or of all, that is not written off: all that may serve or hold units."""
    query = select(INSTANCE).where(INSTANCE.c.written_off == 0).order_by(INSTANCE.c.attested_at.desc(), INSTANCE.c.id)
    return _read(connection, query if loan is None else query.where(INSTANCE.c.loan == loan))


def dead_instances(connection: Connection, now: datetime, *, cap: int) -> Sequence[InstanceRow]:
    """Return instances whose last lease must be over and whose rest was not written off yet (C8)."""
    query = select(INSTANCE).where(INSTANCE.c.written_off == 0, INSTANCE.c.dead_at <= stamp(now))
    return _read(connection, query.order_by(INSTANCE.c.dead_at).limit(cap))


@dataclass(frozen=True, slots=True, kw_only=True)
class NonceRow:
    """A challenge's nonce as it stood before it was taken."""

    loan: LoanId
    expires_at: datetime
    used: bool


def insert_nonce(connection: Connection, nonce: Nonce, loan: LoanId, expires_at: datetime) -> None:
    """Write a fresh nonce."""
    connection.execute(insert(NONCE).values(value=nonce, loan=loan, expires_at=stamp(expires_at), used_at=None))


def take_nonce(connection: Connection, nonce: Nonce, now: datetime) -> NonceRow | None:
    """Use a nonce up and return what it was; None for one we never gave, or forgot."""
    row = connection.execute(select(NONCE).where(NONCE.c.value == nonce)).one_or_none()
    if row is None:
        return None
    connection.execute(
        update(NONCE).where(NONCE.c.value == nonce, NONCE.c.used_at.is_(None)).values(used_at=stamp(now))
    )
    return NonceRow(loan=LoanId(row.loan), expires_at=moment(row.expires_at), used=row.used_at is not None)


def open_nonces(connection: Connection, loan: LoanId, now: datetime) -> int:
    """Return how many challenges of a loan wait for their answer."""
    waiting = (NONCE.c.loan == loan) & (NONCE.c.expires_at > stamp(now)) & NONCE.c.used_at.is_(None)
    return int(connection.execute(select(func.count()).select_from(NONCE).where(waiting)).scalar_one())


def purge_nonces(connection: Connection, now: datetime, *, keep: timedelta) -> None:
    """Forget nonces that expired more than ``keep`` ago: they are refused as unknown from then on."""
    connection.execute(delete(NONCE).where(NONCE.c.expires_at < stamp(now - keep)))
