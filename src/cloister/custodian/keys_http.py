"""What the routes about key-encryption keys do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.custodian.calls import Member, changed, json_reply, statement_reply
from cloister.custodian.service import permits, rotation

if TYPE_CHECKING:
    from cloister.custodian.calls import Call, Reply
    from cloister.custodian.service import Transaction
    from cloister.wire import Fields, Json

__all__ = [
    "EXPORT_MEMBERS",
    "ROTATE_MEMBERS",
    "SCHEDULE_MEMBERS",
    "list_keys",
    "permit_export",
    "revoke_permit",
    "rotate_keys",
    "schedule_rotation",
    "status_of_keys",
]

ROTATE_MEMBERS = (
    Member(name="reason", type="string", doc="at most 200 characters", required=False),
    Member(name="incident", type="boolean", doc="destroy retired keys at once; `false` by default", required=False),
)
SCHEDULE_MEMBERS = (Member(name="every_s", type="integer", doc="seconds between two rotations, at least 60; 0: never"),)

EXPORT_MEMBERS = (
    Member(name="need", type="integer", doc="how many shares open the vault, 2 to 255"),
    Member(name="of", type="integer", doc="how many shares are made"),
    Member(name="holders", type="array", doc="who gets each, one name for each share; nobody `need` of them"),
)


def list_keys(call: Call) -> Reply:
    """List the key-encryption keys, and when they rotate next."""
    return json_reply(rotation.key_view(call.service.context))


def status_of_keys(call: Call) -> Reply:
    """State, signed, that every live lease and model's key is of the newest key epoch, or which are not."""
    return statement_reply(rotation.key_status(call.service.context))


def rotate_keys(call: Call) -> Reply:
    """Make a new key-encryption key and wrap every model's key under it."""
    return changed(call, rotation.rotate, status=201)


def schedule_rotation(call: Call) -> Reply:
    """Let the custodian rotate its keys by itself, or no more."""
    return changed(call, rotation.schedule)


def permit_export(call: Call) -> Reply:
    """Permit shares of the vault's key to be made, once and soon: two persons decide that."""

    def work(transaction: Transaction, body: Fields) -> Json:
        return permits.issue(transaction, call.actor, body, vault=call.service.vault_file, approved=call.approved)

    return json_reply(call.change(work), status=201)


def revoke_permit(call: Call) -> Reply:
    """Revoke a permit to make shares that was not used yet."""
    proposal = call.parameters["proposal"]
    return json_reply(call.run(lambda transaction: permits.revoke(transaction, call.actor, proposal)))
