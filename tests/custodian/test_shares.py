"""Shares of a vault: which sets open it, which are refused, and that nothing secret shows."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from custodian_kit import CHEAP, PASSPHRASE

from cloister.custodian.vaults.encrypted_file import EncryptedFileVault, open_by_shares, relock, split_vault
from cloister.custodian.vaults.shares import Division, Share, rebuild_key, share_key
from cloister.custodian.vaults.unlock import FileKey, KeyFile, Passphrase
from cloister.custodian.vaults.vault_file import open_content
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Sequence

UNLOCK = Passphrase(PASSPHRASE)
NEW = Passphrase(b"another passphrase")
VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "share" / "shares.json").read_text())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a vault file's place, with a vault in it."""
    EncryptedFileVault.create(tmp_path / "vault.json", UNLOCK, kdf=CHEAP)
    return tmp_path / "vault.json"


@pytest.mark.parametrize("case", VECTORS["files"], ids=lambda case: case["name"])
def test_a_share_file_is_read_as_its_vector_says(case: dict[str, str]) -> None:
    data = case["text"].encode()
    if case["expect"] == "valid":
        assert Share.parse(data).dump() == data
        return
    with pytest.raises(Malformed):
        Share.parse(data)


@pytest.mark.parametrize("case", VECTORS["sets"], ids=lambda case: case["name"])
def test_a_set_of_shares_comes_to_what_its_vector_says(case: dict[str, Any]) -> None:
    shares = [Share.parse(text.encode()) for text in case["shares"]]
    vault_file = VECTORS["vault_file"].encode()
    match case["expect"]:
        case "key":
            assert rebuild_key(shares, vault_file=vault_file).hex() == VECTORS["key"]
        case "another key":
            assert rebuild_key(shares, vault_file=vault_file).hex() != VECTORS["key"]
        case "UsageError":
            with pytest.raises(UsageError):
                rebuild_key(shares, vault_file=vault_file)
        case code:
            with pytest.raises(Rejected) as refused:
                rebuild_key(shares, vault_file=vault_file)
            assert refused.value.code == code


def test_a_damaged_share_is_malformed_whatever_the_damage() -> None:
    good = VECTORS["files"][0]["text"].encode()
    for damaged in mutated(good, seed=5):
        try:
            Share.parse(damaged)
        except Malformed:
            continue
        assert damaged == good


def test_any_two_of_four_open_the_vault_to_its_keys(path: Path) -> None:
    vault = EncryptedFileVault.open(path, UNLOCK)
    for chosen in itertools.permutations(split_vault(path, UNLOCK, Division(need=2, of=4)), 2):
        opened = EncryptedFileVault.open(path, open_by_shares(path, chosen))
        assert (opened.kid, opened.kek_id) == (vault.kid, vault.kek_id)


def test_who_cannot_open_the_vault_cannot_split_it(path: Path) -> None:
    with pytest.raises(Rejected) as refused:
        split_vault(path, NEW, Division(need=2, of=3))
    assert refused.value.code == "wrong_key"


def test_shares_of_another_vault_are_named_one_by_one(path: Path, tmp_path: Path) -> None:
    EncryptedFileVault.create(tmp_path / "other.json", UNLOCK, kdf=CHEAP)
    division = Division(need=2, of=3)
    own, others = (split_vault(of, UNLOCK, division) for of in (path, tmp_path / "other.json"))
    with pytest.raises(Rejected) as refused:
        open_by_shares(path, [own[0], others[1], others[2]])
    assert [reason.subject for reason in refused.value.reasons] == ["share 2 of 3", "share 3 of 3"]
    assert refused.value.code == "wrong_share"


def test_a_stranger_s_share_given_first_makes_none_of_our_own_look_wrong(path: Path, tmp_path: Path) -> None:
    EncryptedFileVault.create(tmp_path / "other.json", UNLOCK, kdf=CHEAP)
    (stranger, _) = split_vault(tmp_path / "other.json", UNLOCK, Division(need=2, of=2))
    own = split_vault(path, UNLOCK, Division(need=2, of=2))  # with a share 1 too
    with pytest.raises(Rejected) as refused:
        open_by_shares(path, [stranger, *own])
    assert [reason.got for reason in refused.value.reasons] == [f"vault file {stranger.vault[:16]}"]


