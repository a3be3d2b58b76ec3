"""What the custodian's clock says about an enclave's: renewals that come too rarely or too fast are an alarm (T37)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from world import World, terms

from cloister.lending.cadence import judge_cadence
from cloister.lending.events import EventKind

T = timedelta(seconds=60)


def alarms(world: World) -> list[str]:
    kind = EventKind.CLOCK_ANOMALY.value
    return [line.decode() for line in world.custodian.db.lines if f'"kind":"{kind}"'.encode() in line]


@pytest.mark.parametrize(("after", "count"), [(20, 0), (39, 0), (41, 1), (59, 1)])
def test_t37_a_renewal_that_comes_late_is_logged_and_still_answered(after: float, count: int) -> None:
    world = World((terms(cap=10), 100))
    enclave = world.launch()
    assert enclave is not None
    world.renew(enclave)
    world.now += timedelta(seconds=after)
    world.renew(enclave)
    assert len(alarms(world)) == count
    assert all("renewal_late" in line for line in alarms(world))
    assert enclave.holder.snapshot().seq == 2


def test_t37_a_clock_100_times_too_fast_is_logged_once() -> None:
    world = World((terms(cap=10), 100))
    enclave = world.launch()
    assert enclave is not None
    for _ in range(60):
        world.renew(enclave)
        world.now += T / 300
    assert len(alarms(world)) == 1
    assert "renewals_early" in alarms(world)[0]


def test_the_fastest_honest_pace_is_no_alarm() -> None:
    world = World((terms(cap=10), 100))
    enclave = world.launch()
    assert enclave is not None
    for _ in range(200):
        world.renew(enclave)
        world.now += T * 0.0751
    assert alarms(world) == []


def test_a_first_lease_may_take_as_long_as_the_models_take_to_open() -> None:
    world = World((terms(cap=10), 100))
    enclave = world.launch()
    assert enclave is not None
    (instance,) = world.custodian.db.instances.values()
    late = instance.attested_at + timedelta(minutes=4)
    assert judge_cadence(instance, seq=1, ttl=T, now=late) is None
    after = replace(instance, limits={"loan": 1}, committed_at=instance.attested_at)  # type: ignore[dict-item]  # a meter
    assert judge_cadence(after, seq=2, ttl=T, now=late) == "renewal_late"
