"""Vouchers, leases and tickets mixed, files in any order, late, twice or never; the books are proven after each step.

No memory is copied here, so every alarm would be a false one. Seeds are printed by the test's name.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from custodian_fake import EPOCH_START, Db, MemoryCustodian, attest_statement, instance_key

from cloister.crypto.sign import Statement
from cloister.errors import Rejected
from cloister.lending.clauses import Clauses, OfflineTerm
from cloister.lending.ending import decide_write_off
from cloister.lending.lease import LeaseHolder
from cloister.lending.lease_grant import Replay
from cloister.lending.ledger import (
    ALLOWANCE,
    OVERDRAFT,
    SPENT,
    WRITTEN_OFF,
    balance_of,
    escrow,
    granted,
    repay,
    verify_postings,
)
from cloister.lending.messages import Consumption, Refusal
from cloister.lending.receipt import SALT_BYTES, commit
from cloister.lending.release import verify_grant
from cloister.lending.state import InstanceStatus
from cloister.lending.terms import LOAN_METER, LoanId, Meter, ModelDigest, ModelTerms, OutageRule, Terms
from cloister.lending.ticket_grant import TicketState, decide_ticket, sign_ticket, verify_ticket_request
from cloister.lending.voucher_grant import (
    Issued,
    decide_consumption,
    decide_voucher,
    overdraft_room,
    verify_consumption,
    verify_voucher_request,
)

if TYPE_CHECKING:
    from cloister.lending.usage_report import Reported

LOAN = LoanId("loan-" + "a" * 16)
TERM = OfflineTerm(lasts=timedelta(hours=1), units=8, overdraft=4)
TERMS = Terms(
    loan=LOAN,
    borrower="b",
    models=(
        ModelTerms(name="plain", digest=ModelDigest("aa" * 32), metered=True),
        ModelTerms(name="gold", digest=ModelDigest("bb" * 32), ticketed=True),
    ),
    consumers=None,
    max_ceiling=5,
    max_instances=3,
    outage=OutageRule.OFFLINE,
    clauses=Clauses(offline=TERM),
)
PLAIN = Meter("model:plain")


@dataclass
class SeaDb(Db):
    """A database that knows the tickets too, which bound the usage of ticketed models, and what statements told."""

    tickets: dict[Any, int] = field(default_factory=dict)
    told: dict[Any, Consumption] = field(default_factory=dict)

    def copy(self) -> SeaDb:
        return replace(super().copy(), tickets=dict(self.tickets), told=dict(self.told))  # type: ignore[return-value]  # of this class

    def reported(self, instance: Any, served: int = -1) -> Reported:
        return replace(
            super().reported(instance, served), ticketed=self.tickets.get(instance, 0), told=self.told.get(instance)
        )


def custodian_of(seed: int) -> MemoryCustodian:
    custodian = MemoryCustodian(seed)
    custodian.db = SeaDb()
    return custodian


@dataclass
class Sea:
    """One custodian, some enclaves, and every file that was ever written."""

    rng: random.Random
    custodian: MemoryCustodian
    now: Any = EPOCH_START
    launched: int = 0
    holders: list[LeaseHolder] = field(default_factory=list)
    files: dict[str, list[bytes]] = field(default_factory=lambda: {"request": [], "voucher": [], "statement": []})
    stale: list[tuple[LeaseHolder, bytes]] = field(default_factory=list)
    issued: dict[str, list[tuple[Issued, bytes]]] = field(default_factory=dict)
    told: dict[str, Consumption] = field(default_factory=dict)
    tickets: dict[str, TicketState] = field(default_factory=dict)
    served: int = 0
    answered: set[bytes] = field(default_factory=set)

    # the custodian, as its service does it

    def write(self, db: Db, decision: Any) -> None:
        """Write a decision, then pay what is owed as far as the balances go."""
        self.custodian.alarms += decision.alarms
        db.instances[decision.instance.id] = decision.instance
        for posting in decision.postings:
            db.post(posting)
            if posting.debit_account == ALLOWANCE:
                db.credit(LOAN, {posting.meter: -posting.units})
        db.record(*decision.events)
        self.repay(db)

    def repay(self, db: Db) -> None:
        for meter, units in self.owed(db).items():
            for posting in repay(LOAN, meter, balance=db.loans[LOAN].balances[meter], owed=units):
                db.post(posting)
                db.credit(LOAN, {meter: -posting.units})

    def owed(self, db: Db) -> dict[Meter, int]:
        return {meter: -balance_of(db.postings, OVERDRAFT, loan=LOAN, meter=meter) for meter in db.loans[LOAN].balances}

    def report(self, holder: LeaseHolder) -> None:
        """Bring the usage reports of an enclave, in order."""
        while (statement := holder.report()) is not None:
            holder.acknowledge(self.custodian.report(holder.instance, statement, self.now))

    def report_of(self, instance: Any) -> None:
        """Bring them where the enclave still runs; else they are lost with it."""
        for holder in self.holders:
            if holder.instance == instance:
                self.report(holder)

    def sign(self, statement: bytes) -> None:
        claimed = self._claimed(statement)
        self.report_of(claimed)
        request, digest = verify_voucher_request(statement, self.custodian.db.instances[claimed].key)
        with self.custodian.transaction(self.now) as db:
            self.sweep_in(db)
            history = self.issued.setdefault(claimed, [])
            others = [item for item in db.instances.values() if item.id != claimed and not item.written_off]
            decision = decide_voucher(
                request, digest, instance=db.instances[request.instance], loan=db.loans[LOAN],
                last=history[-1][0] if history else None,
                reported=db.reported(request.instance, request.served),
                overdraft=overdraft_room(TERM, others, self.owed(db)),
                units=self.rng.choice((3, 100)), epoch=db.epoch, now=db.latest,
            )  # fmt: skip
            if isinstance(decision, Replay):
                self.files["voucher"].append(decision.reply)
                return
            self.write(db, decision)
            assert decision.reply is not None
            payload = decision.reply.dump()
            reply = Statement.sign(self.custodian.key, decision.reply.LABEL, payload).dump()
            voucher = Issued(seq=request.seq, req_digest=digest, reply=reply)
            history.append((voucher, hashlib.sha256(payload).digest()))
        self.files["voucher"].append(reply)

    def settle(self, statement: bytes) -> None:
        claimed = self._claimed(statement)
        if self.rng.random() < 0.7:  # else the statement comes first
            self.report_of(claimed)
        message = verify_consumption(statement, self.custodian.db.instances[claimed].key)
        with self.custodian.transaction(self.now) as db:
            self.sweep_in(db)
            known = any(digest == message.voucher for _, digest in self.issued.get(claimed, []))
            decision = decide_consumption(
                message, instance=db.instances[message.instance], loan=db.loans[LOAN], last=self.told.get(claimed),
                reported=db.reported(message.instance, message.served), is_known=known,
            )  # fmt: skip
            if decision is not None:
                self.write(db, decision)
                self.told[claimed] = db.told[claimed] = message  # type: ignore[attr-defined]  # a SeaDb

    def ticket(self, holder: LeaseHolder, statement: bytes) -> bytes:
        request, digest = verify_ticket_request(statement, self.custodian.db.instances[holder.instance].key)
        with self.custodian.transaction(self.now) as db:
            decision = decide_ticket(
                request, digest, instance=db.instances[holder.instance],
                tickets=self.tickets.get(holder.instance, TicketState()), loan=db.loans[LOAN], epoch=db.epoch,
                now=db.latest,
            )  # fmt: skip
            if isinstance(decision, Replay):
                return decision.reply
            reply, self.tickets[holder.instance] = sign_ticket(decision, self.custodian.key)
            db.tickets[holder.instance] = db.tickets.get(holder.instance, 0) + sum(
                item.units for item in decision.postings if item.meter == LOAN_METER and item.debit_account == ALLOWANCE
            )  # type: ignore[attr-defined]  # a SeaDb
            self.write(db, decision)
        return reply

    def sweep_in(self, db: Db) -> None:
        for item in tuple(db.instances.values()):
            ended = decide_write_off(item, now=db.latest)
            if ended is not None:
                db.instances[item.id] = ended.instance
                db.post(*ended.postings)
                db.record(*ended.events)
                self.repay(db)

    def _claimed(self, statement: bytes) -> Any:
        names = [name for name in self.custodian.db.instances if name.encode() in _payload(statement)]
        return names[0]

    # what may happen

    def launch(self) -> None:
        if self.custodian.db.loans[LOAN].balances[LOAN_METER] < 1:
            return
        self.launched += 1
        key, name = instance_key(f"ship {self.launched}")
        statement, digest = attest_statement(key, LOAN, self.rng.randbytes(32))
        answer = self.custodian.attest(statement, self.now)
        grant = verify_grant(answer, custodian=self.custodian.key.verify_key, request_digest=digest, instance=name)
        self.holders.append(LeaseHolder(key=key, grant=grant, custodian=self.custodian.key.verify_key))

    def renew(self) -> None:
        holder = self.rng.choice(self.holders)
        statement = holder.request(self.now, self.rng.randbytes(16))
        if self.rng.random() < 0.4:
            self.stale.append((holder, statement))  # on its way, or lost
            return
        self.deliver(holder, statement)

    def deliver(self, holder: LeaseHolder, statement: bytes) -> None:
        self.report(holder)
        before = self.custodian.db.postings
        reply = self.custodian.lease(holder.instance, statement, self.now)
        if self.custodian.db.postings is not before:
            with self.custodian.transaction(self.now) as db:
                self.repay(db)
        holder.receive(reply, self.now)

    def deliver_stale(self) -> None:
        if self.stale:
            self.deliver(*self.rng.choice(self.stale))

    def ask(self) -> None:
        self.files["request"].append(self.rng.choice(self.holders).offline.request(self.now, self.rng.randbytes(16)))

    def carry_out(self) -> None:
        if self.files["request"]:
            self.sign(self.rng.choice(self.files["request"][-4:]))

    def carry_in(self) -> None:
        if self.files["voucher"]:
            self.rng.choice(self.holders).offline.receive(self.rng.choice(self.files["voucher"][-4:]), self.now)

    def serve(self) -> None:
        holder, units = self.rng.choice(self.holders), self.rng.randint(1, 3)
        reservation = holder.reserve("plain", None, units, self.now)
        holder.settle(reservation, units, bytes(32), bytes(32), self.now)
        self.served += units

    def serve_gold(self) -> None:
        holder = self.rng.choice(self.holders)
        if holder.tickets.pending is not None:
            holder.tickets.receive(self.ticket(holder, holder.tickets.pending), self.now)
        request = commit(bytes(SALT_BYTES), self.rng.randbytes(8))
        reservation = holder.reserve("gold", None, 1, self.now)
        reply = self.ticket(holder, holder.tickets.request(reservation, request, self.now))
        if self.rng.random() < 0.3:
            holder.refund(reservation)  # the answer was lost and the consumer has gone
            return
        if isinstance(holder.tickets.receive(reply, self.now), Refusal):
            holder.refund(reservation)
            return
        holder.tickets.begin(reservation, request, self.now)
        holder.settle(reservation, 1, request, bytes(32), self.now)
        self.served += 1
        self.answered.add(request)

    def state(self) -> None:
        self.files["statement"].append(self.rng.choice(self.holders).offline.consumption(self.now))

    def bring_statement(self) -> None:
        if self.files["statement"]:
            self.settle(self.rng.choice(self.files["statement"]))

    def top_up(self) -> None:
        for meter in (LOAN_METER, PLAIN):
            self.custodian.top_up(LOAN, meter, 3, self.now)
        with self.custodian.transaction(self.now) as db:
            self.repay(db)

    def end(self) -> None:
        holder = self.rng.choice(self.holders)
        self.holders.remove(holder)
        if self.rng.random() < 0.5:
            statement = holder.close(self.now)
            self.report(holder)
            self.custodian.close(holder.instance, statement, self.now)
            with self.custodian.transaction(self.now) as db:
                self.repay(db)

    def wait(self) -> None:
        self.now += timedelta(seconds=self.rng.choice((1, 5, 30, 200, 2500)))

    def step(self) -> None:
        """Let one thing happen; whoever must end has ended."""
        self.holders = [item for item in self.holders if not item.must_end(self.now)]
        if not self.holders:
            self.launch()
        if not self.holders:
            self.top_up()
            return
        often = [self.serve] * 5 + [self.serve_gold] * 2 + [self.carry_out, self.carry_in, self.ask] * 3
        rare = [self.launch, self.renew, self.deliver_stale, self.state, self.bring_statement, self.wait] * 2
        self.rng.choice([*often, *rare, self.top_up, self.end])()


def _payload(statement: bytes) -> bytes:
    import base64  # noqa: PLC0415 - here only
    import json  # noqa: PLC0415 - here only

    text = json.loads(statement)["payload"]
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def verify(sea: Sea) -> None:
    """Prove I1, I2, I5 and I8 as they read with vouchers and tickets."""
    db = sea.custodian.db
    verify_postings(db.postings)
    owed = sea.owed(db)
    assert all(0 <= units <= TERM.overdraft for units in owed.values())
    for meter, balance in db.loans[LOAN].balances.items():
        mine = [item for item in db.postings if item.meter == meter]
        moved = [(item.debit_account, item.credit_account, item.units) for item in mine]
        tickets = sum(units for debit, credit, units in moved if (debit, credit) == (ALLOWANCE, SPENT))
        lost = sum(units for debit, credit, units in moved if (debit, credit) == (ALLOWANCE, WRITTEN_OFF))
        limits = sum(item.limits.get(meter, 0) for item in db.instances.values())
        total = granted(mine, loan=LOAN, meter=meter)
        assert balance + limits + tickets + lost == total + owed[meter]
        assert balance >= 0
        for item in db.instances.values():
            held = 0 if item.written_off else item.limits.get(meter, 0) - item.used.get(meter, 0)
            assert balance_of(mine, escrow(item.id), loan=LOAN, meter=meter) == held
    total = granted([item for item in db.postings if item.meter == LOAN_METER], loan=LOAN, meter=LOAN_METER)
    assert sea.served <= total + TERM.overdraft
    assert sea.custodian.alarms == []
    assert {item.status for item in db.instances.values()} & {InstanceStatus.FORKED, InstanceStatus.OVERDRAWN} == set()


@pytest.mark.parametrize("seed", range(40))
def test_books_and_count_hold_whatever_the_courier_does(seed: int) -> None:
    sea = Sea(rng=random.Random(seed), custodian=custodian_of(seed))
    sea.custodian.create_loan(TERMS, {LOAN_METER: 30, PLAIN: 24}, sea.now)
    for _ in range(120):
        with contextlib.suppress(Rejected):  # a no is an answer; anything else would be a mistake
            sea.step()
        verify(sea)
    # Everybody has gone, every medium is lost: what was not told counts as spent, what is owed is paid by a top-up.
    sea.now += timedelta(days=2)
    with sea.custodian.transaction(sea.now) as db:
        sea.sweep_in(db)
    for meter in (LOAN_METER, PLAIN):
        sea.custodian.top_up(LOAN, meter, TERM.overdraft, sea.now)
    with sea.custodian.transaction(sea.now) as db:
        sea.repay(db)
    verify(sea)
    assert set(sea.owed(sea.custodian.db).values()) == {0}
    assert all(item.written_off for item in sea.custodian.db.instances.values())


def test_the_simulation_does_what_it_is_for() -> None:
    kinds: set[str] = set()
    for seed in range(12):
        sea = Sea(rng=random.Random(seed), custodian=custodian_of(seed))
        sea.custodian.create_loan(TERMS, {LOAN_METER: 30, PLAIN: 24}, sea.now)
        for _ in range(120):
            with contextlib.suppress(Rejected):
                sea.step()
        kinds |= {kind for line in sea.custodian.db.lines for kind in _KINDS if kind.encode() in line}
    assert kinds == set(_KINDS)


_KINDS = ("voucher_issued", "voucher_settled", "overdraft_booked", "ticket_granted", "lease_granted", "instance_closed")


def test_a_custodian_that_forgets_what_files_told_raises_a_false_alarm() -> None:
    sea = Sea(rng=random.Random(1), custodian=custodian_of(1))
    sea.custodian.create_loan(TERMS, {LOAN_METER: 30, PLAIN: 24}, sea.now)
    sea.launch()
    (holder,) = sea.holders
    stale = holder.request(sea.now, bytes(16))
    sea.ask()
    sea.carry_out()
    sea.carry_in()
    sea.serve()
    sea.state()
    sea.bring_statement()
    db = sea.custodian.db
    db.instances[holder.instance] = replace(db.instances[holder.instance], filed={})
    holder.receive(sea.custodian.lease(holder.instance, stale, sea.now), sea.now)
    with pytest.raises(Rejected, match="revoked"):
        holder.reserve("plain", None, 1, sea.now)
    assert [alarm.kind.value for alarm in sea.custodian.alarms] == ["fork"]
