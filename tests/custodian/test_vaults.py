"""The encrypted vault: what opens it, what does not, and who may read it."""

from __future__ import annotations

import hmac
import json
import os
from typing import TYPE_CHECKING

import pytest
from custodian_kit import CHEAP, PASSPHRASE

from cloister.crypto.mldsa import SecondSigner
from cloister.custodian.vaults import unwrap_dek, wrap_dek
from cloister.custodian.vaults.encrypted_file import EncryptedFileVault, KeyFile, Passphrase
from cloister.custodian.vaults.vault_file import open_content
from cloister.errors import Malformed, Rejected, UsageError
from cloister.sealed.envelope import Envelope
from cloister.wire import parse_b64u, parse_json
from mutations import mutated

if TYPE_CHECKING:
    from pathlib import Path

UNLOCK = Passphrase(PASSPHRASE)
DIGEST = "ab" * 32


@pytest.fixture(autouse=True)
def cheap_vaults() -> None:
    """Leave the costs as they are: here they are tested."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a vault file's place, with a vault in it."""
    EncryptedFileVault.create(tmp_path / "vault.json", UNLOCK, kdf=CHEAP)
    return tmp_path / "vault.json"


def test_the_vault_opens_to_the_same_keys(path: Path) -> None:
    first, second = EncryptedFileVault.open(path, UNLOCK), EncryptedFileVault.open(path, UNLOCK)
    assert first.signing_key.key_id == second.signing_key.key_id
    assert first.publisher_key.key_id != first.signing_key.key_id
    assert (first.kid, first.kek_id) == (second.kid, second.kek_id)
    assert second.unwrap(first.wrap(b"key", aad=b"a"), aad=b"a") == b"key"


def test_the_second_key_is_derived_as_the_specification_says(path: Path) -> None:
    vault = EncryptedFileVault.open(path, UNLOCK)
    content = json.loads(open_content(path.read_bytes(), UNLOCK).content)
    secret = b"".join(parse_b64u(content[name], what=name) for name in ("publisher", "kek"))
    extracted = hmac.digest(bytes(32), secret, "sha256")  # RFC 5869, by hand
    seed = hmac.digest(extracted, b"cloister/vault/v1/second-publisher\x01", "sha256")
    assert vault.second_publisher().public == SecondSigner(seed).public


def test_a_wrong_passphrase_opens_nothing_and_says_only_that(path: Path) -> None:
    with pytest.raises(Rejected) as refused:
        EncryptedFileVault.open(path, Passphrase(b"wrong passphrase"))
    assert refused.value.code == "wrong_key"
    assert "passphrase" not in refused.value.message


def test_a_key_file_opens_what_it_locked_and_nothing_else(tmp_path: Path) -> None:
    key, other = KeyFile.create(tmp_path / "a.key"), KeyFile.create(tmp_path / "b.key")
    EncryptedFileVault.create(tmp_path / "vault.json", key, kdf=CHEAP)
    EncryptedFileVault.open(tmp_path / "vault.json", key)
    with pytest.raises(Rejected):
        EncryptedFileVault.open(tmp_path / "vault.json", other)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o666, 0o660])
def test_a_file_others_can_touch_is_refused(path: Path, tmp_path: Path, mode: int) -> None:
    """List 98 and 114."""
    key = KeyFile.create(tmp_path / "a.key")
    for file, use in ((key.path, key.secret), (path, lambda: EncryptedFileVault.open(path, UNLOCK))):
        file.chmod(mode)
        with pytest.raises(UsageError) as refused:
            use()
        assert f"{mode:04o}" in refused.value.message
        assert "chmod" in (refused.value.hint or "")


