"""Rows of key releases: what each was decided by, so that it can be judged again (docs/reference/endorsements.md).

Bytes are kept by their digest: evidence differs each time, software, policy and endorsements are shared by many.
Nothing here opens anything: evidence is no secret, and keys that were released are not kept.

Not done here: judging (``service.recall``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select, union, update

from cloister.attest.endorse.bundle import Accepted
from cloister.attest.rats import Evidence, Nonce, TeeKind
from cloister.custodian.store.tables import (
    ARTIFACT,
    ENDORSEMENT_BUNDLE,
    INSTANCE,
    KEY_RELEASE,
    RELEASE_ENDORSEMENT,
    moment,
    stamp,
)
from cloister.lending.terms import InstanceId, LoanId

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

__all__ = [
    "ReleaseRow",
    "accepted_bundle",
    "insert_release",
    "purge_releases",
    "read_release",
    "release_to",
    "releases_after",
    "set_accepted_bundle",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRow:
    """One release of keys to one instance: what was sent, what was bound, by which endorsements and policy."""

    instance: InstanceId
    instance_pub: bytes
    loan: LoanId
    at: datetime
    nonce: Nonce
    custodian: bytes
    kem_pub: bytes
    evidence: Evidence
    devices: bytes
    software: bytes
    policy: bytes
    endorsements: Mapping[str, bytes]


def insert_release(connection: Connection, row: ReleaseRow) -> None:
    """Keep a release, in the place of an earlier one to the same instance: what it was released on last counts.

    The instance is registered in the same transaction, or was before.
    """
    values = {
        "at": stamp(row.at),
        "nonce": row.nonce,
        "custodian": row.custodian,
        "kem_pub": row.kem_pub,
        "evidence": _keep(connection, row.evidence.payload),
        "devices": _keep(connection, row.devices),
        "software": _keep(connection, row.software),
        "policy": _keep(connection, row.policy),
    }
    before = connection.execute(select(KEY_RELEASE.c.id).where(KEY_RELEASE.c.instance == row.instance)).scalar()
    if before is None:
        fresh = insert(KEY_RELEASE).values(instance=row.instance, **values)
        release = connection.execute(fresh.returning(KEY_RELEASE.c.id)).scalar_one()
    else:
        release = before
        connection.execute(update(KEY_RELEASE).where(KEY_RELEASE.c.id == release).values(values))
        connection.execute(delete(RELEASE_ENDORSEMENT).where(RELEASE_ENDORSEMENT.c.release == release))
    for name, data in row.endorsements.items():
        sha256 = _keep(connection, data)
        connection.execute(insert(RELEASE_ENDORSEMENT).values(release=release, name=name, sha256=sha256))


def _keep(connection: Connection, data: bytes) -> bytes:
    """Store bytes once; return their digest."""
    sha256 = hashlib.sha256(data).digest()
    if connection.execute(select(ARTIFACT.c.sha256).where(ARTIFACT.c.sha256 == sha256)).first() is None:
        connection.execute(insert(ARTIFACT).values(sha256=sha256, data=data))
    return sha256


def releases_after(connection: Connection, after: int, *, limit: int) -> Sequence[int]:
    """Return the numbers of up to ``limit`` releases behind ``after``, oldest first."""
    query = select(KEY_RELEASE.c.id).where(KEY_RELEASE.c.id > after).order_by(KEY_RELEASE.c.id).limit(limit)
    return list(connection.execute(query).scalars())


def release_to(connection: Connection, instance: InstanceId) -> int | None:
    """Return the number of the last release to an instance, None where it is kept no more."""
    return connection.execute(select(KEY_RELEASE.c.id).where(KEY_RELEASE.c.instance == instance)).scalar()


def read_release(connection: Connection, release: int) -> ReleaseRow | None:
    """Return one release, None for one that was purged meanwhile."""
    query = select(KEY_RELEASE, INSTANCE.c.pub, INSTANCE.c.loan, INSTANCE.c.tee)
    joined = query.join_from(KEY_RELEASE, INSTANCE, KEY_RELEASE.c.instance == INSTANCE.c.id)
    row = connection.execute(joined.where(KEY_RELEASE.c.id == release)).one_or_none()
    if row is None:
        return None
    named = connection.execute(
        select(RELEASE_ENDORSEMENT.c.name, ARTIFACT.c.data)
        .join_from(RELEASE_ENDORSEMENT, ARTIFACT, RELEASE_ENDORSEMENT.c.sha256 == ARTIFACT.c.sha256)
        .where(RELEASE_ENDORSEMENT.c.release == release)
    )
    return ReleaseRow(
        instance=InstanceId(row.instance),
        instance_pub=row.pub,
        loan=LoanId(row.loan),
        at=moment(row.at),
        nonce=Nonce(row.nonce),
        custodian=row.custodian,
        kem_pub=row.kem_pub,
        evidence=Evidence(tee=TeeKind(row.tee), payload=_kept(connection, row.evidence)),
        devices=_kept(connection, row.devices),
        software=_kept(connection, row.software),
        policy=_kept(connection, row.policy),
        endorsements={item.name: item.data for item in named},
    )


def _kept(connection: Connection, sha256: bytes) -> bytes:
    return bytes(connection.execute(select(ARTIFACT.c.data).where(ARTIFACT.c.sha256 == sha256)).scalar_one())


def purge_releases(connection: Connection, before: datetime) -> int:
    """Forget releases before a time whose instance serves no more, and bytes only they needed; return how many."""
    over = select(INSTANCE.c.id).where(INSTANCE.c.written_off == 1)
    old = KEY_RELEASE.c.id.in_(
        select(KEY_RELEASE.c.id).where(KEY_RELEASE.c.at < stamp(before), KEY_RELEASE.c.instance.in_(over))
    )
    releases = list(connection.execute(select(KEY_RELEASE.c.id).where(old)).scalars())
    if not releases:
        return 0
    connection.execute(
        delete(RELEASE_ENDORSEMENT).where(RELEASE_ENDORSEMENT.c.release.in_(select(KEY_RELEASE.c.id).where(old)))
    )
    connection.execute(delete(KEY_RELEASE).where(old))
    columns = (KEY_RELEASE.c.evidence, KEY_RELEASE.c.devices, KEY_RELEASE.c.software, KEY_RELEASE.c.policy)
    used = union(select(RELEASE_ENDORSEMENT.c.sha256), *(select(column) for column in columns))
    connection.execute(delete(ARTIFACT).where(ARTIFACT.c.sha256.not_in(used)))
    return len(releases)


def accepted_bundle(connection: Connection) -> Accepted | None:
    """Return the newest bundle of endorsements that was accepted, None before the first."""
    row = connection.execute(select(ENDORSEMENT_BUNDLE)).one_or_none()
    return None if row is None else Accepted(version=row.version, sha256=row.sha256)


def set_accepted_bundle(connection: Connection, accepted: Accepted, now: datetime) -> None:
    """Remember the newest bundle: none older is accepted from now on."""
    values = {"version": accepted.version, "sha256": accepted.sha256, "accepted_at": stamp(now)}
    if connection.execute(update(ENDORSEMENT_BUNDLE).values(values)).rowcount == 0:
        connection.execute(insert(ENDORSEMENT_BUNDLE).values(id=1, **values))
