"""Attacks on the lease over the whole path, by whoever owns network, disk or clock (threats T31-T41 and others).

The real parties talk through the simulator; what the pure protocol promises is tested in ``tests/lending``.
"""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cloister.attest.rules import NotChecked
from cloister.attest.verifier import Verifier
from cloister.client import TruncatedResponse
from cloister.crypto.sign import Label, Statement
from cloister.custodian.service import blocks
from cloister.custodian.setup import open_custodian
from cloister.custodian.tokens import SYSTEM
from cloister.enclave.renew import Ending
from cloister.errors import CloisterError, Rejected, Unavailable
from cloister.lending.clock import lifetime
from cloister.lending.lease import LeaseState
from cloister.lending.messages import Close, Lease, LeaseRequest, UsageReport
from cloister.testing.simulator import (
    CrashPoint,
    SimulatedConsumer,
    SimulatedEnclave,
    SimulatedLoan,
    Simulator,
    ToyEngine,
)
from cloister.testing.simulator.custodian import _PASSPHRASE
from cloister.wire import Fields

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.client import Trust
    from cloister.testing.simulator import Answer, Request

TTL = timedelta(seconds=60)
BOUND = lifetime(TTL)


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(seed=23) as simulator:
        yield simulator


def runs_of(*enclaves: SimulatedEnclave) -> int:
    return sum(item.engine.runs for item in enclaves if isinstance(item.engine, ToyEngine))


def balanced(loan: SimulatedLoan) -> dict[str, int]:
    """Return where the units are, once none is missing and none is twice there (I2)."""
    meter = dict(loan.meter())
    assert meter.pop("owed") == 0
    assert meter["granted"] == meter["balance"] + meter["held"] + meter["spent"] + meter["written_off"]
    assert min(meter.values()) >= 0
    return meter


@dataclass
class Asking:
    """A consumer who asks and asks, and notes when it was answered."""

    sim: Simulator
    consumer: SimulatedConsumer | None = None
    trust: Trust | None = None
    answered: list[datetime] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def ask(self, enclave: SimulatedEnclave, *, times: int = 1, every: float = 0.0) -> int:
        """Ask so often; returns how often there was an answer."""
        before = len(self.answered)
        for _ in range(times):
            try:
                self.consumer = self.consumer or self.sim.consumer(enclave, trust=self.trust)
                self.consumer.infer()
                self.answered.append(self.sim.now)
            except (Rejected, Unavailable) as exc:
                self.refused.append(exc.code if isinstance(exc, Rejected) else "unavailable")
            self.sim.advance(every)
        return len(self.answered) - before


# T36, T35: the kill switch, with the network against it at every step of the protocol


@dataclass
class Sabotage:
    """Blocks the loan, and turns the network against the custodian, at one message of the enclave's."""

    sim: Simulator
    enclave: SimulatedEnclave
    step: int
    kind: str
    blocked_at: list[datetime] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.enclave.link.requests.watch(self.notice)
        self.enclave.link.answers.watch(self.notice)

    def notice(self, _message: Request | Answer) -> None:
        self.step -= 1
        if self.step == 0:
            link = self.enclave.link
            if self.kind in {"cut", "deaf", "late"}:
                link.requests.cut()
            if self.kind in {"cut", "mute"}:
                link.answers.cut()
            if self.kind == "hold":
                link.answers.hold()
            if self.kind == "late":  # just before the enclave gives up waiting
                link.answers.delay(9)
            self.sim.spawn(self.block())

    async def block(self) -> None:
        await self.sim.custodian.blocking("loan", self.enclave.loan.id)
        self.blocked_at.append(self.sim.now)


LAUNCH_STEPS = 6  # challenge, attest, lease: each a request and an answer
STEPS = [(step, "cut") for step in range(1, 15)]
STEPS += [(step, kind) for kind in ("deaf", "mute", "hold") for step in (3, 4, 5, 6, 7, 8)]
STEPS += [(step, "late") for step in (6, 8, 10)]
OFTEN = {  # the others are a drill
    *((step, "cut") for step in (3, 6, 7, 8, 11, 14)),
    *((step, kind) for kind in ("deaf", "mute", "hold") for step in (5, 8)),
    (8, "late"),
}


