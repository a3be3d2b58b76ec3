"""``cloister model push`` and ``pull`` as a person uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cli_kit import Shell
from hostile_server import HostileServer
from stores_kit import parts_of, small_model, write_folder

from cloister.sealed.manifest import MANIFEST_NAME, model_digest

if TYPE_CHECKING:
    from pathlib import Path

    from bucket_kit import S3


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


def test_a_model_travels_through_a_bucket(shell: Shell, s3: S3, tmp_path: Path) -> None:
    model = small_model()
    write_folder(tmp_path / "sealed", model)
    digest = model_digest(model.source.parts[MANIFEST_NAME])
    first = shell.ok("model", "push", "sealed", s3.url)
    assert (first["digest"], first["written"], first["kept"]) == (digest, len(model.source.parts), 0)
    assert shell.ok("model", "push", "sealed", s3.url)["written"] == 0
    second = shell.ok("model", "pull", s3.url, "--out", "again", "--digest", digest)
    assert (second["digest"], second["kept_bytes"], second["envelope"]) == (digest, 0, False)
    assert parts_of(tmp_path / "again") == model.source.parts
    said = shell("model", "pull", s3.url, "--out", "again")
    assert (said.code, "there already" in said.err) == (2, True)


def test_another_model_is_refused_with_its_code(shell: Shell, tmp_path: Path) -> None:
    with HostileServer(small_model().source.parts) as server:
        said = shell("model", "pull", server.url, "--out", "m", "--digest", "0" * 64, "--json")
    assert (said.code, said.json["error"]["code"]) == (4, "wrong_model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ("model", "pull", "https://me:s3cret@host/m", "--out", "m"),
        ("model", "push", "m", "s3://id:s3cret@bucket/m"),
        ("model", "pull", "https://host/m?token=s3cret", "--out", "m"),
        ("model", "push", "m", "https://host/m"),
        ("model", "push", "m", "s3://bucket/m", "--token-file", "token"),
        ("model", "pull", "https://host/m", "--out", "m", "--digest", "abc"),
        ("enclave", "serve", "--loan-file", "l", "--model", "https://s3cret@host/m"),
    ],
)
def test_what_is_unfit_is_a_usage_error_and_no_secret_is_repeated(shell: Shell, words: tuple[str, ...]) -> None:
    said = shell(*words)
    assert said.code == 2
    assert "s3cret" not in said.out + said.err


def test_a_token_comes_from_a_private_file(shell: Shell, tmp_path: Path) -> None:
    model = small_model()
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text("a-secret-token\n")
    with HostileServer(model.source.parts, token="a-secret-token") as server:  # noqa: S106
        said = shell("model", "pull", server.url, "--out", "m")
        assert (said.code, "not let in" in said.err) == (5, True)
        shell.ok("model", "pull", server.url, "--out", "m", "--token-file", "token")
    assert parts_of(tmp_path / "m") == model.source.parts
