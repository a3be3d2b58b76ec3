"""The loan as a contract: one payload, signed by the custodian and by the borrower (docs/spec/contract.md).

Both sign the very same bytes under one label: each signature says "I agree to this". A contract has the loan's
terms without the hashes of the consumers' tokens, the custodian's key, and the policy that enclaves must satisfy.

Not done here: whose key a borrower's is (trust files, the loan's own terms), storing versions (the custodian's
``service.contracts``), obeying the clauses (``conditions``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from cloister.crypto.sign import KeyId, Label, VerifyKey
from cloister.errors import Reason, Rejected, UsageError
from cloister.lending.terms import DIGEST, MAX_CONSUMERS, NO_TOKEN, Consumer, Terms
from cloister.wire import Fields, Json, dump_b64u, dump_json, dump_time

if TYPE_CHECKING:
    from datetime import datetime

    from cloister.crypto.sign import SigningKey

__all__ = ["MAX_CONTRACT_BYTES", "Contract", "SignedContract", "verify_in_force"]

MAX_CONTRACT_BYTES = 512 * 1024  # bytes of one signed contract
_MAX_PAYLOAD_BYTES = 256 * 1024  # bytes of what is signed; a thousand consumers take a fifth of it
_MAX_MEMBERS = 64  # members of terms
_SIGNATURE_BYTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What both parties agree on. ``terms`` have no token hashes, their ``version`` is the contract's.

    ``consumers`` are those of the day it was drawn up: who joins later needs no new contract.
    """

    terms: Terms
    custodian: VerifyKey
    policy_digest: str
    created_at: datetime

    @property
    def version(self) -> int:
        """Which version of the loan's contract this is."""
        return self.terms.version

    @property
    def digest(self) -> str:
        """SHA-256 over the payload, hex: the ``loan_digest`` of a keyset."""
        return hashlib.sha256(self.dump()).hexdigest()

    @classmethod
    def of(cls, terms: Terms, *, custodian: VerifyKey, policy_digest: str, created_at: datetime) -> Self:
        """Return the contract that these terms make: the same, without the hashes of tokens."""
        blank = replace(terms, consumers=_without_hashes(terms))
        return cls(terms=blank, custodian=custodian, policy_digest=policy_digest, created_at=created_at)

    def dump(self) -> bytes:
        """Return the bytes that both parties sign: canonical JSON."""
        return dump_json(
            {
                "created_at": dump_time(self.created_at),
                "custodian": self.custodian.dump(),
                "policy_digest": self.policy_digest,
                "terms": _terms_json(self.terms),
                "v": 1,
            }
        )

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """Parse. Does not check a signature. Raises ``Malformed``."""
        fields = Fields.parse(payload, what="contract", cap=_MAX_PAYLOAD_BYTES, canonical=True)
        fields.literal("v", 1)
        contract = cls(
            terms=_take_terms(fields),
            custodian=VerifyKey.take(fields, "custodian"),
            policy_digest=fields.match("policy_digest", DIGEST),
            created_at=fields.time("created_at"),
        )
        fields.end()
        if contract.terms.clauses.borrower == contract.custodian:
            fields.fail("custodian", "is the borrower's key too: one party cannot agree with itself")
        return contract

    def demand_covers(self, terms: Terms, *, policy_digest: str) -> None:
        """Prove that this is the contract of ``terms``: everything but version, and who has joined as a consumer.

        Raises ``Rejected`` (``contract_mismatch``) with a reason for each member that differs.
        """
        mine, theirs = _agreed(self.terms), _agreed(terms)
        differs = [name for name in sorted({*mine, *theirs}) if mine.get(name) != theirs.get(name)]
        if self.policy_digest != policy_digest:
            differs.append("policy_digest")
        if differs:
            reasons = tuple(Reason(code="contract_mismatch", subject=f"contract: {name}") for name in differs)
            raise Rejected("; ".join(map(str, reasons)), reasons=reasons, hint="the contract must be signed anew")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedContract:
    """A contract with its signatures, unverified: the custodian's, and the borrower's once it agreed.

    On the wire a DSSE envelope with one or two signatures, the custodian's first.
    """

    payload: bytes
    custodian: bytes
    borrower: bytes | None = None

    @classmethod
    def offer(cls, contract: Contract, key: SigningKey) -> Self:
        """Return the contract as the custodian signs it."""
        payload = contract.dump()
        return cls(payload=payload, custodian=key.sign(Label.CONTRACT, payload))

    def accept(self, key: SigningKey, *, custodian: VerifyKey) -> Self:
        """Return the contract with the borrower's signature beside the custodian's.

        Raises ``UsageError`` where the contract names another borrower's key, or none; else as ``verify_offer``.
        """
        named = self.verify_offer(custodian).terms.clauses.borrower
        if named != key.verify_key:
            got = "no key" if named is None else named.key_id
            msg = f"contract: names {got} as the borrower's, this is {key.key_id}"
            raise UsageError(msg, hint="sign with the key whose public half the custodian was given")
        return replace(self, borrower=key.sign(Label.CONTRACT, self.payload))

    def dump(self) -> bytes:
        """Return the document: canonical JSON."""
        contract = Contract.parse(self.payload)
        signatures: list[Json] = [{"keyid": contract.custodian.key_id, "sig": dump_b64u(self.custodian)}]
        named = contract.terms.clauses.borrower
        if self.borrower is not None and named is not None:
            signatures.append({"keyid": named.key_id, "sig": dump_b64u(self.borrower)})
        return dump_json(
            {
                "payload": dump_b64u(self.payload),
                "payloadType": Label.CONTRACT.value,
                "signatures": signatures,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a document; one spelling. Checks no signature. Raises ``Malformed``."""
        fields = Fields.parse(data, what="signed contract", cap=MAX_CONTRACT_BYTES, canonical=True)
        fields.literal("payloadType", Label.CONTRACT.value)
        payload = fields.b64u("payload", cap=_MAX_PAYLOAD_BYTES)
        signatures = [_signature(item) for item in fields.items("signatures", cap=2)]
        fields.end()
        contract = Contract.parse(payload)
        named = contract.terms.clauses.borrower
        owners = [contract.custodian.key_id, *(() if named is None else (named.key_id,))]
        if not signatures or [key_id for key_id, _ in signatures] != owners[: len(signatures)]:
            fields.fail("signatures", "want the custodian's, then the borrower's where the contract names one")
        borrower = signatures[1][1] if len(signatures) > 1 else None
        return cls(payload=payload, custodian=signatures[0][1], borrower=borrower)

    def verify_offer(self, custodian: VerifyKey) -> Contract:
        """Return the contract once the custodian is proven to have signed it. Says nothing about the borrower.

        Raises ``Malformed``, ``Rejected`` (``signature_invalid``, ``unknown_key``).
        """
        contract = Contract.parse(self.payload)
        if contract.custodian != custodian:
            got, want = contract.custodian.key_id, custodian.key_id
            raise Rejected.because("unknown_key", "contract: custodian", got=got, want=want)
        custodian.verify(Label.CONTRACT, self.payload, self.custodian)
        return contract

    def verify(self, custodian: VerifyKey) -> Contract:
        """Return the contract once everybody whom it names is proven to have signed it.

        Without a borrower's key in it the custodian's signature is enough. Proves nothing about who owns the
        borrower's key. Raises as ``verify_offer``, and ``Rejected`` (``contract_unsigned``).
        """
        contract = self.verify_offer(custodian)
        named = contract.terms.clauses.borrower
        if named is not None:
            if self.borrower is None:
                raise Rejected.because("contract_unsigned", "contract", want="the borrower's signature")
            named.verify(Label.CONTRACT, self.payload, self.borrower)
        return contract


def verify_in_force(
    document: bytes, *, terms: Terms, policy_digest: str, custodian: VerifyKey
) -> SignedContract | None:
    """Return the contract that a grant came with, once it is proven to be signed and to say what the grant says.

    An empty document is good for a loan without a borrower's key alone (one that is older than contracts): None.
    Raises ``Malformed`` and ``Rejected`` (``contract_unsigned``, ``contract_mismatch``, and as ``verify``).
    """
    if not document:
        if terms.clauses.borrower is not None:
            raise Rejected.because("contract_unsigned", "grant", want="the signed contract of the loan")
        return None
    signed = SignedContract.parse(document)
    signed.verify(custodian).demand_covers(terms, policy_digest=policy_digest)
    return signed


def _without_hashes(terms: Terms) -> tuple[Consumer, ...] | None:
    if terms.consumers is None:
        return None
    return tuple(replace(consumer, token_sha256=NO_TOKEN) for consumer in terms.consumers)


def _terms_json(terms: Terms) -> dict[str, Json]:
    members = terms.to_json()
    if terms.consumers is not None:
        members["consumers"] = [{"id": item.id, "metered": item.metered} for item in terms.consumers]
    return members


def _take_terms(fields: Fields) -> Terms:
    """Return the terms of a contract: those of a loan, and a consumer has no ``token_sha256``."""
    members = fields.members("terms", cap=_MAX_MEMBERS)
    listed = members.get("consumers")
    if isinstance(listed, list):
        filled: list[Json] = []
        for item in listed[: MAX_CONSUMERS + 1]:
            if not isinstance(item, dict) or "token_sha256" in item:
                fields.fail("terms", "consumers: want objects of id and metered")
            filled.append({**item, "token_sha256": NO_TOKEN.hex()})
        members["consumers"] = filled
    return Terms.from_json(members)


def _agreed(terms: Terms) -> dict[str, Json]:
    """Return what a contract fixes of terms: all but their version and who the consumers are."""
    members = terms.to_json()
    del members["version"]
    members["consumers"] = None if terms.consumers is None else "listed"
    return members


def _signature(value: Json) -> tuple[KeyId, bytes]:
    entry = Fields(value, what="signed contract: signatures")
    key_id = KeyId(entry.hex("keyid", size=16).hex())
    signature = entry.b64u("sig", size=_SIGNATURE_BYTES)
    entry.end()
    return key_id, signature