@pytest.mark.parametrize(
    ("step", "kind"),
    [pytest.param(*found, marks=() if found in OFTEN else pytest.mark.drill) for found in STEPS],
)
def test_the_kill_switch_holds_whatever_the_network_does_at_any_step(step: int, kind: str) -> None:
    with Simulator(seed=step) as sim:
        loan = sim.lend(allowance=60, max_ceiling=30)
        enclave = sim.machine(loan)
        easy = sim.trust(loan, custodian=NotChecked("asks nobody"), operators=NotChecked("asks nobody"))
        sabotage, asking = Sabotage(sim, enclave, step, kind), Asking(sim, trust=easy)
        launching = sim.spawn(enclave.launch())
        asking.ask(enclave, times=100, every=3)
        (blocked_at,) = sabotage.blocked_at
        if step > LAUNCH_STEPS:  # until then it served as it should
            assert asking.answered
        assert all(at < blocked_at + BOUND for at in asking.answered)
        enclave.link.heal()
        enclave.link.answers.release()
        sim.advance(10 * TTL.total_seconds())
        assert asking.ask(enclave, times=3, every=1) == 0
        assert not enclave.is_up
        assert runs_of(enclave) <= 60 - balanced(loan)["balance"]
        launching.cancel()
        if launching.done() and not launching.cancelled():
            launching.exception()


def test_a_reachable_enclave_stops_at_its_next_renewal_and_says_why(sim: Simulator) -> None:
    loan = sim.lend(allowance=100)
    enclave, asking = sim.launch(loan), Asking(sim)
    asking.ask(enclave)
    stated = sim.custodian.block("loan", loan.id)["bound"]
    assert stated == {"seconds": 62, "units": 100}
    sim.advance(21)
    assert asking.ask(enclave) == 0
    assert (enclave.is_up, enclave.ending) == (False, Ending.STOPPED)
    assert '"code": "blocked"' in enclave.log
    with pytest.raises(Rejected, match="blocked"):
        sim.launch(loan)


def test_no_part_of_a_long_answer_leaves_after_the_bound(sim: Simulator) -> None:
    """T49: the answer began in time; its consumer, or whoever sits between, reads slowly."""
    loan = sim.lend(allowance=100)
    enclave = sim.launch(loan)
    consumer = sim.consumer(enclave)
    consumer.remaining()
    consumer.link.chunk_seconds = 4.0
    whole = sim.spawn(consumer.inferring(np.ones((1, 40_000))))
    sim.advance(60)
    assert whole.result().outputs["y"].shape == (1, 40_000)
    cut = sim.spawn(consumer.inferring(np.ones((1, 400_000))))
    sim.advance(1)
    sim.custodian.block("loan", loan.id)
    blocked_at = sim.now
    enclave.link.cut()
    sim.advance(200)
    assert isinstance(cut.exception(), TruncatedResponse)
    last = consumer.link.last_answer()
    assert last is not None
    assert blocked_at < last < blocked_at + BOUND


def test_answers_that_the_network_holds_had_left_before_the_bound(sim: Simulator) -> None:
    """An answer may come as late as the network likes; what counts is when the enclave let it go."""
    loan = sim.lend(allowance=100)
    enclave = sim.launch(loan)
    consumer = sim.consumer(enclave)
    consumer.remaining()
    consumer.link.answers.hold()
    held = [sim.spawn(consumer.inferring()) for _ in range(3)]
    sim.advance(1)
    sim.custodian.block("loan", loan.id)
    blocked_at = sim.now
    sim.advance(50)
    consumer.link.answers.release()
    sim.advance(1)
    assert [task.result().units for task in held] == [1, 1, 1]
    last = consumer.link.last_answer()
    assert last is not None
    assert last <= blocked_at


def test_a_lease_that_was_held_back_gives_no_time(sim: Simulator) -> None:
    """T35: time runs from the sending of the request, not from when its answer came."""
    enclave = sim.launch(sim.lend(allowance=100), renews=False)
    consumer = sim.consumer(enclave)
    sim.advance(10)
    enclave.link.answers.drop()
    with pytest.raises(Unavailable):
        enclave.renew()
    kept = enclave.link.answers.log[-1]
    sim.advance(61)
    enclave.link.answers.replay(kept)
    assert isinstance(enclave.renew(), Lease)
    with pytest.raises(Rejected) as caught:
        consumer.infer()
    assert caught.value.code == "lease_expired"
    assert runs_of(enclave) == 0
    sim.advance(10 * 60)
    assert not enclave.is_up


