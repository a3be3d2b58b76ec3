"""Rows of enclave instances: what ``lending.state.InstanceState`` says, and what only we need beside it.

Statements of a renewal stand built at the top, here and in the files beside: building one anew costs several
times what running it does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import and_, bindparam, delete, func, insert, or_, select, update

from cloister.crypto.sign import VerifyKey
from cloister.custodian.store.tables import INSTANCE, INSTANCE_METER, NONCE, moment, stamp
from cloister.lending.state import InstanceState, InstanceStatus
from cloister.lending.terms import InstanceId, LoanId, Meter

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime, timedelta

    from sqlalchemy import Connection, Row, Select

    from cloister.attest.rats import Nonce

__all__ = [
    "MAX_LISTED",
    "InstanceRow",
    "NonceRow",
    "dead_instances",
    "find_instance",
    "find_key",
    "insert_instance",
    "insert_nonce",
    "instances_between",
    "list_instances",
    "open_nonces",
    "purge_nonces",
    "renew_attestation",
    "save_instance",
    "some_instances",
    "standing_instances",
    "take_nonce",
]


MAX_LISTED = 1000  # instances shown at once; a loan has had any number of them

_KEY = select(INSTANCE.c.pub).where(INSTANCE.c.id == bindparam("of"))
_ONE = select(INSTANCE).where(INSTANCE.c.id == bindparam("of"))
_SAVE = update(INSTANCE).where(INSTANCE.c.id == bindparam("of"))
_METERS = select(INSTANCE_METER).where(INSTANCE_METER.c.instance == bindparam("of"))
_SAVE_METER = update(INSTANCE_METER).where(
    INSTANCE_METER.c.instance == bindparam("of"), INSTANCE_METER.c.meter == bindparam("named")
)
_NEW_METER = insert(INSTANCE_METER)
_DEAD = (
    select(INSTANCE)
    .where(INSTANCE.c.written_off == 0, INSTANCE.c.dead_at <= bindparam("now"))
    .order_by(INSTANCE.c.dead_at)
    .limit(bindparam("cap"))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRow:
    """One instance: its state, the digest of its attested KEM key, its attestation result as a token.

    ``clock`` is the code of the rule by which its clock was judged.
    """

    state: InstanceState
    kem_digest: bytes
    tee: str
    tier: str
    result: str
    clock: str = "unknown"


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
            clock_trusted=int(state.clock_trusted),
            clock=row.clock,
            **_state_values(state),
        )
    )
    _save_meters(connection, state)


def renew_attestation(
    connection: Connection, instance: InstanceId, *, result: str, tier: str, policy_digest: str, now: datetime
) -> None:
    """Note that a running instance attested again: what it holds and has used stays."""
    values = {"result": result, "tier": tier, "policy_digest": policy_digest, "attested_at": stamp(now)}
    connection.execute(update(INSTANCE).where(INSTANCE.c.id == instance).values(values))


def save_instance(connection: Connection, state: InstanceState) -> None:
    """Write what changed in an instance's state."""
    connection.execute(_SAVE, {"of": state.id, **_state_values(state)})
    _save_meters(connection, state)


def _save_meters(connection: Connection, state: InstanceState) -> None:
    """Write what each meter stands at. A meter once there stays: ceilings and counts never go away (I5)."""
    for meter in sorted({*state.limits, *state.used, *state.reach}):
        values = {
            "ceiling": state.limits.get(meter, 0),
            "used": state.used.get(meter, 0),
            "filed": state.filed.get(meter, 0),
            "reach": state.reach.get(meter, 0),
        }
        if connection.execute(_SAVE_METER, {"of": state.id, "named": meter, **values}).rowcount == 0:
            connection.execute(_NEW_METER, {"instance": state.id, "meter": meter, **values})


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
        clock_trusted=bool(row.clock_trusted),
    )
    return InstanceRow(
        state=state, kem_digest=row.kem_digest, tee=row.tee, tier=row.tier, result=row.result, clock=row.clock
    )


def _meters(connection: Connection, instance: InstanceId) -> dict[Meter, Row[tuple[object, ...]]]:
    rows = connection.execute(_METERS, {"of": instance})
    return {Meter(row.meter): row for row in rows}


def find_instance(connection: Connection, instance: InstanceId) -> InstanceRow | None:
    """Return one instance."""
    row = connection.execute(_ONE, {"of": instance}).one_or_none()
    if row is None:
        return None
    return _instance(row, _meters(connection, instance))


def find_key(connection: Connection, instance: InstanceId) -> VerifyKey | None:
    """Return the key of one instance."""
    raw = connection.execute(_KEY, {"of": instance}).scalar_one_or_none()
    return None if raw is None else VerifyKey(raw)


def list_instances(connection: Connection, *, loan: LoanId | None = None) -> Sequence[InstanceRow]:
    """Return the instances of a loan or of all: those not written off, then the others, newest first, up to a cap."""
    query = select(INSTANCE).order_by(INSTANCE.c.written_off, INSTANCE.c.attested_at.desc(), INSTANCE.c.id)
    return _read(connection, (query if loan is None else query.where(INSTANCE.c.loan == loan)).limit(MAX_LISTED))


def some_instances(connection: Connection, *, skip: int, limit: int) -> tuple[Sequence[InstanceRow], int]:
    """Return some instances of all loans, in the order of ``list_instances``, and how many there are in all."""
    total = int(connection.execute(select(func.count()).select_from(INSTANCE)).scalar_one())
    query = select(INSTANCE).order_by(INSTANCE.c.written_off, INSTANCE.c.attested_at.desc(), INSTANCE.c.id)
    return _read(connection, query.offset(skip).limit(limit)), total


def standing_instances(connection: Connection, *, loan: LoanId | None = None) -> Sequence[InstanceRow]:
    """Return every instance of a loan, or of all, that is not written off: all that may serve or hold units."""
    query = select(INSTANCE).where(INSTANCE.c.written_off == 0).order_by(INSTANCE.c.attested_at.desc(), INSTANCE.c.id)
    return _read(connection, query if loan is None else query.where(INSTANCE.c.loan == loan))


def instances_between(
    connection: Connection, loan: LoanId, start: datetime, end: datetime, *, also: Iterable[InstanceId], cap: int
) -> Sequence[InstanceRow]:
    """Return up to ``cap`` instances of a loan that could have served in ``[start, end)``, and those in ``also``."""
    lived = and_(INSTANCE.c.attested_at < stamp(end), INSTANCE.c.dead_at >= stamp(start))
    query = select(INSTANCE).where(INSTANCE.c.loan == loan, or_(lived, INSTANCE.c.id.in_(list(also))))
    return _read(connection, query.order_by(INSTANCE.c.id).limit(cap))


def dead_instances(connection: Connection, now: datetime, *, cap: int) -> Sequence[InstanceRow]:
    """Return instances whose last lease must be over and whose rest was not written off yet (C8)."""
    rows = connection.execute(_DEAD, {"now": stamp(now), "cap": cap}).all()
    return [_instance(row, _meters(connection, row.id)) for row in rows]


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
