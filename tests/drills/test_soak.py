"""Soak: real custodian and enclave under steady load for a quarter of an hour grow in nothing but their log.

``CLOISTER_SOAK_SECONDS`` sets the length of the drill (900). The figures are printed (``pytest -s``); those of the last
run stand in docs/reliability.md.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from drill_house import DrillHouse
from load import Asker, Staff, _Worker, demand_expected
from soak import MIB, Watch, descriptors, resident, size, theil_sen, threads

from cloister.custodian.checkpoint import read_checkpoint
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECONDS = float(os.environ.get("CLOISTER_SOAK_SECONDS", "900"))
SHORT_S = 14.0
TTL_S = 15  # a busy machine may keep a renewal waiting; at 2T without one an enclave ends, and that is no leak

# What may be added over the judged window of a full run, by trend.
BOUNDS = {
    "custodian resident": 2 * MIB,
    "custodian descriptors": 2,  # one more reader of the database, of eight that are opened when they are wanted
    "custodian threads": 2,
    "enclave resident": 2 * MIB,
    "enclave descriptors": 2,
    "enclave threads": 2,
    "write-ahead log": MIB,
}
BYTES_PER_ENTRY_RATIO = 1.25  # the database's growth for one log entry: second half of the window against the first


class Reader(_Worker):
    """Looks at everything there is to see, and at event streams: some closed politely, some dropped."""

    def __init__(self, house: DrillHouse, *, pause_s: float) -> None:
        super().__init__()
        self._house, self._pause_s = house, pause_s
        self._turn = 0
        self.streams = self.reads = 0

    def turn(self) -> None:
        """Look once, and follow one stream."""
        self._turn += 1
        house = self._house
        for path in (f"/v1/loans/{house.loan}", "/v1/instances", "/v1/audit?limit=50", "/readyz", "/v1/loans"):
            house.call("GET", path)
            self.reads += 1
        nonce = dump_b64u(secrets.token_bytes(32))
        answer = house.http.get(f"/v1/instances/{house.instances[-1]}/status", params={"nonce": nonce})
        assert answer.status_code == 200, answer.text
        headers = {"authorization": f"Bearer {house.made.admin_token}"}
        query = {"loan": house.loan, "after": "-1"}
        with house.http.stream("GET", "/v1/events", params=query, headers=headers) as stream:
            assert stream.status_code == 200
            for _ in stream.iter_bytes():
                break
        self.streams += 1
        self.wait(self._pause_s)


def _quantities(house: DrillHouse) -> dict[str, Callable[[], float]]:
    assert house.custodian is not None
    assert house.enclave is not None
    custodian, enclave = house.custodian.process.pid, house.enclave.process.pid

    def entries() -> float:
        with contextlib.suppress(FileNotFoundError):  # replaced at this very moment
            checkpoint = read_checkpoint(house.home / "checkpoint.json", house.made.key)
            return 0 if checkpoint is None else checkpoint.size
        return 0

    return {
        "custodian resident": lambda: resident(custodian),
        "custodian descriptors": lambda: descriptors(custodian),
        "custodian threads": lambda: threads(custodian),
        "enclave resident": lambda: resident(enclave),
        "enclave descriptors": lambda: descriptors(enclave),
        "enclave threads": lambda: threads(enclave),
        "write-ahead log": lambda: size(house.home / "custodian.db-wal"),
        "database": lambda: size(house.home / "custodian.db"),
        "log entries": entries,
    }


def _soak(root: Path, seconds: float) -> tuple[Watch, dict[str, Any]]:
    """Run everything for so long; return what was sampled and what was done."""
    with DrillHouse(root, ttl_s=TTL_S, max_ceiling=200, allowance=10_000) as house:
        house.start_enclave()
        askers = [Asker(house, name, pause_s=0.1) for name in house.tokens]  # the enclave remembers 4,096 answers soon
        staff, reader = Staff(house, units=20, pause_s=0.5), Reader(house, pause_s=0.5)
        workers = [*askers, staff, reader]
        watch = Watch(_quantities(house), interval_s=min(2.0, seconds / 50))
        for worker in workers:
            worker.start()
        watch.start()
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end and not any(worker.fault for worker in workers):
                time.sleep(0.2)
        finally:
            watch.stop()
            for worker in workers:
                worker.stop()
        for running in (house.custodian, house.enclave):
            assert running is not None
            assert running.process.poll() is None, running.said()[-1500:]
        demand_expected(askers)
        done = {
            "inferences": sum(len(asker.receipts) for asker in askers),
            "refused": sum(sum(asker.refused.values()) for asker in askers),
            "top-ups": staff.added // 20,
            "reads": reader.reads,
            "streams": reader.streams,
            "log entries": int(watch.samples["log entries"][-1][1] - watch.samples["log entries"][0][1]),
        }
        return watch, done


def _tell(watch: Watch, done: dict[str, Any]) -> None:
    first, second = watch.per("database", "log entries")
    table = f"{watch.table(BOUNDS)}\nbytes of database per log entry: {first:.0f}, then {second:.0f}"
    sys.stdout.write(f"\n{done}\n{table}\n")


@pytest.mark.drill
@pytest.mark.timeout(SECONDS + 300)
def test_a_quarter_of_an_hour_under_load_leaves_memory_descriptors_and_log_flat(tmp_path: Path) -> None:
    watch, done = _soak(tmp_path, SECONDS)
    _tell(watch, done)
    assert watch.grown(BOUNDS) == {}
    first, second = watch.per("database", "log entries")
    assert second <= BYTES_PER_ENTRY_RATIO * first
    assert done["inferences"] > SECONDS
    assert done["refused"] <= done["inferences"] / 100


@pytest.mark.drill
def test_a_short_soak_watches_both_processes_under_every_kind_of_load(tmp_path: Path) -> None:
    """Too short for trends; it proves that the drill's load runs and that everything it judges is sampled."""
    watch, done = _soak(tmp_path, SHORT_S)
    _tell(watch, done)
    assert set(BOUNDS) <= set(watch.samples)
    assert all(len(samples) >= 20 for samples in watch.samples.values())
    assert min(value for _, value in watch.samples["custodian resident"]) > 10 * MIB
    assert min(value for _, value in watch.samples["enclave resident"]) > 10 * MIB
    assert watch.samples["log entries"][-1][1] > watch.samples["log entries"][0][1]
    assert all(done[what] > 0 for what in ("inferences", "top-ups", "reads", "streams"))