def test_a_lease_that_came_late_is_renewed_at_once(sim: Simulator) -> None:
    """Else the little time it has left runs out while the enclave waits to try again."""
    enclave = sim.launch(sim.lend(allowance=100), renews=False)
    sim.advance(10)
    enclave.link.answers.drop()
    with pytest.raises(Unavailable):
        enclave.renew()
    sim.advance(45)
    assert isinstance(enclave.renew(), Lease)
    assert enclave.snapshot.deadline == sim.now + timedelta(seconds=5)
    assert enclave.instance.metering.next_renewal(1.0) <= timedelta(0)
    assert isinstance(enclave.renew(), Lease)
    assert enclave.instance.metering.next_renewal(0.0) == TTL / 3


# T34, T48: answers of the custodian replayed, duplicated, reordered


def test_a_lease_delivered_a_hundred_times_counts_once(sim: Simulator) -> None:
    loan = sim.lend(allowance=1000, max_ceiling=10)
    enclave = sim.launch(loan, renews=False)
    old = enclave.link.answers.log[-1]
    before = enclave.snapshot
    for _ in range(100):
        enclave.link.answers.replay(old)
        with pytest.raises(Rejected, match="not_pending"):
            enclave.renew()
    assert (enclave.snapshot.limits, enclave.snapshot.deadline) == (before.limits, before.deadline)
    enclave.renew()
    assert balanced(loan)["balance"] == 990


def test_a_lease_request_delivered_a_hundred_times_debits_once(sim: Simulator) -> None:
    loan = sim.lend(allowance=1000, max_ceiling=10)
    enclave = sim.launch(loan, renews=False)
    Asking(sim).ask(enclave, times=4)
    enclave.link.requests.duplicate()
    enclave.renew()
    request, reply = enclave.link.requests.log[-1], enclave.link.answers.log[-1].body
    for _ in range(100):
        again = sim.run(sim.network.deliver(request))
        assert (again.status, again.body) == (200, reply)
    assert balanced(loan)["balance"] == 1000 - 14
    assert sim.custodian.events().count("lease_granted") == 2


def test_an_older_request_that_comes_late_changes_nothing(sim: Simulator) -> None:
    loan = sim.lend(allowance=1000, max_ceiling=10)
    enclave = sim.launch(loan, renews=False)
    enclave.renew()
    old = enclave.link.requests.log[-1]
    enclave.renew()
    before = balanced(loan)
    assert sim.run(sim.network.deliver(old)).status == 409
    assert balanced(loan) == before
    enclave.renew()
    assert enclave.snapshot.state is LeaseState.ACTIVE


def test_a_lease_from_before_a_block_does_not_lift_it(sim: Simulator) -> None:
    """T48: the network keeps the lease that named the consumer and puts it in place of the one that does not."""
    loan = sim.lend(allowance=100, consumers={"alice": None, "bob": None})
    enclave = sim.launch(loan, renews=False)
    alice, bob = sim.consumer(enclave, "alice"), sim.consumer(enclave, "bob")
    alice.infer()
    named = enclave.link.answers.log[-1]
    sim.custodian.block("consumer", "alice", loan=loan.id)
    enclave.renew()
    enclave.link.answers.replay(named)
    with pytest.raises(Rejected, match="not_pending"):
        enclave.renew()
    with pytest.raises(Rejected, match="blocked"):
        alice.infer()
    bob.infer()
    unblocked = sim.custodian.unblock("consumer", "alice", loan=loan.id)["block_version"]
    enclave.renew()  # the one under way, answered before
    enclave.renew()
    assert enclave.snapshot.block_version == unblocked
    alice.infer()


def test_answers_given_to_the_wrong_enclave_are_refused_by_both(sim: Simulator) -> None:
    """T32, T47: two enclaves renew at once and the network crosses their answers."""
    loan = sim.lend(allowance=100, max_ceiling=10)
    first, second = sim.launch(loan, renews=False), sim.launch(loan, renews=False)
    seen: list[Answer] = []
    for enclave in (first, second):
        enclave.link.answers.watch(seen.append)
        enclave.renew()
    for enclave, answer in ((first, seen[1]), (second, seen[0])):
        limits = enclave.snapshot.limits
        enclave.link.answers.replay(answer)
        with pytest.raises(Rejected, match="wrong_instance"):
            enclave.renew()
        assert enclave.snapshot.limits == limits
    for enclave in (first, second):
        enclave.renew()


