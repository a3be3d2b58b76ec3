"""Health that tells the truth: each part is broken for real, and the answer says which one, by a code."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from custodian_kit import START, Bench
from recall_kit import carried, published

from cloister.custodian.service import health
from cloister.custodian.service.health import State
from cloister.custodian.setup import open_vault
from cloister.errors import Rejected, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from postgres_kit import PostgresServer

ROOT_CAN_MOUNT = os.geteuid() == 0 and shutil.which("mount") is not None
SMALL_MIB = 12


def ready(bench: Bench) -> tuple[int, dict[str, tuple[str, str]]]:
    """Return status and checks of ``/readyz``, as they are now."""
    bench.service.watch.health.last = None
    answer = bench.client.get("/readyz")
    body = answer.json()
    states = [check["state"] for check in body["checks"]]
    order = ("ok", "degraded", "failed")
    assert body["status"] == max(states, key=order.index)
    assert bench.client.get("/healthz").json()["status"] == ("ok" if body["status"] == "ok" else "degraded")
    assert bench.client.get("/healthz").status_code == 200
    return answer.status_code, {check["name"]: (check["state"], check["code"]) for check in body["checks"]}


@contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """Yield a disk of its own of a few MiB."""
    path.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_MIB}m", "tmpfs", str(path)]
    if not ROOT_CAN_MOUNT or subprocess.run(words, check=False, capture_output=True).returncode:  # noqa: S603 - ours
        pytest.skip("want to mount a small disk")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)  # noqa: S603, S607 - what was mounted above


def abandon(bench: Bench) -> None:
    """End as a killed process does."""
    bench.client.close()
    bench.service.abandon()


def fill(path: Path) -> Path:
    """Write until nothing more fits."""
    filler = path / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return filler


def test_all_is_well_and_nothing_is_tried_twice_a_second(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_FRESH_S", 60)
    status, checks = ready(bench)
    assert (status, {state for state, _ in checks.values()}) == (200, {"ok"})
    assert set(checks) == {"checkpoint", "clock", "database", "disk", "endorsements", "vault"}
    first = bench.service.watch.health.report(within_s=60)
    for _ in range(50):
        bench.client.get("/readyz")
    assert bench.service.watch.health.last is first


def test_a_full_disk_leaves_reads_and_refuses_keys_and_health_says_so(tmp_path: Path) -> None:
    """Item 74: disk full: reads work, key release refuses with 503, health says degraded."""
    with small_disk(tmp_path / "disk") as disk, Bench(disk / "bench", settings={"disk_floor_mib": 1}) as bench:
        lent = bench.lend()
        assert ready(bench)[0] == 200
        before = bench.audit()
        filler = fill(disk)
        status, checks = ready(bench)
        assert status == 503
        assert checks["checkpoint"] == ("failed", "checkpoint_unwritable")
        assert checks["disk"] == ("degraded", "disk_low")
        assert checks["vault"] == ("ok", "ok")
        assert bench.client.get("/healthz").json() == {"status": "degraded"}
        assert bench.get(f"/v1/loans/{lent.id}").status_code == 200
        assert bench.get("/v1/audit?limit=1000").json()["entries"] == before
        assert lent.challenge().status_code == 503
        codes = {alarm["code"] for alarm in bench.get("/v1/alarms").json()["alarms"]}
        assert {"disk_low", "unhealthy"} <= codes
        filler.unlink()
        abandon(bench)  # a commit that failed is settled by a restart
        bench.open()
        assert ready(bench)[0] == 200
        assert lent.boot().grant is not None


def test_space_below_the_floor_is_degraded_and_no_more(tmp_path: Path) -> None:
    with Bench(tmp_path, settings={"disk_floor_mib": 1_000_000_000 >> 10}) as bench:
        status, checks = ready(bench)
        assert status == 200
        assert checks["disk"] == ("degraded", "disk_low")


def test_a_folder_that_cannot_be_written_fails_the_checkpoint(tmp_path: Path) -> None:
    """The checkpoint lies on a disk of its own, which is remounted for reading, as a kernel does after a fault."""
    with small_disk(tmp_path / "second") as second:
        (tmp_path / "bench").mkdir()
        with Bench(tmp_path / "bench", settings={"checkpoint": str(second / "checkpoint.json")}) as bench:
            assert ready(bench)[0] == 200
            remount = ["mount", "-o", "remount,ro", str(second)]
            subprocess.run(remount, check=True)  # noqa: S603 - what was mounted above
            status, checks = ready(bench)
            assert (status, checks["checkpoint"]) == (503, ("failed", "checkpoint_unwritable"))
            assert checks["database"][0] == "ok"
            remount[2] = "remount,rw"
            subprocess.run(remount, check=True)  # noqa: S603 - the same
            assert ready(bench)[0] == 200


def test_a_database_that_somebody_else_opened_is_told_from_one_that_is_gone(bench: Bench) -> None:
    from cloister.custodian.store.sqlite import SqliteStore  # noqa: PLC0415 - a second custodian, as it were

    SqliteStore(bench.home / "custodian.db", fence=b"another process!").close()
    status, checks = ready(bench)
    assert (status, checks["database"]) == (503, ("failed", "database_taken"))
    abandon(bench)
    bench.open()


def test_a_database_that_lost_a_commit_says_that_it_wants_a_restart(bench: Bench) -> None:
    bench.service.context.store._broken = True
    status, checks = ready(bench)
    assert (status, checks["database"]) == (503, ("failed", "database_stopped"))
    bench.service.context.store._broken = False
    assert ready(bench)[0] == 200


def test_a_server_that_stopped_is_said_and_found_again(tmp_path: Path, postgres: PostgresServer) -> None:
    with Bench(tmp_path, postgres=postgres) as bench:
        assert ready(bench)[0] == 200
        postgres.stop("immediate")
        try:
            status, checks = ready(bench)
            assert (status, checks["database"]) == (503, ("failed", "database_unavailable"))
            assert bench.get("/v1/alarms").status_code == 503
            bench.service.watch.measure()
        finally:
            postgres.start()
        assert ready(bench)[0] == 200


class Locked:
    """A vault whose backend went away: everything else of it is real."""

    def __init__(self, vault: Any, error: Exception) -> None:
        self._vault, self._error = vault, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vault, name)

    def unwrap(self, wrapped: bytes, *, aad: bytes) -> bytes:
        del wrapped, aad
        raise self._error


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (Unavailable("vault: locked"), "vault_locked", "unavailable"),
        (Rejected.because("wrong_key", "vault"), "vault_wrong_key", "rejected"),
    ],
)
def test_a_locked_vault_is_said_and_counted(bench: Bench, error: Exception, code: str, kind: str) -> None:
    watched: Any = bench.service.context.vault
    watched._vault = Locked(watched._vault, error)
    status, checks = ready(bench)
    assert (status, checks["vault"]) == (503, ("failed", code))
    assert bench.service.context.metrics.value("cloister_custodian_vault_errors_total", kind) == 1
    codes = {alarm["code"]: alarm for alarm in bench.get("/v1/alarms").json()["alarms"]}
    assert codes["vault_failing"]["subjects"] == [code]
    watched._vault = watched._vault._vault
    assert ready(bench)[0] == 200


def test_a_vault_file_that_is_gone_would_keep_the_next_start_from_opening_it(bench: Bench) -> None:
    (bench.home / "vault.json").rename(bench.home / "away")
    status, checks = ready(bench)
    assert (status, checks["vault"]) == (200, ("degraded", "vault_file_missing"))
    (bench.home / "away").rename(bench.home / "vault.json")


def test_a_clock_behind_what_was_written_releases_nothing(bench: Bench) -> None:
    lent = bench.lend()
    bench.clock.advance(-3600)
    status, checks = ready(bench)
    assert (status, checks["clock"]) == (503, ("failed", "clock_behind"))
    assert lent.challenge().status_code == 503
    bench.clock.advance(3600)
    assert ready(bench)[0] == 200
    bench.clock.now = bench.clock.now.replace(year=1999)
    assert ready(bench)[1]["clock"] == ("failed", "clock_unset")
    bench.clock.now = START


def test_endorsements_that_end_or_are_refused_are_said(bench: Bench) -> None:
    place, key = bench.home / "endorsements.bundle", open_vault(bench.home, bench.unlock).signing_key
    assert ready(bench)[1]["endorsements"] == ("ok", "no_bundle")
    assert bench.service.watch._gatherer.gather().endorsements_until is None
    place.write_bytes(carried(published(), key=key))
    assert ready(bench)[1]["endorsements"] == ("ok", "ok")
    bench.clock.advance(20 * 86_400)
    assert ready(bench)[1]["endorsements"] == ("degraded", "bundle_ending")
    assert "endorsements_ending" in {alarm.code for alarm in bench.service.watch.look()}
    bench.clock.advance(30 * 86_400)
    assert ready(bench)[1]["endorsements"] == ("degraded", "bundle_expired")
    place.write_bytes(b"CLOISTER-ENDORSEMENTS damaged")
    status, checks = ready(bench)
    assert (status, checks["endorsements"]) == (200, ("degraded", "bundle_refused"))


def test_answers_hold_codes_and_nothing_else(bench: Bench) -> None:
    """Anybody may ask: no path, no address, no text of a library."""
    bench.service.context.store._broken = True
    bench.service.watch.health.last = None
    text = bench.client.get("/readyz").text
    bench.service.context.store._broken = False
    assert str(bench.home) not in text
    for check in bench.service.watch.health.report().checks:
        assert check.state in State
        assert check.code.replace("_", "").isalpha()
