"""R17 and R18: nine copies that must not be served from, each with its reason; databases of every schema there was.

The copies are put in the place of a real custodian's database and opened by the real code in this process;
``test_disk.py`` does the like with processes and exit codes.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from custodian_kit import Bench
from memory import in_memory

from cloister.crypto.sign import VerifyKey
from cloister.custodian.service.start import load_log, verify_start
from cloister.custodian.store.loans import balances_of
from cloister.custodian.store.migrations import MIGRATIONS, schema_version
from cloister.custodian.store.sqlite import SqliteStore
from cloister.errors import CloisterError, Malformed, Rejected, Unavailable, UsageError
from cloister.lending.terms import LOAN_METER, LoanId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VECTORS = Path(__file__).parents[1] / "vectors" / "database"
PAGE = 4096


class Shelf:
    """A stopped custodian, its newest database, and the copies that somebody may take for it."""

    def __init__(self, folder: Path) -> None:
        """Live a little: an old backup, a copy without its write-ahead log, and the newest state."""
        self.bench = Bench(folder / "own")
        self.lent = self.bench.lend(allowance=50, max_ceiling=4)
        self.bench.close()
        self.older = self._file().read_bytes()
        self.bench.open()
        toy = self.lent.boot()
        toy.renew()
        toy.serve(2)
        toy.renew()
        self.without_log = self._file().read_bytes()  # while it runs: what is only in the log is not in it
        self.bench.close()
        self.newest = self._file().read_bytes()
        with Bench(folder / "other", settings={"name": "another"}) as other:
            lent = other.lend(allowance=1000)  # one that has come further: only the log's own words give it away
            lent.boot().renew()
            for _ in range(20):
                other.post(f"/v1/loans/{lent.id}/top-up", {"units": 1})
            other.close()
            self.others = (other.home / "custodian.db").read_bytes()
            other.open()
        self.newer = self._of_a_newer_schema(folder)

    def put(self, data: bytes) -> None:
        """Restore this, as a person would."""
        for path in self.bench.home.glob("custodian.db*"):
            path.unlink()
        self._file().write_bytes(data)

    def refused(self) -> CloisterError:
        """Open; it must be refused. Return how."""
        with pytest.raises(CloisterError) as refused:
            self.bench.open()
        return refused.value

    def _file(self) -> Path:
        return self.bench.home / "custodian.db"

    def _of_a_newer_schema(self, folder: Path) -> bytes:
        path = folder / "newer.db"
        path.write_bytes(self.newest)
        with closing(sqlite3.connect(path)) as database:
            database.execute("UPDATE schema_version SET version = ?", (len(MIGRATIONS) + 1,))
            database.commit()
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return path.read_bytes()


def _swapped(data: bytes) -> bytes:
    """Exchange two pages in the middle."""
    one, two = (len(data) // PAGE // 3) * PAGE, (len(data) // PAGE // 2) * PAGE
    first, second = data[one : one + PAGE], data[two : two + PAGE]
    assert first != second
    return data[:one] + second + data[one + PAGE : two] + first + data[two + PAGE :]


def _half(data: bytes) -> bytes:
    return data[: len(data) // 2 // PAGE * PAGE]


def _flipped(data: bytes) -> bytes:
    """Flip one bit of the header: the size of a page."""
    return data[:16] + bytes([data[16] ^ 0x08]) + data[17:]


COPIES: dict[str, tuple[Callable[[Shelf], bytes], type[CloisterError], str]] = {
    "another file": (lambda _: b"PK\x03\x04" + bytes(8188), Unavailable, "restore a backup"),
    "an older one": (lambda shelf: shelf.older, Rejected, "database_older"),
    "half of it": (
        lambda shelf: shelf.newest[: len(shelf.newest) // 2 // PAGE * PAGE],
        Unavailable,
        "restore a backup",
    ),
    "a header with one bit flipped": (lambda shelf: _flipped(shelf.newest), Unavailable, "restore a backup"),
    "another custodian's": (lambda shelf: shelf.others, Rejected, "audit_changed"),
    "nothing at all": (lambda _: b"", CloisterError, "belongs to no custodian"),
    "the file without its write-ahead log": (lambda shelf: shelf.without_log, Rejected, "database_older"),
    "one of a newer schema": (lambda shelf: shelf.newer, UsageError, "newer Cloister"),
    "two pages exchanged": (lambda shelf: _swapped(shelf.newest), Unavailable, "restore a backup"),
}


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    """Yield a shelf in memory; the newest database is what it closes with."""
    with in_memory(tmp_path) as folder:
        made = Shelf(folder)
        yield made
        made.put(made.newest)
        made.bench.open()
        assert made.lent.show()["meters"]["loan"]["granted"] == 50
        made.bench.close()


def test_nine_wrong_copies_are_refused_each_with_its_reason(shelf: Shelf) -> None:
    assert len(COPIES) == 9
    for name, (make, kind, words) in COPIES.items():
        shelf.put(make(shelf))
        error = shelf.refused()
        assert isinstance(error, kind), (name, error)
        codes = [reason.code for reason in getattr(error, "reasons", ())]
        assert words in f"{error.message} {error.hint} {' '.join(codes)}", (name, error, error.hint)
        assert error.hint, name
        assert not isinstance(error, Malformed), name


@pytest.mark.parametrize("path", sorted(VECTORS.glob("schema-*.json")), ids=lambda path: str(path.stem))
def test_a_database_of_every_schema_there_was_opens_and_says_the_same(path: Path, tmp_path: Path) -> None:
    expected = json.loads(path.read_text())
    home = tmp_path / "home"
    home.mkdir()
    with closing(sqlite3.connect(home / "custodian.db")) as database:
        database.executescript(path.with_suffix(".sql").read_text())
        assert database.execute("SELECT version FROM schema_version").fetchall() == [(expected["version"],)]
    (home / "checkpoint.json").write_text(json.dumps(expected["checkpoint"], separators=(",", ":"), sort_keys=True))
    key = VerifyKey(bytes.fromhex(expected["key"]))
    for _ in range(2):  # brought to the newest schema, and opened again as that
        store = SqliteStore(home / "custodian.db", fence=bytes(16))
        try:
            with store.reading() as connection:
                assert schema_version(connection) == len(MIGRATIONS)
                log = load_log(connection)
                verify_start(log, (home / "checkpoint.json",), key)
                assert log.tree.size == expected["entries"]
                balances = balances_of(connection, LoanId(expected["loan"]))
                assert balances[LOAN_METER] == expected["meter"]["balance"]
        finally:
            store.close()
    shutil.rmtree(home)


def test_there_is_a_database_of_every_schema_from_the_first_on() -> None:
    versions = sorted(json.loads(path.read_text())["version"] for path in VECTORS.glob("schema-*.json"))
    assert versions == list(range(1, len(versions) + 1))
    assert len(versions) >= 2