def test_a_forged_lease_of_the_network_s_own_making_is_refused(sim: Simulator) -> None:
    enclave = sim.launch(sim.lend(allowance=100, max_ceiling=10), renews=False)
    limits = enclave.snapshot.limits

    def more(answer: Answer) -> Answer:
        payload = Statement.parse(answer.body, label=Lease.LABEL).verify([sim.custodian.key])
        forged = Statement.sign(enclave.instance.metering._holder._key, Lease.LABEL, payload.replace(b"10", b"99"))
        return replace(answer, chunks=(replace(answer.chunks[0], data=forged.dump()),))

    enclave.link.answers.alter(more)
    with pytest.raises(Rejected, match=r"unknown_key|signature_invalid"):
        enclave.renew()
    assert enclave.snapshot.limits == limits


# T31, T32, T33: disk rollback, relaunch, copied memory


def test_nothing_on_the_borrower_s_disk_counts(sim: Simulator) -> None:
    """T31: nothing there changes while units are spent, so that there is nothing to roll back."""
    loan = sim.lend(allowance=9, max_ceiling=3)

    def disk() -> dict[str, bytes]:
        files = [path for path in (loan.file, *loan.models["toy"].folder.rglob("*")) if path.is_file()]
        return {str(path): path.read_bytes() for path in files}

    before = disk()
    total, enclaves = 0, []
    for _ in range(6):
        try:
            enclave = sim.launch(loan)
        except Rejected as exc:
            assert exc.code in {"allowance_exhausted", "too_many_instances"}  # noqa: PT017
            sim.advance(70)
            continue
        enclaves.append(enclave)
        total += Asking(sim).ask(enclave, times=2)
        enclave.crash()
        assert disk() == before
    assert total == runs_of(*enclaves) == 6
    assert balanced(loan) == {"granted": 9, "balance": 0, "held": 0, "spent": 0, "written_off": 9}


def test_enclaves_of_one_loan_together_serve_what_was_granted_and_no_more(sim: Simulator) -> None:
    loan = sim.lend(allowance=20, max_ceiling=4, max_instances=4)
    enclaves = [sim.launch(loan) for _ in range(4)]
    with pytest.raises(Rejected, match="too_many_instances"):
        sim.launch(loan)
    asking = [Asking(sim) for _ in enclaves]
    total = 0
    for _ in range(8):
        total += sum(one.ask(enclave, times=2) for one, enclave in zip(asking, enclaves, strict=True))
        sim.advance(21)
    assert total == runs_of(*enclaves) == 20
    for enclave in enclaves:
        enclave.stop()
    assert balanced(loan) == {"granted": 20, "balance": 0, "held": 0, "spent": 20, "written_off": 0}


def test_a_crashed_enclave_loses_at_most_its_ceiling(sim: Simulator) -> None:
    loan = sim.lend(allowance=20, max_ceiling=4)
    enclave = sim.launch(loan)
    Asking(sim).ask(enclave, times=3)
    enclave.crash()
    assert balanced(loan)["balance"] == 16
    sim.advance(70)
    assert balanced(loan)["written_off"] == 4
    assert Asking(sim).ask(sim.launch(loan), times=1) == 1


def test_a_copied_memory_is_noticed_at_its_next_renewal_and_both_copies_end(sim: Simulator) -> None:
    """T33: not prevented in software; shown by two requests with one number."""
    loan = sim.lend(allowance=100, max_ceiling=10)
    enclave = sim.launch(loan, renews=False)
    holder = enclave.instance.metering._holder
    key = holder._key
    twin = copy.copy(holder)
    for name in ("_meters", "_clock", "_open"):
        setattr(twin, name, copy.deepcopy(getattr(holder, name)))
    enclave.renew()
    statement = twin.request(sim.now, b"t" * 16)
    assert key is not None
    sent = replace(enclave.link.requests.log[-1], body=statement)
    answer = sim.run(sim.network.deliver(with_length(sent)))
    assert answer.status == 200
    refusal = twin.receive(answer.body, sim.now)
    assert refusal.stop
    assert "fork_detected" in sim.custodian.events()
    assert enclave.renew().stop
    assert enclave.snapshot.state is LeaseState.REVOKED


