"""The folder of removable media: whoever writes in it can keep files away, and nothing more."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from cloister.crypto.sign import MAX_STATEMENT_BYTES, Label, SigningKey, Statement
from cloister.enclave.config import load_config
from cloister.enclave.file_link import FileLink
from cloister.enclave.media import ASK, ATTEST, CHALLENGE, CHALLENGE_REQUEST, VOUCHER, MediaFolder
from cloister.errors import Unavailable, UsageError
from cloister.lending.terms import InstanceId, LoanId

if TYPE_CHECKING:
    from pathlib import Path

LOAN = LoanId("loan-" + "a" * 16)
INSTANCE = InstanceId("ab" * 32)


def test_what_lay_there_before_is_old_and_what_is_new_counts_once(tmp_path: Path) -> None:
    (tmp_path / VOUCHER).write_bytes(b"old")
    media = MediaFolder(tmp_path)
    assert media.fresh(VOUCHER) is None
    (tmp_path / VOUCHER).write_bytes(b"new")
    assert media.fresh(VOUCHER) == b"new"
    assert media.fresh(VOUCHER) is None


@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "too large"])
def test_what_is_no_plain_small_file_is_not_there(tmp_path: Path, kind: str) -> None:
    media = MediaFolder(tmp_path)
    path, other = tmp_path / VOUCHER, tmp_path / "other"
    other.write_bytes(b"elsewhere")
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to(other)
        case "folder":
            path.mkdir()
        case _:
            path.write_bytes(bytes(MAX_STATEMENT_BYTES + 1))
    assert media.fresh(VOUCHER) is None


def test_a_question_is_asked_once(tmp_path: Path) -> None:
    media = MediaFolder(tmp_path)
    assert not media.take_ask()
    (tmp_path / ASK).touch()
    assert media.take_ask()
    assert not media.take_ask()


def test_a_medium_that_was_pulled_out_is_unavailable(tmp_path: Path) -> None:
    folder = tmp_path / "medium"
    folder.mkdir()
    media = MediaFolder(folder)
    folder.rmdir()
    with pytest.raises(Unavailable):
        media.write(ATTEST, b"data")
    assert media.fresh(VOUCHER) is None
    with pytest.raises(UsageError):
        MediaFolder(folder)


def test_half_a_copy_is_waited_for_and_another_statement_is_none(tmp_path: Path) -> None:
    media = MediaFolder(tmp_path)
    link = FileLink(media)
    key = SigningKey(bytes(32))
    whole = Statement.sign(key, Label.CHALLENGE, b"{}").dump()

    async def courier() -> bytes:
        waiting = asyncio.create_task(link.challenge(LOAN))
        for bad in (b"", whole[:-7], Statement.sign(key, Label.GRANT, b"{}").dump()):
            (tmp_path / CHALLENGE).write_bytes(bad)
            await asyncio.sleep(0.3)
            assert not waiting.done()
        (tmp_path / CHALLENGE).write_bytes(whole)
        return await asyncio.wait_for(waiting, 5)

    assert asyncio.run(courier()) == whole
    assert LOAN.encode() in (tmp_path / CHALLENGE_REQUEST).read_bytes()


def test_neither_leases_nor_tickets_come_by_courier(tmp_path: Path) -> None:
    link = FileLink(MediaFolder(tmp_path))
    for call in (link.renew, link.ticket):
        with pytest.raises(Unavailable):
            asyncio.run(call(INSTANCE, b"", within=timedelta(seconds=1)))


def test_an_enclave_without_a_network_wants_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "enclave.toml"
    path.write_text('loan = "loan.json"\nmodels = ["sealed"]\nairgapped = true\n')
    with pytest.raises(UsageError, match="media"):
        load_config(path, env={})
    config = load_config(path, env={"CLOISTER_ENCLAVE_MEDIA": "media"})
    assert (config.airgapped, config.media) == (True, tmp_path / "media")
