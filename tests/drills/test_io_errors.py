"""R5 and R6: the disk fails under a real custodian: errors at a rate, one failed sync, a disk gone read-only.

The calls of the process itself fail (diskshim), so that no root and no special disk is needed. However it fails: what
was acknowledged is stored, nobody serves what is not leased on the disk, the custodian says that it is unwell, and
with a sound disk it comes back.
"""

from __future__ import annotations

import errno
import random
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from counts import IO_EPISODES
from disk import OnDisk, demand_extends, read_home
from diskshim import Faults, Shim, needs_compiler
from drill_house import DrillHouse
from load import Asker, receipts_of, until_served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Measured = Callable[[str, object], None]

pytestmark = [
    needs_compiler,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning"),
]

UNITS = 4
TRIES = 60  # additions asked for while the disk fails
RATES = (0.01, 0.05, 0.20)


class Patient:
    """A custodian on a failing disk, one consumer, and what staff was told."""

    def __init__(self, house: DrillHouse, shim: Shim, folder: Path) -> None:
        self.house, self.shim, self._scratch = house, shim, folder / "scratch"
        self.asker = Asker(house, next(iter(house.tokens)))
        self.acknowledged = 0
        self.tried = 0
        self.before: OnDisk | None = None
        self.answers: Counter[int] = Counter()

    def add(self) -> int:
        """Try to add units; return the status, 0 where no answer came."""
        self.tried += 1
        status = ask(self.house, "POST", f"/v1/loans/{self.house.loan}/top-up", {"units": UNITS})
        self.answers[status] += 1
        self.acknowledged += status == httpx2.codes.OK
        return status

    def ready(self) -> int:
        """Return what ``/readyz`` answers."""
        return ask(self.house, "GET", "/readyz")

    def examine(self) -> OnDisk:
        """Prove of the dead custodian's disk: everything acknowledged is there, and what was served was leased."""
        now = read_home(self.house.home, self.house.made.key, self._scratch)
        demand_extends(now, self.before)
        granted = now.granted(self.house.loan) - self.house.allowance
        assert self.acknowledged * UNITS <= granted <= self.tried * UNITS
        served: Counter[str] = Counter()
        for receipt in receipts_of([self.asker]):
            served[receipt.instance] += receipt.units
        assert all(units <= now.limit_of(instance) for instance, units in served.items())
        self.before = now
        return now

    def heal(self) -> None:
        """Give the disk back, kill the custodian, examine what it left, and serve again."""
        self.shim.set(Faults())
        down = time.monotonic()
        assert self.house.custodian is not None
        if self.house.custodian.process.poll() is None:
            self.house.kill_custodian()
        self.examine()
        self.house.start_custodian()
        until_served(self.house, [self.asker], more=1, within_s=40, down_s=time.monotonic() - down + self.house.ttl_s)
        assert self.ready() == httpx2.codes.OK


def ask(house: DrillHouse, method: str, path: str, body: Any = None) -> int:
    """Return the status of one call as the admin, 0 where no answer came."""
    headers = {"authorization": f"Bearer {house.made.admin_token}"}
    try:
        return house.http.request(method, path, json=body, headers=headers).status_code
    except httpx2.HTTPError:
        return 0


@contextmanager
def patient_in(folder: Path) -> Iterator[Patient]:
    """Yield a custodian under the shim, with an enclave that is asked all the time."""
    with DrillHouse(folder / "parties", ttl_s=6, max_ceiling=8, allowance=4000, consumers=1) as house:
        house.stop_custodian()
        shim = Shim(folder / "shim", watch=house.home)
        house.world.variables[house.world.custodian] |= shim.environment
        house.start_custodian()
        house.start_enclave()
        patient = Patient(house, shim, folder)
        patient.asker.start()
        try:
            until_served(house, [patient.asker], more=1, within_s=60)
            yield patient
        finally:
            patient.asker.stop()
            shim.close()


