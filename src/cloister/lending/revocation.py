"""Revocation lists: sub-allowances that a borrower calls back before they end (docs/spec/sub-allowance.md, section 6).

A list names blocks by their ids; with a block goes whatever was narrowed from it. An instance takes lists in order of
their numbers, and each has everything that the one before has: nothing is ever let in again.

Pure. Not done here: holding the newest list and refusing a use under it (``conditions``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from cloister.crypto.sign import Label, SigningKey, Statement, VerifyKey
from cloister.errors import Rejected, UsageError
from cloister.lending.sub_allowance import MAX_LIFE, BlockId
from cloister.lending.terms import DIGEST, LOAN_ID, LoanId
from cloister.wire import Fields, dump_json, dump_time

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["MAX_REVOKED", "RevocationList", "verify_list"]

MAX_REVOKED = 4096  # blocks of one list
_DIGEST_CHARS = 64
_MAX_PAYLOAD_BYTES = 512 * 1024  # bytes of what is signed


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationList:
    """Blocks of one loan that are called back. ``number`` grows with each list, at ``not_after`` the next is due."""

    LABEL: ClassVar = Label.REVOCATIONS

    loan: LoanId
    number: int
    not_after: datetime
    blocks: frozenset[BlockId] = frozenset()

    def following(self, blocks: frozenset[BlockId], *, not_after: datetime) -> Self:
        """Return the next list: these blocks too, and none fewer. Raises ``UsageError`` for more than fit."""
        found = self.blocks | blocks
        if len(found) > MAX_REVOKED:
            msg = f"revocations: {len(found)} sub-allowances, want at most {MAX_REVOKED}"
            raise UsageError(msg, hint="call back the ones that others were narrowed from")
        return type(self)(loan=self.loan, number=self.number + 1, not_after=not_after, blocks=found)

    def demand_after(self, before: Self) -> None:
        """Prove that this list may take the place of ``before``: it is newer, and calls back no less.

        Raises ``Rejected`` (``revocations_old``, ``revocations_shrunk``).
        """
        if self.number <= before.number:
            want = f"more than {before.number}"
            raise Rejected.because("revocations_old", "revocations", got=str(self.number), want=want)
        missing = before.blocks - self.blocks
        if missing:
            raise Rejected.because(
                "revocations_shrunk", "revocations", got=f"{len(missing)} left out", want="all of them"
            )

    def in_time(self, now: datetime) -> bool:
        """Tell whether the next list is not due yet, and due within 31 days."""
        return now < self.not_after <= now + MAX_LIFE

    def sign(self, borrower: SigningKey) -> bytes:
        """Return the signed statement."""
        return Statement.sign(borrower, self.LABEL, self.dump()).dump()

    def dump(self) -> bytes:
        """Return the payload: canonical JSON."""
        return dump_json(
            {
                "loan": self.loan,
                "not_after": dump_time(self.not_after),
                "number": self.number,
                "revoked": sorted(self.blocks),
                "v": 1,
            }
        )

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """Parse. Checks no signature. Raises ``Malformed``."""
        fields = Fields.parse(payload, what="revocations", cap=_MAX_PAYLOAD_BYTES, canonical=True)
        fields.literal("v", 1)
        ids = fields.texts("revoked", cap=MAX_REVOKED, item_cap=_DIGEST_CHARS)
        if list(ids) != sorted(set(ids)) or not all(DIGEST.fullmatch(item) for item in ids):
            fields.fail("revoked", "want ids of blocks, in order, each once")
        found = cls(
            loan=LoanId(fields.match("loan", LOAN_ID)),
            number=fields.integer("number", floor=1),
            not_after=fields.time("not_after"),
            blocks=frozenset(map(BlockId, ids)),
        )
        fields.end()
        return found


def verify_list(statement: bytes, *, borrower: VerifyKey, loan: LoanId) -> RevocationList:
    """Return the list once the borrower is proven to have signed it, for this loan. Says nothing about its age.

    Raises ``Malformed`` and ``Rejected`` (``wrong_statement``, ``unknown_key``, ``signature_invalid``, ``wrong_loan``).
    """
    label = RevocationList.LABEL
    found = RevocationList.parse(Statement.parse(statement, label=label).verify([borrower]))
    if found.loan != loan:
        raise Rejected.because("wrong_loan", "revocations", got=found.loan, want=loan)
    return found
