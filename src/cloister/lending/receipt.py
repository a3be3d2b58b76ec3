"""Receipts: what an enclave signs for every inference, and what two of them prove (docs/spec/receipt.md).

A receipt carries salted commitments, never content. Each receipt gives its usage record, and the records of
one instance form a hash chain that both sides can follow: the consumer from its receipts, the custodian from
the records alone, without learning a commitment.

Not proven: that the answer is right, or that no other receipts exist. A consumer that keeps its
receipts can show a fork (``fork_evidence``); one that throws them away cannot.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.errors import Rejected, UsageError
from cloister.lending.messages import Receipt, UsageRecord
from cloister.lending.messages.usage import minute_of
from cloister.lending.receipt_batch import open_receipt
from cloister.lending.terms import InstanceId, instance_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloister.crypto.sign import VerifyKey

__all__ = [
    "GENESIS",
    "SALT_BYTES",
    "ForkEvidence",
    "commit",
    "content_of",
    "fork_evidence",
    "head_after",
    "next_head",
    "record_of",
    "verify_chain",
    "verify_commitment",
    "verify_receipt",
]

SALT_BYTES = 32
GENESIS = bytes(32)
"""Chain head of an instance that has served nothing."""

_COMMIT_LABEL = b"cloister/commit/v1" + SALT_BYTES.to_bytes(4, "big")
_CONTENT_LABEL = b"cloister/content/v1"
_CHAIN_LABEL = b"cloister/chain/v2"


def commit(salt: bytes, data: bytes) -> bytes:
    """Return the commitment to ``data`` under a fresh random ``salt`` of ``SALT_BYTES`` bytes."""
    if len(salt) != SALT_BYTES:
        msg = f"commitment: salt of {len(salt)} bytes, want {SALT_BYTES}"
        raise UsageError(msg)
    digest = hashlib.sha256(b"%b%b%b" % (_COMMIT_LABEL, salt, len(data).to_bytes(4, "big")))
    digest.update(data)  # as it is: copying a large body costs a third of hashing it
    return digest.digest()


def verify_commitment(commitment: bytes, salt: bytes, data: bytes, *, what: str) -> None:
    """Prove that ``commitment`` was made over ``data``. Raises ``Rejected`` (``commitment_mismatch``)."""
    if len(salt) != SALT_BYTES or not hmac.compare_digest(commit(salt, data), commitment):
        raise Rejected.because("commitment_mismatch", what)


def content_of(request: bytes, response: bytes) -> bytes:
    """Return what a usage record says of two commitments: it fits this receipt, and tells nobody else anything."""
    sizes = len(request).to_bytes(4, "big"), len(response).to_bytes(4, "big")
    return hashlib.sha256(b"%b%b%b%b%b" % (_CONTENT_LABEL, sizes[0], request, sizes[1], response)).digest()


def record_of(receipt: Receipt) -> UsageRecord:
    """Return the one usage record that fits this receipt."""
    return UsageRecord(
        index=receipt.index,
        model=receipt.model,
        consumer=receipt.consumer if receipt.metered else None,
        units=receipt.units,
        at=minute_of(receipt.issued_at),
        content=content_of(receipt.request, receipt.response),
    )


def next_head(head: bytes, record: UsageRecord) -> bytes:
    """Return the chain head after ``record`` (rule E6)."""
    told = record.dump()
    sizes = len(head).to_bytes(4, "big"), len(told).to_bytes(4, "big")
    return hashlib.sha256(b"%b%b%b%b%b" % (_CHAIN_LABEL, sizes[0], head, sizes[1], told)).digest()


def head_after(receipt: Receipt) -> bytes:
    """Return the chain head after the inference of this receipt."""
    return next_head(receipt.previous, record_of(receipt))


def verify_receipt(statement: bytes, key: VerifyKey) -> Receipt:
    """Return the receipt once ``key`` is proven to have signed it and to be the instance it names.

    Does not check the commitments (``verify_commitment``), nor that ``key`` is attested.
    Raises ``Malformed`` and ``Rejected``.
    """
    receipt = Receipt.parse(open_receipt(statement, key))
    if receipt.instance != instance_id(key.raw):
        raise Rejected.because("wrong_instance", "receipt", got=receipt.instance, want=instance_id(key.raw))
    return receipt


def verify_chain(receipts: Iterable[Receipt]) -> bytes:
    """Prove that verified receipts follow one another from the first inference; return the chain head.

    Only a consumer that asked alone can: between receipts of others, and where units were charged without a
    receipt, there are gaps that the usage records close.

    Raises ``Rejected`` (``chain_broken``) naming the first index that does not fit.
    """
    head, instance = GENESIS, None
    for index, receipt in enumerate(receipts, start=1):
        same = instance in (None, receipt.instance)
        if not same or receipt.index != index or receipt.previous != head:
            raise Rejected.because("chain_broken", f"receipt {index}", got=f"index {receipt.index}")
        instance = receipt.instance
        head = head_after(receipt)
    return head


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkEvidence:
    """Two words on one index that one honest instance cannot both have signed: its memory was copied."""

    instance: InstanceId
    index: int
    first: Receipt
    second: Receipt | UsageRecord


def fork_evidence(first: Receipt, second: Receipt | UsageRecord) -> ForkEvidence | None:
    """Return the proof of a fork, or None where the two prove nothing (invariant I8).

    The second is a receipt, or a usage record that the same instance reported. Both must have been verified
    before: an unsigned word proves nothing.
    """
    if first.index != second.index:
        return None
    if isinstance(second, Receipt):
        differ = first.instance == second.instance and first != second
    else:
        differ = record_of(first) != second
    if not differ:
        return None
    return ForkEvidence(instance=first.instance, index=first.index, first=first, second=second)
