"""The lease on the request path: one holder, one guarded clock, one lock.

``LeaseHolder`` decides; this room gives it the time, notices when clocks lie (E7) and remembers whom the current
lease names, so that a consumer is known before anything is spent on it. Nothing here is ever stored.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from typing import TYPE_CHECKING

from cloister.enclave.clock import reader_of
from cloister.enclave.logs import Event
from cloister.enclave.withholding import Withholding
from cloister.errors import Rejected
from cloister.lending.clock import ClockGuard, SignedTimes
from cloister.lending.lease import LeaseHolder
from cloister.lending.messages import Lease

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from cloister.crypto.sign import SigningKey, VerifyKey
    from cloister.enclave.clock import Clock
    from cloister.enclave.logs import EventLog
    from cloister.enclave.served import ServedModel
    from cloister.lending.conditions import Caller
    from cloister.lending.introduction import IssuersAsked
    from cloister.lending.lease import LeaseSnapshot, Reservation
    from cloister.lending.messages import Grant, Refusal, Ticket, Voucher
    from cloister.lending.revocation import RevocationList
    from cloister.lending.sub_allowance import SubAllowance
    from cloister.lending.terms import Consumer, ConsumerId, InstanceId, ModelDigest, ModelTerms, Terms
    from cloister.lending.watch import Watch, WatchKind

__all__ = ["Metering"]


class Metering:
    """What may be served now, to whom, and what it costs. Safe to call from several threads."""

    def __init__(self, *, key: SigningKey, grant: Grant, custodian: VerifyKey, clock: Clock, log: EventLog) -> None:
        """Start with nothing to spend and no time (E1)."""
        self._holder = LeaseHolder(key=key, grant=grant, custodian=custodian)
        self._read = reader_of(clock)
        self._guard = ClockGuard(self._read(), cores=len(os.sched_getaffinity(0)))
        self._signed = SignedTimes()
        self._asked: tuple[bytes, datetime | None] = (b"", None)
        self._log = log
        self._lock = threading.RLock()
        self._word: Lease | Voucher | None = None
        self._withheld: dict[tuple[str, ModelDigest, int | None], Withholding] = {}
        self.terms: Terms = grant.terms
        self.anomalies: Counter[str] = Counter()

    @property
    def instance(self) -> InstanceId:
        """The id of this instance."""
        return self._holder.instance

    @property
    def policy_digest(self) -> str:
        """The digest of the policy that the latest lease or voucher names, empty before the first."""
        return self._word.policy_digest if self._word else ""

    def now(self) -> datetime:
        """Return the time of the lease; clocks that do not fit together void the lease first (E7)."""
        with self._lock:
            return self._now()

    def _now(self) -> datetime:
        try:
            return self._guard.now(self._read())
        except Rejected as exc:
            fresh = self._guard.fresh  # it starts anew from the readings that made it raise
            self._void(exc.code, fresh)
            return fresh

    def beat(self) -> None:
        """Note that this process lives; must be called several times in every ``lending.clock.GAP``."""
        with self._lock:
            self.now()
            self._guard.beat()

    def _void(self, code: str, now: datetime) -> None:
        self._holder.void(now)
        self._signed = SignedTimes()  # its times are of a clock that is over
        self._asked = (self._asked[0], None)
        self.anomalies[code] += 1
        self._log.write(Event.CLOCK_STEP, instance=self.instance, code=code)

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
            now = self.now()
            statement = self._holder.request(now, nonce)
            if statement != self._asked[0]:  # a repeated request was sent when it was sent first
                self._asked = (statement, now)
            return statement

    def receive(self, statement: bytes) -> Lease | Refusal:
        """Take the custodian's answer. Raises as ``LeaseHolder.receive``."""
        with self._lock:
            now = self.now()
            answer = self._holder.receive(statement, now)
            if isinstance(answer, Lease):
                self._word = answer
                self._compare(answer, now)
            return answer

    def _compare(self, lease: Lease, now: datetime) -> None:
        """Hold our clock against the custodian's; where it is slower or faster the lease's time is void."""
        sent = self._asked[1]
        if sent is None or lease.issued_at is None:
            return
        try:
            self._signed.take(sent=sent, received=now, issued_at=lease.issued_at)
        except Rejected as exc:
            self._void(exc.code, now)

    def report(self) -> bytes | None:
        """Return the usage report that is due before the pending request or the close, None where none is."""
        with self._lock:
            return self._holder.report()

    def reports_due(self) -> int:
        """Return how many usage reports are due before the pending request."""
        with self._lock:
            return self._holder.reports_due()

    def acknowledge(self, statement: bytes) -> None:
        """Take the custodian's acknowledgement of it. Raises as ``LeaseHolder.acknowledge``."""
        with self._lock:
            self._holder.acknowledge(statement)

    def usage_files(self) -> tuple[tuple[int, bytes], ...]:
        """Return every usage report that is not acknowledged, with its first index."""
        with self._lock:
            return self._holder.usage_files()

    def usage_filed(self, upto: int) -> None:
        """Note that those files were written, up to the report that begins at index ``upto``."""
        with self._lock:
            self._holder.usage_filed(upto)

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

    def admit(self, chain: bytes, token: bytes | None) -> SubAllowance:
        """Return the sub-allowance that ``token`` holds. Raises as ``Conditions.admit``; uses are not counted yet."""
        return self._holder.conditions.admit(chain, token, self.now())

    def revoke(self, statement: bytes) -> RevocationList:
        """Take the borrower's next revocation list. Raises as ``Conditions.revoke``."""
        with self._lock:
            return self._holder.conditions.revoke(statement)

    @property
    def watches(self) -> tuple[Watch, ...]:
        """What the contract watches for in how consumers ask."""
        return self._holder.conditions.watches

    def alarm(self, consumer: Caller, kind: WatchKind) -> None:
        """Count an alarm about a consumer and do to it what the contract says."""
        with self._lock:
            self._holder.alarm(consumer, kind)

    def withholding(self, model: ServedModel, caller: Caller) -> Withholding:
        """Return what a caller is shown of a model's outputs. Raises as ``Withholding.of``.

        One for each version and precision: the rules of an instance never change.
        """
        conditions = self._holder.conditions
        key = (model.terms.name, model.terms.digest, conditions.precision(caller))
        found = self._withheld.get(key)
        if found is None:
            found = Withholding.of(model.signature, conditions.outputs(model.terms), key[2])
            self._withheld[key] = found
        return found

    def named(self, consumer: ConsumerId) -> Consumer | None:
        """Return the consumer of this name. Raises ``Rejected`` (``unauthorized``)."""
        with self._lock:
            return self._holder.named(consumer)

    @property
    def issuers(self) -> int:
        """The version of those whose word counts for consumers; 0 for nobody's."""
        return self._holder.issuers

    def issuers_request(self, nonce: bytes) -> IssuersAsked:
        """Return a request for them. Raises ``Rejected`` once this instance has ended."""
        with self._lock:
            return self._holder.issuers_request(nonce)

    @property
    def consumers(self) -> tuple[Consumer, ...] | None:
        """The consumers that the latest lease or voucher lists, those of the grant before it; None for anybody."""
        return self._word.consumers if self._word else self.terms.consumers

    def demand_live(self, model: ModelTerms, consumer: Caller) -> None:
        """Prove that bytes may leave now for this model and consumer (E5). Raises as ``LeaseHolder.demand_live``."""
        with self._lock:
            self._holder.demand_live(model, consumer, self._now())

    def demand_still_live(self, model: ModelTerms, consumer: Caller) -> None:
        """Prove the same at the latest reading: for what leaves in the turn in which its receipt was signed.

        ``sign_receipts`` has seen the time for all of them. Raises as ``LeaseHolder.demand_live``.
        """
        with self._lock:
            self._holder.demand_still_live(model, consumer)

    def reserve(
        self,
        model: str,
        who: bytes | SubAllowance | ConsumerId | None,
        units: int,
        *,
        version: ModelDigest | None = None,
    ) -> Reservation:
        """Set units aside (E4). Raises as ``LeaseHolder.reserve``."""
        with self._lock:
            return self._holder.reserve(model, who, units, self._now(), version=version)

    def news(self) -> frozenset[ModelDigest]:
        """Return the versions that the latest lease lists and the terms of this instance do not know."""
        with self._lock:
            known = {digest for model in self.terms.models for digest in model.versions}
            return frozenset(self._word.models if self._word else ()) - known

    def take_terms(self, terms: Terms) -> None:
        """Take the terms of a later grant. Raises as ``LeaseCore.take_terms``."""
        with self._lock:
            self._holder.take_terms(terms)
            self.terms = terms
            self._withheld.clear()

    def charge(self, reservation: Reservation, units: int, request: bytes, response: bytes) -> bytes:
        """Allow what was produced to leave (E5), charge it and return the receipt to sign (E6), all at one time.

        Raises as ``LeaseHolder.permit_and_charge``, and then the units were given back.
        """
        with self._lock:
            return self._holder.permit_and_charge(reservation, units, request, response, self._now())

    def sign_receipts(self, payloads: Sequence[bytes]) -> tuple[bytes, ...]:
        """Return what ``charge`` gave as signed receipts, and see the time. Raises as ``LeaseHolder.sign_receipts``."""
        with self._lock:
            self._holder.observe(self._now())
            return self._holder.sign_receipts(payloads)

    def refund(self, reservation: Reservation) -> None:
        """Give a reservation back whole."""
        with self._lock:
            self._holder.refund(reservation)

    def remaining_of(self, reservation: Reservation) -> int:
        """Return what is left for whom this was reserved for, for display."""
        with self._lock:
            return self._holder.remaining_of(reservation.model, reservation.consumer)

    def remaining(self, model: str, consumer: Caller) -> int:
        """Return what is left, for display."""
        with self._lock:
            return self._holder.remaining(model, consumer)
