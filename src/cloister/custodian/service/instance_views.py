"""What is shown of one enclave instance: how it stands, what its evidence proved, and the evidence itself.

Evidence is no secret: whoever may look at an instance may judge it anew, offline (``cloister attest verify``).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cloister.attest.carried import carried_certificates
from cloister.attest.chain import shown_name
from cloister.attest.describe.table import explain
from cloister.custodian.service.loan_views import instance_json
from cloister.custodian.store.blocks import list_blocks
from cloister.custodian.store.devices import device_of
from cloister.custodian.store.instances import find_instance
from cloister.custodian.store.keys import released_to
from cloister.custodian.store.releases import read_release, release_to
from cloister.errors import Malformed, Rejected
from cloister.wire import Json, dump_b64u, dump_time, parse_json

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from cloister.attest.chain import Certificate
    from cloister.custodian.service.context import Context
    from cloister.custodian.store.instances import InstanceRow
    from cloister.custodian.store.releases import ReleaseRow
    from cloister.lending.terms import InstanceId

__all__ = ["evidence_view", "instance_view"]


def instance_view(context: Context, instance: InstanceId) -> Json:
    """Return one instance with its attestation result (a token, docs/spec/evidence.md), blocks, device and keys.

    Raises ``Rejected`` (``not_found``).
    """
    with context.reading() as connection:
        row = _row(connection, instance)
        blocks = [item for item in list_blocks(connection) if item.subject == instance]
        return {
            **instance_json(row, context.now()),
            "blocks": [{"at": dump_time(item.at), "by": item.by, "reason": item.reason} for item in blocks],
            "device": device_of(connection, instance),
            "keys_released": [
                {"at": dump_time(item.at), "key_version": item.key_version, "kek_id": item.kek_id, "model": item.model}
                for item in released_to(connection, instance)
            ],
            "result": row.result,
        }


def evidence_view(context: Context, instance: InstanceId) -> Json:
    """Return what the last release to an instance was decided by: evidence, what it had to bind, endorsements, policy.

    ``certificates`` and ``described`` are for people; they are read from what the bytes say and prove nothing. Raises
    ``Rejected`` (``not_found``): of an instance that is long over, evidence is not kept.
    """
    with context.reading() as connection:
        _row(connection, instance)
        number = release_to(connection, instance)
        release = None if number is None else read_release(connection, number)
    if release is None:
        raise Rejected.because("not_found", "evidence")
    carried = carried_certificates([release.evidence.payload, release.devices, *release.endorsements.values()])
    return {
        "at": dump_time(release.at),
        "bound": {
            "custodian": dump_b64u(release.custodian),
            "devices": dump_b64u(release.devices),
            "instance_pub": dump_b64u(release.instance_pub),
            "kem_pub": dump_b64u(release.kem_pub),
            "nonce": dump_b64u(release.nonce),
            "software": dump_b64u(release.software),
        },
        "certificates": [_certificate(item) for item in carried],
        "described": _described(release),
        "endorsements": {name: dump_b64u(data) for name, data in sorted(release.endorsements.items())},
        "evidence": dump_b64u(release.evidence.payload),
        "policy": parse_json(release.policy, what="policy"),
        "tee": release.evidence.tee,
    }


def _row(connection: Connection, instance: InstanceId) -> InstanceRow:
    row = find_instance(connection, instance)
    if row is None:
        raise Rejected.because("not_found", "instance")
    return row


def _certificate(certificate: Certificate) -> Json:
    read = certificate.x509
    return {
        "begins_at": dump_time(read.not_valid_before_utc),
        "ends_at": dump_time(read.not_valid_after_utc),
        "issuer": shown_name(read.issuer),
        "sha256": hashlib.sha256(certificate.der).hexdigest(),
        "subject": certificate.shown,
    }


def _described(release: ReleaseRow) -> list[Json]:
    """Return every field of the evidence with its meaning; nothing where no describer knows its form."""
    try:
        found = explain(release.evidence.payload)
    except Malformed:
        return []
    return [{"meaning": item.meaning, "name": item.name, "value": item.value} for item in found.fields]
