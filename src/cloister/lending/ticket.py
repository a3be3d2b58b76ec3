"""The enclave's side of tickets: one signature of the custodian for one inference (docs/spec/ticket.md).

``TicketHolder`` is a part of a ``LeaseHolder``. One ticket request is pending at a time; a retry sends identical
bytes (E2). A ticket is for the one commitment it names: with cloned memory and a lying clock there are still no
more distinct inferences than tickets.

Pure. Not done here: sending (``enclave/tickets``), signing
tickets (``ticket_grant``).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.crypto.sign import Statement
from cloister.errors import Reason, Rejected, UsageError
from cloister.lending.answers import parse_ticket
from cloister.lending.lease_state import Pending
from cloister.lending.messages import Refusal, Ticket, TicketRequest
from cloister.lending.terms import Consumer

if TYPE_CHECKING:
    from datetime import datetime

    from cloister.crypto.sign import VerifyKey
    from cloister.lending.holding import Owner
    from cloister.lending.lease_state import Reservation
    from cloister.lending.messages import Receipt

__all__ = ["TicketHolder", "verify_ticket"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """The one unanswered ticket request, for which reservation, and when it was first sent."""

    message: TicketRequest
    pending: Pending
    reservation: int
    sent_at: datetime


class TicketHolder:
    """The tickets of one instance: at most one asked for, and those whose inference has not ended."""

    def __init__(self, owner: Owner) -> None:
        """Start without any (E1)."""
        self._owner = owner
        self._asked: _Asked | None = None
        self._held: dict[int, tuple[Ticket, bytes, datetime | None]] = {}
        self._index = 0

    @property
    def pending(self) -> bytes | None:
        """The request to send again before another may be made; its inference may have gone."""
        return self._asked.pending.statement if self._asked else None

    def request(self, reservation: Reservation, commitment: bytes, now: datetime) -> bytes:
        """Return a signed request for the ticket of this inference; ``commitment`` is the receipt's, to the request.

        Raises ``UsageError`` while one is pending, ``Rejected`` once the instance has ended.
        """
        if self._asked is not None:
            msg = "ticket: one is pending; send it again first"
            raise UsageError(msg)
        moment, key, counters = self._owner.observe(now), self._owner.signing_key(), self._owner.counters()
        self._owner.demand_open(reservation)
        self._index += 1
        message = TicketRequest(
            instance=counters.instance,
            epoch=counters.epoch,
            index=self._index,
            request=commitment,
            model=reservation.model.digest,
            consumer=reservation.consumer.id if isinstance(reservation.consumer, Consumer) else None,
            units=reservation.units,
        )
        payload = message.dump()
        statement = Statement.sign(key, TicketRequest.LABEL, payload).dump()
        pending = Pending(statement=statement, digest=hashlib.sha256(payload).digest())
        self._asked = _Asked(message=message, pending=pending, reservation=reservation.number, sent_at=moment)
        return statement

    def receive(self, statement: bytes, now: datetime) -> Ticket | Refusal:
        """Take the answer to the pending request.

        Raises ``Malformed`` and ``Rejected``: as ``LeaseHolder.receive``, and ``wrong_ticket`` for one that names
        something else than was asked for; then the request stays pending.
        """
        self._owner.observe(now)
        answer = parse_ticket(statement, self._owner.custodian)
        self._owner.prove(answer, "ticket", self._asked.pending.digest if self._asked else None)
        if isinstance(answer, Refusal):
            self._owner.take_refusal(answer)
        elif self._asked is not None:
            self._take(self._asked, answer, statement)
        self._asked = None
        return answer

    def _take(self, asked: _Asked, ticket: Ticket, statement: bytes) -> None:
        wanted = (asked.message.index, asked.message.request, asked.message.model, asked.message.units)
        if (ticket.index, ticket.request, ticket.model, ticket.units) != wanted:
            raise Rejected.because("wrong_ticket", "ticket", got=f"index {ticket.index}, {ticket.units} units")
        if self._owner.is_open(asked.reservation):  # else its inference has gone: paid for, and good for nothing
            self._held[asked.reservation] = (ticket, statement, asked.sent_at + ticket.ttl)

    def begin(self, reservation: Reservation, commitment: bytes, now: datetime) -> bytes:
        """Prove, after the wait, that the inference of exactly this request may start (E4); return the ticket's bytes.

        Once started its ticket has no time left to run out; the lease goes on to count. Raises ``Rejected`` as
        ``LeaseHolder.permit``, and ``ticket_wanted``, ``ticket_expired``.
        """
        self._owner.demand_live(reservation.model, reservation.consumer, now)
        moment = self._owner.observe(now)
        ticket, statement, until = self._find(reservation)
        if not hmac.compare_digest(ticket.request, commitment):
            raise Rejected.because("ticket_wanted", f"model {reservation.model.name}", got="one for another request")
        if until is None or moment >= until:
            raise Rejected.because("ticket_expired", f"model {reservation.model.name}")
        self._held[reservation.number] = (ticket, statement, None)
        return statement

    def demand_begun(self, reservation: Reservation, commitment: bytes | None = None) -> None:
        """Prove that a ticketed inference was started with a ticket. Raises ``Rejected`` (``ticket_wanted``)."""
        if not reservation.model.ticketed:
            return
        ticket, _, until = self._find(reservation)
        fits = commitment is None or hmac.compare_digest(ticket.request, commitment)
        if until is not None or not fits:
            raise Rejected.because("ticket_wanted", f"model {reservation.model.name}")

    def _find(self, reservation: Reservation) -> tuple[Ticket, bytes, datetime | None]:
        found = self._held.get(reservation.number)
        if found is None:
            raise Rejected.because("ticket_wanted", f"model {reservation.model.name}")
        return found

    def is_charged(self, reservation: Reservation) -> bool:
        """Tell whether this inference was paid for: by its reservation, or by the ticket that has come for it."""
        return not reservation.model.ticketed or reservation.number in self._held

    def forget(self, reservation: Reservation) -> None:
        """Drop the ticket of an inference that has ended: it was paid for, and is good for nothing else."""
        self._held.pop(reservation.number, None)


def verify_ticket(statement: bytes, custodian: VerifyKey, receipt: Receipt) -> Ticket:
    """Return the ticket once the custodian is proven to have signed it for just the inference of ``receipt``.

    ``receipt`` must have been verified before, its request commitment against the request and its salt, its loan
    against what the instance serves: a ticket names the instance, not the loan. A ticket's index counts tickets and a
    receipt's answers, so they are not compared. Raises ``Malformed`` and ``Rejected`` (``ticket_mismatch`` with all
    that differs).
    """
    ticket = Ticket.parse(Statement.parse(statement, label=Ticket.LABEL).verify([custodian]))
    pairs = {
        "instance": (ticket.instance, receipt.instance),
        "model": (ticket.model, receipt.model),
        "request": (ticket.request.hex(), receipt.request.hex()),
        "units": (ticket.units, receipt.units),
    }
    reasons = tuple(
        Reason(code="ticket_mismatch", subject=f"ticket: {name}", got=str(got), want=str(want))
        for name, (got, want) in pairs.items()
        if got != want
    )
    if reasons:
        raise Rejected("; ".join(map(str, reasons)), reasons=reasons)
    return ticket