def with_length(request: Request) -> Request:
    """Return the request with the length that its body has."""
    length = (b"content-length", str(len(request.body)).encode())
    return replace(request, headers=(*(item for item in request.headers if item[0] != b"content-length"), length))


# T37: the host owns the clock


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_clock_that_steps_voids_the_lease_until_it_is_renewed(sim: Simulator, seconds: int) -> None:
    enclave = sim.launch(sim.lend(allowance=100), renews=False)
    consumer = sim.consumer(enclave)
    consumer.infer()
    enclave.clock.step(seconds)
    with pytest.raises(Rejected):
        consumer.infer()
    assert "clock_step" in enclave.log
    assert enclave.snapshot.deadline is None
    assert runs_of(enclave) == 1


@pytest.mark.parametrize("pace", [0.0, 0.5])
def test_frozen_and_slowed_clocks_win_at_most_the_ceiling(sim: Simulator, pace: float) -> None:
    loan = sim.lend(allowance=100, max_ceiling=7)
    enclave = sim.launch(loan)
    asking = Asking(sim)
    asking.ask(enclave, times=2)
    sim.advance(21)
    enclave.link.cut()
    sim.custodian.block("loan", loan.id)
    before = runs_of(enclave)
    enclave.clock.run_at(pace)
    asking.ask(enclave, times=60, every=10)
    assert runs_of(enclave) - before <= 7


def test_a_machine_that_slept_serves_nothing_when_it_wakes(sim: Simulator) -> None:
    enclave = sim.launch(sim.lend(allowance=100), renews=False)
    consumer = sim.consumer(enclave)
    enclave.clock.run_at(0)
    sim.advance(90)
    enclave.clock.step(90)
    enclave.clock.step_boot(90)  # boot time goes on in sleep, and both clocks agree
    enclave.clock.run_at(1)
    with pytest.raises(Rejected, match="lease_expired"):
        consumer.infer()
    assert runs_of(enclave) == 0


def test_a_clock_within_the_stated_drift_keeps_the_bound(sim: Simulator) -> None:
    loan = sim.lend(allowance=1000)
    enclave, asking = sim.launch(loan, pace=0.999), Asking(sim)
    asking.ask(enclave)
    sim.advance(100)
    sim.custodian.block("loan", loan.id)
    enclave.link.cut()
    blocked_at = sim.now
    asking.ask(enclave, times=700, every=0.1)
    assert len(asking.answered) > 300
    assert max(asking.answered) < blocked_at + BOUND


# T38, T39, T40: the custodian's own machine


def test_a_restored_backup_is_noticed_and_gives_nothing_back(sim: Simulator) -> None:
    loan = sim.lend(allowance=30, max_ceiling=10)
    backup = sim.custodian.backup()
    first = sim.launch(loan)
    served = Asking(sim).ask(first, times=10)
    sim.custodian.restore(backup)
    with pytest.raises(Rejected) as caught:
        sim.custodian.restart()
    assert {reason.code for reason in caught.value.reasons} == {"database_older"}
    recovery = sim.custodian.recover()
    assert recovery.epoch == 2
    with pytest.raises(Rejected, match="recovering"):
        sim.launch(loan)
    sim.advance(121)
    assert not first.is_up  # nobody here knows it any more, so nobody renewed it
    with pytest.raises(Rejected, match="recovering"):
        sim.launch(loan)
    sim.advance((recovery.quiet_until - sim.now).total_seconds())
    while True:
        try:
            enclave = sim.launch(loan)
        except Rejected as exc:
            assert exc.code == "allowance_exhausted"  # noqa: PT017
            break
        served += Asking(sim).ask(enclave, times=10)
        enclave.stop()
    assert served == 30


def test_two_custodians_never_run_on_one_home(sim: Simulator) -> None:
    loan = sim.lend()
    with pytest.raises(Unavailable, match="held by process"):
        open_custodian(sim.custodian.home, _PASSPHRASE, make_verifier=lambda _: Verifier([]), clock=sim.custodian.clock)
    assert loan.top_up(1) == 11


