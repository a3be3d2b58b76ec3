"""What a consumer can hold against the other two: status and receipt (docs/spec/receipt.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cloister.attest.rats import NONCE_BYTES, Nonce
from cloister.crypto.sign import Label
from cloister.lending.messages.form import (
    DIGEST_BYTES,
    open_payload,
    take_consumer,
    take_instance,
    take_models,
)
from cloister.lending.terms import (
    DIGEST,
    LOAN_ID,
    MAX_UNITS,
    ConsumerId,
    InstanceId,
    LoanId,
    ModelDigest,
)
from cloister.wire import CODE, dump_b64u, dump_json, dump_time
from cloister.wire.values import hot_value

if TYPE_CHECKING:
    from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """K to U: what the custodian knows of an instance now; ``nonce`` is the asker's.

    ``operator`` is the borrower's name in the loan, ``kem_digest`` SHA-256 of the attested KEM key.
    """

    LABEL: ClassVar = Label.STATUS

    instance: InstanceId
    nonce: Nonce
    operator: str
    loan: LoanId
    kem_digest: bytes
    models: tuple[ModelDigest, ...]
    state: str
    valid_for: timedelta
    block_version: int
    issued_at: datetime

    def dump(self) -> bytes:
        """Return the canonical payload."""
        return dump_json(
            {
                "block_version": self.block_version,
                "instance": self.instance,
                "issued_at": dump_time(self.issued_at),
                "kem_digest": dump_b64u(self.kem_digest),
                "loan": self.loan,
                "models": list(self.models),
                "nonce": dump_b64u(self.nonce),
                "operator": self.operator,
                "state": self.state,
                "v": 1,
                "valid_for_s": int(self.valid_for.total_seconds()),
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Status:
        """Parse. Raises ``Malformed``."""
        fields = open_payload(data, "status")
        message = cls(
            instance=take_instance(fields),
            nonce=Nonce(fields.b64u("nonce", size=NONCE_BYTES)),
            operator=fields.text("operator", cap=200),
            loan=LoanId(fields.match("loan", LOAN_ID)),
            kem_digest=fields.b64u("kem_digest", size=DIGEST_BYTES),
            models=take_models(fields),
            state=fields.match("state", CODE),
            valid_for=fields.seconds("valid_for_s"),
            block_version=fields.integer("block_version"),
            issued_at=fields.time("issued_at"),
        )
        fields.end()
        return message


@hot_value
class Receipt:
    """E to U, inside the sealed answer: proof of one inference. Signed by the instance key.

    ``request`` and ``response`` are salted commitments (``receipt.commit``): they prove the content to
    whoever is shown content and salt, and tell nobody else anything. ``previous`` is the chain head
    before this inference; with the rest it gives the usage record (``receipt.record_of``) and the head after it.
    ``metered`` says that ``consumer`` has a meter of its own: then, and only then, its record names it.
    """

    LABEL: ClassVar = Label.RECEIPT

    instance: InstanceId
    index: int
    loan: LoanId
    model: ModelDigest
    consumer: ConsumerId | None
    metered: bool
    units: int
    request: bytes
    response: bytes
    previous: bytes
    policy_digest: str
    issued_at: datetime

    def dump(self) -> bytes:
        """Return the canonical payload.

        Written out and not by ``dump_json``: it stands on the request path. Nothing in a receipt needs an escape.
        """
        consumer = "null" if self.consumer is None else f'"{self.consumer}"'
        return (
            f'{{"consumer":{consumer},"index":{self.index},"instance":"{self.instance}",'
            f'"issued_at":"{dump_time(self.issued_at)}","loan":"{self.loan}",'
            f'"metered":{"true" if self.metered else "false"},"model":"{self.model}",'
            f'"policy_digest":"{self.policy_digest}","previous":"{dump_b64u(self.previous)}",'
            f'"request":"{dump_b64u(self.request)}","response":"{dump_b64u(self.response)}",'
            f'"units":{self.units},"v":2}}'
        ).encode("ascii")

    @classmethod
    def parse(cls, data: bytes) -> Receipt:
        """Parse. Raises ``Malformed``."""
        fields = open_payload(data, "receipt", version=2)
        message = cls(
            instance=take_instance(fields),
            index=fields.integer("index", floor=1),
            loan=LoanId(fields.match("loan", LOAN_ID)),
            model=ModelDigest(fields.match("model", DIGEST)),
            consumer=take_consumer(fields),
            metered=fields.boolean("metered"),
            units=fields.integer("units", cap=MAX_UNITS),
            request=fields.b64u("request", size=DIGEST_BYTES),
            response=fields.b64u("response", size=DIGEST_BYTES),
            previous=fields.b64u("previous", size=DIGEST_BYTES),
            policy_digest=fields.match("policy_digest", DIGEST),
            issued_at=fields.time("issued_at"),
        )
        fields.end()
        if message.metered and message.consumer is None:
            fields.fail("metered", "nobody is metered")
        return message
