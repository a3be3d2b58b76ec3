"""A ticket for each inference of a ticketed model: asked for, waited for, proven (docs/spec/ticket.md)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.errors import Rejected
from cloister.lending.messages import Refusal

if TYPE_CHECKING:
    from cloister.enclave.custodian_link import Link
    from cloister.enclave.metering import Metering
    from cloister.lending.lease import Reservation
    from cloister.lending.messages import Ticket

__all__ = ["Tickets"]

_WITHIN = timedelta(seconds=10)  # for one exchange, and never more than T/3
_CALL_AT_MOST = 3
_FOR_CONSUMERS = frozenset({"allowance_exhausted", "blocked", "unauthorized", "unknown_model"})


class Tickets:
    """Asks for one ticket at a time: the custodian counts them without a gap."""

    def __init__(self, metering: Metering, link: Link) -> None:
        """Ask over ``link``."""
        self._metering = metering
        self._link = link
        self._one = asyncio.Lock()

    async def take(self, reservation: Reservation, commitment: bytes) -> bytes:
        """Return the ticket for this inference, which may start now and not later (E4).

        Raises ``Unavailable`` where no answer came: the request stays pending, its units may be spent, and the next
        call sends it again first (E2). Raises ``Rejected`` where the custodian, or by now the lease, says no.
        """
        async with self._one:
            pending = self._metering.pending_ticket
            if pending is not None:
                await self._exchange(pending)  # of an inference that is gone: paid for, and void
            answer = await self._exchange(self._metering.ticket_request(reservation, commitment))
        if isinstance(answer, Refusal):
            raise _refused(answer)
        return self._metering.begin_ticketed(reservation, commitment)

    async def _exchange(self, statement: bytes) -> Ticket | Refusal:
        metering = self._metering
        within = min(_WITHIN, metering.terms.ttl / _CALL_AT_MOST)
        return metering.receive_ticket(await self._link.ticket(metering.instance, statement, within=within))


def _refused(answer: Refusal) -> Rejected:
    """Return what a consumer is told: its own affairs as they are, the custodian's in one word."""
    first = answer.reasons[0]
    if first.code in _FOR_CONSUMERS:
        return Rejected(str(first), reasons=(first,))
    return Rejected.because("ticket_refused", "custodian", got=first.code)
