"""The enclave's side of the lease: who may serve how much until when (docs/spec/lease.md; 30-metering E1-E10).

``LeaseHolder`` lives in enclave memory from boot to end and is never stored. It serves while there is
both time and room: the count protects against a lying clock, the clock against cloned memory.

Sans-io: bytes and ``now`` in, bytes and verdicts out; the shell sends, receives and sleeps. Call it
from one thread: between ``reserve`` and the engine nothing else may run on it (E4). Not done here:
proving that the grant was meant for us (``release.verify_grant``), erasing keys from memory.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cloister.crypto.sign import Statement
from cloister.errors import Rejected
from cloister.lending.answers import parse_answer
from cloister.lending.lease_core import LeaseCore
from cloister.lending.lease_state import LeaseSnapshot, LeaseState, Pending, Reservation
from cloister.lending.messages import Close, Lease, LeaseRequest, Refusal
from cloister.lending.receipt_batch import sign_receipts
from cloister.lending.sub_allowance import SubAllowance
from cloister.lending.terms import LOAN_METER, Consumer, ModelDigest, ModelTerms, unserved_cap
from cloister.lending.usage_chain import MAX_UNREPORTED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from cloister.lending.conditions import Caller
    from cloister.lending.lease_clock import Passed
    from cloister.lending.terms import ConsumerId
    from cloister.lending.watch import WatchKind

__all__ = ["LeaseHolder", "LeaseSnapshot", "LeaseState", "Reservation", "parse_answer"]


class LeaseHolder(LeaseCore):
    """One enclave instance: its key, its ceilings, its deadline. Starts with ceiling zero and no time (E1).

    Raises ``Rejected`` (``wrong_instance``) for a grant to another instance.
    """

    @property
    def deadline(self) -> datetime | None:
        """When serving stops unless renewed; None before the first lease or voucher and after a clock step."""
        return max(filter(None, (self._clock.deadline, self.offline.deadline)), default=None)

    def remaining(self, model_name: str, consumer: Caller = None) -> int:
        """Return what is left for this model and consumer as far as known: leased here, and not leased yet.

        What other instances hold is not in it. For display; ``reserve`` decides.
        """
        return self.remaining_of(self._model(model_name), consumer)

    def remaining_of(self, model: ModelTerms, consumer: Caller) -> int:
        """Return the same for a model whose terms are at hand."""
        balances = self._lease.balances if self._lease else {}
        meters = self.meters_of(model, consumer)
        if model.ticketed:  # a ticket takes from the balance alone
            room = min([balances.get(meter, 0) for meter in meters])
        else:
            room = min([self._meters.room(meter) + balances.get(meter, 0) for meter in meters])
        return self.conditions.room(consumer, room, self._clock.passed)

    def snapshot(self) -> LeaseSnapshot:
        """Return what there is to show."""
        return LeaseSnapshot(
            instance=self.instance,
            state=self.state,
            epoch=self._epoch,
            seq=self._seq,
            limits=self._meters.limits,
            used=self._meters.used,
            reserved=self._meters.reserved,
            balances=dict(self._lease.balances) if self._lease else {},
            deadline=self.deadline,
            served=self._usage.index,
            unreported=self._usage.unreported,
            chain_head=self._usage.head,
            block_version=self._block_version,
        )

    def must_end(self, now: datetime) -> bool:
        """Tell whether the model must be unloaded now: revoked, closed, or too long without a word (E9)."""
        moment = self.observe(now)
        return self._final is not None or self.offline.is_over(moment, lease_over=self._clock.over(moment))

    def next_renewal(self, now: datetime, jitter: float) -> datetime:
        """Return when to call ``request`` next; ``jitter`` is a fresh random number of 0 to 1.

        T/3 after the last success, then every T/10; at once (but no closer than T/10) when units run
        low, so that a top-up arrives quickly. A time in the past means now.
        """
        moment = self.observe(now)
        return self._clock.due(moment, ttl=self._ttl(), hurry=self._runs_low(), jitter=jitter)

    def void(self, now: datetime) -> None:
        """Void the lease because time took an unexplained step (E7): the count stays, the time is gone.

        For a shell that compares clocks (``clock.ClockGuard``); a step back is noticed here anyway.
        """
        self._clock.void(now)
        self.offline.void(now)

    def request(self, now: datetime, nonce: bytes) -> bytes:
        """Return the signed lease request to send; the same bytes while one is unanswered (E2).

        ``nonce`` is 16 fresh random bytes. The lease that answers runs from the first sending (rule two).
        """
        moment = self.observe(now)
        key = self.signing_key()
        self._clock.sent(moment, first=self._pending is None, ttl=self._ttl())
        if self._pending is None:
            self._seq += 1
            message = self._lease_request(nonce)
            payload = message.dump()
            statement = Statement.sign(key, LeaseRequest.LABEL, payload).dump()
            digest = hashlib.sha256(payload).digest()
            self._pending = Pending(statement=statement, digest=digest, served=self._usage.index, alarms=message.alarms)
        return self._pending.statement

    def receive(self, statement: bytes, now: datetime) -> Lease | Refusal:
        """Take the custodian's answer to the pending request (E3, E8).

        Raises ``Malformed`` and ``Rejected`` (``signature_invalid``, ``unknown_key``, ``wrong_statement``,
        ``wrong_instance``, ``not_pending``, ``stale_epoch``, ``stale_block_version``); then nothing changed.
        """
        self.observe(now)
        answer = parse_answer(statement, self.custodian)
        self._demand_fitting(answer)
        if isinstance(answer, Lease):
            self._clock.extend(answer.ttl)
            self._lease = answer
            self.take_word(answer)
            if self._clock.renewed_at is not None:
                self.offline.heard(self._clock.renewed_at)
        else:
            self._clock.wait(answer.retry_after)
            self.take_refusal(answer)
        if self._pending is not None:
            self.conditions.told(self._pending.alarms)
        self._pending = None
        return answer

    def close(self, now: datetime) -> bytes:
        """Return the signed last count and stop for good; what was reserved counts as used.

        The caller erases keys and model before it sends this. Again: the same bytes.
        """
        moment = self.observe(now)
        if self._key is not None:
            for reservation in tuple(self._open.values()):
                if self.tickets.is_charged(reservation):
                    self._usage.unreceipted(reservation, units=reservation.units, now=moment)
                self._release(reservation, used=reservation.units)
            self._usage.seal(self._key, upto=self._pending.served if self._pending else 0)
            self._seq += 1
            message = Close(
                instance=self.instance,
                epoch=self._epoch,
                seq=self._seq,
                used=self._meters.used,
                served=self._usage.index,
                chain_head=self._usage.head,
            )
            self._closing = Statement.sign(self._key, Close.LABEL, message.dump()).dump()
            self._final, self._key, self._pending = LeaseState.CLOSED, None, None
        return self._closing

    def reserve(
        self,
        model_name: str,
        who: bytes | SubAllowance | ConsumerId | None,
        units: int,
        now: datetime,
        *,
        version: ModelDigest | None = None,
    ) -> Reservation:
        """Set ``units``, the worst case, aside for one inference (E4), or raise ``Rejected``.

        Codes: ``unauthorized``, ``unknown_model``, ``blocked``, ``lease_expired``, ``clock_step``,
        ``allowance_exhausted``, ``usage_unreported``, and those of ``conditions``. ``who`` asks: the consumer's bearer
        token, its id where it was proven by another's word, or the sub-allowance that ``conditions.admit`` returned;
        ``version`` is what will answer, where it may be the one before the newest.
        """
        moment = self.observe(now)
        consumer = self._caller(who)
        model = self._model(model_name, version)
        self._demand_live(model, consumer)
        self._usage.demand_room(len(self._open))
        meters = () if model.ticketed else self.meters_of(model, consumer)
        self._meters.overdraw(self.offline.tops)
        self._meters.reserve(meters, units)
        try:
            mark = self.conditions.reserve(consumer, units, moment, self._passed())
        except Rejected:
            self._meters.settle(meters, reserved=units, used=0)
            raise
        self._reservations += 1
        reservation = Reservation(
            number=self._reservations, model=model, consumer=consumer, units=units, meters=meters, mark=mark
        )
        self._open[reservation.number] = reservation
        return reservation

    def permit(self, reservation: Reservation, produced_units: int, now: datetime) -> None:
        """Allow one chunk, the first and the last too, to leave now (E5).

        ``produced_units`` is what this inference has come to with that chunk. Raises ``Rejected``:
        ``lease_expired``, ``clock_step``, ``blocked``; ``allowance_exhausted`` beyond the reservation.
        """
        self.observe(now)
        self._demand_permitted(reservation, produced_units)

    def _demand_permitted(self, reservation: Reservation, produced_units: int) -> None:
        self._demand_live(reservation.model, reservation.consumer)
        self.demand_open(reservation)
        self.tickets.demand_begun(reservation)
        if produced_units > reservation.units:
            want = f"at most {reservation.units}"
            raise Rejected.because("allowance_exhausted", "reservation", got=str(produced_units), want=want)

    def settle(
        self,
        reservation: Reservation,
        units: int,
        request_commitment: bytes,
        response_commitment: bytes,
        now: datetime,
    ) -> bytes:
        """Replace the reservation by what was produced and return the signed receipt (E6). Raises as ``charge``."""
        payload = self.charge(reservation, units, request_commitment, response_commitment, now)
        return self.sign_receipts((payload,))[0]

    def charge(
        self,
        reservation: Reservation,
        units: int,
        request_commitment: bytes,
        response_commitment: bytes,
        now: datetime,
    ) -> bytes:
        """Replace the reservation by what was produced and return the receipt, for ``sign_receipts`` (E6).

        Charges first. Without a live lease it then raises as ``permit`` does: the last chunk must not
        leave, and an answer without it is void to its consumer; its usage record says so.
        """
        if self._final is LeaseState.CLOSED:
            self._refuse("lease_expired")
        self.demand_open(reservation)
        self.tickets.demand_begun(reservation, request_commitment)
        self._release(reservation, used=units)
        moment = self.observe(now)
        try:
            self._demand_live(reservation.model, reservation.consumer)
            self.signing_key()
        except Rejected:
            self._usage.unreceipted(reservation, units=units, now=moment)
            raise
        commitments = (request_commitment, response_commitment)
        return self._usage.receipt(reservation, units, commitments, policy_digest=self._policy_digest, now=moment)

    def permit_and_charge(
        self,
        reservation: Reservation,
        units: int,
        request_commitment: bytes,
        response_commitment: bytes,
        now: datetime,
    ) -> bytes:
        """Do as ``permit`` and then as ``charge`` at one time, for an answer that leaves whole; return the receipt.

        What may not leave is given back, and raises as ``permit``. Between the two nothing can change, so that what was
        proven is proven once.
        """
        moment = self.observe(now)
        try:
            self._demand_permitted(reservation, units)
        except Rejected:
            self.refund(reservation)
            raise
        self.tickets.demand_begun(reservation, request_commitment)
        self._release(reservation, used=units)
        commitments = (request_commitment, response_commitment)
        return self._usage.receipt(reservation, units, commitments, policy_digest=self._policy_digest, now=moment)

    def sign_receipts(self, payloads: Sequence[bytes]) -> tuple[bytes, ...]:
        """Return what ``charge`` gave as signed receipts. Raises ``Rejected`` once this instance has ended."""
        return sign_receipts(self.signing_key(), payloads)

    def report(self) -> bytes | None:
        """Return the usage report to send before the pending request or the close, None where none is due.

        The same bytes until they are acknowledged. Call ``request`` first: what it says is served is reported. While
        nothing is pending only whole reports are due (U2a): a busy instance need not wait for its next renewal.
        """
        return self._usage.report(self._key, upto=self._reportable())

    def reports_due(self) -> int:
        """Return how many reports ``report`` will give, one after the other."""
        return self._usage.due(self._reportable())

    def _reportable(self) -> int:
        """Return the index that a report may reach to (U2)."""
        return self._pending.served if self._pending else self._usage.full

    def usage_files(self) -> tuple[tuple[int, bytes], ...]:
        """Return every report that is not acknowledged, with its first index; first, while there is a key, the rest."""
        self.cut_report()
        return self._usage.files()

    def usage_filed(self, upto: int) -> None:
        """Note that those files were written, up to the report that begins at index ``upto``.

        Their records hold up no inference any more.
        """
        self._usage.filed(upto)

    def acknowledge(self, statement: bytes) -> None:
        """Take the custodian's acknowledgement of that report. Raises as ``UsageChain.acknowledge``."""
        self._usage.acknowledge(statement, self.custodian)

    def refund(self, reservation: Reservation) -> None:
        """Give a reservation back whole: the engine failed and no chunk has left.

        After ``close`` it changes nothing: what ran then was counted as used.
        """
        if self._final is LeaseState.CLOSED:
            return
        self.demand_open(reservation)
        self._release(reservation, used=0)

    def _demand_fitting(self, answer: Lease | Refusal) -> None:
        self.prove(answer, "lease", self._pending.digest if self._pending else None)

    def _lease_request(self, nonce: bytes) -> LeaseRequest:
        return LeaseRequest(
            instance=self.instance,
            epoch=self._epoch,
            seq=self._seq,
            req_nonce=nonce,
            used=self._meters.used,
            reserved=self._meters.reserved,
            want=self.wanted(unserved_cap(self._terms)),
            served=self._usage.index,
            chain_head=self._usage.head,
            alarms=self.conditions.alarms,
        )

    def alarm(self, consumer: Caller, kind: WatchKind) -> None:
        """Count an alarm about a consumer, as ``Conditions.alarm``; the next request tells how many there were."""
        self.conditions.alarm(consumer, kind, self._clock.passed)

    def _caller(self, who: bytes | SubAllowance | ConsumerId | None) -> Caller:
        if isinstance(who, SubAllowance):
            return who
        return self.named(who) if isinstance(who, str) else self.consumer(who)

    def consumer(self, token: bytes | None) -> Consumer | None:
        """Return whose token this is: of the lease, or of the grant and blocked since; None in a loan for anybody.

        A token that the lease has replaced is nobody's. Raises ``Rejected`` (``unauthorized``).
        """
        return self._known.find(token)

    def _model(self, name: str, version: ModelDigest | None = None) -> ModelTerms:
        model = self._terms.model(name)
        if model is not None and version is not None:
            model = model.at(version)
        if model is None:
            raise Rejected.because("unknown_model", name[:80])
        return model

    def _release(self, reservation: Reservation, *, used: int) -> None:
        self._meters.settle(reservation.meters, reserved=reservation.units, used=used)
        self.conditions.settle(reservation.consumer, reserved=reservation.units, used=used, mark=reservation.mark)
        self.tickets.forget(reservation)
        del self._open[reservation.number]

    def _passed(self) -> Passed:
        """Return the time that was seen to pass; there is some wherever a lease is live."""
        passed = self._clock.passed
        if passed is None:
            self._refuse("lease_expired")
        return passed

    def _ttl(self) -> timedelta:
        return self._lease.ttl if self._lease else self._terms.ttl

    def _runs_low(self) -> bool:
        if self._lease is None or 2 * self._usage.unreported > MAX_UNREPORTED:
            return True
        if not self.wanted(0):
            return False  # every model takes tickets: no lease brings units
        room = self._meters.room(LOAN_METER)
        cap = self._lease.unserved or unserved_cap(self._terms)
        return room <= 0 or (2 * room < cap and self._lease.balances.get(LOAN_METER, 0) > 0)
