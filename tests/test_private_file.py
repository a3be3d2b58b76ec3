"""Files for their owner alone: there whole, name and all, or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cloister.cli.unlock import lock_with
from cloister.errors import Unavailable, UsageError
from cloister.private_file import new_private, read_private, replace_private, write_private

SRC = Path(__file__).parent.parent / "src" / "cloister"
OTHERS = {
    "sealed/descriptor.py",  # sealed models are no secret
    "sealed/unfinished_folder.py",  # keys under the vault's, in a folder of mode 0700 whose lock it holds
    "testing/simulated_root.py",  # roots of tests are none
}


def test_a_new_file_is_durable_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, sync = [], os.fsync

    def watch(fd: int) -> None:
        synced.append(stat.S_IFMT(os.fstat(fd).st_mode))
        sync(fd)

    monkeypatch.setattr("cloister.private_file.os.fsync", watch)
    write_private(tmp_path / "key", b"secret")
    assert synced == [stat.S_IFREG, stat.S_IFDIR]


def test_a_file_whose_name_may_be_lost_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr("cloister.private_file.os.fsync", fail)
    with pytest.raises(Unavailable):
        write_private(tmp_path / "key", b"secret")
    assert not (tmp_path / "key").exists()


def test_a_pin_of_the_vault_that_nobody_filled_in_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOISTER_CUSTODIAN_VAULT", "")
    with pytest.raises(UsageError, match="empty"):
        lock_with(None, None, None)


def test_an_interrupt_while_writing_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_fd: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cloister.private_file.os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_private(tmp_path / "share", b"secret")
    assert not (tmp_path / "share").exists()


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_private(tmp_path / "key", b"secret")
    assert read_private(tmp_path / "key", cap=10) == b"secret"
    if os.geteuid() == 0:
        os.chown(tmp_path / "key", 12345, -1)
    else:
        own = os.geteuid()
        monkeypatch.setattr("cloister.private_file.os.geteuid", lambda: own + 1)
    with pytest.raises(UsageError, match="belongs to user"):
        read_private(tmp_path / "key", cap=10)


def test_an_interrupt_while_replacing_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    write_private(tmp_path / "vault", b"old")
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            replace_private(tmp_path / "vault", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("vault", b"old")]
    replace_private(tmp_path / "vault", b"new")
    assert (tmp_path / "vault").read_bytes() == b"new"


def test_there_is_one_way_to_make_a_private_file() -> None:
    makers = {str(path.relative_to(SRC)) for path in SRC.rglob("*.py") if "O_EXCL" in path.read_text()}
    assert makers == OTHERS | {"private_file.py"}


def test_a_file_that_is_filled_by_its_name_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    with new_private(tmp_path / "copy"):
        (tmp_path / "copy").write_bytes(b"by its name")
    assert (tmp_path / "copy").read_bytes() == b"by its name"
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o600
    with pytest.raises(ValueError, match="invalid literal"), new_private(tmp_path / "half") as file:
        file.write(bytes([int("half a key")]))
    with pytest.raises(UsageError, match="exists already") as refused, new_private(tmp_path / "copy", hint="another"):
        raise KeyError
    assert refused.value.hint == "another"
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_a_link_is_followed_only_where_the_caller_says_so(tmp_path: Path) -> None:
    """Secrets are mounted into containers as links; what counts then is the file behind."""
    write_private(tmp_path / "token", b"secret")
    (tmp_path / "link").symlink_to("token")
    assert read_private(tmp_path / "link", cap=10, links=True) == b"secret"
    with pytest.raises(UsageError):
        read_private(tmp_path / "link", cap=10)
    (tmp_path / "token").chmod(0o640)
    with pytest.raises(UsageError, match="it holds a token"):
        read_private(tmp_path / "link", cap=10, holds="a token", links=True)
