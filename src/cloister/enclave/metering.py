"""The lease on the request path: one holder, one guarded clock, one lock.

``LeaseHolder`` decides; this room gives it the time, notices clock steps (E7) and remembers whom the current
lease names, so that a consumer is known before anything is spent on it. Nothing here is ever stored.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from cloister.enclave.logs import Event
from cloister.errors import Rejected
from cloister.lending.clock import ClockGuard
from cloister.lending.lease import LeaseHolder
from cloister.lending.messages import Lease

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from cloister.crypto.sign import SigningKey, VerifyKey
    from cloister.enclave.clock import Clock
    from cloister.enclave.logs import EventLog
    from cloister.lending.lease import LeaseSnapshot, Reservation
    from cloister.lending.messages import Grant, Refusal, Ticket, Voucher
    from cloister.lending.terms import Consumer, InstanceId, ModelTerms, Terms

__all__ = ["Metering"]


class Metering:
    """What may be served now, to whom, and what it costs. Safe to call from several threads."""

    def __init__(self, *, key: SigningKey, grant: Grant, custodian: VerifyKey, clock: Clock, log: EventLog) -> None:
        """Start with nothing to spend and no time (E1)."""
        self._holder = LeaseHolder(key=key, grant=grant, custodian=custodian)
        self._clock = clock
        self._guard = ClockGuard(monotonic=clock.monotonic(), wall=clock.wall())
        self._log = log
        self._lock = threading.RLock()
        self._word: Lease | Voucher | None = None
        self.terms: Terms = grant.terms

    @property
    def instance(self) -> InstanceId:
        """The id of this instance."""
        return self._holder.instance

    @property
    def policy_digest(self) -> str:
        """The digest of the policy that the latest lease or voucher names, empty before the first."""
        return self._word.policy_digest if self._word else ""

    def now(self) -> datetime:
        """Return the time of the lease; a step of the machine's clocks voids the lease first (E7)."""
        with self._lock:
            try:
                return self._read()
            except Rejected:
                fresh = self._read()  # the guard starts anew from the readings that made it raise
                self._holder.void(fresh)
                self._log.write(Event.CLOCK_STEP, instance=self.instance)
                return fresh

    def _read(self) -> datetime:
        return self._guard.now(monotonic=self._clock.monotonic(), wall=self._clock.wall())

    def snapshot(self) -> LeaseSnapshot:
        """Return what there is to show, at this moment."""
        with self._lock:
            self._holder.must_end(self.now())  # lets the holder see the time
            return self._holder.snapshot()

    def must_end(self) -> bool:
        """Tell whether model and keys must go now (E9)."""
        with self._lock:
            return self._holder.must_end(self.now())

    def next_renewal(self, jitter: float) -> timedelta:
        """Return how long to wait before the next request; zero or less means now."""
        with self._lock:
            now = self.now()
            return self._holder.next_renewal(now, jitter) - now

    def request(self, nonce: bytes) -> bytes:
        """Return the signed lease request to send."""
        with self._lock:
            return self._holder.request(self.now(), nonce)

    def receive(self, statement: bytes) -> Lease | Refusal:
        """Take the custodian's answer. Raises as ``LeaseHolder.receive``."""
        with self._lock:
            answer = self._holder.receive(statement, self.now())
            if isinstance(answer, Lease):
                self._word = answer
            return answer

    def voucher_request(self, nonce: bytes) -> bytes:
        """Return a new signed voucher request. Raises ``Rejected`` (``no_offline_term``)."""
        with self._lock:
            return self._holder.offline.request(self.now(), nonce)

    def receive_voucher(self, statement: bytes) -> Voucher:
        """Take a voucher. Raises as ``OfflineHolder.receive``."""
        with self._lock:
            self._word = voucher = self._holder.offline.receive(statement, self.now())
            return voucher

    def consumption(self) -> bytes:
        """Return a new signed consumption statement. Raises ``Rejected`` (``voucher_unknown``)."""
        with self._lock:
            return self._holder.offline.consumption(self.now())

    @property
    def pending_ticket(self) -> bytes | None:
        """The ticket request to send again first."""
        with self._lock:
            return self._holder.tickets.pending

    def ticket_request(self, reservation: Reservation, commitment: bytes) -> bytes:
        """Return the signed ticket request for one inference."""
        with self._lock:
            return self._holder.tickets.request(reservation, commitment, self.now())

    def receive_ticket(self, statement: bytes) -> Ticket | Refusal:
        """Take the answer to the pending ticket request. Raises as ``TicketHolder.receive``."""
        with self._lock:
            return self._holder.tickets.receive(statement, self.now())

    def begin_ticketed(self, reservation: Reservation, commitment: bytes) -> bytes:
        """Prove that the inference may start now; return its ticket. Raises as ``TicketHolder.begin``."""
        with self._lock:
            return self._holder.tickets.begin(reservation, commitment, self.now())

    def close(self) -> bytes:
        """Stop for good and return the signed last count."""
        with self._lock:
            return self._holder.close(self.now())

    def consumer(self, token: bytes | None) -> Consumer | None:
        """Return whose token this is, None where the loan is open to anybody. Raises ``Rejected`` (``unauthorized``).

        Knows blocked consumers too: whether they are served is for ``reserve``.
        """
        with self._lock:
            return self._holder.consumer(token)

    def demand_live(self, model: ModelTerms, consumer: Consumer | None) -> None:
        """Prove that bytes may leave now for this model and consumer (E5). Raises as ``LeaseHolder.demand_live``."""
        with self._lock:
            self._holder.demand_live(model, consumer, self.now())

    def reserve(self, model: str, token: bytes | None, units: int) -> Reservation:
        """Set units aside (E4). Raises as ``LeaseHolder.reserve``."""
        with self._lock:
            return self._holder.reserve(model, token, units, self.now())

    def permit(self, reservation: Reservation, produced_units: int) -> None:
        """Allow what was produced to leave (E5). Raises as ``LeaseHolder.permit``."""
        with self._lock:
            self._holder.permit(reservation, produced_units, self.now())

    def settle(self, reservation: Reservation, units: int, request: bytes, response: bytes) -> bytes:
        """Charge and return the receipt (E6). Raises as ``LeaseHolder.settle``."""
        with self._lock:
            return self._holder.settle(reservation, units, request, response, self.now())

    def refund(self, reservation: Reservation) -> None:
        """Give a reservation back whole."""
        with self._lock:
            self._holder.refund(reservation)

    def remaining(self, model: str, consumer: Consumer | None) -> int:
        """Return what is left, for display."""
        with self._lock:
            return self._holder.remaining(model, consumer)
