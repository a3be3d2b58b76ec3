"""Tokens that change under a client: a file that is replaced, a function that is asked each time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cloister.client.credentials import one_token
from cloister.client.way import Way
from cloister.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def held(path: Path, token: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(token + "\n")
    return path


def test_file_is_read_again_when_another_takes_its_name(tmp_path: Path) -> None:
    """As a kubelet does: the name is a link to a folder that is replaced whole."""
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        held(tmp_path / str(number) / "token", f"token-{number}")
    (tmp_path / "data").symlink_to("1")
    source, _ = one_token(None, tmp_path / "data" / "token", None)
    assert source is not None
    assert source() == "token-1"
    (tmp_path / "next").symlink_to("2")
    os.replace(tmp_path / "next", tmp_path / "data")  # noqa: PTH105 - over a link, not through it
    assert source() == "token-2"


def test_file_that_is_opened_to_others_or_taken_away_is_refused(tmp_path: Path) -> None:
    file = held(tmp_path / "token", "token-1")
    source, _ = one_token(None, file, None)
    assert source is not None
    held(file, "token-two").chmod(0o644)
    with pytest.raises(UsageError, match="mode 0644"):
        source()
    file.unlink()
    with pytest.raises(UsageError, match="No such file"):
        source()


def test_function_is_asked_for_each_request_and_its_word_is_looked_at() -> None:
    said = ["one", "two", "th\r\nree"]
    source, _ = one_token(lambda: said.pop(0), None, None)
    assert source is not None
    assert [source(), source()] == ["one", "two"]
    with pytest.raises(UsageError) as refused:
        source()
    assert "ree" not in str(refused.value)


def test_client_certificate_takes_pinned_tls() -> None:
    assert Way.AUTO.with_certificate() is Way.PINNED
    with pytest.raises(UsageError):
        Way.OHTTP.with_certificate()
