"""``cloister model seal --resume``: a person stops it, is told what is kept, and goes on."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from cli_kit import Shell
from enclave_models import external

from cloister.sealed.package_folder import PackageFolder
from cloister.testing.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

SEAL = ("model", "seal", "v1", "--name", "toy", "--out", "sealed")
SEGMENTS = 3


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    shell = Shell(tmp_path, monkeypatch, capsys)
    shell.ok("custodian", "init", "--port", str(free_port()))
    external(tmp_path / "v1")
    (tmp_path / "v1" / "notes.txt").write_bytes(os.urandom(SEGMENTS << 20))
    return shell


def interrupted(shell: Shell, *words: str) -> Path:
    """Seal until the last blob is nearly whole, and press Ctrl-C; return what is left."""
    written: list[str] = []
    real = PackageFolder.write

    def write(self: PackageFolder, name: str, offset: int, data: memoryview) -> None:
        written.append(name)
        if offset >= (SEGMENTS - 1) << 20:
            raise KeyboardInterrupt
        real(self, name, offset, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PackageFolder, "write", write)
        said = shell(*SEAL, *words)
    assert said.code == 130
    place = shell.folder / ".sealed.sealing"
    assert f"kept in {place.name}" in said.err
    assert "--resume" in said.err
    assert not (shell.folder / "sealed").exists()
    return place


def test_leaves_are_of_blake3_unless_a_site_asks_for_sha256(shell: Shell) -> None:
    for words, said in (((), {"blake3"}), (("--leaf-hash", "sha256"), {None})):
        shell.ok(*SEAL[:-1], f"sealed{len(words)}", *words)
        manifest = json.loads((shell.folder / f"sealed{len(words)}" / "manifest.json").read_bytes())
        assert {file.get("leaf_hash") for file in manifest["files"]} == said
        shell.ok("model", "verify", f"sealed{len(words)}")
    assert shell(*SEAL[:-1], "sealed", "--leaf-hash", "md5").code == 2


def test_a_sealing_is_stopped_and_gone_on_with(shell: Shell) -> None:
    place = interrupted(shell)
    refused = shell(*SEAL)
    assert refused.code == 2
    assert "--resume" in refused.err
    size = sum(path.stat().st_size for path in (shell.folder / "v1").rglob("*") if path.is_file())
    done = shell(*SEAL, "--resume", "--json")
    assert done.json["size"] == size
    assert 2 << 20 <= done.json["found_bytes"] + 64 < size
    assert not place.exists()
    publisher = shell.ok("custodian", "show")["publisher"]
    checked = shell.ok("model", "verify", "sealed", "--publisher", publisher, "--digest", done.json["digest"])
    assert checked["envelope"]
    again = shell.ok("model", "seal", "v1", "--name", "toy", "--out", "sealed-2", "--reuse", "sealed")
    assert again["reused_files"] == again["files"], "it opens to what was sealed"


def test_going_on_tells_how_much_was_found(shell: Shell) -> None:
    interrupted(shell)
    said = shell(*SEAL, "--resume")
    assert said.code == 0
    assert "found sealed and whole: " in said.err


def test_without_an_earlier_run_nothing_is_found(shell: Shell) -> None:
    assert shell.ok(*SEAL, "--resume")["found_bytes"] == 0


def test_going_on_with_another_vault_is_refused(shell: Shell) -> None:
    place = interrupted(shell)
    shell.ok("custodian", "init", "--home", "other", "--port", str(free_port()), "--key-file", "other.key")
    said = shell(*SEAL, "--resume", "--home", "other", "--key-file", "other.key")
    assert said.code == 2
    assert "begun with vault:" in said.err
    assert place.is_dir()


def test_reuse_and_resume_go_together(shell: Shell) -> None:
    shell.ok("model", "seal", "v1", "--name", "toy", "--out", "older")
    (shell.folder / "v1" / "notes.txt").write_bytes(os.urandom(SEGMENTS << 20))
    interrupted(shell, "--reuse", "older")
    done = shell.ok(*SEAL, "--resume", "--reuse", "older")
    assert done["reused_files"] == done["files"] - 1
    assert done["found_bytes"] > 0
    shell.ok("model", "verify", "older")
    shell.ok("model", "verify", "sealed")


def test_a_marked_copy_draws_its_mark_anew_and_is_not_gone_on_with(shell: Shell) -> None:
    said = shell("model", "variant", "v1", "--for", "clinic", "--name", "toy", "--out", "sealed", "--resume")
    assert said.code == 2
    assert "--resume" in said.err
