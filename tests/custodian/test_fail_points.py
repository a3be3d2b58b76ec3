"""At every single thing that grant, renew, close, block, publish and start do to the world: fail, half-fail, crash.

For n = 1, 2, 3 and so on until an operation goes through untouched. After each: the custodian starts again from
its disk, its books balance, its log is whole up to the checkpoint, no unit was debited twice, and the
operation, asked for again, succeeds.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from fault_ground import Ground, meet

from cloister.errors import Rejected, Unavailable
from fail_points import FailPoints, Fault

if TYPE_CHECKING:
    from pathlib import Path

FAULTS = list(Fault)
MOST_POINTS = 200
OPERATIONS = ["renew", "block"]
OPERATIONS += [pytest.param(name, marks=pytest.mark.drill) for name in ("grant", "close", "publish", "start")]


def again(ground: Ground, operation: str) -> int:
    """Ask for it again, as its caller does."""
    return int(getattr(ground, operation)())


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.value)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_wherever_it_fails_asking_again_succeeds_and_nothing_is_lost(place: Path, operation: str, fault: Fault) -> None:
    want: int | None = None
    met: list[str] = []
    for at in range(1, MOST_POINTS):
        folder = place / str(at)
        folder.mkdir()
        ground = Ground(folder)
        before = ground.bench.service.context.size
        points, through = meet(getattr(ground, operation), at, fault)
        if points.met is None:
            assert through
            break
        met.append(points.met)
        # While the process lives, it answers, or says that it cannot; it never answers otherwise than before.
        if fault is not Fault.CRASH and operation != "start":
            with suppress(Unavailable):
                want = _same(want, again(ground, operation))
        ground.start_anew()
        assert ground.bench.service.context.size > before
        ground.demand_whole()
        want = _same(want, again(ground, operation))
        ground.demand_whole()
        ground.bench.close()
        shutil.rmtree(folder)
    else:
        pytest.fail(f"{operation} does not come to an end of its points")
    print(f"{operation}, {fault.value}: {len(met)} points: {', '.join(met)}")  # noqa: T201 - the result
    assert any(name.startswith("commit") for name in met)
    assert "fsync" in met
    assert "replace" in met


def _same(want: int | None, got: int) -> int:
    assert want in (None, got), "asked again, and answered otherwise"
    return got


def test_a_fault_leaves_no_answer_behind_that_says_yes(place: Path) -> None:
    """The last point of a renewal is the folder's fsync: without it, no lease is given."""
    ground = Ground(place)
    points, through = meet(ground.renew, MOST_POINTS, Fault.NOT_DONE)
    assert through
    last = points.count
    ground.toy.holder = None
    ground.toy = ground.lent.boot()
    with pytest.raises(Unavailable), FailPoints(last, Fault.NOT_DONE).standing():
        ground.renew()
    assert ground.toy.holder is not None
    with pytest.raises(Rejected):  # the enclave has nothing to serve from
        ground.toy.holder.reserve("digits", None, 1, ground.bench.clock())
    ground.bench.close()
