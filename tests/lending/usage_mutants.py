"""Deliberate mistakes in the accounting of usage, and the attacks in which the invariants see them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from custodian_fake import Db, MemoryCustodian
from mutants import broken
from world import World, terms

from cloister.lending.lease import LeaseHolder
from cloister.lending.lease_grant import LeaseDecision, Replay, decide_lease
from cloister.lending.usage_chain import UsageChain
from cloister.lending.usage_report import Reported

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from cloister.crypto.sign import SigningKey, VerifyKey
    from cloister.lending.lease_state import Reservation
    from cloister.lending.messages import Grant, LeaseRequest, UsageRecord
    from cloister.lending.state import InstanceState, LoanState


class SilentChain(UsageChain):
    """Units that were charged without a receipt leave no record."""

    def unreceipted(self, reservation: Reservation, *, units: int, now: datetime) -> None:
        """Write nothing."""


class ReachingChain(UsageChain):
    """Reports take whatever is there, over the index of a request that waits."""

    def report(self, key: SigningKey | None, *, upto: int) -> bytes | None:
        return super().report(key, upto=max(upto, self.index))

    def seal(self, key: SigningKey, *, upto: int) -> None:
        super().seal(key, upto=max(upto, self.index))


class OtherContentChain(UsageChain):
    """What links a record to its receipt is of another receipt."""

    def _append(self, record: UsageRecord) -> None:
        super()._append(replace(record, content=record.content and bytes(32)))


class _Holder(LeaseHolder):
    chain: type[UsageChain]

    def __init__(self, *, key: SigningKey, grant: Grant, custodian: VerifyKey) -> None:
        super().__init__(key=key, grant=grant, custodian=custodian)
        self._usage = self.chain(instance=self.instance, loan=grant.terms.loan)


class SilentHolder(_Holder):
    """An enclave with this mistake."""

    chain = SilentChain


class ReachingHolder(_Holder):
    """An enclave with this mistake."""

    chain = ReachingChain


class OtherContentHolder(_Holder):
    """An enclave with this mistake."""

    chain = OtherContentChain


class GrantsUnreported(MemoryCustodian):
    """A lease is given whatever was reported."""

    def decide(
        self, request: LeaseRequest, digest: bytes, instance: InstanceState, loan: LoanState, db: Db
    ) -> LeaseDecision | Replay:
        return decide_lease(
            request,
            digest,
            instance=instance,
            loan=loan,
            reported=Reported(index=request.served + 1, asked=request.chain_head),
            epoch=db.epoch,
            now=db.latest,
            quiet_until=db.quiet_until,
        )


def answer_cut_after_charging(world: type[World]) -> None:
    w = world((terms(cap=4), 9))
    enclave = w.launch()
    assert enclave
    w.renew(enclave)
    w.serve(enclave)
    stream = w.begin(enclave, 2)
    assert stream
    w.chunk(enclave, stream)
    w.advance(60.5)
    w.finish(enclave, stream)
    w.renew(enclave)
    w.close(enclave)


def closed_while_running(world: type[World]) -> None:
    w = world((terms(cap=4), 9))
    enclave = w.launch()
    assert enclave
    w.renew(enclave)
    assert w.begin(enclave, 2)
    w.close(enclave)


def request_held_back_behind_the_reports(world: type[World]) -> None:
    w = world((terms(cap=4), 9))
    enclave = w.launch()
    assert enclave
    w.renew(enclave)
    w.serve(enclave)
    sent = w.send(enclave, reports=False)
    assert sent is not None
    w.serve(enclave)
    enclave.holder.close(enclave.time(w.now))
    w.report(enclave)
    w.carry(sent)


def reports_lost(world: type[World]) -> None:
    w = world((terms(cap=4), 9))
    enclave = w.launch()
    assert enclave
    w.renew(enclave)
    for _ in range(3):
        w.serve(enclave)
        sent = w.send(enclave, reports=False)
        assert sent is not None
        answer = w.carry(sent)
        assert answer is not None
        w.deliver(answer, enclave)
        w.advance(2)
    w.renew(enclave)
    assert enclave.holder.snapshot().unreported == 0


USAGE_SCENARIOS: tuple[Callable[[type[World]], None], ...] = (
    answer_cut_after_charging,
    closed_while_running,
    request_held_back_behind_the_reports,
    reports_lost,
)

USAGE_MUTANTS: dict[str, tuple[type[World], str]] = {
    "charged without a record": (broken("SilentWorld", holder=SilentHolder), "I8"),
    "reports over a waiting request": (broken("ReachingWorld", holder=ReachingHolder), "I8"),
    "record of another receipt": (broken("OtherContentWorld", holder=OtherContentHolder), "I9"),
    "lease without the reports": (broken("UnreportedWorld", custodian=GrantsUnreported), "I9"),
}