@pytest.mark.parametrize("point", list(CrashPoint))
def test_a_custodian_that_dies_over_a_lease_debits_once_and_answers_the_same(sim: Simulator, point: CrashPoint) -> None:
    loan = sim.lend(allowance=100, max_ceiling=10)
    enclave = sim.launch(loan, renews=False)
    Asking(sim).ask(enclave, times=4)
    sim.custodian.crash_at(point)
    with pytest.raises(Unavailable):
        enclave.renew()
    assert not sim.custodian.is_up
    sim.custodian.restart()
    enclave.renew()
    before, after = statements(enclave, LeaseRequest.LABEL)[-2:]
    assert before == after
    assert enclave.snapshot.limits == {"loan": 14}
    assert balanced(loan) == {"granted": 100, "balance": 86, "held": 10, "spent": 4, "written_off": 0}
    assert sim.custodian.events().count("lease_granted") == 2


@pytest.mark.parametrize("point", list(CrashPoint))
def test_a_custodian_that_dies_over_a_usage_report_stores_it_once(sim: Simulator, point: CrashPoint) -> None:
    loan = sim.lend(allowance=100, max_ceiling=10)
    enclave = sim.launch(loan, renews=False)
    Asking(sim).ask(enclave, times=4)
    sim.custodian.crash_at(point)
    with pytest.raises(Unavailable):
        enclave.renew()
    sim.custodian.restart()
    assert isinstance(enclave.renew(), Lease)
    sent = statements(enclave, UsageReport.LABEL)
    assert len(sent) == 2
    assert sent[0] == sent[1]
    assert sim.custodian.events().count("usage_reported") == 1
    assert enclave.snapshot.unreported == 0
    assert balanced(loan) == {"granted": 100, "balance": 86, "held": 10, "spent": 4, "written_off": 0}


@pytest.mark.parametrize("point", list(CrashPoint))
def test_a_custodian_that_dies_over_a_release_lets_no_key_out_unlogged(sim: Simulator, point: CrashPoint) -> None:
    loan = sim.lend(allowance=100)
    enclave = sim.machine(loan)
    passing = {CrashPoint.BEFORE_ANSWER: 1}.get(point, 2)  # challenge, nonce, grant
    sim.custodian.crash_at(point, passing=passing)
    with pytest.raises(Unavailable):
        sim.run(enclave.launch())
    sim.custodian.restart()
    released = sim.custodian.events().count("key_released")
    assert released == (0 if point is CrashPoint.BEFORE_COMMIT else 1)
    attest = enclave.link.requests.log[-1]
    assert sim.run(sim.network.deliver(attest)).status == 403  # the nonce was used up before
    assert balanced(loan)["balance"] == 100
    sim.launch(loan)


def test_a_flapping_custodian_and_a_bad_network_cost_no_unit_twice(sim: Simulator) -> None:
    loan = sim.lend(allowance=60, max_ceiling=6)
    enclave, asking = sim.launch(loan), Asking(sim)
    points = list(CrashPoint)
    for turn in range(12):
        enclave.link.answers.drop(turn % 3)
        enclave.link.requests.duplicate(turn % 2)
        sim.custodian.crash_at(points[turn % 3])
        asking.ask(enclave, times=8, every=1)
        sim.advance(8)
        if not sim.custodian.is_up:
            sim.custodian.restart()
        sim.advance(24)
    assert enclave.is_up
    assert len(asking.answered) == runs_of(enclave)
    asking.ask(enclave, times=60, every=2)
    assert len(asking.answered) == runs_of(enclave) == 60
    enclave.stop()
    assert balanced(loan) == {"granted": 60, "balance": 0, "held": 0, "spent": 60, "written_off": 0}


# T41, T50: an enclave whose borrower could make it lie


def statements(enclave: SimulatedEnclave, label: Label) -> list[bytes]:
    """Return what an enclave sent under a label, in order: alone, or report and request in one call."""
    found: list[bytes] = []
    for request in enclave.link.requests.log:
        parts = [request.body]
        if request.path.endswith("/renewal"):
            fields = Fields.parse(request.body, what="renewal")
            parts = [fields.b64u("report"), fields.b64u("request")]
        for part in parts:
            with suppress(CloisterError):
                Statement.parse(part, label=label)
                found.append(part)
    return found


