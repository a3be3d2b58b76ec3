"""A disk that fails while a custodian starts is named; what a failed sync left in memory only is written again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cloister.custodian.lock import HomeLock
from cloister.custodian.store.rewrite import write_again
from cloister.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path


def test_a_lock_that_cannot_be_written_is_named_and_let_go(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as refused:
        HomeLock(tmp_path / "absent" / "lock")
    assert "No such file" in refused.value.message
    full = tmp_path / "lock"
    full.symlink_to("/dev/full")
    with pytest.raises(Unavailable) as refused:
        HomeLock(full)
    assert full.name in refused.value.message


def test_writing_again_changes_no_byte_and_reaches_every_page(tmp_path: Path) -> None:
    path = tmp_path / "custodian.db-wal"
    data = os.urandom((3 << 20) + 17)
    path.write_bytes(data)
    os.utime(path, (0, 0))
    write_again(path)
    assert path.read_bytes() == data
    assert path.stat().st_mtime > 0
    write_again(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_written_again_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "folder-wal").mkdir()
    with pytest.raises(Unavailable) as refused:
        write_again(tmp_path / "folder-wal")
    assert "mend the disk" in (refused.value.hint or "")
