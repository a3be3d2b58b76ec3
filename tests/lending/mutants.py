"""The deliberate mistakes: small wrong versions of one rule each, to prove that the invariants see them.

``M1`` to ``M13`` are the mistakes of 30-metering and of the threat list (T31-T52); the rest are more
of the same kind. Each is a ``World`` that composes a broken custodian or a broken enclave out of the
real one; no product code knows of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from custodian_fake import Db, MemoryCustodian
from world import Enclave, World

from cloister.errors import Rejected
from cloister.lending.clock import SLACK
from cloister.lending.ending import decide_close, decide_write_off
from cloister.lending.lease import LeaseHolder, Reservation
from cloister.lending.lease_grant import LeaseDecision, Replay, decide_lease
from cloister.lending.ledger import ALLOWANCE, Posting
from cloister.lending.messages import Close, Lease, LeaseRequest, Refusal
from cloister.lending.meters import Meters
from cloister.lending.state import InstanceState, InstanceStatus, LoanState
from cloister.lending.terms import LOAN_METER, Meter, ModelTerms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from cloister.crypto.sign import VerifyKey
    from cloister.lending.conditions import Caller
    from cloister.lending.messages import Grant
    from cloister.lending.terms import Consumer


class TimeFromReceipt(LeaseHolder):
    """M1: the lease runs from when the answer came."""

    def receive(self, statement: bytes, now: datetime) -> Lease | Refusal:
        answer = super().receive(statement, now)
        if isinstance(answer, Lease):
            self._clock.deadline = self._clock.observe(now) + answer.ttl
        return answer


class DiskWorld(World):
    """M2: key, counter and lease are on the borrower's disk, and come back from it."""

    _disk: Enclave | None = None

    def save_disk(self, enclave: Enclave) -> None:
        self._disk = enclave.fork()

    def relaunch(self, enclave: Enclave) -> Enclave | None:
        if self._disk is None:
            return super().relaunch(enclave)
        self.kill(enclave)
        again = self._disk.fork()
        self.enclaves.append(again)
        self.verify()
        return again


class BearerLease(LeaseHolder):
    """M3: whoever holds a lease may serve under it."""

    def _demand_fitting(self, answer: Lease | Refusal) -> None:
        """Accept it whoever it is for."""


class DebitOnReport(MemoryCustodian):
    """M4: the allowance is debited when use is reported, not when the ceiling is raised."""

    def decide(
        self, request: LeaseRequest, digest: bytes, instance: InstanceState, loan: LoanState, db: Db
    ) -> LeaseDecision | Replay:
        decision = super().decide(request, digest, instance, loan, db)
        if isinstance(decision, Replay):
            return decision
        used = {meter: units - instance.used.get(meter, 0) for meter, units in decision.instance.used.items()}
        spent = tuple(item for item in decision.postings if item.debit_account != ALLOWANCE)
        moved = tuple(replace(item, debit_account=ALLOWANCE) for item in spent)
        return replace(decision, debits={meter: units for meter, units in used.items() if units}, postings=moved)


class GrantedAgain(MemoryCustodian):
    """M5: a retried request is granted a second time."""

    def decide(
        self, request: LeaseRequest, digest: bytes, instance: InstanceState, loan: LoanState, db: Db
    ) -> LeaseDecision | Replay:
        if request.seq != instance.seq:
            return super().decide(request, digest, instance, loan, db)
        instance = replace(instance, seq=instance.seq - 1)
        more = replace(request, want={meter: units + 1 for meter, units in instance.limits.items()})
        roomy = replace(loan, terms=replace(loan.terms, max_ceiling=1000))
        return super().decide(more, digest, instance, roomy, db)


class RefundOnClose(MemoryCustodian):
    """M6: a closing instance gets its rest back, though its memory can be copied."""

    def take_close(self, close: Close, db: Db) -> None:
        instance = replace(db.instances[close.instance], clone_proof=True)
        loan = replace(db.loans[instance.loan], refund_on_close=True)
        decision = decide_close(
            close,
            instance=instance,
            loan=loan,
            reported=db.reported(instance.id, close.served),
            now=db.latest,
        )
        if decision is not None:
            db.instances[instance.id] = decision.instance
            db.credit(instance.loan, dict(decision.credits))
            db.post(*decision.postings)
            db.record(*decision.events)


class RefundOfTheDead(MemoryCustodian):
    """M7: what a dead instance did not serve is used again, though its clock may stand still."""

    def write_off(self, instance: InstanceState, db: Db, now: datetime) -> InstanceState | None:
        decision = decide_write_off(instance, now=now)
        if decision is None:
            return None
        back = tuple(replace(item, credit_account=ALLOWANCE) for item in decision.postings)
        db.credit(instance.loan, {item.meter: item.units for item in back})
        db.post(*back)
        db.record(*decision.events)
        return decision.instance


