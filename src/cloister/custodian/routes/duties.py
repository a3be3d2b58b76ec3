"""What routes owe to the rule of two persons: when it applies, and what a proposal is made on.

A basis is read when something is proposed and again when it is approved; where the two differ, it is refused (T90).
It is shown to who approves, and it names no secret.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cloister.custodian.duty import Duty, Operation
from cloister.custodian.service.access import APPROVERS
from cloister.custodian.service.issuers import issuer_id
from cloister.custodian.service.standing import loan_row, parse_loan_id
from cloister.custodian.store.blocks import find_block
from cloister.custodian.store.devices import find_device
from cloister.custodian.store.issuers import find_issuer
from cloister.custodian.store.keys import FIRST_EPOCH, current_kek
from cloister.custodian.store.retention import list_holds
from cloister.errors import Rejected
from cloister.identity import Issuer
from cloister.wire import dump_time

if TYPE_CHECKING:
    from cloister.custodian.calls import Call
    from cloister.custodian.service import Transaction
    from cloister.wire import Json

__all__ = [
    "ERASURE",
    "INCIDENT",
    "ISSUER",
    "KEY_EXPORT",
    "LETS_IN",
    "PERSON",
    "POLICY",
    "READMIT",
    "SCHEDULE",
    "UNBLOCK",
]


def _policy_there(transaction: Transaction, call: Call) -> Json:
    row = loan_row(transaction.connection, call.loan)
    digest = hashlib.sha256(row.policy).hexdigest()
    return {"epoch": transaction.epoch.epoch, "policy_digest": digest, "policy_version": row.policy_version}


def _block_there(transaction: Transaction, call: Call) -> Json:
    loan = parse_loan_id(call.query["loan"]) if "loan" in call.query else None
    row = find_block(transaction.connection, call.parameters["kind"], call.parameters["subject"], loan)
    if row is None:
        raise Rejected.because("not_found", "block")
    return {"at": dump_time(row.at), "by": row.by, "epoch": transaction.epoch.epoch, "reason": row.reason}


def _device_there(transaction: Transaction, call: Call) -> Json:
    row = find_device(transaction.connection, call.parameters["device"])
    if row is None or row.retired_at is None:
        raise Rejected.because("not_found", "retired device")
    return {"epoch": transaction.epoch.epoch, "reason": row.reason, "retired_at": dump_time(row.retired_at)}


def _keys_there(transaction: Transaction, _call: Call) -> Json:
    row = current_kek(transaction.connection)
    return {"epoch": transaction.epoch.epoch, "key_epoch": FIRST_EPOCH if row is None else row.number}


def _vault_there(transaction: Transaction, call: Call) -> Json:
    return {"epoch": transaction.epoch.epoch, "vault": call.service.vault_file}


def _holds_there(transaction: Transaction, _call: Call) -> Json:
    holds = list_holds(transaction.connection, standing=True)
    return {"epoch": transaction.epoch.epoch, "holds": [row.id for row in holds]}


def _nothing(transaction: Transaction, _call: Call) -> Json:
    return {"epoch": transaction.epoch.epoch}


def _destroys(call: Call) -> bool:
    """Tell whether a rotation destroys keys; one that only makes a newer key must never wait."""
    body = call.fields()
    return "incident" in body and body.boolean("incident")


def _names_another(call: Call) -> bool:
    """Tell whether a token would give somebody else a say in what two persons decide."""
    body = call.fields()
    return body.text("role") in APPROVERS and "person" in body and body.text("person") != call.actor.person


def _issuer_there(transaction: Transaction, call: Call) -> Json:
    return _issuer_state(transaction, issuer_id(call.fields().text("issuer")))


def _issuer_named(transaction: Transaction, call: Call) -> Json:
    return _issuer_state(transaction, call.parameters["issuer"])


def _issuer_state(transaction: Transaction, name: str) -> Json:
    document = find_issuer(transaction.connection, name)
    digest = None if document is None else hashlib.sha256(document).hexdigest()
    return {"digest": digest, "epoch": transaction.epoch.epoch}


def _lets_another_in(call: Call) -> bool:
    """Tell whether an issuer could prove somebody else to be a person with a say in what two persons decide."""
    granted = [rule.grants for rule in Issuer.take(call.fields()).rules]
    return any(item.role in APPROVERS and item.person not in {None, call.actor.person} for item in granted)


POLICY = Duty(operation=Operation.POLICY, basis=_policy_there)
UNBLOCK = Duty(operation=Operation.UNBLOCK, basis=_block_there)
READMIT = Duty(operation=Operation.UNBLOCK, basis=_device_there)
INCIDENT = Duty(operation=Operation.ROTATION, basis=_keys_there, applies=_destroys)
SCHEDULE = Duty(operation=Operation.ROTATION, basis=_keys_there)
ERASURE = Duty(operation=Operation.ERASURE, basis=_holds_there)
PERSON = Duty(operation=Operation.PERSON, basis=_nothing, applies=_names_another)
LETS_IN = Duty(operation=Operation.PERSON, basis=_issuer_there, applies=_lets_another_in)
KEY_EXPORT = Duty(operation=Operation.KEY_EXPORT, basis=_vault_there)
ISSUER = Duty(operation=Operation.ISSUER, basis=_issuer_named)