def test_a_key_file_must_be_a_file_of_enough_bytes(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"x" * 31)
    (tmp_path / "long").write_bytes(b"x" * 5000)
    (tmp_path / "folder").mkdir()
    real = KeyFile.create(tmp_path / "real")
    (tmp_path / "link").symlink_to(real.path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("short", "long"):
        (tmp_path / name).chmod(0o600)
    for name in ("short", "long", "folder", "link", "absent", "pipe"):
        with pytest.raises(UsageError):
            KeyFile(tmp_path / name).secret()


def test_neither_vault_nor_key_file_is_ever_replaced(path: Path, tmp_path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(UsageError):
        EncryptedFileVault.create(path, UNLOCK, kdf=CHEAP)
    KeyFile.create(tmp_path / "a.key")
    with pytest.raises(UsageError):
        KeyFile.create(tmp_path / "a.key")
    assert path.read_bytes() == before


@pytest.mark.parametrize("value", [b"", b"short", b"x" * 5000])
def test_a_passphrase_too_short_or_too_long_is_refused(tmp_path: Path, value: bytes) -> None:
    with pytest.raises(UsageError):
        EncryptedFileVault.create(tmp_path / "vault.json", Passphrase(value), kdf=CHEAP)
    assert not (tmp_path / "vault.json").exists()


def test_nothing_prints_a_secret(path: Path, tmp_path: Path) -> None:
    vault = EncryptedFileVault.open(path, UNLOCK)
    shown = repr(vault) + repr(UNLOCK) + repr(vault._secrets) + repr(KeyFile.create(tmp_path / "k"))
    assert PASSPHRASE.decode() not in shown
    assert vault._secrets.kek.hex() not in shown
    assert repr(vault._secrets.kek) not in shown


def test_the_file_holds_no_key_in_clear(path: Path) -> None:
    vault = EncryptedFileVault.open(path, UNLOCK)
    data = path.read_bytes()
    for secret in (vault._secrets.kek, vault.signing_key.seed(), vault.publisher_key.seed(), PASSPHRASE):
        assert secret not in data
        assert secret.hex().encode() not in data


def test_the_costs_of_guessing_are_what_rfc_9106_asks_for(tmp_path: Path) -> None:
    EncryptedFileVault.create(tmp_path / "real.json", UNLOCK)
    header = parse_json((tmp_path / "real.json").read_bytes(), what="vault")
    assert isinstance(header, dict)
    assert (header["kdf"], header["memory_kib"], header["passes"], header["lanes"]) == ("argon2id", 65_536, 3, 4)


def test_a_wrapped_key_fits_one_model_version_and_vault(path: Path, tmp_path: Path) -> None:
    vault = EncryptedFileVault.open(path, UNLOCK)
    other = EncryptedFileVault.create(tmp_path / "other.json", UNLOCK, kdf=CHEAP)
    dek = os.urandom(32)
    entry = wrap_dek(vault, dek, manifest_digest=DIGEST)
    assert unwrap_dek(vault, Envelope(manifest_digest=DIGEST, recipients=(entry,))) == (dek, 1)
    with pytest.raises(Rejected):
        unwrap_dek(vault, Envelope(manifest_digest="cd" * 32, recipients=(entry,)))
    with pytest.raises(UsageError):
        unwrap_dek(other, Envelope(manifest_digest=DIGEST, recipients=(entry,)))
    for damaged in (b"", entry.wrapped[:20], entry.wrapped[:-1], entry.wrapped + b"\0", bytes(60)):
        with pytest.raises(Rejected) as refused:
            vault.unwrap(damaged, aad=b"")
        assert refused.value.code == "wrong_key"


def test_two_wraps_of_one_key_differ(path: Path) -> None:
    vault = EncryptedFileVault.open(path, UNLOCK)
    assert len({vault.wrap(b"key", aad=b"") for _ in range(100)}) == 100


def test_a_damaged_vault_file_is_malformed_or_a_wrong_key(path: Path) -> None:
    data = path.read_bytes()
    for damaged in mutated(data, count=10_000, seed=3):
        path.unlink()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(fd, damaged)
        os.close(fd)
        try:
            EncryptedFileVault.open(path, UNLOCK)
        except (Malformed, Rejected, UsageError):
            continue
        assert damaged == data
