"""Custodian, enclaves, network and clocks in one place: everything that can happen to a lease.

Every operation is total: what cannot happen now does nothing. ``World.verify`` (``invariants``) runs
after each and raises ``Violation`` naming the invariant that does not hold. Time is ``World.now``;
what a clock shows is somebody's say.
"""

from __future__ import annotations

import copy
import hashlib
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, ClassVar

from books import Violation
from custodian_fake import EPOCH_START, Crash, Db, MemoryCustodian, attest_statement, instance_key
from invariants import Invariants

from cloister.errors import Rejected, Unavailable, UsageError
from cloister.lending.lease import LeaseHolder, LeaseState, Reservation
from cloister.lending.ledger import ALLOWANCE, escrow
from cloister.lending.receipt import commit, verify_receipt
from cloister.lending.release import verify_grant
from cloister.lending.terms import (
    LOAN_METER,
    Consumer,
    ConsumerId,
    InstanceId,
    LoanId,
    Meter,
    ModelDigest,
    ModelTerms,
    Terms,
    consumer_meter,
    meters_in,
    model_meter,
    unserved_cap,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.crypto.sign import SigningKey
    from cloister.lending.messages import Receipt

SLOWEST = 1 - 0.9e-3  # an honest clock may run this slow; the bound allows for 1e-3
TOKENS = {name: f"token of {name}".encode() for name in ("ann", "bob")}


def terms(number: int = 1, *, cap: int = 2, instances: int = 4, ttl: int = 60, rate_cap: int = 0) -> Terms:
    """Return a loan with two models, one of them metered, and two consumers, one of them metered."""
    letter = "abcdefgh"[number]
    return Terms(
        loan=LoanId("loan-" + letter * 16),
        borrower="borrower",
        models=(
            ModelTerms(name="plain", digest=ModelDigest(letter * 64)),
            ModelTerms(name="metered", digest=ModelDigest(letter * 63 + "0"), metered=True),
        ),
        consumers=(
            Consumer(id=ConsumerId("ann"), token_sha256=hashlib.sha256(TOKENS["ann"]).digest()),
            Consumer(id=ConsumerId("bob"), token_sha256=hashlib.sha256(TOKENS["bob"]).digest(), metered=True),
        ),
        ttl=timedelta(seconds=ttl),
        max_ceiling=cap,
        max_instances=instances,
        rate_cap=rate_cap,
    )


@dataclass
class Stream:
    """A running inference: what it may come to, and what has left."""

    reservation: Reservation
    model: str
    consumer: str
    produced: int = 0


@dataclass
class Enclave:
    """One enclave process of the borrower, with the clock its host gives it."""

    name: str
    holder: LeaseHolder
    key: SigningKey
    booted: datetime
    clock: timedelta = timedelta(0)
    frozen_at: datetime | None = None
    tampered: bool = False
    alive: bool = True
    streams: list[Stream] = field(default_factory=list)
    served: dict[Meter, int] = field(default_factory=lambda: defaultdict(int))
    before: dict[str, int] = field(default_factory=dict)

    @property
    def id(self) -> InstanceId:
        return self.holder.instance

    def time(self, real: datetime) -> datetime:
        """Return what its clock shows: slow within the drift, moved or frozen by a hostile host."""
        if self.frozen_at is not None:
            return self.frozen_at
        return self.booted + (real - self.booted) * SLOWEST + self.clock

    def fork(self) -> Enclave:
        """Return a copy of the running memory."""
        return copy.deepcopy(self, {id(self.key): self.key})


@dataclass(frozen=True)
class Chunk:
    """One chunk that left towards a consumer."""

    at: datetime
    instance: InstanceId
    loan: LoanId
    model: str
    consumer: str
    units: int
    tampered: bool


class World:
    """Everything that there is, and the operations on it."""

    holder_type: ClassVar[type[LeaseHolder]] = LeaseHolder
    custodian_type: ClassVar[type[MemoryCustodian]] = MemoryCustodian

    def __init__(self, *loans: tuple[Terms, int], seed: int = 0) -> None:
        self.now = EPOCH_START + timedelta(hours=1)
        self.custodian_clock = timedelta(0)
        self.custodian = self.custodian_type(seed)
        self.enclaves: list[Enclave] = []
        self.loans: dict[LoanId, Terms] = {}
        self.requests: list[tuple[InstanceId, bytes]] = []
        self.reports: list[tuple[InstanceId, bytes]] = []
        self.answers: list[bytes] = []
        self.backups: list[tuple[Db, dict[tuple[int, bytes], int]]] = []
        self.chunks: list[Chunk] = []
        self.receipts: list[Receipt] = []
        self.forked: set[InstanceId] = set()
        self.granted: dict[tuple[LoanId, Meter], int] = defaultdict(int)
        self.served: dict[tuple[LoanId, Meter], int] = defaultdict(int)
        self.relaxed: dict[tuple[LoanId, Meter], int] = defaultdict(int)
        self.withdrawals: dict[int, tuple[LoanId, int]] = {}
        self.blocks: dict[tuple[str, str], datetime] = {}
        self.replies: dict[tuple[int, bytes], set[bytes]] = defaultdict(set)
        self.debits: dict[tuple[int, bytes], int] = defaultdict(int)
        self.answered: tuple[int, bytes] | None = None
        self._boots = 0
        self._nonces = seed * 1_000_000
        self.invariants = Invariants(self)
        for loan_terms, units in loans:
            self.add_loan(loan_terms, units)

    # --- the lender ---

    def custodian_now(self) -> datetime:
        return self.now + self.custodian_clock

    @property
    def loan(self) -> LoanId:
        """The first loan: the only one in most scenarios."""
        return next(iter(self.loans))

    def add_loan(self, loan_terms: Terms, units: int) -> None:
        meters = meters_in(loan_terms)
        allowance = dict.fromkeys(meters, units)
        self.custodian.create_loan(loan_terms, allowance, self.custodian_now())
        self.loans[loan_terms.loan] = loan_terms
        for meter in meters:
            self.granted[loan_terms.loan, meter] += units
        self.verify()

    def top_up(self, loan: LoanId, units: int, meter: Meter = LOAN_METER) -> None:
        if self._commits(lambda: self.custodian.top_up(loan, meter, units, self.custodian_now())):
            self.granted[loan, meter] += units
        self.verify()

    def set_allowance(self, loan: LoanId, units: int) -> None:
        before = self._balance(loan)
        if self._commits(lambda: self.custodian.set_allowance(loan, LOAN_METER, units, self.custodian_now())):
            self.granted[loan, LOAN_METER] += units - before
            if units < before:
                self.withdrawals[len(self.custodian.db.postings)] = (loan, before - units)
        self.verify()

    def block(self, kind: str, subject: str) -> None:
        """Block a ``loan``, ``model``, ``instance`` or ``consumer`` (spelled LOAN/CONSUMER)."""
        if self._commits(lambda: self._set_block(kind, subject, blocked=True)):
            self.blocks.setdefault((kind, subject), self.now)
        self.verify()

    def unblock(self, kind: str, subject: str) -> None:
        """Unblock; an instance stays blocked for good."""
        if kind != "instance" and self._commits(lambda: self._set_block(kind, subject, blocked=False)):
            self.blocks.pop((kind, subject), None)
        self.verify()

    def _set_block(self, kind: str, subject: str, *, blocked: bool) -> None:
        now = self.custodian_now()
        match kind:
            case "loan":
                self.custodian.block_loan(LoanId(subject), now, blocked=blocked)
            case "model":
                self.custodian.block_model(ModelDigest(subject), now, blocked=blocked)
            case "consumer":
                loan, consumer = subject.split("/")
                self.custodian.block_consumer(LoanId(loan), ConsumerId(consumer), now, blocked=blocked)
            case _ if InstanceId(subject) in self.custodian.db.instances:
                self.custodian.block_instance(InstanceId(subject), now)

    def _commits(self, work: Callable[[], object]) -> bool:
        """Run a use case and tell whether it was committed, whatever the caller heard."""
        before = self.custodian.db
        with suppress(Crash, Unavailable):
            work()
        return self.custodian.db is not before

    def sweep(self) -> None:
        with suppress(Crash, Unavailable):
            self.custodian.sweep(self.custodian_now())
        self.verify()

    # --- the custodian's machine ---

    def crash_custodian(self, point: str = "") -> None:
        """Kill the custodian now, or at a fail-point of its next transaction."""
        if point:
            self.custodian.fail_at = point
        else:
            self.custodian.running = False
        self.verify()

    def restart_custodian(self) -> None:
        """Start the custodian again; on an older database a person runs recover and looks at the blocks."""
        if self.custodian.running:
            return
        self.custodian.fail_at = None
        try:
            self.custodian.start()
        except Rejected:
            self._recover()
        self.verify()

    def _recover(self) -> None:
        self.custodian.recover(self.custodian_now())
        self.invariants.start_anew()
        for kind, subject in self.blocks:  # the lender's own list: lost ones are put back
            if kind != "instance":
                self._commits(lambda k=kind, s=subject: self._set_block(k, s, blocked=True))  # type: ignore[misc]  # bound now

    def backup(self) -> None:
        self.backups.append((self.custodian.db.copy(), dict(self.debits)))

    def restore(self, number: int = -1) -> None:
        """Put an older database in place and start on it."""
        if not self.backups:
            return
        db, debits = self.backups[number]
        self._forget_withdrawals(len(db.postings))
        self.custodian.restore(db)
        # What was debited since is undone with the database; nobody was answered before the checkpoint knew of it.
        self.debits = defaultdict(int, debits)
        self.invariants.start_anew()
        self.restart_custodian()

    def _forget_withdrawals(self, kept: int) -> None:
        """Undo withdrawals that go with the database and that no checkpoint knows of: nobody was told of them."""
        assert self.custodian.kept is not None
        for size in [size for size in self.withdrawals if size > kept]:
            loan, units = self.withdrawals.pop(size)
            if size > self.custodian.kept.ledger_size:
                self.granted[loan, LOAN_METER] += units

    def set_custodian_clock(self, seconds: float) -> None:
        self.custodian_clock = timedelta(seconds=seconds)

    # --- the borrower's machine ---

    def launch(self, loan: LoanId | None = None) -> Enclave | None:
        """Boot an enclave: new keys, attestation, grant. None where the custodian says no."""
        self._boots += 1
        return self._boot(loan or self.loan, f"enclave {self._boots} of {self._nonces}")

    def _boot(self, loan: LoanId, name: str) -> Enclave | None:
        if not self.custodian.running:  # nobody is there to attest to
            return None
        key, instance = instance_key(name)
        statement, digest = attest_statement(key, loan, self._nonce() * 2)
        with suppress(Rejected, Unavailable, Crash):
            answer = self.custodian.attest(statement, self.custodian_now())
            grant = verify_grant(
                answer, custodian=self.custodian.key.verify_key, request_digest=digest, instance=instance
            )
            holder = self.holder_type(key=key, grant=grant, custodian=self.custodian.key.verify_key)
            enclave = Enclave(name=name, holder=holder, key=key, booted=self.now)
            self.enclaves.append(enclave)
            self.verify(enclave)
            return enclave
        self.verify()
        return None

    def kill(self, enclave: Enclave) -> None:
        enclave.alive = False
        enclave.streams.clear()

    def save_disk(self, enclave: Enclave) -> None:
        """Let the borrower copy the enclave's disk: there is nothing of the count on it."""

    def relaunch(self, enclave: Enclave) -> Enclave | None:
        """Kill the process and start the image again, with whatever its disk held."""
        self.kill(enclave)
        return self.launch(enclave.holder._terms.loan)

    def fork(self, enclave: Enclave) -> Enclave:
        """Snapshot the memory of a running enclave and run the copy beside it."""
        twin = enclave.fork()
        self.enclaves.append(twin)
        self.forked.add(enclave.id)
        loan = enclave.holder._terms.loan
        pending = enclave.holder._pending is not None
        for meter in self.custodian.db.loans[loan].balances:
            open_units = enclave.holder._meters.reserved.get(meter, 0)
            held = max(0, enclave.holder._meters.room(meter)) + open_units
            # what the copy holds, and one answer that is under way to both
            self.relaxed[loan, meter] += held + (unserved_cap(self.loans[loan]) if pending else 0)
        return twin

    def step_clock(self, enclave: Enclave, seconds: float) -> None:
        enclave.clock += timedelta(seconds=seconds)
        enclave.tampered = True

    def freeze_clock(self, enclave: Enclave) -> None:
        enclave.frozen_at = enclave.time(self.now)
        enclave.tampered = True

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    # --- the network ---

    def _nonce(self) -> bytes:
        self._nonces += 1
        return self._nonces.to_bytes(16, "big")

    def report(self, enclave: Enclave, *, acknowledged: bool = True) -> None:
        """Bring the usage reports that are due; the borrower keeps them, and may lose the acknowledgements."""
        with suppress(Rejected, Unavailable, Crash):
            while (statement := enclave.holder.report()) is not None:
                self.reports.append((enclave.id, statement))
                ack = self.custodian.report(enclave.id, statement, self.custodian_now())
                self.verify(enclave)
                if not acknowledged:
                    break
                enclave.holder.acknowledge(ack)
        self.verify(enclave)

    def report_again(self, number: int) -> None:
        """Bring any usage report ever sent to the custodian once more."""
        instance, statement = self.reports[number]
        with suppress(Rejected, Unavailable, Crash):
            self.custodian.report(instance, statement, self.custodian_now())
        self.verify()

    def send(self, enclave: Enclave, *, reports: bool = True) -> int | None:
        """Let the enclave ask; the message is on the wire and the borrower keeps it. Returns its number.

        The usage reports before it arrive, unless ``reports`` is False.
        """
        if not enclave.alive or enclave.holder.must_end(enclave.time(self.now)):
            return None
        with suppress(Rejected):
            statement = enclave.holder.request(enclave.time(self.now), self._nonce())
            self.requests.append((enclave.id, statement))
            self.verify(enclave)
            if reports:
                self.report(enclave)
            return len(self.requests) - 1
        return None

    def carry(self, number: int) -> int | None:
        """Bring any request ever sent to the custodian; keep the answer. Returns the answer's number."""
        instance, statement = self.requests[number]
        before = self.custodian.db
        answer = None
        with suppress(Rejected, Unavailable, Crash):
            answer = self.custodian.lease(instance, statement, self.custodian_now())
            self.answers.append(answer)
        self._note(instance, statement, before, answer)
        self.verify()
        return None if answer is None else len(self.answers) - 1

    def _note(self, instance: InstanceId, statement: bytes, before: Db, answer: bytes | None) -> None:
        key = (self.custodian.db.epoch, hashlib.sha256(statement).digest())
        if answer is not None:
            self.replies[key].add(answer)
        new = self.custodian.db.postings[len(before.postings) :]
        if any(posting.debit_account == ALLOWANCE and posting.credit_account == escrow(instance) for posting in new):
            self.debits[key] += 1
        self.answered = key

    def deliver(self, number: int, enclave: Enclave) -> None:
        """Bring any answer ever given to any enclave."""
        if enclave.alive:
            with suppress(Rejected, UsageError):
                enclave.holder.receive(self.answers[number], enclave.time(self.now))
        self.verify(enclave)

    def renew(self, enclave: Enclave) -> bool:
        """Ask and hear at once, as on a good day. Tells whether a lease came."""
        sent = self.send(enclave)
        answer = None if sent is None else self.carry(sent)
        if answer is None:
            return False
        self.deliver(answer, enclave)
        return enclave.holder.state is LeaseState.ACTIVE

    def close(self, enclave: Enclave, *, reports: bool = True) -> None:
        """End in order: erase, then send the last reports, unless ``reports`` is False, and the last count."""
        with suppress(Rejected, Unavailable, Crash):
            statement = enclave.holder.close(enclave.time(self.now))
            self.kill(enclave)
            if reports:
                self.report(enclave)
            self.custodian.close(enclave.id, statement, self.custodian_now())
        self.kill(enclave)
        self.verify(enclave)

    # --- consumers ---

    def begin(self, enclave: Enclave, units: int = 1, model: str = "plain", consumer: str = "ann") -> Stream | None:
        """Start an inference; None where the enclave says no."""
        if not enclave.alive or enclave.holder.must_end(enclave.time(self.now)):
            return None
        with suppress(Rejected):
            reservation = enclave.holder.reserve(model, TOKENS[consumer], units, enclave.time(self.now))
            stream = Stream(reservation=reservation, model=model, consumer=consumer)
            enclave.streams.append(stream)
            self.verify(enclave)
            return stream
        return None

    def chunk(self, enclave: Enclave, stream: Stream) -> bool:
        """Let one more unit of a stream leave."""
        if not enclave.alive or stream not in enclave.streams:
            return False
        try:
            enclave.holder.permit(stream.reservation, stream.produced + 1, enclave.time(self.now))
        except Rejected:
            return False
        stream.produced += 1
        self._left(enclave, stream, 1)
        self.verify(enclave)
        return True

    def finish(self, enclave: Enclave, stream: Stream) -> bytes | None:
        """Settle at what has left; return the receipt if the last chunk may leave."""
        if not enclave.alive or stream not in enclave.streams:
            return None
        enclave.streams.remove(stream)
        commitments = [commit(self._nonce() * 2, b"content") for _ in range(2)]
        with suppress(Rejected):
            time = enclave.time(self.now)
            receipt = enclave.holder.settle(stream.reservation, stream.produced, *commitments, time)
            self.receipts.append(verify_receipt(receipt, enclave.key.verify_key))
            self.verify(enclave)
            return receipt
        self.verify(enclave)
        return None

    def serve(self, enclave: Enclave, units: int = 1, model: str = "plain", consumer: str = "ann") -> int:
        """Answer one inference whole; returns the units that left."""
        stream = self.begin(enclave, units, model, consumer)
        if stream is None:
            return 0
        while stream.produced < units and self.chunk(enclave, stream):
            pass
        produced = stream.produced
        self.finish(enclave, stream)
        return produced

    def whole(self, enclave: Enclave, units: int = 1, model: str = "plain", consumer: str = "ann") -> int:
        """Answer one inference in one piece, charged as it leaves; returns the units that left."""
        stream = self.begin(enclave, units, model, consumer)
        if stream is None:
            return 0
        self.verify(enclave)
        enclave.streams.remove(stream)
        commitments = [commit(self._nonce() * 2, b"content") for _ in range(2)]
        with suppress(Rejected):
            time = enclave.time(self.now)
            payload = enclave.holder.permit_and_charge(stream.reservation, units, *commitments, time)
            (receipt,) = enclave.holder.sign_receipts((payload,))
            self._left(enclave, stream, units)
            self.receipts.append(verify_receipt(receipt, enclave.key.verify_key))
            self.verify(enclave)
            return units
        self.verify(enclave)
        return 0

    def _left(self, enclave: Enclave, stream: Stream, units: int) -> None:
        loan = enclave.holder._terms.loan
        self.chunks.append(
            Chunk(
                at=self.now,
                instance=enclave.id,
                loan=loan,
                model=stream.model,
                consumer=stream.consumer,
                units=units,
                tampered=enclave.tampered,
            )
        )
        meters = [LOAN_METER]
        if stream.model == "metered":
            meters.append(model_meter("metered"))
        if stream.consumer == "bob":
            meters.append(consumer_meter(ConsumerId("bob")))
        for meter in meters:
            self.served[loan, meter] += units

    def verify(self, *touched: Enclave) -> None:
        """Raise ``Violation`` if one of I1 to I9 does not hold now, having done something to these enclaves."""
        self.invariants.verify(touched)

    def _balance(self, loan: LoanId) -> int:
        return self.custodian.db.loans[loan].balances[LOAN_METER]


__all__ = ["Enclave", "Stream", "Violation", "World", "terms"]
