"""Routes of TPM enrolment: messages of ``attest.tpm.enrolment`` in, messages out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.custodian.calls import Call, Member, Reply, json_reply
from cloister.custodian.service import devices
from cloister.errors import Unavailable

if TYPE_CHECKING:
    from cloister.custodian.service.devices import DeviceAuthority

__all__ = ["BEGIN_MEMBERS", "FINISH_MEMBERS", "begin", "finish", "list_devices"]

_VERSION = Member(name="v", type="integer", doc="1")
BEGIN_MEMBERS = (
    _VERSION,
    Member(name="ak_public", type="string", doc="TPMT_PUBLIC of the attestation key, base64url"),
    Member(name="ek_public", type="string", doc="TPMT_PUBLIC of the endorsement key, base64url"),
    Member(name="ek_certificates", type="array", doc="the maker's certificates, own first, DER in base64url"),
)
FINISH_MEMBERS = (_VERSION, Member(name="secret", type="string", doc="what the TPM released, base64url"))


def _authority(call: Call) -> DeviceAuthority:
    if call.service.device_authority is None:
        msg = "devices: this custodian enrols none"
        raise Unavailable(msg)
    return call.service.device_authority


def begin(call: Call) -> Reply:
    """Begin to enrol a TPM device: the answer is a challenge for its TPM."""
    body = devices.begin(call.service.context, call.actor, _authority(call), call.body)
    return Reply(body=body, status=201)


def finish(call: Call) -> Reply:
    """Finish an enrolment with the secret; the answer is the attestation key's certificate."""
    enrolment = call.parameters["enrolment"]
    return Reply(body=devices.finish(call.service.context, call.actor, _authority(call), enrolment, call.body))


def list_devices(call: Call) -> Reply:
    """List enrolled TPM devices."""
    return json_reply(devices.device_list(call.service.context))
