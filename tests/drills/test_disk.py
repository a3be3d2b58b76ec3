"""R5 and R17: a full disk under the custodian, and databases restored from backups that are wrong.

Real processes: what a person at the custodian's machine would see, with exit codes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from counts import DISK_SIZES
from disk import demand_extends, read_home
from drill_house import DrillHouse
from load import Asker, until_served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import httpx2

REJECTED, UNAVAILABLE = 4, 5


@contextlib.contextmanager
def small_disk(folder: Path, *, kib: int) -> Iterator[Path]:
    """Mount a file system of ``kib`` KiB. Skips where that is not ours to do."""
    if os.geteuid() != 0:
        pytest.skip("a small disk is a mount, and mounting wants root")
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None:
        pytest.skip("mount is not installed")
    folder.mkdir()
    made = subprocess.run(  # noqa: S603 - fixed words
        [mount, "-t", "tmpfs", "-o", f"size={kib}k,mode=0700", "cloister-drill", str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip(f"this machine does not let us mount: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run([umount, "-l", str(folder)], check=True)  # noqa: S603 - our own mount


def fill(folder: Path) -> Path:
    """Take all the room that is left."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return path


def post(house: DrillHouse, path: str, body: Any) -> httpx2.Response:
    """POST as the admin, whatever comes of it."""
    headers = {"authorization": f"Bearer {house.made.admin_token}"}
    return house.http.post(path, json=body, headers=headers)


def test_a_full_disk_releases_no_key_and_reading_goes_on(tmp_path: Path) -> None:
    """R5, list 74: 503 for what must be written first; nothing half-done; all well once there is room."""
    with (
        small_disk(tmp_path / "disk", kib=4096) as disk,
        DrillHouse(tmp_path / "parties", ttl_s=4, max_ceiling=8, allowance=20, home=disk / "home") as house,
    ):
        filler = fill(disk)
        # The database may still have a page or two of its own: use them up.
        codes = [post(house, f"/v1/loans/{house.loan}/top-up", {"units": 1}).status_code for _ in range(12)]
        assert codes[-1] == 503
        granted = house.meter()["granted"]
        assert granted <= 20 + codes.count(200) + 1  # one may be kept whose answer was a 503: its checkpoint failed
        refused = house.world.run(house.world.borrower, *house.enclave_words(), expect=UNAVAILABLE)
        assert refused.error["fault"] == "unavailable"
        assert not (house.world.borrower / "ready.json").exists()
        assert house.call("GET", "/v1/loans")["loans"]
        assert house.http.get("/healthz").status_code == 200
        assert house.custodian is not None
        assert house.custodian.process.poll() is None
        filler.unlink()
        again = post(house, f"/v1/loans/{house.loan}/top-up", {"units": 1})
        if again.status_code == 503:  # a commit of unknown outcome: nothing more is written until a restart
            house.custodian.stop()
            house.start_custodian()
            again = post(house, f"/v1/loans/{house.loan}/top-up", {"units": 1})
        assert again.status_code == 200, again.text
        kinds = [entry["kind"] for entry in house.call("GET", "/v1/audit?limit=1000")["entries"]]
        assert "key_released" not in kinds
        house.start_enclave()
        house.kill_custodian()
        now = read_home(house.home, house.made.key, tmp_path / "scratch")
        assert now.granted(house.loan) == granted + 1


def full_at_every_size(folder: Path, *, sizes: int, measured: Callable[[str, object], None]) -> None:
    """R5: the disk is full at this size and at that; each time with some pages left than the time before."""
    tried = acknowledged = refused = 0
    with (
        small_disk(folder / "disk", kib=8192) as disk,
        DrillHouse(folder / "parties", ttl_s=60, max_ceiling=8, allowance=20, home=disk / "home") as house,
    ):
        before = None
        for number in range(sizes):
            filler = fill(disk)
            with filler.open("r+b") as file:  # so many pages of 4 KiB are left
                file.truncate(max(0, filler.stat().st_size - number * 4096))
            codes = [
                post(house, f"/v1/loans/{house.loan}/top-up", {"units": 1}).status_code for _ in range(12 + number)
            ]
            assert set(codes) <= {200, 503}
            assert codes[-1] == 503, f"{number} pages: {codes}"
            assert house.http.get("/readyz").status_code == 503
            tried, acknowledged, refused = (
                tried + len(codes),
                acknowledged + codes.count(200),
                refused + codes.count(503),
            )
            filler.unlink()
            house.kill_custodian()
            now = read_home(house.home, house.made.key, folder / "scratch")
            demand_extends(now, before)
            assert 20 + acknowledged <= now.granted(house.loan) <= 20 + tried
            before = now
            house.start_custodian()
            assert house.http.get("/readyz").status_code == 200
    measured("sizes, additions acknowledged, lost, refused", f"{sizes}, {acknowledged}, 0, {refused}")


@pytest.mark.drill
@pytest.mark.timeout(3600)
def test_a_disk_that_is_full_at_any_size_loses_nothing(tmp_path: Path, measured: Callable[[str, object], None]) -> None:
    full_at_every_size(tmp_path, sizes=DISK_SIZES.many, measured=measured)


def copy_database(house: DrillHouse, place: Path) -> None:
    """Back up while the custodian serves."""
    made = house.world.run(house.world.custodian, "custodian", "backup", "--out", str(place)).value
    assert made["bytes"] == place.stat().st_size > 0
    assert place.stat().st_mode & 0o077 == 0


