"""Losing what opens the vault, and coming back by shares, as people do it on the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cloister.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from cli_kit import Shell


@pytest.fixture
def files(shell: Shell) -> list[Path]:
    """Make a custodian, and three shares of which two are needed."""
    shell.ok("custodian", "init")
    said = shell.ok("custodian", "shares", "split", "--of", "3", "--need", "2", "--out", "shares")
    return [shell.folder / name for name in said["files"]]


def test_a_lost_key_file_is_replaced_by_shares(shell: Shell, files: list[Path]) -> None:
    before = shell.ok("custodian", "show")
    (shell.folder / "vault.key").unlink()
    assert shell("custodian", "show").code == 2
    shell.ok("custodian", "shares", "combine", files[2], files[0])
    assert shell.ok("custodian", "show") == before
    assert (shell.folder / "vault.key").stat().st_mode & 0o777 == 0o600
    spent = shell("custodian", "shares", "combine", files[2], files[0], "--json")
    assert spent.code == 4
    assert json.loads(spent.out or spent.err)["error"]["code"] == "wrong_share"


def test_shares_are_private_files_and_nothing_of_them_is_shown(shell: Shell, files: list[Path]) -> None:
    said = shell("custodian", "shares", "split", "--of", "2", "--need", "2", "--out", "more")
    combined = shell("custodian", "shares", "combine", files[0], files[1])
    assert (said.code, combined.code) == (0, 0)
    for path in [*files, *(shell.folder / "more").iterdir()]:
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        part = json.loads(path.read_text())["part"]
        assert part not in said.out + said.err + combined.out + combined.err


def test_what_is_too_few_damaged_readable_by_others_or_there_already_is_refused(
    shell: Shell, files: list[Path]
) -> None:
    vault = (shell.folder / "home" / "vault.json").read_bytes()
    assert shell("custodian", "shares", "combine", files[0]).code == 2
    assert shell("custodian", "shares", "combine", files[0], files[0]).code == 4
    assert shell("custodian", "shares", "split", "--of", "3", "--need", "2", "--out", "shares").code == 2
    assert shell("custodian", "shares", "split", "--of", "2", "--need", "3", "--out", "wrong").code == 2
    files[1].chmod(0o640)
    assert shell("custodian", "shares", "combine", files[0], files[1]).code == 2
    files[1].chmod(0o600)
    files[1].write_bytes(files[1].read_bytes().replace(b'"need":2', b'"need":3'))
    damaged = shell("custodian", "shares", "combine", files[0], files[1])
    assert damaged.code == 3
    assert "damaged" in damaged.err
    assert (shell.folder / "home" / "vault.json").read_bytes() == vault


def test_a_split_that_meets_an_old_share_leaves_no_new_one(shell: Shell, files: list[Path]) -> None:
    files[0].unlink()
    kept = {path: path.read_bytes() for path in files[1:]}
    assert shell("custodian", "shares", "split", "--of", "3", "--need", "2", "--out", "shares").code == 2
    assert {path: path.read_bytes() for path in (shell.folder / "shares").iterdir()} == kept


def test_shares_that_open_nothing_leave_no_new_key_file(shell: Shell, files: list[Path]) -> None:
    said = shell("custodian", "shares", "combine", files[0], "--key-file", "fresh.key")
    assert said.code == 2
    assert not (shell.folder / "fresh.key").exists()


def test_a_vault_that_cannot_be_replaced_leaves_no_new_key_file(
    shell: Shell, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise Unavailable("vault.json: No space left on device")

    vault = (shell.folder / "home" / "vault.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("cloister.custodian.vaults.encrypted_file.replace_private", full)
        said = shell("custodian", "shares", "combine", *files[:2], "--key-file", "fresh.key")
    assert said.code == 5
    assert not (shell.folder / "fresh.key").exists()
    assert (shell.folder / "home" / "vault.json").read_bytes() == vault
    shell.ok("custodian", "shares", "combine", *files[:2], "--key-file", "fresh.key")


def test_a_key_file_of_somebodys_own_stays(shell: Shell, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise Unavailable("vault.json: No space left on device")

    own = shell.folder / "own.key"
    own.touch(mode=0o600)
    own.write_bytes(bytes(range(32)))
    monkeypatch.setattr("cloister.custodian.vaults.encrypted_file.replace_private", full)
    assert shell("custodian", "shares", "combine", *files[:2], "--key-file", "own.key").code == 5
    assert own.read_bytes() == bytes(range(32))