class LooseMeters(Meters):
    """Looks for room, sets nothing aside."""

    def reserve(self, meters: Iterable[Meter], units: int) -> None:
        wanted = tuple(meters)
        super().reserve(wanted, units)
        super().settle(wanted, reserved=units, used=0)

    def settle(self, meters: Iterable[Meter], *, reserved: int, used: int) -> None:
        for meter in meters:
            self._used[meter] = self._used.get(meter, 0) + min(used, reserved)


class ServeThenCount(LeaseHolder):
    """M8: units are counted when the answer is done."""

    def __init__(self, *, key: object, grant: Grant, custodian: VerifyKey) -> None:
        super().__init__(key=key, grant=grant, custodian=custodian)  # type: ignore[arg-type]  # passed through
        self._meters = LooseMeters()


class NoSeqCheck(MemoryCustodian):
    """M9: any number is taken for the next one."""

    def decide(
        self, request: LeaseRequest, digest: bytes, instance: InstanceState, loan: LoanState, db: Db
    ) -> LeaseDecision | Replay:
        if request.seq != instance.seq:
            instance = replace(instance, seq=request.seq - 1)
        return super().decide(request, digest, instance, loan, db)


class AddingMeters(Meters):
    """Adds what it is told instead of raising to it."""

    def raise_to(self, limits: Mapping[Meter, int]) -> None:
        super().raise_to({meter: self._limits.get(meter, 0) + units for meter, units in limits.items()})


class DeltaHolder(LeaseHolder):
    """M10, the enclave: a lease says how many more, and every delivery counts."""

    def __init__(self, *, key: object, grant: Grant, custodian: VerifyKey) -> None:
        super().__init__(key=key, grant=grant, custodian=custodian)  # type: ignore[arg-type]  # passed through
        self._meters = AddingMeters()

    def _demand_fitting(self, answer: Lease | Refusal) -> None:
        if answer.instance != self.instance:
            super()._demand_fitting(answer)


class DeltaCustodian(MemoryCustodian):
    """M10, the custodian: it sends the difference."""

    def decide(
        self, request: LeaseRequest, digest: bytes, instance: InstanceState, loan: LoanState, db: Db
    ) -> LeaseDecision | Replay:
        decision = super().decide(request, digest, instance, loan, db)
        if isinstance(decision, Replay) or isinstance(decision.reply, Refusal):
            return decision
        return replace(decision, reply=replace(decision.reply, limits=dict(decision.debits)))


class NoCheckpoint(MemoryCustodian):
    """M11: an older database is not noticed."""

    def start(self) -> None:
        self.held_epoch = self.db.epoch
        self.running = True


class ReplyNotStored(MemoryCustodian):
    """M12: a retry is answered anew, from what the database says now."""

    def decide(
        self, request: LeaseRequest, digest: bytes, instance: InstanceState, loan: LoanState, db: Db
    ) -> LeaseDecision | Replay:
        if digest == instance.req_digest:
            instance = replace(instance, seq=instance.seq - 1)
        return super().decide(request, digest, instance, loan, db)


class OldBlockVersion(LeaseHolder):
    """M13: a lease that knows less about blocks than we do is taken."""

    def _demand_fitting(self, answer: Lease | Refusal) -> None:
        super()._demand_fitting(replace(answer, block_version=self._block_version))


class NoEpochFence(MemoryCustodian):
    """An instance of the lost past goes on after a recovery."""

    def decide(
        self, request: LeaseRequest, digest: bytes, instance: InstanceState, loan: LoanState, db: Db
    ) -> LeaseDecision | Replay:
        revived = replace(instance, status=InstanceStatus.ACTIVE, epoch=db.epoch, dead_at=db.latest + SLACK)
        return super().decide(replace(request, epoch=db.epoch), digest, revived, loan, db)


class NoLostUnits(MemoryCustodian):
    """A recovery that forgets what was leased in the lost part."""

    def recover(self, now: datetime) -> None:
        balances = {loan: dict(state.balances) for loan, state in self.db.loans.items()}
        super().recover(now)
        db = self.db.copy()
        for loan, units in balances.items():
            db.change(loan, balances=units)
        db.postings = [item for item in db.postings if not _is_loss(item)]
        self.db = db
        self._keep_outside()


def _is_loss(item: Posting) -> bool:
    return item.debit_account == ALLOWANCE and not item.credit_account.startswith("escrow:")


class Grace(LeaseHolder):
    """Goes on for another T after the deadline, for the customer's sake."""

    def receive(self, statement: bytes, now: datetime) -> Lease | Refusal:
        answer = super().receive(statement, now)
        if isinstance(answer, Lease) and self._clock.deadline is not None:
            self._clock.deadline += answer.ttl
        return answer


class StreamNotChecked(LeaseHolder):
    """A stream that has begun is never stopped."""

    def permit(self, reservation: Reservation, produced_units: int, now: datetime) -> None:
        """Let it leave."""


class AnswerBeforeCommit(MemoryCustodian):
    """The answer leaves, and the commit fails."""

    def lease(self, instance_name: str, statement: bytes, now: datetime) -> bytes:
        before = self.db
        reply = super().lease(instance_name, statement, now)  # type: ignore[arg-type]  # an instance id
        self.db = before
        return reply


