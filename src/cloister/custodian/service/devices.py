"""TPM identities: a device proves its endorsement key once and gets a certificate (docs/spec/evidence-tpm.md)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cloister.attest.tpm.enrolment import (
    ENROLMENT_TTL,
    EnrolProof,
    EnrolRequest,
    EnrolResult,
    PendingEnrolment,
    begin_enrolment,
    finish_enrolment,
)
from cloister.custodian.store.book import (
    DeviceRow,
    insert_device,
    insert_enrolment,
    list_devices,
    open_enrolments,
    take_enrolment,
)
from cloister.custodian.tls import load_authority
from cloister.errors import CloisterError, Malformed, Rejected
from cloister.lending.events import EventKind
from cloister.wire import Json, dump_time

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cloister.custodian.service.context import Context, Transaction
    from cloister.custodian.tokens import Actor

__all__ = ["DeviceAuthority", "begin", "device_list", "finish"]

_MAX_OPEN = 256  # enrolments that wait for their secret
_LABEL = b"cloister/custodian/enrolment"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceAuthority:
    """Who issues TPM identities, and whose endorsement keys it accepts: makers' roots, or keys by hand."""

    certificate: bytes
    ek_roots: Sequence[bytes]
    pinned: Collection[str] = field(default=())


def begin(context: Context, actor: Actor, authority: DeviceAuthority, body: bytes) -> bytes:
    """Return a challenge that only the TPM of the shown endorsement key can open."""
    request = EnrolRequest.parse(body)
    try:
        challenge, pending = begin_enrolment(
            request, authority.ek_roots, context.now(), context.rng, pinned=authority.pinned
        )
    except (Malformed, Rejected) as refusal:
        _refuse(context, actor, refusal)
        raise

    def work(transaction: Transaction) -> None:
        if open_enrolments(transaction.connection, transaction.now) >= _MAX_OPEN:
            raise Rejected.because("too_many_requests", "enrolment", hint="wait until the open ones end")
        wrapped = context.vault.wrap(pending.dump(), aad=_LABEL + pending.enrolment.encode())
        expires_at = transaction.now + ENROLMENT_TTL
        insert_enrolment(transaction.connection, pending.enrolment, pending.device, wrapped, expires_at)

    context.transact(work)
    return challenge.dump()


def finish(context: Context, actor: Actor, authority: DeviceAuthority, enrolment: str, body: bytes) -> bytes:
    """Return the certificates of a device that opened its challenge. One try: it is used up either way."""
    proof = EnrolProof.parse(body)
    found = context.transact(lambda transaction: take_enrolment(transaction.connection, enrolment, transaction.now))
    if found is None:
        raise Rejected.because("not_found", "enrolment", hint="begin again: an enrolment ends after five minutes")
    pending = PendingEnrolment.parse(context.vault.unwrap(found[1], aad=_LABEL + enrolment.encode()))
    key = load_authority(context.vault.device_authority_key)
    try:
        certificate = finish_enrolment(pending, proof.secret, key, authority.certificate, context.now())
    except Rejected as refusal:
        _refuse(context, actor, refusal, device=pending.device)
        raise

    def work(transaction: Transaction) -> None:
        row = DeviceRow(
            id=pending.device,
            ak_sha256=hashlib.sha256(pending.ak_public).digest(),
            certificate=certificate,
            enrolled_at=transaction.now,
        )
        insert_device(transaction.connection, row)
        transaction.record(EventKind.DEVICE_ENROLLED, actor, pending.device, device=pending.device)

    context.transact(work)
    return EnrolResult(certificates=(certificate, authority.certificate)).dump()


def _refuse(context: Context, actor: Actor, refusal: CloisterError, device: str = "device") -> None:
    context.refuse(EventKind.DEVICE_REFUSED, actor, device, refusal)


def device_list(context: Context) -> Json:
    """Return every enrolled device."""
    with context.reading() as connection:
        rows = list_devices(connection)
    return {
        "devices": [
            {"ak_sha256": row.ak_sha256.hex(), "enrolled_at": dump_time(row.enrolled_at), "id": row.id} for row in rows
        ]
    }
