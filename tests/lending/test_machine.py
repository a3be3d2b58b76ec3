"""Anything may happen in any order: a Hypothesis state machine over the whole lease protocol.

After every step ``World.verify`` checks I1 to I9 under the conditions of the adversary table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from world import Enclave, World, terms

from cloister.lending.audit import verify_checkpoint, verify_log
from cloister.lending.terms import LOAN_METER, ConsumerId, Meter, consumer_meter, model_meter

if TYPE_CHECKING:
    from cloister.lending.terms import LoanId

NUMBER = st.integers(0, 999)
METERS: tuple[Meter, ...] = (LOAN_METER, model_meter("metered"), consumer_meter(ConsumerId("bob")))
POINTS = ("", "before commit", "after commit", "before answer")
WAITS = (1, 10, 20, 30, 40, 60, 62)
MOST_ENCLAVES = 12


class Lending(RuleBasedStateMachine):
    """Two loans; every number picks among what there is."""

    @initialize(units=st.integers(1, 40), cap=st.integers(1, 8), rate_cap=st.sampled_from((0, 0, 1)))
    def lend(self, units: int, cap: int, rate_cap: int) -> None:
        self.world = World((terms(1, cap=cap, rate_cap=rate_cap), units), (terms(2, cap=2, instances=2, ttl=30), 5))
        for loan in self.world.loans:
            enclave = self.world.launch(loan)
            assert enclave is not None
            self.world.renew(enclave)

    def _loan(self, number: int) -> LoanId:
        return list(self.world.loans)[number % len(self.world.loans)]

    def _enclave(self, number: int) -> Enclave:
        """Pick among the living; among the dead where there are none."""
        living = [enclave for enclave in self.world.enclaves if enclave.alive] or self.world.enclaves
        return living[number % len(living)]

    @rule(loan=NUMBER)
    def launch(self, loan: int) -> None:
        if len(self.world.enclaves) < MOST_ENCLAVES:
            enclave = self.world.launch(self._loan(loan))
            if enclave is not None:
                self.world.renew(enclave)

    @rule(number=NUMBER)
    def renew(self, number: int) -> None:
        self.world.renew(self._enclave(number))

    @rule(number=NUMBER)
    def request(self, number: int) -> None:
        self.world.send(self._enclave(number))

    @rule(number=NUMBER)
    def request_without_a_report(self, number: int) -> None:
        self.world.send(self._enclave(number), reports=False)

    @rule(number=NUMBER, acknowledged=st.booleans())
    def report(self, number: int, *, acknowledged: bool) -> None:
        self.world.report(self._enclave(number), acknowledged=acknowledged)

    @rule(number=NUMBER)
    def report_once_more(self, number: int) -> None:
        if self.world.reports:
            self.world.report_again(-1 - number % len(self.world.reports))

    @rule(number=NUMBER)
    def carry_any_request(self, number: int) -> None:
        self.world.carry(-1 - number % len(self.world.requests))

    @rule(number=NUMBER, enclave=NUMBER)
    def deliver_any_answer(self, number: int, enclave: int) -> None:
        if self.world.answers:
            self.world.deliver(-1 - number % len(self.world.answers), self._enclave(enclave))

    @rule(
        number=NUMBER,
        units=st.integers(1, 3),
        model=st.sampled_from(("plain", "metered")),
        consumer=st.sampled_from(("ann", "bob")),
    )
    def serve(self, number: int, units: int, model: str, consumer: str) -> None:
        self.world.serve(self._enclave(number), units, model, consumer)

    @rule(number=NUMBER)
    def renew_and_serve(self, number: int) -> None:
        enclave = self._enclave(number)
        self.world.renew(enclave)
        self.world.serve(enclave)

    @rule(number=NUMBER)
    def serve_one(self, number: int) -> None:
        self.world.serve(self._enclave(number))

    @rule(number=NUMBER, units=st.integers(1, 3))
    def begin_stream(self, number: int, units: int) -> None:
        self.world.begin(self._enclave(number), units)

    @rule(number=NUMBER, finish=st.booleans())
    def go_on_streaming(self, number: int, *, finish: bool) -> None:
        busy = [enclave for enclave in self.world.enclaves if enclave.streams]
        if busy:
            enclave = busy[number % len(busy)]
            running = enclave.streams[number % len(enclave.streams)]
            self.world.chunk(enclave, running)
            if finish:
                self.world.finish(enclave, running)

    @rule(seconds=st.sampled_from(WAITS), renewing=st.booleans())
    def wait_and_try(self, seconds: float, *, renewing: bool) -> None:
        """Let time pass, with or without the network; whoever can still serve does."""
        for _ in range(4):
            self.world.advance(seconds / 4)
            for enclave in self.world.enclaves:
                if renewing:
                    self.world.renew(enclave)
                self.world.serve(enclave)
                for stream in enclave.streams:
                    self.world.chunk(enclave, stream)

    @rule(number=NUMBER, seconds=st.sampled_from(WAITS), block=st.booleans())
    def hold_an_answer_back(self, number: int, seconds: float, *, block: bool) -> None:
        enclave = self._enclave(number)
        sent = self.world.send(enclave)
        answer = None if sent is None else self.world.carry(sent)
        if block:
            self.world.block("loan", self._loan(number))
        self.world.advance(seconds)
        if answer is not None:
            self.world.deliver(answer, enclave)

    @rule(loan=NUMBER, units=st.integers(0, 6), meter=st.sampled_from(METERS), add=st.booleans())
    def change_allowance(self, loan: int, units: int, meter: Meter, *, add: bool) -> None:
        if add and units:
            self.world.top_up(self._loan(loan), units, meter)
        elif not add:
            self.world.set_allowance(self._loan(loan), units)

    def _target(self, kind: str, number: int) -> str:
        loan = self._loan(number)
        match kind:
            case "loan":
                return loan
            case "model":
                return self.world.loans[loan].models[number % 2].digest
            case "consumer":
                return f"{loan}/{('ann', 'bob')[number % 2]}"
            case _:
                return self._enclave(number).id

    @rule(kind=st.sampled_from(("loan", "model", "consumer", "instance", "none", "none")), number=NUMBER)
    def block_or_unblock(self, kind: str, number: int) -> None:
        liftable = [key for key in self.world.blocks if key[0] != "instance"]
        if kind != "none":
            self.world.block(kind, self._target(kind, number))
        elif liftable:
            self.world.unblock(*liftable[number % len(liftable)])

    @rule(point=st.sampled_from(POINTS), stay_down=st.sampled_from((False, False, False, True)), number=NUMBER)
    def crash_custodian(self, point: str, number: int, *, stay_down: bool) -> None:
        self.world.crash_custodian(point)
        if not stay_down:
            self.world.renew(self._enclave(number))
            self.world.restart_custodian()

    @rule(number=NUMBER)
    def restart_custodian(self, number: int) -> None:
        self.world.restart_custodian()
        self.world.renew(self._enclave(number))

    @rule(number=NUMBER, restore=st.booleans())
    def backup_or_restore(self, number: int, *, restore: bool) -> None:
        if restore and self.world.backups:
            self.world.restore(number % len(self.world.backups))
        else:
            self.world.backup()
            self.world.save_disk(self._enclave(number))

    @rule(kind=st.sampled_from(("crash", "close", "sweep", "custodian clock")), number=NUMBER)
    def end_something(self, kind: str, number: int) -> None:
        match kind:
            case "crash" if len(self.world.enclaves) < MOST_ENCLAVES:
                self.world.relaunch(self._enclave(number))
            case "close":
                self.world.close(self._enclave(number), reports=number % 3 != 0)
            case "custodian clock":
                self.world.set_custodian_clock((0, -2, -3600, 0)[number % 4])
            case _:
                self.world.sweep()

    @rule(number=NUMBER, seconds=st.sampled_from((-3600, -30, -0.9, 30, 3600, None)))
    def change_enclave_clock(self, number: int, seconds: float | None) -> None:
        if seconds is None:
            self.world.freeze_clock(self._enclave(number))
        else:
            self.world.step_clock(self._enclave(number), seconds)

    @rule(number=NUMBER, really=st.sampled_from((False, False, True)))
    def copy_enclave_memory(self, number: int, *, really: bool) -> None:
        enclave = self._enclave(number)
        if really and enclave.alive and len(self.world.enclaves) < MOST_ENCLAVES:
            self.world.fork(enclave)

    def teardown(self) -> None:
        """Prove the log that is left, against the checkpoint outside if the custodian came that far."""
        if not hasattr(self, "world"):
            return
        custodian = self.world.custodian
        checkpoint = verify_checkpoint(custodian.outside, custodian.key.verify_key)
        verify_log(custodian.db.lines, checkpoint)


def run(examples: int, steps: int, *, same_every_time: bool) -> None:
    run_state_machine_as_test(
        Lending,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=same_every_time,
            suppress_health_check=list(HealthCheck),
        ),
        _min_steps=steps,  # that many steps each, not up to that many
    )


def test_the_invariants_hold_whatever_happens_in_whatever_order() -> None:
    run(100, 50, same_every_time=True)


@pytest.mark.drill
@pytest.mark.timeout(7200)
def test_the_invariants_hold_in_five_thousand_longer_stories() -> None:
    run(5000, 100, same_every_time=False)