class NoAudit(MemoryCustodian):
    """A lease is given without a leaf in the log."""

    def decide(
        self, request: LeaseRequest, digest: bytes, instance: InstanceState, loan: LoanState, db: Db
    ) -> LeaseDecision | Replay:
        decision = super().decide(request, digest, instance, loan, db)
        return decision if isinstance(decision, Replay) else replace(decision, events=())


class NoCap(MemoryCustodian):
    """One instance may take all there is."""

    def decide(
        self, request: LeaseRequest, digest: bytes, instance: InstanceState, loan: LoanState, db: Db
    ) -> LeaseDecision | Replay:
        roomy = replace(loan, terms=replace(loan.terms, max_ceiling=1000))
        more = replace(request, want=dict.fromkeys(request.want, 1000))
        return super().decide(more, digest, instance, roomy, db)


class NoBlockCheck(MemoryCustodian):
    """Blocks are written down and not looked at."""

    def decide(
        self, request: LeaseRequest, digest: bytes, instance: InstanceState, loan: LoanState, db: Db
    ) -> LeaseDecision | Replay:
        free = replace(loan, blocked=False, blocked_models=frozenset(), blocked_consumers=frozenset())
        alive = replace(instance, status=InstanceStatus.ACTIVE)
        return decide_lease(
            request,
            digest,
            instance=alive,
            loan=free,
            reported=db.reported(instance.id, request.served),
            epoch=db.epoch,
            now=db.latest,
        )


class ModelNotChecked(LeaseHolder):
    """The lease's lists of models and consumers are shown, not obeyed."""

    def _demand_live(self, model: ModelTerms, consumer: Consumer | None) -> None:
        try:
            super()._demand_live(model, consumer)
        except Rejected as exc:
            if exc.code != "blocked":
                raise


class OneMeter(LeaseHolder):
    """Only the loan's meter is counted."""

    def meters_of(self, model: ModelTerms, consumer: Caller) -> tuple[Meter, ...]:  # noqa: ARG002 - its mistake
        return (LOAN_METER,)


class BalanceNotGuarded(MemoryCustodian):
    """A raise is not clipped to what the balance has; the row is not guarded either."""

    def decide(
        self, request: LeaseRequest, digest: bytes, instance: InstanceState, loan: LoanState, db: Db
    ) -> LeaseDecision | Replay:
        rich = replace(loan, balances=dict.fromkeys(loan.balances, 1000))
        decision = super().decide(request, digest, instance, rich, db)
        if isinstance(decision, Replay):
            return decision
        short = {meter: min(units, loan.balances[meter]) for meter, units in decision.debits.items()}
        return replace(decision, debits=short)


def broken(
    name: str, *, holder: type[LeaseHolder] = LeaseHolder, custodian: type[MemoryCustodian] = MemoryCustodian
) -> type[World]:
    """Return a world with one broken party."""
    return type(name, (World,), {"holder_type": holder, "custodian_type": custodian})


MUTANTS: dict[str, type[World]] = {
    "M1 time from receipt": broken("M1", holder=TimeFromReceipt),
    "M2 counter on disk": DiskWorld,
    "M3 bearer lease": broken("M3", holder=BearerLease),
    "M4 debit on report": broken("M4", custodian=DebitOnReport),
    "M5 retried request granted again": broken("M5", custodian=GrantedAgain),
    "M6 refund on close with a copy": broken("M6", custodian=RefundOnClose),
    "M7 limit of a dead instance used again": broken("M7", custodian=RefundOfTheDead),
    "M8 serve then count": broken("M8", holder=ServeThenCount),
    "M9 no seq check": broken("M9", custodian=NoSeqCheck),
    "M10 delta instead of ceiling": broken("M10", holder=DeltaHolder, custodian=DeltaCustodian),
    "M11 older database not noticed": broken("M11", custodian=NoCheckpoint),
    "M12 reply not stored": broken("M12", custodian=ReplyNotStored),
    "M13 older block version taken": broken("M13", holder=OldBlockVersion),
    "no epoch fence": broken("NoEpochFenceWorld", custodian=NoEpochFence),
    "lost units forgotten": broken("NoLostUnitsWorld", custodian=NoLostUnits),
    "grace after the deadline": broken("GraceWorld", holder=Grace),
    "stream not checked": broken("StreamWorld", holder=StreamNotChecked),
    "answer before commit": broken("BeforeCommitWorld", custodian=AnswerBeforeCommit),
    "no audit leaf": broken("NoAuditWorld", custodian=NoAudit),
    "no cap": broken("NoCapWorld", custodian=NoCap),
    "block not checked": broken("NoBlockWorld", custodian=NoBlockCheck),
    "model list not obeyed": broken("ModelWorld", holder=ModelNotChecked),
    "one meter": broken("OneMeterWorld", holder=OneMeter),
    "balance not guarded": broken("BalanceWorld", custodian=BalanceNotGuarded),
}

__all__ = ["MUTANTS"]