def test_a_share_forged_with_a_right_checksum_opens_nothing(path: Path) -> None:
    one, two, three = split_vault(path, UNLOCK, Division(need=3, of=3))
    liar = Share(need=3, of=3, part=type(one.part)(x=3, values=os.urandom(32)), split=one.split, vault=one.vault)
    assert Share.parse(liar.dump()) == liar
    with pytest.raises(Rejected) as refused:
        open_by_shares(path, [one, two, liar])
    assert refused.value.code == "wrong_key"
    open_by_shares(path, [one, two, three])


def test_shares_open_nothing_after_the_vault_was_altered(path: Path) -> None:
    shares = split_vault(path, UNLOCK, Division(need=2, of=2))
    data = bytearray(path.read_bytes())
    data[data.index(b"sealed") + 12] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(Rejected) as refused:
        open_by_shares(path, shares)
    assert refused.value.code == "wrong_share"


def test_a_vault_locked_anew_has_the_same_keys_and_takes_neither_old_secret_nor_old_shares(path: Path) -> None:
    vault = EncryptedFileVault.open(path, UNLOCK)
    wrapped = vault.wrap(b"dek", aad=b"a")
    shares = split_vault(path, UNLOCK, Division(need=2, of=3))
    relock(path, open_by_shares(path, shares), NEW, kdf=CHEAP)
    again = EncryptedFileVault.open(path, NEW)
    assert again.kid == vault.kid
    assert again.unwrap(wrapped, aad=b"a") == b"dek"
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Rejected):
        EncryptedFileVault.open(path, UNLOCK)
    with pytest.raises(Rejected) as refused:
        open_by_shares(path, shares)
    assert refused.value.code == "wrong_share"


def test_a_vault_that_cannot_be_locked_anew_stays_as_it_is(path: Path, tmp_path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(UsageError):
        relock(path, UNLOCK, Passphrase(b"short"), kdf=CHEAP)
    with pytest.raises(UsageError):
        relock(path, UNLOCK, KeyFile(tmp_path / "absent"), kdf=CHEAP)
    with pytest.raises(Rejected):
        relock(path, FileKey(bytes(32)), NEW, kdf=CHEAP)
    assert path.read_bytes() == before
    assert sorted(item.name for item in tmp_path.iterdir()) == ["vault.json"]


def test_a_disk_that_cannot_take_the_new_vault_leaves_the_old_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cloister.private_file.os.fsync", fail)
    with pytest.raises(Unavailable):
        relock(path, UNLOCK, NEW, kdf=CHEAP)
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == ["vault.json"]


def test_a_vault_that_was_replaced_and_may_not_last_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync, folders = os.fsync, []

    def fail_last(fd: int) -> None:
        if Path(f"/proc/self/fd/{fd}").resolve().is_dir():
            folders.append(fd)
            if len(folders) == 2:
                raise OSError(5, "Input/output error")
        sync(fd)

    monkeypatch.setattr("cloister.private_file.os.fsync", fail_last)
    with pytest.raises(Unavailable, match="replaced"):
        relock(path, UNLOCK, NEW, kdf=CHEAP)
    monkeypatch.undo()
    open_content(path.read_bytes(), NEW)


def test_what_a_crash_left_beside_the_vault_is_not_written_over(path: Path) -> None:
    before = path.read_bytes()
    left = path.with_name("vault.json.new")
    left.write_bytes(b"half a vault")
    with pytest.raises(UsageError):
        relock(path, UNLOCK, NEW, kdf=CHEAP)
    assert (path.read_bytes(), left.read_bytes()) == (before, b"half a vault")


def _shown(things: Sequence[object]) -> str:
    return " ".join(f"{thing!r} {thing}" for thing in things)


def test_nothing_prints_a_key_or_a_part(path: Path) -> None:
    opened = open_content(path.read_bytes(), UNLOCK)
    shares = split_vault(path, UNLOCK, Division(need=2, of=3))
    shown = _shown([opened, FileKey(opened.key), *shares])
    for secret in (opened.key, *(share.part.values for share in shares)):
        assert secret.hex() not in shown
        assert repr(secret) not in shown


def test_no_share_holds_the_key_and_two_splits_share_nothing() -> None:
    key = os.urandom(32)
    first, second = (share_key(key, Division(need=2, of=3), vault_file=b"{}") for _ in range(2))
    values = [share.part.values for share in (*first, *second)]
    assert key not in values
    assert len(set(values)) == 6
    assert first[0].split != second[0].split