_CHILD = """
import os, sys, threading, time
leak, path = sys.argv[1:]
kept, log = [], open(path, "w+b")
print("up", flush=True)
for turn in range(10**6):
    block = bytearray(os.urandom(1 << 16))
    if leak == "resident":
        kept.append(block)
    if leak == "descriptors":
        kept.append(os.open(os.devnull, os.O_RDONLY))
    if leak == "threads":
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    if leak != "file":
        log.seek(0)
    log.write(block)
    log.flush()
    time.sleep(0.05)
"""
LEAKS = ("nothing", "resident", "descriptors", "threads", "file")


@pytest.mark.drill
def test_the_measuring_finds_a_leak_of_each_kind_and_none_where_there_is_none(tmp_path: Path) -> None:
    children = {
        leak: subprocess.Popen(  # noqa: S603 - our own text
            [sys.executable, "-c", _CHILD, leak, str(tmp_path / leak)], stdout=subprocess.PIPE
        )
        for leak in LEAKS
    }
    watches = {}
    try:
        for leak, child in children.items():
            assert child.stdout is not None
            assert child.stdout.readline() == b"up\n"
            pid, path = child.pid, tmp_path / leak
            quantities: dict[str, Callable[[], float]] = {
                "resident": lambda pid=pid: resident(pid),  # type: ignore[misc]
                "descriptors": lambda pid=pid: descriptors(pid),  # type: ignore[misc]
                "threads": lambda pid=pid: threads(pid),  # type: ignore[misc]
                "file": lambda path=path: size(path),  # type: ignore[misc]
            }
            watches[leak] = Watch(quantities, interval_s=0.1)
            watches[leak].start()
        time.sleep(6)
    finally:
        for watch in watches.values():
            watch.stop()
        for child in children.values():
            child.kill()
            child.communicate()
    bounds = {"resident": MIB, "descriptors": 2, "threads": 2, "file": MIB}
    found = {leak: set(watch.grown(bounds)) for leak, watch in watches.items()}
    found["threads"] -= {"resident"}  # a thread has a stack
    assert found == {leak: {leak} - {"nothing"} for leak in LEAKS}


def test_the_trend_overlooks_outliers_and_noise_and_sees_a_slow_rise() -> None:
    flat = [(float(at), 100 + (at * 7 % 5) + (500 if at % 10 == 0 else 0)) for at in range(100)]
    assert abs(theil_sen(flat)) < 0.02
    assert theil_sen([(at, value + 0.5 * at) for at, value in flat]) == pytest.approx(0.5, abs=0.02)
    assert theil_sen([(1.0, 1.0)]) == 0


def test_growth_for_each_entry_is_compared_between_halves() -> None:
    watch = Watch({}, interval_s=1)
    watch.samples = {"database": [(float(at), 700.0 * at * 3) for at in range(60)]}
    watch.samples["log entries"] = [(float(at), 3.0 * at) for at in range(60)]
    assert watch.per("database", "log entries") == (pytest.approx(700), pytest.approx(700))


def test_an_unreadable_process_is_an_error_not_a_zero() -> None:
    with pytest.raises(FileNotFoundError):
        resident(2**22 + 1)
