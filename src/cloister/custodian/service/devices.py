"""TPM identities: enrolled once, named, retired, let in again (docs/spec/evidence-tpm.md, section 4).

A certificate says who a device was when it enrolled; whether it still gets keys, the database says. So each release
asks it, in the transaction that decides: a certificate that was never taken back proves nothing about today.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cloister.attest.chain import Certificate
from cloister.attest.schemes.tpm import TPM_TEE
from cloister.attest.tpm.enrolment import (
    ENROLMENT_TTL,
    EnrolProof,
    EnrolRequest,
    EnrolResult,
    PendingEnrolment,
    begin_enrolment,
    finish_enrolment,
)
from cloister.attest.tpm.evidence import TpmEvidence
from cloister.custodian.service.blocks import block
from cloister.custodian.store.devices import (
    DeviceRow,
    find_device,
    insert_device,
    insert_enrolment,
    instances_on,
    list_devices,
    name_device,
    open_enrolments,
    readmit_device,
    retire_device,
    take_enrolment,
)
from cloister.custodian.tls import load_authority
from cloister.errors import CloisterError, Malformed, Rejected
from cloister.lending.events import EventKind
from cloister.wire import Fields, Json, dump_time

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import Connection

    from cloister.attest.rats import AttestationResult, Evidence
    from cloister.custodian.service.context import Context, Transaction
    from cloister.custodian.tokens import Actor

__all__ = [
    "DeviceAuthority", "begin", "demand_standing", "device_list", "finish", "label", "readmit", "retire", "show_device",
]  # fmt: skip

_MAX_OPEN = 256  # enrolments that wait for their secret
_LABEL = b"cloister/custodian/enrolment"
_NAME_PREFIX = "000b"  # TPM_ALG_SHA256 in front of a Name (TPM 2.0 part 1, "Names")
_DEVICE = re.compile(r"[0-9a-f]{64}")


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
        _demand_not_retired(transaction, pending.device)
        if open_enrolments(transaction.connection, transaction.now) >= _MAX_OPEN:
            raise Rejected.because("too_many_requests", "enrolment", hint="wait until the open ones end")
        wrapped = context.vault.wrap(pending.dump(), aad=_LABEL + pending.enrolment.encode())
        expires_at = transaction.now + ENROLMENT_TTL
        insert_enrolment(transaction.connection, pending.enrolment, pending.device, wrapped, expires_at)

    try:
        context.transact(work)
    except Rejected as refusal:
        if refusal.code == "device_retired":
            _refuse(context, actor, refusal, device=pending.device)
        raise
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
        _demand_not_retired(transaction, pending.device)  # it may have been retired since the challenge
        row = DeviceRow(
            id=pending.device,
            ak_sha256=hashlib.sha256(pending.ak_public).digest(),
            certificate=certificate,
            enrolled_at=transaction.now,
            maker=" ".join(filter(None, (pending.model.manufacturer, pending.model.model)))[:128],
        )
        insert_device(transaction.connection, row)
        transaction.record(EventKind.DEVICE_ENROLLED, actor, pending.device, device=pending.device)

    context.transact(work)
    return EnrolResult(certificates=(certificate, authority.certificate)).dump()


def _refuse(context: Context, actor: Actor, refusal: CloisterError, device: str = "device") -> None:
    context.refuse(EventKind.DEVICE_REFUSED, actor, device, refusal)


def _demand_not_retired(transaction: Transaction, device: str) -> None:
    row = find_device(transaction.connection, device)
    if row is not None and row.retired_at is not None:
        raise Rejected.because("device_retired", "device", got=device, hint="an administrator may readmit it")


def demand_standing(
    transaction: Transaction, authority: DeviceAuthority | None, evidence: Evidence, result: AttestationResult
) -> str:
    """Prove that an enrolled device still gets keys, and with this attestation key; return its id.

    Empty for evidence without one, and for a TPM that another authority of the site's vouches for: who keeps its list
    is that authority. Raises ``Rejected``: ``device_retired``, ``device_not_enrolled``, also for a device of our own
    authority that the database does not know (it was restored from before the enrolment), ``device_superseded`` for a
    key that a later enrolment replaced.
    """
    if result.tee != TPM_TEE:
        return ""
    device = str(result.claims.get("device", ""))
    row = find_device(transaction.connection, device)
    if row is None:
        if authority is not None and _issued_by(authority, evidence):
            raise Rejected.because("device_not_enrolled", "device", got=device, hint="enrol it again")
        return ""
    if row.retired_at is not None:
        raise Rejected.because("device_retired", "device", got=device)
    if not row.ak_sha256:
        raise Rejected.because("device_not_enrolled", "device", got=device, hint="enrol it again")
    if result.claims.get("ak") != _NAME_PREFIX + row.ak_sha256.hex():
        raise Rejected.because("device_superseded", "attestation key", want="the key that was enrolled last")
    return device


def _issued_by(authority: DeviceAuthority, evidence: Evidence) -> bool:
    """Tell whether our own authority certified the attestation key of verified evidence."""
    leaf = Certificate.parse(TpmEvidence.parse(evidence.payload).certificates[0]).x509
    return leaf.issuer == Certificate.parse(authority.certificate).x509.subject


def retire(transaction: Transaction, actor: Actor, device: str, body: Fields) -> Json:
    """Give a device nothing any more, for ``{"reason"}``, and stop what runs on it; say within which bound.

    Retiring it again changes nothing. Raises ``Rejected`` (``not_found``).
    """
    reason = body.text("reason", cap=200)
    body.end()
    row = _row(transaction.connection, device)
    if row.retired_at is None:
        retire_device(transaction.connection, row.id, reason, transaction.now)
        transaction.record(EventKind.DEVICE_RETIRED, actor, row.id, device=row.id, reason=reason)
    stopped: list[Json] = []
    for instance in instances_on(transaction.connection, row.id):
        told: dict[str, Json] = {"kind": "instance", "reason": f"device retired: {reason}"[:200], "subject": instance}
        stopped.append({"instance": instance, "stops": block(transaction, actor, Fields(told, what="block"))})
    return {"device": row.id, "instances": stopped, "state": "retired"}


def readmit(transaction: Transaction, actor: Actor, device: str) -> Json:
    """Let a retired device enrol again; the key that it had counts no more. Raises ``Rejected`` (``not_found``)."""
    row = _row(transaction.connection, device)
    if row.retired_at is None:
        raise Rejected.because("not_found", "retired device")
    readmit_device(transaction.connection, row.id)
    transaction.record(EventKind.DEVICE_READMITTED, actor, row.id, device=row.id)
    return {"device": row.id, "state": "awaited"}


def label(transaction: Transaction, actor: Actor, device: str, body: Fields) -> Json:
    """Give a device a name for people: ``{"label"}``. Raises ``Rejected`` (``not_found``)."""
    text = body.text("label", cap=64)
    body.end()
    row = _row(transaction.connection, device)
    name_device(transaction.connection, row.id, text)
    transaction.record(EventKind.DEVICE_NAMED, actor, row.id, device=row.id)
    return {"device": row.id, "label": text}


def show_device(context: Context, device: str) -> Json:
    """Return one device, and what runs on it. Raises ``Rejected`` (``not_found``)."""
    with context.reading() as connection:
        row = _row(connection, device)
        live = instances_on(connection, row.id)
    return {**_json(row), "instances": list(live)}


def device_list(context: Context) -> Json:
    """Return every device that ever enrolled."""
    with context.reading() as connection:
        rows = list_devices(connection)
    return {"devices": [_json(row) for row in rows]}


def _row(connection: Connection, device: str) -> DeviceRow:
    row = find_device(connection, device) if _DEVICE.fullmatch(device) else None
    if row is None:
        raise Rejected.because("not_found", "device")
    return row


def _json(row: DeviceRow) -> dict[str, Json]:
    return {
        "ak_sha256": row.ak_sha256.hex(),
        "enrolled_at": dump_time(row.enrolled_at),
        "id": row.id,
        "label": row.label,
        "maker": row.maker,
        "reason": row.reason,
        "retired_at": None if row.retired_at is None else dump_time(row.retired_at),
        "state": row.state,
    }
