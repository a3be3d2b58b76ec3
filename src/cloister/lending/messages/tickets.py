"""One signature for one inference: ticket request and ticket (docs/spec/ticket.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cloister.crypto.sign import Label
from cloister.lending.messages.form import DIGEST_BYTES, open_payload, take_instance
from cloister.lending.terms import DIGEST, NAME, ConsumerId, InstanceId, ModelDigest
from cloister.wire import Fields, dump_b64u, dump_json

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["MAX_TICKET_S", "Ticket", "TicketRequest"]

MAX_TICKET_S = 3600  # seconds a ticket may live


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketRequest:
    """E to K: may I serve this one inference? Signed by the instance key.

    ``request`` is the salted commitment to the inner request, the very one that the receipt will carry: it says
    nothing of the content. ``index`` counts this instance's ticket requests. ``consumer`` is None where the loan
    is open to anybody.
    """

    LABEL: ClassVar = Label.TICKET_REQUEST

    instance: InstanceId
    epoch: int
    index: int
    request: bytes
    model: ModelDigest
    consumer: ConsumerId | None
    units: int

    def dump(self) -> bytes:
        """Return the canonical payload."""
        return dump_json(
            {
                "consumer": self.consumer,
                "epoch": self.epoch,
                "index": self.index,
                "instance": self.instance,
                "model": self.model,
                "request": dump_b64u(self.request),
                "units": self.units,
                "v": 1,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> TicketRequest:
        """Parse. Raises ``Malformed``."""
        fields = open_payload(data, "ticket request")
        message = cls(
            instance=take_instance(fields),
            epoch=fields.integer("epoch", floor=1),
            index=fields.integer("index", floor=1),
            request=fields.b64u("request", size=DIGEST_BYTES),
            model=ModelDigest(fields.match("model", DIGEST)),
            consumer=_take_consumer(fields),
            units=fields.integer("units", floor=1),
        )
        fields.end()
        return message


def _take_consumer(fields: Fields) -> ConsumerId | None:
    """Return the consumer's id; null where the loan is open to anybody."""
    value = fields.take("consumer")
    if value is None:
        return None
    return ConsumerId(Fields({"consumer": value}, what="ticket request").match("consumer", NAME))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """K to E: this one inference is paid for; start it within ``ttl`` of when you asked.

    ``req_digest`` is SHA-256 over the payload of the ticket request, ``request`` its commitment, so that a
    consumer who holds the salt can prove that the custodian signed for exactly its request.
    """

    LABEL: ClassVar = Label.TICKET

    instance: InstanceId
    epoch: int
    index: int
    req_digest: bytes
    request: bytes
    model: ModelDigest
    units: int
    ttl: timedelta
    block_version: int

    def dump(self) -> bytes:
        """Return the canonical payload."""
        return dump_json(
            {
                "block_version": self.block_version,
                "epoch": self.epoch,
                "index": self.index,
                "instance": self.instance,
                "model": self.model,
                "req_digest": dump_b64u(self.req_digest),
                "request": dump_b64u(self.request),
                "ttl_s": int(self.ttl.total_seconds()),
                "units": self.units,
                "v": 1,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Ticket:
        """Parse. Raises ``Malformed``."""
        fields = open_payload(data, "ticket")
        message = cls(
            instance=take_instance(fields),
            epoch=fields.integer("epoch", floor=1),
            index=fields.integer("index", floor=1),
            req_digest=fields.b64u("req_digest", size=DIGEST_BYTES),
            request=fields.b64u("request", size=DIGEST_BYTES),
            model=ModelDigest(fields.match("model", DIGEST)),
            units=fields.integer("units", floor=1),
            ttl=fields.seconds("ttl_s", floor=1, cap=MAX_TICKET_S),
            block_version=fields.integer("block_version"),
        )
        fields.end()
        return message
