"""A log of made-up entries with a custodian's key, and witnesses, for the tests of its public forms."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cloister.crypto.sign import SigningKey
from cloister.lending.merkle import MerkleTree
from cloister.lending.tlog.advance import Advance
from cloister.lending.tlog.checkpoint import log_key, sign_log_checkpoint
from cloister.lending.tlog.cosignature import cosigner_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.lending.tlog.note import SignedNote

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CUSTODIAN = SigningKey(b"c" * 32)
LOG = log_key(CUSTODIAN.verify_key)
BORROWER, CONSUMER = SigningKey(b"b" * 32), SigningKey(b"u" * 32)
WITNESSES = (cosigner_key(BORROWER, "borrower.example"), cosigner_key(CONSUMER, "consumer.example"))


class Face:
    """One log as a custodian shows it; a lying one has two of them."""

    def __init__(self, entries: Sequence[bytes]) -> None:
        self.tree = MerkleTree()
        for entry in entries:
            self.tree.append(entry)

    def note(self, size: int | None = None) -> SignedNote:
        """Return the signed checkpoint of the first ``size`` entries."""
        until = self.tree.size if size is None else size
        return sign_log_checkpoint(CUSTODIAN, size=until, root=self.tree.root_at(until))

    def advance(self, old: int, size: int | None = None) -> bytes:
        """Return the custodian's answer to a witness that remembers ``old`` entries."""
        until = self.tree.size if size is None else size
        proof = self.tree.consistency(min(old, until), until)
        return Advance(old=old, proof=proof, checkpoint=self.note(until).dump()).dump()


def entries(count: int, word: str = "entry") -> list[bytes]:
    """Return made-up entries."""
    return [f"{word} {number}".encode() for number in range(count)]
