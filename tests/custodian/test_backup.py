"""Backups beside a running custodian: whole, private, never over another file."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from cloister.custodian.setup import backup_custodian
from cloister.custodian.store.backup import back_up
from cloister.errors import Unavailable, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from custodian_kit import Bench


def test_a_backup_is_the_database_as_it_stands_also_what_is_in_the_log_only(bench: Bench, tmp_path: Path) -> None:
    lent = bench.lend()
    size = backup_custodian(bench.home, tmp_path / "copy.db")
    assert size == (tmp_path / "copy.db").stat().st_size
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert copy.execute("SELECT id FROM loan").fetchall() == [(lent.id,)]
    # The custodian was not disturbed: it is still the one that may write.
    assert bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 1}).status_code == 200


def test_a_backup_after_an_orderly_stop_works_too(bench: Bench, tmp_path: Path) -> None:
    bench.lend()
    bench.close()
    backup_custodian(bench.home, tmp_path / "copy.db")
    bench.open()
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600


def test_a_backup_replaces_nothing_and_leaves_no_half(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"something else")
    with pytest.raises(UsageError):
        backup_custodian(bench.home, tmp_path / "there")
    assert (tmp_path / "there").read_bytes() == b"something else"
    with pytest.raises(Unavailable):
        backup_custodian(bench.home, tmp_path / "no-such-folder" / "copy.db")
    (tmp_path / "garbage.db").write_bytes(b"no database at all" * 400)
    with pytest.raises(Unavailable):
        back_up(tmp_path / "garbage.db", tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()
    with pytest.raises(UsageError):
        back_up(tmp_path / "none.db", tmp_path / "copy.db")


def test_a_backup_is_durable_with_its_name(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders, sync = [], os.fsync

    def fail(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            folders.append(fd)
            raise OSError(5, "Input/output error")
        sync(fd)

    monkeypatch.setattr("cloister.private_file.os.fsync", fail)
    with pytest.raises(Unavailable, match="Input/output"):
        backup_custodian(bench.home, tmp_path / "copy.db")
    assert len(folders) == 1
    assert not (tmp_path / "copy.db").exists(), "a backup whose name may be lost was left"
    monkeypatch.undo()
    assert backup_custodian(bench.home, tmp_path / "copy.db") > 0
