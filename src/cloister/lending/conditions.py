"""What the contract demands of each inference and between its chunks, beyond leases and counts.

Hours, what is shown of outputs, limits of each consumer, and sub-allowances: who is let in by one, what it narrows,
what it has used, whether the borrower has called it back. Models, consumers, time of the lease and units are
``lease``'s own. Pure: the lease's time is passed in, and hours and limits are no better than that time
(docs/spec/contract.md, section 4).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, TypeAlias

from cloister.errors import Reason, Rejected
from cloister.lending.consumer_meters import ANYBODY, GUESTS, ConsumerMeters
from cloister.lending.revocation import verify_list
from cloister.lending.sub_allowance import SubAllowance, verify_chain
from cloister.lending.sub_meters import SubMeters
from cloister.lending.watch import WatchAction, WatchKind
from cloister.wire import dump_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cloister.crypto.sign import VerifyKey
    from cloister.lending.clauses import Clauses
    from cloister.lending.consumer_meters import Mark
    from cloister.lending.lease_clock import Passed
    from cloister.lending.output_rule import OutputRule
    from cloister.lending.revocation import RevocationList
    from cloister.lending.terms import Consumer, InstanceId, ModelTerms, Terms
    from cloister.lending.watch import Watch

__all__ = ["Caller", "Conditions", "account_of", "outside_hours", "person_of"]

Caller: TypeAlias = "Consumer | SubAllowance | None"
"""Who asks: a consumer of the loan, the holder of a sub-allowance, or anybody where the loan is open."""


class Conditions:
    """The conditions of one loan in one instance. Memory only: counts and revocations start empty with the instance."""

    __slots__ = ("_alarms", "_clauses", "_counts", "_instance", "_limits", "_loan", "_revoked")

    def __init__(self, terms: Terms, instance: InstanceId) -> None:
        """Take what the grant says."""
        self._clauses = terms.clauses
        self._loan = terms.loan
        self._instance = instance
        self._counts = SubMeters()
        self._limits = ConsumerMeters(terms.clauses.consumer_limits, max_instances=terms.max_instances)
        self._revoked: RevocationList | None = None
        self._alarms: Counter[WatchKind] = Counter()

    def admit(self, chain: bytes, token: bytes | None, now: datetime) -> SubAllowance:
        """Return the sub-allowance that ``chain`` is, presented by its holder's ``token``.

        Raises ``Malformed``, ``Rejected`` (``sub_allowances_off``, ``sub_allowance_invalid``,
        ``sub_allowance_revoked``, ``sub_allowance_expired``, ``revocations_missing``).
        """
        sub = verify_chain(chain, token, borrower=self._borrower(), loan=self._loan)
        self._demand_told(now)
        self._demand_kept(sub)
        sub.demand_in_time(now)
        return sub

    def revoke(self, statement: bytes) -> RevocationList:
        """Take the borrower's next revocation list, for good: from now on it holds, also for streams under way.

        Raises ``Malformed``, ``Rejected`` (``sub_allowances_off``, and as ``verify_list`` and ``demand_after``).
        """
        found = verify_list(statement, borrower=self._borrower(), loan=self._loan)
        if self._revoked is not None:
            found.demand_after(self._revoked)
        self._revoked = found
        return found

    def _borrower(self) -> VerifyKey:
        """Return the key that signs sub-allowances and their revocation."""
        if not self._clauses.sub_allowances or self._clauses.borrower is None:
            raise Rejected.because("sub_allowances_off", "loan", hint="its contract admits the consumers it lists")
        return self._clauses.borrower

    def _demand_kept(self, sub: SubAllowance) -> None:
        """Prove that the borrower has called back no block of it, as far as this instance was told."""
        if self._revoked is not None and not self._revoked.blocks.isdisjoint(sub.ids):
            raise Rejected.because("sub_allowance_revoked", "sub-allowance")

    def _demand_told(self, now: datetime) -> None:
        """Prove that a list is here and in time, where the contract lets nobody in without one."""
        if self._clauses.revocations and (self._revoked is None or not self._revoked.in_time(now)):
            got = "none" if self._revoked is None else f"due {dump_time(self._revoked.not_after)}"
            raise Rejected.because("revocations_missing", "revocations", got=got, want="a list in time")

    def demand(self, model: ModelTerms, caller: Caller, now: datetime) -> None:
        """Prove that contract and sub-allowance admit this model now; for the start and for every chunk.

        Raises ``Rejected``: ``outside_hours``, ``consumer_stopped``, ``sub_allowance_scope``,
        ``sub_allowance_expired``, ``sub_allowance_revoked``, ``revocations_missing``.
        """
        closed = None if self._clauses.hours is None else outside_hours(self._clauses, now)
        if closed is not None:
            raise Rejected(str(closed), reasons=(closed,), hint="the contract says when")
        if not self._limits.quiet:
            self._limits.demand_admitted(account_of(caller))
        if isinstance(caller, SubAllowance):
            self._demand_told(now)
            self._demand_kept(caller)
            caller.demand(model=model.name, instance=self._instance, now=now)

    def reserve(self, caller: Caller, units: int, now: datetime, passed: Passed) -> Mark:
        """Set units aside with a sub-allowance and with the consumer's limits; return where these counted them.

        ``passed`` is the time that was seen to pass. Raises ``Rejected`` as ``ConsumerMeters.demand`` and
        ``SubMeters.reserve``; then nothing is counted.
        """
        if self._limits.quiet:
            if isinstance(caller, SubAllowance):
                self._counts.reserve(caller, units, now)
            return ()
        account = account_of(caller)
        self._limits.demand(account, units, passed)
        if isinstance(caller, SubAllowance):
            self._counts.reserve(caller, units, now)
        return self._limits.count(account, units, passed)

    def settle(self, caller: Caller, *, reserved: int, used: int, mark: Mark = ()) -> None:
        """Replace what was set aside by what it came to."""
        if used < reserved:
            self._limits.give_back(account_of(caller), reserved - used, mark)
        if isinstance(caller, SubAllowance):
            self._counts.settle(caller, reserved=reserved, used=used)

    def room(self, caller: Caller, room: int, passed: Passed | None = None) -> int:
        """Return how much of ``room`` a sub-allowance and the consumer's budgets leave."""
        if isinstance(caller, SubAllowance):
            left = self._counts.room(caller)
            room = room if left is None else min(room, left)
        budgets = None if passed is None or self._limits.quiet else self._limits.room(account_of(caller), passed)
        return max(0, room if budgets is None else min(room, budgets))

    def precision(self, caller: Caller) -> int | None:
        """Return to how many decimal places floating outputs are rounded, None for not at all."""
        own = caller.precision if isinstance(caller, SubAllowance) else None
        agreed = self._clauses.precision
        return agreed if own is None else own if agreed is None else min(agreed, own)

    def outputs(self, model: ModelTerms) -> tuple[OutputRule, ...]:
        """Return what is held back of a model's outputs, whoever asks."""
        return tuple(rule for rule in self._clauses.outputs if rule.model == model.name)

    @property
    def watches(self) -> tuple[Watch, ...]:
        """What is watched for in how each consumer asks."""
        return self._clauses.watches

    def alarm(self, caller: Caller, kind: WatchKind, passed: Passed | None) -> None:
        """Count one alarm, and do to its consumer what the contract says."""
        self._alarms[kind] += 1
        action = next((watch.action for watch in self._clauses.watches if watch.kind is kind), WatchAction.NOTE)
        if action is WatchAction.STOP:
            self._limits.stop(account_of(caller))
        elif action is WatchAction.SLOW and passed is not None:
            self._limits.slow(account_of(caller), passed)

    @property
    def alarms(self) -> dict[WatchKind, int]:
        """The alarms that the custodian was not told of yet."""
        return {kind: count for kind, count in self._alarms.items() if count}

    def told(self, alarms: Mapping[WatchKind, int]) -> None:
        """Note that the custodian was told of these."""
        self._alarms.subtract(alarms)


def account_of(caller: Caller) -> str:
    """Return the name under which a caller is counted and watched."""
    if caller is None:
        return ANYBODY
    return GUESTS if isinstance(caller, SubAllowance) else caller.id


def person_of(caller: Caller) -> str:
    """Return a name for a caller that no other caller has: guests are counted as one, and are not one person."""
    return f"sub {caller.id}" if isinstance(caller, SubAllowance) else account_of(caller)


def outside_hours(clauses: Clauses, now: datetime) -> Reason | None:
    """Return why the loan may not be used at ``now``, None where it may: the enclave's word and the custodian's."""
    return None if clauses.open_at(now) else Reason(code="outside_hours", subject="contract", got=dump_time(now))
