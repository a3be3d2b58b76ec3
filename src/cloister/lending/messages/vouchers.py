"""What travels on removable media: voucher request, voucher, consumption statement (docs/spec/voucher.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cloister.crypto.sign import Label
from cloister.lending.clauses import MAX_OFFLINE_S
from cloister.lending.messages.form import (
    DIGEST_BYTES,
    Units,
    open_payload,
    take_consumers,
    take_instance,
    take_models,
    take_units,
    units_json,
)
from cloister.lending.terms import DIGEST, LOAN_ID, Consumer, InstanceId, LoanId, ModelDigest
from cloister.wire import dump_b64u, dump_json, dump_time

if TYPE_CHECKING:
    from datetime import datetime, timedelta

__all__ = ["Consumption", "Voucher", "VoucherRequest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VoucherRequest:
    """E to K, as a file: give me units for a time without a network. Signed by the instance key.

    ``seq`` counts this instance's voucher requests, apart from its lease requests. ``used``, ``reserved`` and
    ``want`` are absolute per meter, ``chain_head`` is the head of the receipt chain.
    """

    LABEL: ClassVar = Label.VOUCHER_REQUEST

    instance: InstanceId
    loan: LoanId
    epoch: int
    seq: int
    req_nonce: bytes
    used: Units
    reserved: Units
    want: Units
    served: int
    chain_head: bytes

    def dump(self) -> bytes:
        """Return the canonical payload."""
        return dump_json(
            {
                "chain_head": dump_b64u(self.chain_head),
                "epoch": self.epoch,
                "instance": self.instance,
                "loan": self.loan,
                "req_nonce": dump_b64u(self.req_nonce),
                "reserved": units_json(self.reserved),
                "seq": self.seq,
                "served": self.served,
                "used": units_json(self.used),
                "v": 1,
                "want": units_json(self.want),
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> VoucherRequest:
        """Parse. Raises ``Malformed``."""
        fields = open_payload(data, "voucher request")
        message = cls(
            instance=take_instance(fields),
            loan=LoanId(fields.match("loan", LOAN_ID)),
            epoch=fields.integer("epoch", floor=1),
            seq=fields.integer("seq", floor=1),
            req_nonce=fields.b64u("req_nonce", size=16),
            used=take_units(fields, "used"),
            reserved=take_units(fields, "reserved"),
            want=take_units(fields, "want"),
            served=fields.integer("served"),
            chain_head=fields.b64u("chain_head", size=DIGEST_BYTES),
        )
        fields.end()
        return message


@dataclass(frozen=True, slots=True, kw_only=True)
class Voucher:
    """K to E, as a file: serve until ``used + reserved`` reaches ``limits``, for ``lasts`` from when you asked.

    ``limits`` are absolute ceilings per meter, backed by escrow; ``overdraft`` units beyond them may be served
    while the voucher lives. ``issued_at`` is the custodian's time, for people: no rule hangs on it.
    """

    LABEL: ClassVar = Label.VOUCHER

    instance: InstanceId
    loan: LoanId
    epoch: int
    seq: int
    req_digest: bytes
    chain_head: bytes
    limits: Units
    overdraft: int
    lasts: timedelta
    models: tuple[ModelDigest, ...]
    consumers: tuple[Consumer, ...] | None
    policy_digest: str
    block_version: int
    issued_at: datetime

    def dump(self) -> bytes:
        """Return the canonical payload."""
        return dump_json(
            {
                "block_version": self.block_version,
                "chain_head": dump_b64u(self.chain_head),
                "consumers": None if self.consumers is None else [item.to_json() for item in self.consumers],
                "epoch": self.epoch,
                "instance": self.instance,
                "issued_at": dump_time(self.issued_at),
                "lasts_s": int(self.lasts.total_seconds()),
                "limits": units_json(self.limits),
                "loan": self.loan,
                "models": list(self.models),
                "overdraft": self.overdraft,
                "policy_digest": self.policy_digest,
                "req_digest": dump_b64u(self.req_digest),
                "seq": self.seq,
                "v": 1,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Voucher:
        """Parse. Raises ``Malformed``."""
        fields = open_payload(data, "voucher")
        message = cls(
            instance=take_instance(fields),
            loan=LoanId(fields.match("loan", LOAN_ID)),
            epoch=fields.integer("epoch", floor=1),
            seq=fields.integer("seq", floor=1),
            req_digest=fields.b64u("req_digest", size=DIGEST_BYTES),
            chain_head=fields.b64u("chain_head", size=DIGEST_BYTES),
            limits=take_units(fields, "limits"),
            overdraft=fields.integer("overdraft"),
            lasts=fields.seconds("lasts_s", floor=1, cap=MAX_OFFLINE_S),
            models=take_models(fields),
            consumers=take_consumers(fields),
            policy_digest=fields.match("policy_digest", DIGEST),
            block_version=fields.integer("block_version"),
            issued_at=fields.time("issued_at"),
        )
        fields.end()
        return message


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumption:
    """E to K, as a file: what was served until now. Signed by the instance key.

    ``voucher`` is SHA-256 over the payload of the latest accepted voucher, ``number`` counts this instance's
    statements. Inferences ``first`` to ``last`` (receipt indexes; ``last`` is ``first - 1`` where there was none)
    were served since that voucher was accepted. ``at`` is the enclave's time, for people.
    """

    LABEL: ClassVar = Label.CONSUMPTION

    instance: InstanceId
    loan: LoanId
    voucher: bytes
    number: int
    used: Units
    chain_head: bytes
    first: int
    last: int
    at: datetime

    @property
    def served(self) -> int:
        """The index of the last record, as other messages name it."""
        return self.last

    def dump(self) -> bytes:
        """Return the canonical payload."""
        return dump_json(
            {
                "at": dump_time(self.at),
                "chain_head": dump_b64u(self.chain_head),
                "first": self.first,
                "instance": self.instance,
                "last": self.last,
                "loan": self.loan,
                "number": self.number,
                "used": units_json(self.used),
                "v": 1,
                "voucher": dump_b64u(self.voucher),
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Consumption:
        """Parse. Raises ``Malformed``."""
        fields = open_payload(data, "consumption statement")
        message = cls(
            instance=take_instance(fields),
            loan=LoanId(fields.match("loan", LOAN_ID)),
            voucher=fields.b64u("voucher", size=DIGEST_BYTES),
            number=fields.integer("number", floor=1),
            used=take_units(fields, "used"),
            chain_head=fields.b64u("chain_head", size=DIGEST_BYTES),
            first=fields.integer("first", floor=1),
            last=fields.integer("last"),
            at=fields.time("at"),
        )
        fields.end()
        if message.last < message.first - 1:
            fields.fail("last", f"{message.last}, want at least {message.first - 1}")
        return message
