"""``cloister model seal --reuse``: a second version shares what is unchanged with the first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cli_kit import Shell
from enclave_models import external

from cloister.testing.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


def test_a_second_version_takes_over_what_is_unchanged(shell: Shell) -> None:
    shell.ok("custodian", "init", "--port", str(free_port()))
    external(shell.folder / "v1")
    (shell.folder / "v1" / "labels.txt").write_text("cat\ndog\n")
    first = shell.ok("model", "seal", "v1", "--name", "toy", "--out", "sealed-1")
    assert "reused_files" not in first
    (shell.folder / "v1" / "labels.txt").write_text("cat\nfox\n")
    second = shell.ok("model", "seal", "v1", "--name", "toy", "--out", "sealed-2", "--reuse", "sealed-1")
    assert second["reused_files"] == second["files"] - 1
    assert second["digest"] != first["digest"]
    shared = {path.name for path in (shell.folder / "sealed-1" / "blobs").iterdir()} & {
        path.name for path in (shell.folder / "sealed-2" / "blobs").iterdir()
    }
    assert len(shared) == 2 * second["reused_files"]
    shell.ok("model", "verify", "sealed-2", "--publisher", shell.ok("custodian", "show")["publisher"])
    said = shell("model", "seal", "v1", "--name", "toy", "--out", "sealed-3", "--reuse", "sealed-2")
    assert f"taken over from sealed-2: {second['files']} files" in said.out


def test_a_package_of_another_owner_is_no_older_version(shell: Shell) -> None:
    external(shell.folder / "v1")
    shell.ok("custodian", "init", "--home", "other", "--port", str(free_port()), "--key-file", "other.key")
    words = ("--home", "other", "--key-file", "other.key")
    shell.ok("model", "seal", "v1", "--name", "toy", "--out", "theirs", *words)
    shell.ok("custodian", "init", "--port", str(free_port()))
    said = shell("model", "seal", "v1", "--name", "toy", "--out", "ours", "--reuse", "theirs", "--json")
    assert (said.code, said.json["error"]["code"]) == (4, "unknown_key")
    assert not (shell.folder / "ours").exists()