def lying(sim: Simulator, enclave: SimulatedEnclave, **changes: Any) -> Lease | Any:
    """Send the enclave's next request with ``changes``, signed by its own key: what broken hardware would allow."""
    holder = enclave.instance.metering._holder
    assert holder._key is not None
    honest = holder._lease_request(b"l" * 16)
    seq = instance_seq(sim) + 1
    payload = replace(honest, seq=seq, **changes).dump()
    statement = Statement.sign(holder._key, LeaseRequest.LABEL, payload).dump()
    first = next(request for request in enclave.link.requests.log if request.path.endswith("/lease"))
    answer = sim.run(sim.network.deliver(with_length(replace(first, body=statement))))
    assert answer.status == 200, answer.body
    return answer.body


def instance_seq(sim: Simulator) -> int:
    return int(sim.custodian.call("GET", "/v1/instances").demand()["instances"][0]["seq"])


def test_reporting_no_use_for_ever_serves_no_more(sim: Simulator) -> None:
    """T41: a ceiling is debited when it is raised, and rises only with what is reported."""
    loan = sim.lend(allowance=100, max_ceiling=10)
    enclave = sim.launch(loan, renews=False)
    Asking(sim).ask(enclave, times=10)
    for _ in range(5):
        lying(sim, enclave, used={}, want={"loan": 1000})
        assert balanced(loan)["balance"] == 90


def test_reporting_less_than_before_ends_the_instance(sim: Simulator) -> None:
    loan = sim.lend(allowance=100, max_ceiling=10)
    enclave = sim.launch(loan, renews=False)
    Asking(sim).ask(enclave, times=5)
    enclave.renew()
    lying(sim, enclave, used={"loan": 1})
    assert "fork_detected" in sim.custodian.events()


def test_closing_with_nothing_used_gives_nothing_back(sim: Simulator) -> None:
    """T50: whoever closes may have kept a copy."""
    loan = sim.lend(allowance=100, max_ceiling=10)
    enclave = sim.launch(loan, renews=False)
    holder = enclave.instance.metering._holder
    assert holder._key is not None
    close = Close(instance=enclave.id, epoch=1, seq=2, used={}, served=0, chain_head=holder._usage.head)
    statement = Statement.sign(holder._key, Close.LABEL, close.dump()).dump()
    last = enclave.link.requests.log[-1]
    sent = with_length(replace(last, path=last.path.replace("/lease", "/close"), body=statement))
    assert sim.run(sim.network.deliver(sent)).status == 200
    assert balanced(loan) == {"granted": 100, "balance": 90, "held": 0, "spent": 0, "written_off": 10}
    assert enclave.renew().stop


# T56: the consumer's own requests, replayed


def test_a_replayed_inference_runs_nothing_and_costs_nothing(sim: Simulator) -> None:
    enclave = sim.launch(sim.lend(allowance=10))
    consumer = sim.consumer(enclave)
    answer = consumer.infer(key="one")
    kept = consumer.link.requests.log[-1]
    for _ in range(10):
        assert sim.run(sim.network.deliver(kept)).status == 400
    sim.advance(600)
    assert sim.run(sim.network.deliver(kept)).status != 500
    assert runs_of(enclave) == 1
    assert (enclave.snapshot.used["loan"], answer.remaining) == (1, 9)


def test_a_request_replayed_at_another_enclave_says_nothing(sim: Simulator) -> None:
    loan = sim.lend(allowance=10, max_ceiling=5)
    first, second = sim.launch(loan), sim.launch(loan)
    consumer = sim.consumer(first)
    consumer.infer()
    kept = replace(consumer.link.requests.log[-1], target=second.name)
    assert sim.run(sim.network.deliver(kept)).status == 400
    assert runs_of(second) == 0


def test_crossed_answers_open_for_nobody(sim: Simulator) -> None:
    """T57: the network gives each of two consumers the other's answer."""
    enclave = sim.launch(sim.lend(allowance=10))
    consumer = sim.consumer(enclave)
    consumer.remaining()
    consumer.link.answers.hold()
    tasks = [sim.spawn(consumer.inferring([[float(number)]])) for number in range(2)]
    sim.advance(1)
    consumer.link.answers.release(crossed=True)
    sim.advance(1)
    for task in tasks:
        error = task.exception()
        assert isinstance(error, Rejected)
        assert error.code in {"decryption_failed", "truncated"}


# T90, T10, T53, T4: who gets in at all


