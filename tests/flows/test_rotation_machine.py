"""Keys rotate while anything happens in any order; deliberate mistakes in rotating are caught by R1 to R4."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from books import Violation
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from rotation_world import DAMAGES, EVERY_S, TTL_S, RotationWorld
from sqlalchemy import update

from cloister.custodian.service import leases, release, rewrapping, rotation
from cloister.custodian.store.tables import INSTANCE, MODEL
from cloister.custodian.vaults import wrap_dek
from cloister.errors import Rejected
from cloister.testing.simulator import CrashPoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy import Connection

    Patch = pytest.MonkeyPatch

NUMBER = st.integers(0, 99)
MOST_ENCLAVES = 3


class Rotating(RuleBasedStateMachine):
    """One custodian; every number picks among what there is."""

    @initialize(seed=NUMBER)
    def lend(self, seed: int) -> None:
        self.world = RotationWorld(seed)

    @rule(incident=st.booleans(), crash=st.sampled_from((None, None, None, *CrashPoint)))
    def rotate(self, *, incident: bool, crash: CrashPoint | None) -> None:
        self.world.rotate(incident=incident, crash=crash)

    @rule(every=st.booleans())
    def schedule(self, *, every: bool) -> None:
        self.world.schedule(every=every)

    @rule(seconds=st.sampled_from((1, 6, TTL_S / 3 + 1, TTL_S, EVERY_S + 6)))
    def wait(self, seconds: float) -> None:
        self.world.wait(seconds)

    @rule(number=NUMBER)
    def come_and_go(self, number: int) -> None:
        if len(self.world.served) < MOST_ENCLAVES:
            self.world.launch()
        else:
            self.world.crash_enclave(number)

    @rule(number=NUMBER)
    def cut(self, number: int) -> None:
        self.world.cut(number)

    @rule(number=NUMBER, kind=NUMBER)
    def damage(self, number: int, kind: int) -> None:
        self.world.damage(number, kind)

    @rule(number=NUMBER, republish=st.booleans())
    def mend(self, number: int, *, republish: bool) -> None:
        self.world.mend(number, republish=republish)

    @rule()
    def crash_custodian(self) -> None:
        self.world.crash_custodian()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.__exit__()


def run(examples: int, steps: int, *, same_every_time: bool) -> None:
    run_state_machine_as_test(
        Rotating,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=same_every_time,
            suppress_health_check=list(HealthCheck),
        ),
        _min_steps=steps,
    )


@pytest.mark.timeout(900)  # a busy machine takes its time
def test_rotations_harm_nobody_whatever_happens_in_whatever_order() -> None:
    run(4, 10, same_every_time=True)


@pytest.mark.drill
@pytest.mark.timeout(7200)
def test_rotations_harm_nobody_in_a_hundred_longer_stories() -> None:
    run(100, 40, same_every_time=False)


def by_hand(world: RotationWorld) -> None:
    world.rotate()
    world.wait(TTL_S / 3 + 1)
    world.rotate(incident=True)
    world.launch()
    world.wait(TTL_S / 3 + 1)


def by_schedule(world: RotationWorld) -> None:
    world.schedule(every=True)
    world.wait(EVERY_S + 6)
    world.wait(6)
    world.launch()


def over_damage(world: RotationWorld) -> None:
    world.rotate()
    world.damage(1, 3)
    world.rotate(incident=True)
    world.mend(1, republish=False)


SCENARIOS = (by_hand, by_schedule, over_damage)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_keys_that_rotate_as_they_should_come_through(scenario: Callable[[RotationWorld], None]) -> None:
    with RotationWorld() as world:
        scenario(world)


def destroys_what_is_needed(patch: Patch) -> None:
    patch.setattr(rotation, "needed_keks", lambda _connection, _vault: frozenset())


def wraps_another_key(patch: Patch) -> None:
    patch.setattr(rewrapping, "wrap_dek", lambda vault, _dek, **rest: wrap_dek(vault, bytes(32), **rest))


def keeps_old_envelopes(patch: Patch) -> None:
    patch.setattr(rewrapping, "replace_envelope", lambda *_: None)


def counts_leases_as_moved(patch: Patch) -> None:
    retire = rotation.retire_keks

    def retire_and_move(connection: Connection, now: datetime) -> None:
        retire(connection, now)
        connection.execute(update(INSTANCE).values(key_epoch=INSTANCE.c.key_epoch + 1))

    patch.setattr(rotation, "retire_keks", retire_and_move)


def lists_nobody(patch: Patch) -> None:
    patch.setattr(rotation, "behind", lambda *_, **__: ([], 0))


def lists_no_model(patch: Patch) -> None:
    patch.setattr(rotation, "stuck", lambda *_: [])


def never_counts_as_moved(patch: Patch) -> None:
    patch.setattr(leases, "move_instance", lambda *_: None)


def writes_instances_off(patch: Patch) -> None:
    retire = rotation.retire_keks

    def retire_all(connection: Connection, now: datetime) -> None:
        retire(connection, now)
        connection.execute(update(INSTANCE).values(written_off=1))

    patch.setattr(rotation, "retire_keks", retire_all)


def withdraws_the_models(patch: Patch) -> None:
    retire = rotation.retire_keks

    def retire_all(connection: Connection, now: datetime) -> None:
        retire(connection, now)
        connection.execute(update(MODEL).values(withdrawn_at=1))

    patch.setattr(rotation, "retire_keks", retire_all)


def releases_by_the_first_key_alone(patch: Patch) -> None:
    patch.setattr(release, "held_keks", lambda *_: lambda _kek_id: None)


def stops_at_one_bad_row(patch: Patch) -> None:
    told = rewrapping._moved

    def whole_or_not(*arguments: object) -> bytes:
        fresh = told(*arguments)  # type: ignore[arg-type]  # as they came
        if not isinstance(fresh, bytes):
            raise Rejected.because("wrong_key", "envelope")
        return fresh

    patch.setattr(rewrapping, "_moved", whole_or_not)


def leaves_the_last_model_behind(patch: Patch) -> None:
    move = rewrapping.move_all
    patch.setattr(
        rotation, "move_all", lambda connection, vault, envelopes, kek: move(connection, vault, envelopes[:-1], kek)
    )


def forgets_the_schedule(patch: Patch) -> None:
    patch.setattr(rotation, "read_schedule", lambda _connection: None)


CAUGHT_BY: dict[Callable[[Patch], None], tuple[Callable[[RotationWorld], None], str]] = {
    destroys_what_is_needed: (over_damage, "R1"),
    wraps_another_key: (by_hand, "R1"),
    keeps_old_envelopes: (by_hand, "R4"),
    counts_leases_as_moved: (by_hand, "R2"),
    lists_nobody: (by_hand, "R2"),
    lists_no_model: (over_damage, "R2"),
    never_counts_as_moved: (by_hand, "R2"),
    writes_instances_off: (by_hand, "R2"),
    withdraws_the_models: (by_hand, "R3"),
    releases_by_the_first_key_alone: (by_hand, "R3"),
    stops_at_one_bad_row: (over_damage, "R4"),
    leaves_the_last_model_behind: (by_hand, "R4"),
    forgets_the_schedule: (by_schedule, "R4"),
}


@pytest.mark.parametrize("mistake", CAUGHT_BY, ids=lambda mistake: mistake.__name__)
def test_the_mistake_is_caught(mistake: Callable[[Patch], None], monkeypatch: Patch) -> None:
    scenario, invariant = CAUGHT_BY[mistake]
    with RotationWorld() as world, monkeypatch.context() as patch:
        mistake(patch)
        with pytest.raises(Violation) as caught:
            scenario(world)
    assert caught.value.invariant == invariant, str(caught.value)


def test_every_kind_of_damage_is_stuck_and_mended_while_enclaves_serve() -> None:
    with RotationWorld() as world:
        for kind in range(len(DAMAGES)):
            world.damage(0, kind)
            world.rotate(incident=True)
            world.ask()
            world.mend(0, republish=bool(kind % 2))
        world.launch()
