"""A folder of endorsements: files by their relative path, bounded, nothing from outside of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cloister.cli.endorsement_folder import MAX_FILE_BYTES, MAX_FILES, read_endorsements
from cloister.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def _put(folder: Path, name: str, data: bytes) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def test_files_are_named_by_their_path(tmp_path: Path) -> None:
    _put(tmp_path, "amd/milan/crl", b"list")
    _put(tmp_path, "intel/tdx/00806f050000/platform", b"{}")
    assert read_endorsements(tmp_path) == {"amd/milan/crl": b"list", "intel/tdx/00806f050000/platform": b"{}"}
    assert read_endorsements(None) == {}


def test_a_link_that_leads_outside_is_passed_over(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"key")
    folder = tmp_path / "folder"
    _put(folder, "amd/milan/crl", b"list")
    (folder / "amd" / "link").symlink_to(secret)
    assert read_endorsements(folder) == {"amd/milan/crl": b"list"}


def test_no_folder_too_many_and_too_long_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        read_endorsements(tmp_path / "nowhere")
    _put(tmp_path / "long", "one", bytes(MAX_FILE_BYTES + 1))
    with pytest.raises(UsageError, match="at most"):
        read_endorsements(tmp_path / "long")
    for index in range(MAX_FILES + 1):
        _put(tmp_path / "many", f"file{index}", b"x")
    with pytest.raises(UsageError, match="at most"):
        read_endorsements(tmp_path / "many")