def test_a_block_between_evidence_and_grant_is_seen_by_the_grant(sim: Simulator) -> None:
    """T90: what was decided over is read again in the transaction that grants."""
    loan = sim.lend()
    enclave = sim.machine(loan)
    service = sim.custodian.service
    body = Fields({"kind": "loan", "subject": loan.id, "reason": ""}, what="body")

    def prepare(request: Request) -> None:
        if request.path.endswith("/attest"):  # behind the reading of its token, before that of the policy
            sim.custodian.meanwhile(
                lambda: service.run(lambda transaction: blocks.block(transaction, SYSTEM, body)), reads=1
            )

    enclave.link.requests.watch(prepare)
    with pytest.raises(Rejected, match="blocked"):
        sim.run(enclave.launch())
    events = sim.custodian.events()
    assert events[-2:] == ("blocked", "attestation_refused")
    assert "key_released" not in events


def test_a_block_while_a_lease_request_is_under_way_wins(sim: Simulator) -> None:
    loan = sim.lend(allowance=100)
    enclave = sim.launch(loan, renews=False)
    enclave.link.requests.delay(2)
    renewing = sim.spawn(enclave.instance.renewal.once())
    sim.advance(1)
    sim.custodian.block("loan", loan.id)
    sim.advance(5)
    assert renewing.result().stop
    assert Asking(sim).ask(enclave) == 0


def test_an_instance_of_a_policy_that_was_replaced_gets_no_more_leases(sim: Simulator) -> None:
    loan = sim.lend(allowance=100)
    enclave = sim.launch(loan)
    newer = sim.policy(replace(sim.software, code="cd" * 32), version=2)
    sim.custodian.call("POST", f"/v1/loans/{loan.id}/policy", {"policy": newer.to_json()}).demand()
    sim.advance(21)
    assert not enclave.is_up
    with pytest.raises(Rejected):
        sim.launch(loan)


def test_a_tampered_enclave_gets_neither_key_nor_consumers(sim: Simulator) -> None:
    loan = sim.lend()
    for changes in ({"software": replace(sim.software, code="ab" * 32)}, {"claims": {"debug": True}}):
        enclave = sim.machine(loan, **changes)
        with pytest.raises(Rejected):
            sim.run(enclave.launch())
        assert not enclave.is_up
    events = sim.custodian.events()
    assert events.count("attestation_refused") == 2
    assert "key_released" not in events


def test_a_key_swapped_on_the_way_out_is_no_key_of_the_evidence(sim: Simulator) -> None:
    """T5: the request is signed, so whoever changes it changes who it is from; evidence says otherwise."""
    loan = sim.lend()
    victim, thief = sim.launch(loan), sim.machine(loan)
    stolen = next(request for request in victim.link.requests.log if request.path.endswith("/attest"))
    thief.link.requests.watch(
        lambda request: thief.link.requests.replay(stolen) if request.path.endswith("/attest") else None
    )
    with pytest.raises(Rejected, match="nonce_used"):
        sim.run(thief.launch())


def test_a_consumer_with_a_policy_of_its_own_refuses_an_image_the_custodian_likes(sim: Simulator) -> None:
    """T53: the custodian approves a leaking image; consumers compare with what they rebuilt themselves."""
    leaking = replace(sim.software, code="ee" * 32)
    loan = sim.lend(policy=sim.policy(leaking))
    enclave = sim.launch(loan, software=leaking)
    with pytest.raises(Rejected) as caught:
        sim.consumer(enclave)
    assert {reason.code for reason in caught.value.reasons} >= {"measurement_mismatch"}
    assert runs_of(enclave) == 0
    careless = sim.trust(loan, policy=sim.policy(leaking))
    assert sim.consumer(enclave, trust=careless).infer().units == 1


def test_a_consumer_led_to_another_operator_s_enclave_refuses_it(sim: Simulator) -> None:
    """T4: genuine code, genuine evidence, another house."""
    loan, other = sim.lend(), sim.lend(operator="Another Hospital")
    wanted, stranger = sim.launch(loan), sim.launch(other)
    consumer = sim.consumer(wanted)
    sim.network.redirect(wanted.name, stranger.name)
    with pytest.raises(Rejected, match="operator_mismatch"):
        consumer.infer()
    assert runs_of(wanted, stranger) == 0


def test_a_consumer_is_told_of_a_block_before_it_asks(sim: Simulator) -> None:
    loan = sim.lend()
    enclave = sim.launch(loan, renews=False)
    sim.custodian.block("loan", loan.id)
    with pytest.raises(Rejected, match="instance_not_active"):
        sim.consumer(enclave)
