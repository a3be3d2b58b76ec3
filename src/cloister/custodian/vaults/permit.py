"""A permit to make shares: what two persons approved, signed by their custodian (docs/spec/permit.md).

It is for one vault file, one division among named holders, one epoch, and a short time. It opens nothing.

Not done here: whether it was used before (``service.permits``), and whether one is wanted (``sharing``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Self

from cloister.crypto.sign import Label, Statement, VerifyKey
from cloister.custodian.vaults.shares import Division
from cloister.errors import Reason, Rejected
from cloister.wire import Fields, dump_json, dump_time

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["MAX_PERMIT_BYTES", "PROPOSAL_ID", "Permit", "verify_permit"]

MAX_PERMIT_BYTES: Final = 64 * 1024  # bytes of a permit, signed
PROPOSAL_ID = re.compile(r"prop-[0-9a-f]{16}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ACTOR = re.compile(r"(?:admin|lender):[!-~]{1,120}")
_DIGEST_BYTES = 32
_HINT = "ask for one anew: 'cloister custodian shares permit'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """K to who splits the vault: this division of this vault file was asked for and approved by two persons."""

    LABEL: ClassVar = Label.PERMIT

    custodian: VerifyKey
    vault: str
    epoch: int
    division: Division
    proposal: str
    digest: bytes
    by: str
    approved_by: str
    issued_at: datetime
    expires_at: datetime

    def dump(self) -> bytes:
        """Return the payload."""
        return dump_json(
            {
                "approved_by": self.approved_by,
                "by": self.by,
                "custodian": self.custodian.dump(),
                "digest": self.digest.hex(),
                "epoch": self.epoch,
                "expires_at": dump_time(self.expires_at),
                "holders": list(self.division.holders),
                "issued_at": dump_time(self.issued_at),
                "need": self.division.need,
                "of": self.division.of,
                "operation": "key_export",
                "proposal": self.proposal,
                "v": 1,
                "vault": self.vault,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a payload. Raises ``Malformed``, also for one that two persons cannot have agreed on."""
        fields = Fields.parse(data, what="permit", cap=MAX_PERMIT_BYTES, canonical=True)
        fields.literal("v", 1)
        fields.literal("operation", "key_export")
        permit = cls(
            custodian=VerifyKey.take(fields, "custodian"),
            vault=fields.match("vault", _DIGEST),
            epoch=fields.integer("epoch", floor=1),
            division=Division.take(fields),
            proposal=fields.match("proposal", PROPOSAL_ID),
            digest=fields.hex("digest", size=_DIGEST_BYTES),
            by=fields.match("by", _ACTOR),
            approved_by=fields.match("approved_by", _ACTOR),
            issued_at=fields.time("issued_at"),
            expires_at=fields.time("expires_at"),
        )
        fields.end()
        if permit.by == permit.approved_by:
            fields.fail("approved_by", "want another than by")
        if permit.expires_at <= permit.issued_at:
            fields.fail("expires_at", "want a time after issued_at")
        return permit


def verify_permit(
    data: bytes, *, custodian: VerifyKey, vault: str, epoch: int, division: Division, now: datetime
) -> Permit:
    """Return a permit that this custodian signed for exactly this, while it is good.

    Raises ``Malformed``, ``Rejected``: of a signature, ``permit_mismatch`` for each member that is another's,
    ``permit_expired``. Does not prove that it was not used.
    """
    permit = Permit.parse(Statement.parse(data, label=Permit.LABEL).verify([custodian]))
    pairs = {
        "custodian": (permit.custodian.key_id, custodian.key_id),
        "vault": (permit.vault, vault),
        "epoch": (permit.epoch, epoch),
        "need": (permit.division.need, division.need),
        "of": (permit.division.of, division.of),
        "holders": (", ".join(permit.division.holders), ", ".join(division.holders)),
    }
    reasons = [
        Reason(code="permit_mismatch", subject=name, got=str(got)[:200], want=str(want)[:200])
        for name, (got, want) in pairs.items()
        if got != want
    ]
    if not permit.issued_at <= now < permit.expires_at:
        span = f"{dump_time(permit.issued_at)} to {dump_time(permit.expires_at)}"
        reasons.append(Reason(code="permit_expired", subject="permit", got=dump_time(now), want=span))
    if reasons:
        raise Rejected(str(reasons[0]), reasons=tuple(reasons), hint=_HINT)
    return permit