def sicken(patient: Patient, faults: Faults) -> None:
    """Let the disk fail until the custodian says so, or it had its share of tries."""
    patient.shim.set(faults)
    for _ in range(TRIES):
        if patient.add() != httpx2.codes.OK and patient.ready() != httpx2.codes.OK:
            break
    if patient.answers[503]:
        assert patient.shim.failed != (0, 0)


def errors_at_rates(folder: Path, *, episodes: int, seed: int, measured: Measured) -> None:
    """R6: at each rate, so many times from well to ill to well."""
    rng = random.Random(seed)
    with patient_in(folder) as patient:
        for rate in RATES:
            failed = 0
            patient.answers.clear()
            for turn in range(episodes):
                sicken(patient, Faults(writes=rate, syncs=rate, seed=rng.randrange(1, 2**31)))
                failed += sum(patient.shim.failed)
                if turn % 5 == 4:
                    start_on_a_bad_disk(patient, Faults(writes=rate, syncs=rate, seed=rng.randrange(1, 2**31)))
                patient.heal()
            told = dict(sorted(patient.answers.items()))
            measured(f"at {rate:.0%}: episodes, calls failed, answers by status", f"{episodes}, {failed}, {told}")
        measured("acknowledged additions, lost", f"{patient.acknowledged}, 0")


def start_on_a_bad_disk(patient: Patient, faults: Faults) -> None:
    """Start while the disk fails: it comes up, or ends by itself and says why."""
    house = patient.house
    assert house.custodian is not None
    if house.custodian.process.poll() is None:
        house.kill_custodian()
    patient.shim.set(faults)
    house.start_custodian(wait=False)
    end = time.monotonic() + 10
    while time.monotonic() < end and house.custodian.process.poll() is None and not ask(house, "GET", "/healthz"):
        time.sleep(0.05)
    code = house.custodian.process.poll()
    assert code in {None, 3, 4, 5}, house.custodian.said()[-3000:]
    assert "Traceback" not in house.custodian.said()


@pytest.mark.drill
def test_errors_of_the_disk_lose_nothing_that_was_acknowledged(tmp_path: Path, measured: Measured) -> None:
    errors_at_rates(tmp_path, episodes=IO_EPISODES.suite, seed=6, measured=measured)


@pytest.mark.drill
@pytest.mark.timeout(7200)
def test_errors_of_the_disk_for_long(tmp_path: Path, measured: Measured) -> None:
    errors_at_rates(tmp_path, episodes=IO_EPISODES.many, seed=60, measured=measured)


def test_one_failed_sync_stops_writing_and_a_disk_gone_read_only_releases_nothing(tmp_path: Path) -> None:
    """R5: whatever fails once, the answer is 503 and ``/readyz`` says so; reading goes on."""
    with patient_in(tmp_path) as patient:
        house = patient.house
        # A commit of unknown outcome: nothing more is written until a restart, however well the disk is by then.
        patient.shim.set(Faults(sync_in=1, only="custodian.db-wal"))
        assert [patient.add(), patient.add(), patient.ready()] == [503, 503, 503]
        assert ask(house, "GET", "/v1/loans") == ask(house, "GET", "/healthz") == httpx2.codes.OK
        patient.heal()
        # Without its checkpoint nothing is answered; with it, all is well again without a restart.
        for faults in (Faults(syncs=1.0, only="checkpoint.json.new"), Faults(writes=1.0, only="checkpoint.json.new")):
            patient.shim.set(faults)
            assert [patient.add(), patient.ready()] == [503, 503]
            patient.shim.set(Faults())
            assert [patient.ready(), patient.add()] == [200, 200]
        # Read-only, as a kernel leaves a disk that it no longer trusts.
        house.kill_enclave()
        patient.shim.set(Faults(read_only=True, error=errno.EROFS))
        assert [patient.add(), patient.ready()] == [503, 503]
        refused = house.world.run(house.world.borrower, *house.enclave_words(), expect=None)
        assert refused.error["fault"] == "unavailable"
        assert ask(house, "GET", "/v1/loans") == httpx2.codes.OK
        patient.shim.set(Faults())
        house.kill_custodian()
        released = [entry.kind.value for entry in patient.examine().entries].count("key_released")
        assert released == len(house.instances)
