"""A custodian in memory: one dict-of-values database, real decisions, transactions, fail-points, backups.

It does what ``custodian/service`` does and nothing more; a broken custodian of ``mutants`` overrides
one method of it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cloister.attest.rats import AttestationResult, Evidence, Nonce, TeeKind, TrustTier
from cloister.crypto.sign import SigningKey, Statement, VerifyKey
from cloister.errors import Rejected, Unavailable
from cloister.lending.audit import FIRST_PREVIOUS, Checkpoint, next_entry, verify_checkpoint
from cloister.lending.clock import custodian_time
from cloister.lending.ending import decide_close, decide_write_off, verify_close
from cloister.lending.events import Event, EventKind
from cloister.lending.lease_grant import (
    LeaseDecision,
    Replay,
    decide_lease,
    sign_decision,
    verify_epoch,
    verify_request,
)
from cloister.lending.ledger import ALLOWANCE, Posting, set_allowance, top_up
from cloister.lending.merkle import MerkleTree
from cloister.lending.messages import AttestRequest, Close, Grant, LeaseRequest
from cloister.lending.receipt import GENESIS
from cloister.lending.recovery import Position, decide_recovery, verify_position
from cloister.lending.release import BOOT_TIME, Denied, decide, register, verify_attest
from cloister.lending.state import Alarm, InstanceState, InstanceStatus, LoanState
from cloister.lending.terms import LoanId, Terms, instance_id, meters_in
from cloister.lending.usage_report import (
    Reported,
    Totals,
    decide_report,
    head_of,
    sign_ack,
    totals_of,
    verify_report,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.lending.messages import LeaseRequest
    from cloister.lending.terms import ConsumerId, InstanceId, Meter, ModelDigest

POLICY = "c" * 64
EPOCH_START = datetime(2026, 1, 1, tzinfo=UTC)


class Crash(Exception):
    """The custodian died at a fail-point; whoever waits hears nothing."""


@dataclass(frozen=True)
class Report:
    """One usage report as it is stored."""

    first: int
    last: int
    head: bytes
    totals: Totals
    statement: bytes


@dataclass
class Db:
    """What one database file holds. Values are frozen, so a shallow copy is a snapshot."""

    loans: dict[LoanId, LoanState] = field(default_factory=dict)
    instances: dict[InstanceId, InstanceState] = field(default_factory=dict)
    postings: list[Posting] = field(default_factory=list)
    reports: dict[InstanceId, tuple[Report, ...]] = field(default_factory=dict)
    lines: list[bytes] = field(default_factory=list)
    tree: MerkleTree = field(default_factory=MerkleTree)
    previous: bytes = FIRST_PREVIOUS
    epoch: int = 1
    block_version: int = 0
    latest: datetime = EPOCH_START
    quiet_until: datetime | None = None
    escrowed: int = 0

    def copy(self) -> Db:
        return replace(
            self,
            loans=dict(self.loans),
            instances=dict(self.instances),
            postings=list(self.postings),
            reports=dict(self.reports),
            lines=list(self.lines),
            tree=self.tree.copy(),
        )

    def post(self, *postings: Posting) -> None:
        self.postings += postings
        self.escrowed += sum(posting.units for posting in postings if posting.debit_account == ALLOWANCE)

    def change(self, loan: LoanId, **members: object) -> None:
        self.loans[loan] = replace(self.loans[loan], **members)  # type: ignore[arg-type]  # names are the caller's

    def credit(self, loan: LoanId, units: dict[Meter, int]) -> None:
        """Add to balances; below zero the transaction fails, as the CHECK of the real table does."""
        balances = {meter: count + units.get(meter, 0) for meter, count in self.loans[loan].balances.items()}
        if min(balances.values()) < 0:
            message = "balance below zero"
            raise Unavailable(message)
        self.change(loan, balances=balances)

    def reported(self, instance: InstanceId, served: int = -1) -> Reported:
        """Return what is known of an instance's usage, and of the head after record ``served``."""
        reports = self.reports.get(instance, ())
        totals: Counter[tuple[ModelDigest, ConsumerId | None]] = Counter()
        for report in reports:
            totals.update(report.totals)
        heads = {0: GENESIS} | {report.last: report.head for report in reports}
        last = max(heads)
        return Reported(index=last, head=heads[last], totals=totals, asked=heads.get(served))

    def record(self, *events: Event) -> None:
        for event in events:
            entry = next_entry(event, index=self.tree.size, at=self.latest, previous=self.previous)
            line = entry.dump()
            self.previous = self.tree.append(line)
            self.lines.append(line)