def put_back(home: Path, data: bytes) -> None:
    """Restore: this database and no write-ahead log of another."""
    for path in home.glob("custodian.db*"):
        path.unlink()
    path = home / "custodian.db"
    path.write_bytes(data)
    path.chmod(0o600)


def _truncated(data: bytes) -> bytes:
    return data[: len(data) // 2 // 4096 * 4096]


def _torn(data: bytes) -> bytes:
    return data[:-4096] + data[-4096:-2048]


def _zeros(data: bytes) -> bytes:
    middle = len(data) // 2 // 4096 * 4096
    return data[:middle] + bytes(4096 * 4) + data[middle + 4096 * 4 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "nothing at all": lambda _: b"",
    "half of it": _truncated,
    "a torn last page": _torn,
    "pages of zeros": _zeros,
    "its header gone": lambda data: bytes(100) + data[100:],
    "another file's bytes": lambda data: b"PK\x03\x04" + data[4:],
}


def serve_refused(house: DrillHouse) -> dict[str, Any]:
    """Try to serve; it must end by itself, with an error and no listener. Return the error."""
    words = ("custodian", "serve", "--insecure-simulated-root", str(house.world.root / "simulated-root.pub.json"))
    done = house.world.run(house.world.custodian, *words, expect=None)
    assert done.code in (3, REJECTED, UNAVAILABLE), (done.code, done.words)
    assert "restore" in done.error["hint"]
    return done.error


@pytest.mark.drill
@pytest.mark.timeout(240)
def test_wrong_older_and_damaged_backups_are_refused_and_recovery_comes_back(tmp_path: Path) -> None:
    """R17: nine archives, none of them served from; then ``cloister custodian recover`` on the older one."""
    with DrillHouse(tmp_path / "parties", ttl_s=1, max_ceiling=8, allowance=20) as house:
        copy_database(house, tmp_path / "older.db")
        first = house.start_enclave()
        asker = Asker(house, next(iter(house.tokens)))
        asker.start()
        try:
            until_served(house, [asker], more=4, within_s=30)
        finally:
            asker.stop()
        assert house.custodian is not None
        assert house.enclave is not None
        house.enclave.stop(signal.SIGKILL)
        house.custodian.stop()
        before = read_home(house.home, house.made.key, tmp_path / "scratch")
        newest = (tmp_path / "scratch" / "custodian.db").read_bytes()
        assert not (tmp_path / "scratch" / "custodian.db-wal").exists(), "an orderly stop leaves one whole file"

        for name, damage in DAMAGE.items():
            put_back(house.home, damage(newest))
            error = serve_refused(house)
            assert error["exit_code"] != 0, name
        with DrillHouse(tmp_path / "other", ttl_s=4, max_ceiling=8, allowance=20) as other:
            copy_database(other, tmp_path / "other.db")
        put_back(house.home, (tmp_path / "other.db").read_bytes())
        assert {"audit_changed", "database_older"} & codes(serve_refused(house))
        put_back(house.home, (tmp_path / "older.db").read_bytes())
        assert "database_older" in codes(serve_refused(house))

        # Nothing of that harmed the newest, and it is served from again.
        put_back(house.home, newest)
        house.start_custodian()
        house.custodian.stop()
        demand_extends(read_home(house.home, house.made.key, tmp_path / "scratch"), before)

        put_back(house.home, (tmp_path / "older.db").read_bytes())
        recovered = house.world.run(house.world.custodian, "custodian", "recover", "--yes").value
        assert recovered["epoch"] == 2
        house.start_custodian()
        now = read_home(house.home, house.made.key, tmp_path / "scratch")
        # What the lost part had leased counts as spent; nobody knows how much of it was served.
        lost = before.checkpoint.escrowed
        assert now.granted(house.loan) == 20
        assert now.written_off(house.loan) == min(20, lost)
        assert sum(r.units for r in asker.receipts) <= lost
        assert first not in now.instances
        early = house.world.run(house.world.borrower, *house.enclave_words(), expect=None)
        assert early.error["code"] == "recovering"


def codes(error: dict[str, Any]) -> set[str]:
    """Return every code an error carries."""
    return {reason["code"] for reason in error.get("reasons", [])} | {error.get("code", "")}


def test_a_database_folder_that_disappears_under_the_custodian_serves_nothing_more(tmp_path: Path) -> None:
    """R5: the disk is pulled out. The enclave ends with its lease, the custodian answers 503."""
    with DrillHouse(tmp_path / "parties", ttl_s=2, max_ceiling=8, allowance=20) as house:
        house.start_enclave()
        gone = house.home.with_name("gone")
        house.home.rename(gone)
        status = post(house, f"/v1/loans/{house.loan}/top-up", {"units": 1}).status_code
        assert status == 503
        assert house.enclave is not None
        end = time.monotonic() + 15
        while house.enclave.process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.05)
        ending = json.loads(next(line for line in house.enclave.said().splitlines() if '"event": "ending"' in line))
        assert ending["state"] == "expired"
        gone.rename(house.home)
        house.kill_custodian()
        house.start_custodian()
        read_home(house.home, house.made.key, tmp_path / "scratch")
        house.start_enclave()
