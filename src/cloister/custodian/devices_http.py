"""Routes of TPM enrolment: messages of ``attest.tpm.enrolment`` in, messages out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.custodian.calls import Call, Member, Reply, changed, json_reply
from cloister.custodian.service import devices
from cloister.errors import Unavailable

if TYPE_CHECKING:
    from cloister.custodian.service.devices import DeviceAuthority

__all__ = [
    "BEGIN_MEMBERS", "FINISH_MEMBERS", "begin", "finish", "label", "list_devices", "readmit", "retire", "show",
]  # fmt: skip

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
    """List TPM devices: enrolled, awaited and retired."""
    return json_reply(devices.device_list(call.service.context))


def show(call: Call) -> Reply:
    """Show one TPM device, and what runs on it."""
    return json_reply(devices.show_device(call.service.context, call.parameters["device"]))


def label(call: Call) -> Reply:
    """Give a TPM device a name for people."""
    return changed(call, devices.label, call.parameters["device"])


def retire(call: Call) -> Reply:
    """Retire a TPM device: it gets no key any more, and what runs on it is blocked."""
    return changed(call, devices.retire, call.parameters["device"])


def readmit(call: Call) -> Reply:
    """Let a retired TPM device enrol again."""
    call.fields().end()  # before a proposal is made of it
    device = call.parameters["device"]
    return json_reply(call.run(lambda transaction: devices.readmit(transaction, call.actor, device)))
