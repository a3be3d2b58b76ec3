"""Coming up and coming back: locks, clocks, copies, older databases, migrations (T38, T39, T52, T83, T93)."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from custodian_kit import CHEAP, PASSPHRASE, START, Bench, Clock, Toy

from cloister.attest.verifier import Verifier
from cloister.custodian.setup import init_custodian, open_custodian, recover_custodian
from cloister.custodian.store.migrations import MIGRATIONS, migrate, schema_version
from cloister.custodian.store.sqlite import SqliteStore, is_affected_sqlite
from cloister.custodian.store.tables import TABLES
from cloister.custodian.vaults.encrypted_file import Passphrase
from cloister.errors import CloisterError, Malformed, Rejected, Unavailable, UsageError
from cloister.lending.messages import Lease
from cloister.wire import dump_json

if TYPE_CHECKING:
    from pathlib import Path

    from cloister.custodian.service import CustodianService


def _open(home: Path, clock: Clock) -> CustodianService:
    return open_custodian(home, Passphrase(PASSPHRASE), make_verifier=lambda _: Verifier([]), clock=clock)


def _copy_database(bench: Bench, name: str) -> Path:
    """Copy the database as a backup does, while nothing runs."""
    place = bench.folder / name
    place.mkdir()
    for file in bench.home.glob("custodian.db*"):
        shutil.copy(file, place / file.name)
    return place


def _put_back(bench: Bench, place: Path) -> None:
    for file in bench.home.glob("custodian.db*"):
        file.unlink()
    for file in place.iterdir():
        shutil.copy(file, bench.home / file.name)


def test_a_second_custodian_on_one_home_is_told_who_holds_it(bench: Bench) -> None:
    """T39."""
    with pytest.raises(Unavailable) as refused:
        _open(bench.home, bench.clock)
    assert "held by process" in refused.value.message


def test_a_custodian_whose_database_another_opened_writes_nothing_more(bench: Bench) -> None:
    """T39 where the lock does not reach: the fence in the database stops the older process."""
    lent = bench.lend()
    (bench.home / "lock").unlink()
    second = _open(bench.home, bench.clock)
    answer = bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 1})
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    second.close()
    with pytest.raises(Unavailable):
        bench.service.close()
    bench.open()
    assert lent.balance() == 10


def test_a_closed_custodian_can_be_opened_again_and_knows_everything(bench: Bench) -> None:
    lent = bench.lend()
    toy = lent.boot()
    toy.renew()
    before = lent.show()
    bench.restart()
    assert lent.show() == before
    toy.serve(1)
    bench.clock.advance(20)
    assert isinstance(toy.renew(), Lease)


def test_yesterdays_database_is_refused_with_the_way_out(bench: Bench) -> None:
    """T38, list 92."""
    lent = bench.lend()
    bench.close()
    place = _copy_database(bench, "yesterday")
    bench.open()
    lent.boot().renew()
    bench.close()
    _put_back(bench, place)
    with pytest.raises(Rejected) as refused:
        bench.open()
    assert "database_older" in {reason.code for reason in refused.value.reasons}
    assert "recover" in (refused.value.hint or "")
    recover_custodian(bench.home, bench.unlock, clock=bench.clock)
    bench.open()


def test_recovery_raises_the_epoch_waits_and_counts_the_lost_units_as_spent(bench: Bench) -> None:
    """C11."""
    lent = bench.lend(allowance=10, max_ceiling=4)
    toy = lent.boot()
    bench.close()
    place = _copy_database(bench, "yesterday")
    bench.open()
    toy.renew()
    bench.close()
    _put_back(bench, place)
    recovery = recover_custodian(bench.home, bench.unlock, clock=bench.clock)
    assert recovery.epoch == 2
    bench.open()
    shown = lent.show()["meters"]["loan"]
    assert (shown["balance"], shown["written_off"]) == (6, 4)
    # The old instance gets no further lease, and nobody gets a key in the quiet time.
    bench.clock.advance(20)
    assert toy.send(toy.request()).status_code == 409
    early = Toy(lent)
    assert lent.attest(early.attest_statement(early.take_challenge())).json()["code"] == "recovering"
    bench.clock.advance(3700)
    late = lent.boot()
    assert isinstance(late.renew(), Lease)
    assert late.grant is not None
    assert late.grant.epoch == 2


def test_recovery_from_before_a_block_keeps_every_loan_blocked(bench: Bench) -> None:
    lent = bench.lend()
    bench.close()
    place = _copy_database(bench, "yesterday")
    bench.open()
    bench.post("/v1/blocks", {"kind": "loan", "subject": lent.id, "reason": "unpaid"})
    bench.close()
    _put_back(bench, place)
    assert recover_custodian(bench.home, bench.unlock, clock=bench.clock).blocks_lost
    bench.open()
    assert lent.show()["state"] == "blocked"


def test_a_missing_checkpoint_is_refused_and_recovery_blocks_what_nobody_knows(bench: Bench) -> None:
    lent = bench.lend()
    bench.close()
    (bench.home / "checkpoint.json").unlink()
    with pytest.raises(Rejected) as refused:
        bench.open()
    assert refused.value.code == "checkpoint_missing"
    recover_custodian(bench.home, bench.unlock, clock=bench.clock)
    bench.open()
    assert lent.show()["state"] == "blocked"


def test_a_checkpoint_of_another_custodian_or_an_altered_one_is_refused(bench: Bench, tmp_path: Path) -> None:
    other = tmp_path / "other"
    init_custodian(other, Passphrase(PASSPHRASE), clock=bench.clock, kdf=CHEAP)
    bench.close()
    path = bench.home / "checkpoint.json"
    own = path.read_bytes()
    for data in ((other / "checkpoint.json").read_bytes(), own.replace(b'"sig":"', b'"sig":"A', 1), b"", b"{}"):
        path.write_bytes(data)
        with pytest.raises((Rejected, Malformed)):
            bench.open()
    path.write_bytes(own)
    bench.open()


def test_an_altered_audit_entry_stops_the_start_and_is_named(bench: Bench) -> None:
    """T83: the triggers are gone, the chain is not."""
    bench.lend()
    bench.close()
    database = sqlite3.connect(bench.home / "custodian.db")
    database.execute("DROP TRIGGER audit_no_update")
    database.execute("UPDATE audit SET entry = replace(entry, 'loan_created', 'model_withdrawn')")
    database.execute("UPDATE audit SET entry = cast(entry AS blob)")
    database.commit()
    database.close()
    with pytest.raises(Rejected) as refused:
        bench.open()
    assert refused.value.code == "audit_broken"
    database = sqlite3.connect(bench.home / "custodian.db")
    database.execute("UPDATE audit SET entry = cast(replace(entry, 'model_withdrawn', 'loan_created') AS blob)")
    database.commit()
    database.close()
    bench.open()


def test_a_cut_audit_log_stops_the_start(bench: Bench) -> None:
    bench.lend()
    bench.close()
    place = _copy_database(bench, "whole")
    database = sqlite3.connect(bench.home / "custodian.db")
    database.execute("DROP TRIGGER audit_no_delete")
    database.execute("DELETE FROM audit WHERE idx = (SELECT max(idx) FROM audit)")
    database.commit()
    database.close()
    with pytest.raises(Rejected) as refused:
        bench.open()
    assert refused.value.code == "audit_changed"
    _put_back(bench, place)
    bench.open()


def test_a_clock_behind_the_database_refuses_the_start(bench: Bench) -> None:
    """T52."""
    bench.lend()
    bench.close()
    bench.clock.advance(-6)
    with pytest.raises(Unavailable) as refused:
        bench.open()
    assert "behind" in refused.value.message
    bench.clock.advance(2)
    bench.open()


def test_a_clock_turned_back_while_running_grants_nothing(bench: Bench) -> None:
    lent = bench.lend()
    toy = lent.boot()
    statement = toy.request()
    bench.clock.advance(-3600)
    assert toy.send(statement).status_code == 503
    bench.clock.advance(3600)
    assert toy.send(statement).status_code == 200


def test_time_never_runs_backwards_in_the_log(bench: Bench) -> None:
    lent = bench.lend()
    bench.clock.advance(-4)
    bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 1})
    times = [entry["at"] for entry in bench.audit()]
    assert times == sorted(times)
    bench.clock.advance(4)


def test_a_newer_schema_is_refused_and_left_alone(bench: Bench) -> None:
    """T93."""
    bench.close()
    database = sqlite3.connect(bench.home / "custodian.db")
    database.execute("UPDATE schema_version SET version = 99")
    database.commit()
    with pytest.raises(UsageError) as refused:
        bench.open()
    assert "99" in refused.value.message
    database.execute("UPDATE schema_version SET version = ?", (len(MIGRATIONS),))
    database.commit()
    database.close()
    bench.open()


def test_a_migration_that_fails_leaves_the_old_schema(tmp_path: Path) -> None:
    """T93."""
    store = SqliteStore(tmp_path / "a.db", fence=b"f")
    broken = (*MIGRATIONS, ("CREATE TABLE fresh (id INTEGER)", "CREATE TABLE loan (id INTEGER)"))
    with pytest.raises(Unavailable), store.writing(fenced=False) as connection:
        migrate(connection, broken)
    with store.reading() as connection:
        assert schema_version(connection) == len(MIGRATIONS)
        names = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE name = 'fresh'").all()
        assert names == []
    with store.writing(fenced=False) as connection:
        migrate(connection, (*MIGRATIONS, ("CREATE TABLE fresh (id INTEGER)",)))
        assert schema_version(connection) == len(MIGRATIONS) + 1
    store.close()


def test_tables_and_migrations_name_the_same_columns(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "a.db", fence=b"f")
    with store.reading() as connection:
        for table in TABLES:
            stored = [row[1] for row in connection.exec_driver_sql(f"PRAGMA table_info({table.name})")]
            assert stored == [column.name for column in table.c]
        names = {row[0] for row in connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert names == {table.name for table in TABLES} | {"schema_version"}
    store.close()


def test_the_database_is_set_up_to_lose_nothing(bench: Bench) -> None:
    with bench.service.context.store.writing() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar_one() == 1
        assert connection.exec_driver_sql("PRAGMA mmap_size").scalar_one() == 0


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM ledger",
        "UPDATE ledger SET units = 1",
        "DELETE FROM audit",
        "UPDATE audit SET at = 0",
        "UPDATE allowance SET balance = -1",
        "INSERT INTO ledger VALUES (99, 0, 'loan-x', 'loan', 'a', 'b', 0)",
        "UPDATE instance_meter SET used = ceiling + 1",
        "INSERT INTO token VALUES ('t', x'00', 'borrower', 'n', NULL, 0, NULL, NULL)",
    ],
)
def test_the_database_itself_refuses_what_must_not_be(bench: Bench, statement: str) -> None:
    bench.lend().boot().renew()
    with pytest.raises(Unavailable), bench.service.context.store.writing() as connection:
        connection.exec_driver_sql(statement)


def test_readers_cannot_write(bench: Bench) -> None:
    with pytest.raises(Unavailable), bench.service.context.reading() as connection:
        connection.exec_driver_sql("UPDATE epoch SET epoch = 7")


def test_the_sqlite_versions_with_the_wal_bug_are_known() -> None:
    assert is_affected_sqlite((3, 7, 0))
    assert is_affected_sqlite((3, 51, 2))
    assert not is_affected_sqlite((3, 51, 3))
    assert not is_affected_sqlite((3, 6, 23))


def test_a_full_disk_releases_nothing_and_reading_goes_on(bench: Bench) -> None:
    """List 74: reads work, writing is refused with 503, and nothing half-done stays."""
    lent = bench.lend()
    store = bench.service.context.store
    with store.writing() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    codes = {bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 1}).status_code for _ in range(60)}
    assert 503 in codes
    assert bench.get("/v1/loans").status_code == 200
    balance = lent.balance()
    with store.writing() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    assert bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 1}).json()["balance"] == balance + 1
    with bench.service.context.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"


def test_an_error_of_the_database_carries_no_value(bench: Bench) -> None:
    with pytest.raises(Unavailable) as refused, bench.service.context.store.writing() as connection:
        connection.exec_driver_sql("INSERT INTO token VALUES ('SECRET-CANARY', NULL, 'a', 'n', NULL, 0, NULL, NULL)")
    assert "CANARY" not in refused.value.message
    assert "INSERT" not in refused.value.message


def test_a_damaged_database_refuses_the_start(bench: Bench) -> None:
    bench.lend()
    bench.close()
    place = _copy_database(bench, "whole")
    for file in bench.home.glob("custodian.db-*"):
        file.unlink()
    path = bench.home / "custodian.db"
    data = bytearray(path.read_bytes())
    data[4096 * 2 : 4096 * 6] = bytes(4096 * 4)
    path.write_bytes(data)
    with pytest.raises(CloisterError):
        bench.open()
    _put_back(bench, place)
    bench.open()


def test_an_index_that_lost_its_rows_refuses_the_start(bench: Bench) -> None:
    """A torn page can leave a sound tree without its rows; sums that go through it would come out too small."""
    bench.lend().boot().renew()
    bench.close()
    place = _copy_database(bench, "whole")
    path = bench.home / "custodian.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        ((page,),) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'ledger_by_loan'").fetchall()
        ((size,),) = database.execute("PRAGMA page_size").fetchall()
    data = bytearray(path.read_bytes())
    empty_leaf = b"\x0a\x00\x00\x00\x00" + size.to_bytes(2, "big") + b"\x00"  # file format, section 1.6
    data[(page - 1) * size : page * size] = empty_leaf.ljust(size, b"\x00")
    path.write_bytes(data)
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    with pytest.raises(Unavailable) as refused:
        bench.open()
    assert "damaged" in refused.value.message
    assert "restore" in (refused.value.hint or "")
    _put_back(bench, place)
    bench.open()


def test_init_refuses_a_home_that_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "something").write_bytes(b"")
    with pytest.raises(UsageError):
        init_custodian(tmp_path / "home", Passphrase(PASSPHRASE), kdf=CHEAP)


def test_a_home_without_its_database_is_not_quietly_made_anew(bench: Bench) -> None:
    bench.close()
    place = _copy_database(bench, "whole")
    for file in bench.home.glob("custodian.db*"):
        file.unlink()
    with pytest.raises(UsageError):
        bench.open()
    _put_back(bench, place)
    bench.open()


def test_everything_in_a_home_is_the_owners_alone(bench: Bench) -> None:
    assert bench.home.stat().st_mode & 0o077 == 0
    for name in ("vault.json", "custodian.db", "checkpoint.json", "lock", "tls/server.key"):
        assert (bench.home / name).stat().st_mode & 0o077 == 0, name


def test_a_clock_before_this_program_was_written_is_refused(tmp_path: Path) -> None:
    clock = Clock()
    clock.now = START - timedelta(days=3650)
    with pytest.raises(UsageError):
        init_custodian(tmp_path / "home", Passphrase(PASSPHRASE), clock=clock, kdf=CHEAP)


def test_devices_are_refused_where_nobody_vouches_for_them(bench: Bench) -> None:
    body: dict[str, Any] = {"v": 1, "ek_public": "AAAA", "ak_public": "AAAA", "ek_certificates": []}
    headers = {**bench.admin, "content-type": "application/json"}
    answer = bench.client.post("/v1/devices/enrolments", content=dump_json(body), headers=headers)
    assert answer.status_code in {400, 403}
    assert bench.audit()[-1]["kind"] == "device_refused"
    assert bench.get("/v1/devices").json() == {"devices": []}
    proof = dump_json({"secret": "A" * 43, "v": 1})
    finish = bench.client.post(f"/v1/devices/enrolments/{'0' * 32}/finish", content=proof, headers=headers)
    assert finish.status_code == 404
