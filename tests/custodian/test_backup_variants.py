"""A backup carries the records of variants: whole, private, and put back so that a leaked copy is named as before."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from custodian_kit import PASSPHRASE

from cloister.custodian.setup import backup_custodian, open_vault, restore_custodian
from cloister.custodian.store.backup import back_up
from cloister.custodian.variants import keep_variant, open_variants
from cloister.custodian.vaults.encrypted_file import Passphrase
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.sealed.tracing.mark import STRENGTHS, FloatKind
from cloister.sealed.tracing.record import MAX_RECORD_BYTES, MarkedTensor, Variant

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from custodian_kit import Bench


_UNLOCK = Passphrase(PASSPHRASE)


def variant(number: int) -> Variant:
    tensor = MarkedTensor(path="m.onnx", name="w", kind=FloatKind.F32, count=64, sketch=bytes(32))
    return Variant(
        digest=f"{number:02x}" * 32, model="toy", holder=f"borrower {number}", created=datetime(2026, 3, 1, tzinfo=UTC),
        bits=STRENGTHS["medium"], tensors=(tensor,),
    )  # fmt: skip


@pytest.fixture
def kept(bench: Bench) -> Iterator[dict[str, bytes]]:
    """Keep two records, and yield their keys by the holder; the custodian is down until the end, and then starts."""
    keys = {"borrower 1": os.urandom(32), "borrower 2": os.urandom(32)}
    vault = open_vault(bench.home, _UNLOCK)
    for number, key in enumerate(keys.values(), start=1):
        keep_variant(bench.home, vault, variant(number), key)
    bench.close()
    yield keys
    bench.open()


def found(bench: Bench) -> dict[str, bytes]:
    return {item.holder: key for item, key in open_variants(bench.home, open_vault(bench.home, _UNLOCK))}


def lose(bench: Bench) -> None:
    for place in (bench.home / "traces").iterdir():
        place.unlink()
    (bench.home / "traces").rmdir()


def test_a_restored_home_has_every_record_and_its_database_has_none(
    bench: Bench, kept: dict[str, bytes], tmp_path: Path
) -> None:
    backup_custodian(bench.home, tmp_path / "copy.db")
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600
    assert [item.name for item in tmp_path.glob("copy.db*")] == ["copy.db"]
    lose(bench)
    assert restore_custodian(bench.home, _UNLOCK, tmp_path / "copy.db").variants == 2
    assert found(bench) == kept
    assert {place.stat().st_mode & 0o777 for place in (bench.home / "traces").iterdir()} == {0o600}
    assert (bench.home / "traces").stat().st_mode & 0o777 == 0o700
    with closing(sqlite3.connect(bench.home / "custodian.db")) as database:
        assert database.execute("SELECT name FROM sqlite_master WHERE name = 'variant_record'").fetchall() == []


def test_no_trace_key_stands_in_a_backup(bench: Bench, kept: dict[str, bytes], tmp_path: Path) -> None:
    """T19: a stolen backup marks no file with anybody's key, and finds no mark."""
    backup_custodian(bench.home, tmp_path / "copy.db")
    data = (tmp_path / "copy.db").read_bytes()
    assert b"borrower 1" in data
    assert not any(key in data or key.hex().encode() in data for key in kept.values())


def test_a_record_that_opens_stays_and_one_that_does_not_is_replaced_and_kept_beside(
    bench: Bench, kept: dict[str, bytes], tmp_path: Path
) -> None:
    backup_custodian(bench.home, tmp_path / "copy.db")
    first, second = sorted((bench.home / "traces").iterdir())
    first.write_bytes(first.read_bytes().replace(b"borrower 1", b"a bystander"))
    before = second.stat().st_ino
    with pytest.raises(Rejected, match="wrong_key"):
        found(bench)
    assert restore_custodian(bench.home, _UNLOCK, tmp_path / "copy.db").variants == 1
    assert found(bench) == kept
    assert second.stat().st_ino == before
    assert b"a bystander" in first.with_name(first.name + ".1").read_bytes()


def test_a_record_that_was_altered_in_the_backup_ends_every_search(
    bench: Bench, kept: dict[str, bytes], tmp_path: Path
) -> None:
    """Who alters a backup accuses nobody and clears nobody."""
    backup_custodian(bench.home, tmp_path / "copy.db")
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy, copy:
        data = copy.execute("SELECT record FROM variant_record ORDER BY digest").fetchone()[0]
        copy.execute("UPDATE variant_record SET record = ? WHERE record = ?", (data.replace(b"er 1", b"er 7"), data))
    lose(bench)
    restore_custodian(bench.home, _UNLOCK, tmp_path / "copy.db")
    with pytest.raises(Rejected, match="wrong_key"):
        found(bench)
    assert kept


@pytest.mark.parametrize(
    ("digest", "record"),
    [("../vault", b"{}"), ("AB" * 32, b"{}"), ("", b"{}"), (7, b"{}"), ("ab" * 32, "text"),
     ("ab" * 32, bytes(MAX_RECORD_BYTES + 1))],
)  # fmt: skip
@pytest.mark.usefixtures("kept")
def test_a_backup_writes_nothing_outside_of_its_folder_and_nothing_large(
    bench: Bench, tmp_path: Path, digest: object, record: object
) -> None:
    backup_custodian(bench.home, tmp_path / "copy.db")
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy, copy:
        copy.execute("INSERT INTO variant_record VALUES (?, ?)", (digest, record))
    before = (bench.home / "custodian.db").stat().st_ino
    names = {item.name for item in bench.home.iterdir()}
    with pytest.raises(Malformed):
        restore_custodian(bench.home, _UNLOCK, tmp_path / "copy.db")
    assert (bench.home / "custodian.db").stat().st_ino == before
    assert {item.name for item in bench.home.iterdir()} == names


def test_a_restore_that_was_cut_short_is_done_again(
    bench: Bench, kept: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup_custodian(bench.home, tmp_path / "copy.db")
    lose(bench)
    with monkeypatch.context() as patch:
        patch.setattr("cloister.custodian.restoring._into_place", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            restore_custodian(bench.home, _UNLOCK, tmp_path / "copy.db")
    assert restore_custodian(bench.home, _UNLOCK, tmp_path / "copy.db").variants == 0
    assert found(bench) == kept


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_backup_of_before_says_that_it_has_no_records(bench: Bench, kept: dict[str, bytes], tmp_path: Path) -> None:
    database = bench.home / "custodian.db"
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        source.backup(copy)
    assert restore_custodian(bench.home, _UNLOCK, tmp_path / "copy.db").variants is None
    assert found(bench) == kept


@pytest.mark.parametrize("spoil", ["mode", "name"])
@pytest.mark.usefixtures("kept")
def test_a_backup_that_cannot_have_every_record_is_not_made(bench: Bench, tmp_path: Path, spoil: str) -> None:
    place = next((bench.home / "traces").iterdir())
    if spoil == "mode":
        place.chmod(0o644)
    else:
        place.rename(place.with_name("notes.json"))
    with pytest.raises(UsageError):
        backup_custodian(bench.home, tmp_path / "copy.db")
    assert list(tmp_path.glob("copy.db*")) == []


@pytest.mark.usefixtures("kept")
def test_a_full_disk_leaves_no_backup_without_its_records(bench: Bench, tmp_path: Path) -> None:
    def records() -> list[tuple[str, bytes]]:
        raise Unavailable("disk: full")

    with pytest.raises(Unavailable):
        back_up(bench.home / "custodian.db", tmp_path / "copy.db", (item for item in records()))
    assert list(tmp_path.glob("copy.db*")) == []