class MemoryCustodian:
    """The custodian's use cases over ``Db``. ``fail_at`` names the fail-point that kills it next."""

    def __init__(self, seed: int) -> None:
        self.key = SigningKey(hashlib.sha256(b"custodian%d" % seed).digest())
        self.publisher = SigningKey(hashlib.sha256(b"publisher%d" % seed).digest()).verify_key
        self.db = Db()
        self.held_epoch = 1
        self.kept: Checkpoint | None = None
        self.running = True
        self.fail_at: str | None = None
        self.boot_time = BOOT_TIME
        self.policy = POLICY
        self.longest_ttl: timedelta | None = None  # the largest of any loan, ever; the largest of its loans where None
        self.alarms: list[Alarm] = []
        self._keep_outside()

    # --- transactions ---

    @contextmanager
    def transaction(self, now: datetime) -> Iterator[Db]:
        """Run one transaction: all of it or nothing, then the checkpoint outside, then the answer."""
        self._demand_running()
        db = self.db.copy()
        verify_epoch(held=self.held_epoch, stored=db.epoch)
        db.latest = custodian_time(now, latest=db.latest)
        yield db
        self._die("before commit")
        self.db = db
        self._die("after commit")
        self._keep_outside()
        self._die("before answer")

    def _demand_running(self) -> None:
        if not self.running:
            message = "custodian is down"
            raise Unavailable(message)

    def _die(self, point: str) -> None:
        if self.fail_at == point:
            self.fail_at = None
            self.running = False
            raise Crash(point)

    def _keep_outside(self) -> None:
        db = self.db
        self.kept = Checkpoint(
            origin=self.key.verify_key,
            size=db.tree.size,
            root=db.tree.root(),
            epoch=db.epoch,
            ledger_size=len(db.postings),
            escrowed=db.escrowed,
            block_version=db.block_version,
            at=db.latest,
        )

    @property
    def outside(self) -> bytes:
        """The signed checkpoint that is kept outside the database."""
        assert self.kept is not None
        return Statement.sign(self.key, Checkpoint.LABEL, self.kept.dump()).dump()

    # --- start, backup, recover ---

    def position(self) -> Position:
        db = self.db
        return Position(
            origin=self.key.verify_key,
            epoch=db.epoch,
            ledger_size=len(db.postings),
            escrowed=db.escrowed,
            block_version=db.block_version,
        )

    def start(self) -> None:
        """Start on the database that is there. Raises ``Rejected`` for one that is older than it was (C10)."""
        outside = verify_checkpoint(self.outside, self.key.verify_key)
        verify_position(self.position(), self.db.tree, outside)
        self.held_epoch = self.db.epoch
        self.running = True

    def restore(self, backup: Db) -> None:
        """Put an older database in place, as an attacker or a hasty person does."""
        self.running = False
        self.db = backup.copy()

    def recover(self, now: datetime) -> None:
        """Come back on an older database (C11)."""
        outside = verify_checkpoint(self.outside, self.key.verify_key)
        db = self.db.copy()
        db.latest = max(now, db.latest, outside.at)
        recovery = decide_recovery(
            self.position(),
            outside,
            instances=db.instances.values(),
            balances={
                (loan, meter): units for loan, state in db.loans.items() for meter, units in state.balances.items()
            },
            longest_ttl=self.longest_ttl
            or max((state.terms.ttl for state in db.loans.values()), default=timedelta(seconds=60)),
            now=db.latest,
        )
        db.epoch, db.quiet_until, db.block_version = recovery.epoch, recovery.quiet_until, recovery.block_version
        db.instances = {item.id: item for item in recovery.instances}
        for (loan, meter), units in recovery.debits.items():
            db.credit(loan, {meter: -units})
        for loan, state in tuple(db.loans.items()):
            blocked = state.blocked or recovery.blocks_lost
            db.loans[loan] = replace(state, blocked=blocked, block_version=db.block_version)
        db.post(*recovery.postings)
        db.record(*recovery.events)
        self.db = db
        self._keep_outside()
        self.held_epoch, self.running = db.epoch, True

    # --- use cases of the lender ---

    def create_loan(self, terms: Terms, allowance: dict[Meter, int], now: datetime) -> None:
        with self.transaction(now) as db:
            loan = terms.loan
            zero = dict.fromkeys(meters_in(terms), 0)
            db.loans[loan] = LoanState(
                terms=terms,
                balances=zero,
                policy_digest=self.policy,
                block_version=db.block_version,
                countersigned=True,
            )
            for meter, units in allowance.items():
                db.post(top_up(loan, meter, balance=0, units=units))
            db.credit(loan, allowance)
            db.record(Event(kind=EventKind.LOAN_CREATED, actor="lender", subject=loan))

    def top_up(self, loan: LoanId, meter: Meter, units: int, now: datetime) -> None:
        with self.transaction(now) as db:
            db.post(top_up(loan, meter, balance=db.loans[loan].balances[meter], units=units))
            db.credit(loan, {meter: units})
            db.record(Event(kind=EventKind.ALLOWANCE_ADDED, actor="lender", subject=loan, details={"units": units}))

    def set_allowance(self, loan: LoanId, meter: Meter, units: int, now: datetime) -> int:
        """Set and return by how much the balance changed."""
        with self.transaction(now) as db:
            before = db.loans[loan].balances[meter]
            db.post(*set_allowance(loan, meter, balance=before, units=units))
            db.credit(loan, {meter: units - before})
            db.record(Event(kind=EventKind.ALLOWANCE_SET, actor="lender", subject=loan, details={"units": units}))
        return units - before

    def _block(self, db: Db, kind: EventKind, subject: str) -> None:
        db.block_version += 1
        for loan, state in tuple(db.loans.items()):
            db.loans[loan] = replace(state, block_version=db.block_version)
        db.record(Event(kind=kind, actor="lender", subject=subject, details={"block_version": db.block_version}))

    def block_loan(self, loan: LoanId, now: datetime, *, blocked: bool = True) -> None:
        with self.transaction(now) as db:
            db.change(loan, blocked=blocked)
            self._block(db, EventKind.BLOCKED if blocked else EventKind.UNBLOCKED, loan)

    def block_model(self, model: ModelDigest, now: datetime, *, blocked: bool = True) -> None:
        with self.transaction(now) as db:
            for loan, state in tuple(db.loans.items()):
                models = state.blocked_models | {model} if blocked else state.blocked_models - {model}
                db.change(loan, blocked_models=models)
            self._block(db, EventKind.BLOCKED if blocked else EventKind.UNBLOCKED, model)

    def block_consumer(self, loan: LoanId, consumer: ConsumerId, now: datetime, *, blocked: bool = True) -> None:
        with self.transaction(now) as db:
            listed = db.loans[loan].blocked_consumers
            db.change(loan, blocked_consumers=listed | {consumer} if blocked else listed - {consumer})
            self._block(db, EventKind.BLOCKED if blocked else EventKind.UNBLOCKED, consumer)

    def block_instance(self, instance: InstanceId, now: datetime) -> None:
        with self.transaction(now) as db:
            db.instances[instance] = replace(db.instances[instance], status=InstanceStatus.BLOCKED)
            self._block(db, EventKind.BLOCKED, instance)

    def sweep(self, now: datetime) -> None:
        """Write off the instances whose leases cannot be alive any more (C8)."""
        with self.transaction(now) as db:
            for instance in tuple(db.instances.values()):
                ended = self.write_off(instance, db, db.latest)
                if ended is not None:
                    db.instances[instance.id] = ended

    def write_off(self, instance: InstanceState, db: Db, now: datetime) -> InstanceState | None:
        decision = decide_write_off(instance, now=now)
        if decision is None:
            return None
        db.post(*decision.postings)
        db.record(*decision.events)
        return decision.instance

    # --- use cases of the enclave ---

    def attest(self, statement: bytes, now: datetime) -> bytes:
        """Release a key to an instance whose evidence is taken for genuine here; the keys are left out."""
        self._demand_running()
        request, digest = verify_attest(statement)
        result = AttestationResult(
            tee=request.evidence.tee,
            claims={"debug": False, "migratable": False},
            checks=(),
            bound={
                "custodian": self.key.verify_key.raw,
                "instance_pub": request.instance_pub.raw,
                "kem_pub": request.kem_pub,
                "software": request.software,
            },
            tier=TrustTier.AFFIRMING,
            policy_digest=self.policy,
            verified_at=max(now, self.db.latest),
        )
        with self.transaction(now) as db:
            loan = db.loans[request.loan]
            decision = decide(
                request,
                result,
                loan=loan,
                instances=[item for item in db.instances.values() if item.loan == request.loan],
                custodian=self.key.verify_key,
                now=db.latest,
                max_age=timedelta(seconds=60),
                quiet_until=db.quiet_until,
            )
            if isinstance(decision, Denied):
                raise Rejected("denied", reasons=decision.reasons)
            instance = register(decision, loan=loan, epoch=db.epoch, now=db.latest, boot_time=self.boot_time)
            db.instances[instance.id] = instance
            grant = Grant(
                instance=instance.id,
                request_digest=digest,
                epoch=db.epoch,
                terms=loan.terms,
                policy_digest=self.policy,
                result="an EAR stands here",
                publisher=self.publisher,
                keys=(),
                block_version=loan.block_version,
            )
            details = {"loan": instance.loan, "req_digest": digest.hex()}
            db.record(Event(kind=EventKind.KEY_RELEASED, actor="custodian", subject=instance.id, details=details))
        return Statement.sign(self.key, Grant.LABEL, grant.dump()).dump()

    def decide(
        self, request: LeaseRequest, digest: bytes, instance: InstanceState, loan: LoanState, db: Db
    ) -> LeaseDecision | Replay:
        return decide_lease(
            request,
            digest,
            instance=instance,
            loan=loan,
            reported=db.reported(instance.id, request.served),
            epoch=db.epoch,
            now=db.latest,
            quiet_until=db.quiet_until,
        )

    def lease(self, instance_name: InstanceId, statement: bytes, now: datetime) -> bytes:
        """Answer one lease request. Raises what the service raises, and ``Crash``."""
        self._demand_running()
        if instance_name not in self.db.instances:
            raise Rejected.because("unknown_instance", "instance", got=instance_name)
        request, digest = verify_request(statement, self.db.instances[instance_name].key)
        with self.transaction(now) as db:
            instance = db.instances[instance_name]
            decision = self.decide(request, digest, instance, db.loans[instance.loan], db)
            if isinstance(decision, Replay):
                return decision.reply
            reply, after = sign_decision(decision, self.key)
            db.instances[instance_name] = after
            db.credit(instance.loan, {meter: -units for meter, units in decision.debits.items()})
            db.post(*decision.postings)
            db.record(*decision.events)
        self.alarms += decision.alarms
        return reply

    def report(self, instance_name: InstanceId, statement: bytes, now: datetime) -> bytes:
        """Take one usage report. Raises what the service raises, and ``Crash``."""
        if instance_name not in self.db.instances:
            raise Rejected.because("unknown_instance", "instance", got=instance_name)
        report = verify_report(statement, self.db.instances[instance_name].key)
        with self.transaction(now) as db:
            instance = db.instances[instance_name]
            known = db.reports.get(instance_name, ())
            decision = decide_report(
                report,
                statement,
                instance=instance,
                terms=db.loans[instance.loan].terms,
                reported=db.reported(instance_name),
                stored=next((item.statement for item in known if item.first == report.first), None),
            )
            if decision.fresh:
                row = Report(report.first, report.last, head_of(report), totals_of(report), statement)
                db.reports[instance_name] = (*known, row)
            db.instances[instance_name] = decision.instance
            db.record(*decision.events)
        self.alarms += decision.alarms
        if decision.ack is None:
            raise Rejected.because(decision.code, "usage report")
        return sign_ack(decision.ack, self.key)

    def close(self, instance_name: InstanceId, statement: bytes, now: datetime) -> None:
        """Take an instance's last count."""
        if instance_name not in self.db.instances:
            raise Rejected.because("unknown_instance", "instance", got=instance_name)
        close = verify_close(statement, self.db.instances[instance_name].key)
        with self.transaction(now) as db:
            self.take_close(close, db)

    def take_close(self, close: Close, db: Db) -> None:
        instance = db.instances[close.instance]
        decision = decide_close(
            close,
            instance=instance,
            loan=db.loans[instance.loan],
            reported=db.reported(instance.id, close.served),
            now=db.latest,
        )
        if decision is None:
            return
        db.instances[instance.id] = decision.instance
        db.credit(instance.loan, dict(decision.credits))
        db.post(*decision.postings)
        db.record(*decision.events)
        self.alarms += decision.alarms


def attest_statement(key: SigningKey, loan: LoanId, nonce: bytes) -> tuple[bytes, bytes]:
    """Return a signed attest request of this instance key, and the digest of its payload."""
    payload = AttestRequest(
        loan=loan,
        nonce=Nonce(nonce),
        instance_pub=key.verify_key,
        kem_id=0x647A,
        kem_pub=b"k" * 32,
        evidence=Evidence(tee=TeeKind("simulated"), payload=b"evidence"),
        software=b"{}",
    ).dump()
    return Statement.sign(key, AttestRequest.LABEL, payload).dump(), hashlib.sha256(payload).digest()


def instance_key(name: str) -> tuple[SigningKey, InstanceId]:
    """Return the key of the enclave instance of that name, the same in every run."""
    key = SigningKey(hashlib.sha256(name.encode()).digest())
    return key, instance_id(key.verify_key.raw)


__all__ = [
    "EPOCH_START",
    "POLICY",
    "Crash",
    "Db",
    "MemoryCustodian",
    "VerifyKey",
    "attest_statement",
    "instance_key",
]
