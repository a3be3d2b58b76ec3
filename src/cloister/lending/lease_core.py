"""What every part of a ``LeaseHolder`` stands on: its key, counters, clocks and the custodian's latest word.

The ``Owner`` that ``OfflineHolder`` and ``TicketHolder`` see (``holding``); ``lease`` adds requests, reservations
and receipts. Memory only, as all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from cloister.errors import Rejected, UsageError
from cloister.lending.answers import demand_fitting
from cloister.lending.conditions import Conditions
from cloister.lending.holding import Counters
from cloister.lending.introduction import ask_issuers
from cloister.lending.lease_clock import LeaseClock
from cloister.lending.lease_state import LeaseState, Pending, Reservation
from cloister.lending.listing import Listing
from cloister.lending.meters import Meters
from cloister.lending.terms import MAX_UNITS, Consumer, ModelTerms, Terms, instance_id, leased_meters, meters_of
from cloister.lending.ticket import TicketHolder
from cloister.lending.usage_chain import UsageChain
from cloister.lending.voucher import OfflineHolder

if TYPE_CHECKING:
    from datetime import datetime

    from cloister.crypto.sign import SigningKey, VerifyKey
    from cloister.lending.answers import Answer
    from cloister.lending.conditions import Caller
    from cloister.lending.introduction import IssuersAsked
    from cloister.lending.messages import Grant, Lease, Refusal, Units, Voucher
    from cloister.lending.terms import ConsumerId, Meter

__all__ = ["LeaseCore", "listed"]


class LeaseCore:
    """One enclave instance: its key, its ceilings, its deadline. Raises as ``LeaseHolder``."""

    def __init__(self, *, key: SigningKey, grant: Grant, custodian: VerifyKey) -> None:
        self.instance = instance_id(key.verify_key.raw)
        if grant.instance != self.instance:
            raise Rejected.because("wrong_instance", "grant", got=grant.instance, want=self.instance)
        self._key: SigningKey | None = key
        self.custodian = custodian
        self._terms = grant.terms
        self._epoch = grant.epoch
        self._block_version = grant.block_version
        self._policy_digest = grant.policy_digest
        self._clock = LeaseClock()
        self._meters = Meters()
        self.conditions = Conditions(grant.terms, self.instance)
        self.offline = OfflineHolder(self, grant.terms)
        self.tickets = TicketHolder(self)
        self._known = Listing(grant.terms.consumers, grant.terms.consumers)
        self._lease: Lease | None = None
        self._word: Lease | Voucher | None = None  # the latest to name models and consumers
        self._pending: Pending | None = None
        self._final: LeaseState | None = None
        self._closing = b""
        self._seq = 0
        self._reservations = 0
        self._usage = UsageChain(instance=self.instance, loan=grant.terms.loan)
        self._open: dict[int, Reservation] = {}
        self._meters_found: dict[tuple[str, ConsumerId | None], tuple[Meter, ...]] = {}

    @property
    def state(self) -> LeaseState:
        """The state at the latest time that was seen."""
        if self._final is not None:
            return self._final
        if self._word is None:
            return LeaseState.STARTING
        return LeaseState.ACTIVE if self._clock.live or self.offline.live else LeaseState.EXPIRED

    def demand_live(self, model: ModelTerms, consumer: Caller, now: datetime) -> None:
        """Prove that bytes may leave now for this model and consumer (E5), charging nothing.

        For what was charged before: the later chunks of an answer, and replies given again. Raises
        ``Rejected``: ``lease_expired``, ``clock_step``, ``blocked``, and as ``Conditions.demand``.
        """
        self.observe(now)
        self._demand_live(model, consumer)

    def demand_still_live(self, model: ModelTerms, consumer: Caller) -> None:
        """Prove the same at the latest time that was seen. Raises as ``demand_live``."""
        self._demand_live(model, consumer)

    def wanted(self, cap: int) -> Units:
        """Return ceilings with room for ``cap`` units each."""
        known = leased_meters(self._terms, self._consumers(), self._meters.limits)
        return {meter: min(MAX_UNITS, self._meters.spoken_for(meter) + cap) for meter in known}

    def counters(self) -> Counters:
        """Return where this instance stands."""
        return Counters(
            instance=self.instance,
            epoch=self._epoch,
            used=self._meters.used,
            reserved=self._meters.reserved,
            chain_head=self._usage.head,
            index=self._usage.index,
        )

    def cut_report(self) -> None:
        """End a usage report where the pending request stands, and one here. Nothing once the key has gone."""
        if self._key is not None:
            self._usage.seal(self._key, upto=self._pending.served if self._pending else 0)

    def reported(self, upto: int) -> None:
        """Note that the custodian has the usage reports up to this index."""
        self._usage.reported(upto)

    def take_terms(self, terms: Terms) -> None:
        """Take the terms of a later grant to this instance.

        Raises ``Rejected`` (``terms_changed``) where more differs than versions of models.
        """
        if not self._terms.differs_in_versions_only(terms):
            raise Rejected.because("terms_changed", "grant", want="other versions of the same models, and no more")
        self._terms = terms
        self._list()

    def take_word(self, word: Lease | Voucher) -> None:
        """Take ceilings, models and consumers from an answer that was proven."""
        self._meters.raise_to(word.limits)
        self._word, self._epoch, self._policy_digest = word, word.epoch, word.policy_digest
        self._block_version = word.block_version
        self._list()

    def take_refusal(self, refusal: Refusal) -> None:
        """Take a refusal that was proven: with ``stop`` it ends this instance."""
        if refusal.stop and self._final is None:
            self._final = LeaseState.REVOKED
        self._block_version = refusal.block_version

    def observe(self, now: datetime) -> datetime:
        """Show a reading to every clock and return the time to act at (E7)."""
        moment = self._clock.observe(now)
        self.offline.observe(now)
        return moment

    def _consumers(self) -> tuple[Consumer, ...] | None:
        return self._word.consumers if self._word else self._terms.consumers

    def _list(self) -> None:
        """List whom the latest word and the terms name: after each of them, and not at each inference."""
        self._meters_found = {}
        current, granted = self._consumers(), self._terms.consumers
        if not self._known.is_of(current, granted):
            self._known = Listing(current, granted)

    def _demand_live(self, model: ModelTerms, consumer: Caller) -> None:
        if self._final is not None or self._word is None or not (self._clock.live or self.offline.live):
            stopped, stepped = self._final is LeaseState.REVOKED, self._clock.stepped
            self._refuse("blocked" if stopped else "clock_step" if stepped else "lease_expired")
        if model.digest not in self._word.models:
            raise Rejected.because("blocked", f"model {model.name}")
        if consumer is not None:
            self._known.demand(listed(consumer))
        if self._clock.seen is not None:  # whatever is live has seen the time
            self.conditions.demand(model, consumer, self._clock.seen)

    def named(self, consumer: ConsumerId) -> Consumer | None:
        """Return the consumer of this name. Raises as ``Listing.named``."""
        return self._known.named(consumer)

    def meters_of(self, model: ModelTerms, consumer: Caller) -> tuple[Meter, ...]:
        """Return the meters that an inference is charged to: found once after each word."""
        asking = listed(consumer)
        key = (model.name, None if asking is None else asking.id)
        found = self._meters_found.get(key)
        if found is None:
            found = self._meters_found[key] = meters_of(model, asking, self._meters.leased)
        return found

    def issuers_request(self, nonce: bytes) -> IssuersAsked:
        """Return a request for whose word counts for consumers. Raises ``Rejected`` once this instance has ended."""
        return ask_issuers(self.signing_key(), nonce)

    @property
    def issuers(self) -> int:
        """The version of those whose word counts for consumers, by the latest lease; 0 for nobody's."""
        return self._lease.issuers if self._lease else 0

    def demand_open(self, reservation: Reservation) -> None:
        """Prove that this reservation is ours and not settled. Raises ``UsageError``."""
        if self._open.get(reservation.number) is not reservation:
            msg = "reservation: settled or refunded already, or of another instance"
            raise UsageError(msg)

    def prove(self, answer: Answer, what: str, pending: bytes | None) -> None:
        """Prove that an answer is ours, to the request with digest ``pending``, and not old."""
        demand_fitting(answer, what, self.instance, pending=pending, known=(self._epoch, self._block_version))

    def is_open(self, number: int) -> bool:
        """Tell whether this reservation is not settled yet."""
        return number in self._open

    def signing_key(self) -> SigningKey:
        """Return the instance key. Raises ``Rejected`` once the instance has ended."""
        if self._key is None or self._final is not None:
            self._refuse("blocked" if self._final is LeaseState.REVOKED else "lease_expired")
        return self._key

    def _refuse(self, code: str) -> NoReturn:
        raise Rejected.because(code, "lease", got=self.state.value, want=LeaseState.ACTIVE.value)


def listed(caller: Caller) -> Consumer | None:
    """Return the consumer of the loan that asks: one whom a sub-allowance lets in is none, and has no meter."""
    return caller if isinstance(caller, Consumer) else None
