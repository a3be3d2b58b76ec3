"""Permits to make shares of the vault's key: issued once two persons have decided, revoked by one, used once.

Issued by the running custodian (docs/spec/permit.md), used by a command on its machine, in a transaction of its own
that is committed and logged before a share is written. One that was cut short after that has spent its permit.

Not done here: making shares (``sharing``), what a permit says (``vaults.permit``).
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.crypto.sign import Statement
from cloister.custodian.duty import Operation
from cloister.custodian.service.proposals import in_force, is_ruled
from cloister.custodian.store.permits import end_permit, find_permit_end, last_start_rule
from cloister.custodian.store.proposals import ProposalState, find_proposal
from cloister.custodian.tokens import SYSTEM
from cloister.custodian.vaults.permit import Permit, verify_permit
from cloister.custodian.vaults.shares import Division
from cloister.errors import Rejected
from cloister.lending.events import EventKind
from cloister.wire import dump_time

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from cloister.custodian.config import Config
    from cloister.custodian.duty import Approved
    from cloister.custodian.service.context import Transaction
    from cloister.custodian.tokens import Actor
    from cloister.wire import Fields, Json

__all__ = ["is_wanted", "issue", "revoke", "use"]

_ANEW = "ask for one anew: 'cloister custodian shares permit'"


def is_wanted(connection: Connection, config: Config) -> bool:
    """Tell whether shares are made with a permit only: by the settings of now, or by those of the last start.

    So who takes the rule out of the settings has to start a custodian by them first, which is logged.
    """
    last = last_start_rule(connection)
    return in_force(connection, config, Operation.KEY_EXPORT) or is_ruled(
        connection, last.operations, Operation.KEY_EXPORT, spelled=last.spelled
    )


def issue(transaction: Transaction, actor: Actor, body: Fields, *, vault: str, approved: Approved | None) -> Json:
    """Return a permit for ``{"need", "of", "holders"}`` of this vault file, signed, once two persons have decided.

    Before that nothing is signed: this only proves that it could be. Raises ``Rejected`` (``permit_not_needed``) where
    one person decides: no permit is ever of one person.
    """
    division = Division.take(body)
    body.end()
    context, now = transaction.context, transaction.now
    if not in_force(transaction.connection, context.config, Operation.KEY_EXPORT):
        hint = "split it with 'cloister custodian shares split'"
        raise Rejected.because("permit_not_needed", Operation.KEY_EXPORT.value, hint=hint)
    if approved is None:
        return {}
    permit = Permit(
        custodian=context.vault.signing_key.verify_key,
        vault=vault,
        epoch=transaction.epoch.epoch,
        division=division,
        proposal=approved.proposal,
        digest=approved.digest,
        by=approved.by,
        approved_by=approved.approved_by,
        issued_at=now,
        expires_at=now + timedelta(seconds=context.config.permit_ttl_s),
    )
    _record(transaction, EventKind.PERMIT_ISSUED, actor, permit)
    signed = Statement.sign(context.vault.signing_key, Permit.LABEL, permit.dump()).dump()
    return {"expires_at": dump_time(permit.expires_at), "permit": signed.decode("ascii")}


def revoke(transaction: Transaction, actor: Actor, proposal: str) -> Json:
    """Take a permit back that was not used yet: a stop, and so one person's."""
    row = find_proposal(transaction.connection, proposal)
    if row is None or row.operation is not Operation.KEY_EXPORT or row.state is not ProposalState.EXECUTED:
        raise Rejected.because("not_found", "permit")
    end = find_permit_end(transaction.connection, proposal)
    if end is not None:
        raise Rejected.because("already_decided", "permit", got="revoked" if end.split is None else "used")
    end_permit(transaction.connection, proposal, now=transaction.now, split=None)
    transaction.record(EventKind.PERMIT_REVOKED, actor, proposal, digest=row.digest.hex())
    return {"proposal": proposal, "revoked": True}


def use(transaction: Transaction, data: bytes, division: Division, *, vault: str, split: str) -> None:
    """Spend a permit on this split of this vault file.

    Proves all that it says, that the database knows what was approved, and that it was neither used nor revoked.
    Raises ``Malformed``, ``Rejected``: as ``verify_permit``, ``permit_unknown``, ``permit_used``, ``permit_revoked``.
    """
    permit = verify_permit(
        data,
        custodian=transaction.context.vault.signing_key.verify_key,
        vault=vault,
        epoch=transaction.epoch.epoch,
        division=division,
        now=transaction.now,
    )
    row = find_proposal(transaction.connection, permit.proposal)
    if row is None or row.state is not ProposalState.EXECUTED or row.digest != permit.digest:
        raise Rejected.because("permit_unknown", "permit", got=permit.proposal, hint=_ANEW)
    end = find_permit_end(transaction.connection, permit.proposal)
    if end is not None and end.split is None:
        raise Rejected.because("permit_revoked", "permit", got=permit.proposal, hint=_ANEW)
    if end is not None:
        raise Rejected.because("permit_used", "permit", got=f"split {end.split}", hint=_ANEW)
    end_permit(transaction.connection, permit.proposal, now=transaction.now, split=split)
    _record(transaction, EventKind.PERMIT_USED, SYSTEM, permit, split=split)


def _record(transaction: Transaction, kind: EventKind, actor: Actor, permit: Permit, **more: str) -> None:
    division = permit.division
    transaction.record(
        kind, actor, permit.proposal, digest=permit.digest.hex(), holders=len(set(division.holders)),
        need=division.need, of=division.of, vault=permit.vault, **more,
    )  # fmt: skip
