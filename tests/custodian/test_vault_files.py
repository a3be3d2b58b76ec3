"""Vault files of both versions as their vectors say, and key services that are not what they seem."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from custodian_kit import CHEAP, PASSPHRASE
from key_service_kit import LocalService

from cloister.custodian.setup import init_custodian, open_vault
from cloister.custodian.vaults.encrypted_file import EncryptedFileVault, relock
from cloister.custodian.vaults.unlock import FileKey, KeyFile, Passphrase
from cloister.custodian.vaults.vault_file import open_content, service_of
from cloister.errors import CloisterError, Malformed, Rejected, Unavailable, UsageError
from mutations import mutated

if TYPE_CHECKING:
    from cloister.custodian.vaults.unlock import Unlock

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "vault" / "files.json").read_text())
UNLOCKS: dict[int, Unlock] = {
    1: Passphrase(VECTORS["passphrase"].encode()),
    2: LocalService(name=VECTORS["service"], key=bytes.fromhex(VECTORS["service_key"])),
}
GOOD = {case["v"]: case["text"].encode() for case in VECTORS["cases"] if case["expect"] == "valid"}


def _place(folder: Path, data: bytes) -> Path:
    path = folder / "vault.json"
    path.touch(mode=0o600)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_a_vault_file_comes_to_what_its_vector_says(case: dict[str, Any], tmp_path: Path) -> None:
    path, unlock = _place(tmp_path, case["text"].encode()), UNLOCKS[case["v"]]
    if case["expect"] == "valid":
        assert EncryptedFileVault.open(path, unlock)._secrets.kek.hex() == VECTORS["kek"]
        return
    faults: dict[str, type[CloisterError]] = {"Malformed": Malformed, "UsageError": UsageError}
    with pytest.raises(faults.get(case["expect"], Rejected)) as refused:
        EncryptedFileVault.open(path, unlock)
    assert (refused.value.code or case["expect"]) == case["expect"]


def test_a_damaged_file_of_a_service_opens_to_nothing_else() -> None:
    for damaged in mutated(GOOD[2], seed=9):
        try:
            open_content(damaged, UNLOCKS[2])
        except (Malformed, Rejected, UsageError):
            continue
        assert damaged == GOOD[2]


def test_a_file_says_which_service_opens_it_without_any_secret() -> None:
    assert service_of(GOOD[2]) == VECTORS["service"]
    assert service_of(GOOD[1]) is None
    for damaged in mutated(GOOD[2], count=2000, seed=10):
        try:
            service_of(damaged)
        except Malformed:
            continue


def test_what_locks_one_version_does_not_open_the_other(tmp_path: Path) -> None:
    for version, wrong in ((1, UNLOCKS[2]), (2, UNLOCKS[1]), (2, KeyFile.create(tmp_path / "a.key"))):
        with pytest.raises(UsageError):
            open_content(GOOD[version], wrong)


def test_the_file_key_opens_both() -> None:
    for version, data in GOOD.items():
        opened = open_content(data, UNLOCKS[version])
        assert open_content(data, FileKey(opened.key)) == opened


def test_a_service_of_that_name_with_another_key_is_a_wrong_key() -> None:
    with pytest.raises(Rejected) as refused:
        open_content(GOOD[2], LocalService(key=bytes(32)))
    assert refused.value.code == "wrong_key"


class Short(LocalService):
    """Gives back less than it was given."""

    def unwrap(self, wrapped: bytes, *, context: str) -> bytes:
        """Return half a key."""
        return super().unwrap(wrapped, context=context)[:16]


class Echo(LocalService):
    """Does not wrap at all."""

    def wrap(self, key: bytes, *, context: str) -> bytes:
        """Return what it was given, with a word before it."""
        return context.encode() + key

    def unwrap(self, wrapped: bytes, *, context: str) -> bytes:
        """Take the word away."""
        return wrapped[len(context) :]


class Forgetful(LocalService):
    """May encrypt and not decrypt."""

    def unwrap(self, wrapped: bytes, *, context: str) -> bytes:
        """Refuse."""
        raise Rejected.because("service_denied", self.name, got=f"{len(wrapped)}", want=context)


class Careless(LocalService):
    """Does not look at the context."""

    def wrap(self, key: bytes, *, context: str) -> bytes:
        """Wrap in none."""
        return super().wrap(key, context=context[:0])

    def unwrap(self, wrapped: bytes, *, context: str) -> bytes:
        """Unwrap in any."""
        return super().unwrap(wrapped, context=context[:0])


class Tiring(Careless):
    """Does not look at the context either, and refuses the third call for another reason."""

    calls = 0

    def unwrap(self, wrapped: bytes, *, context: str) -> bytes:
        """Unwrap once."""
        self.calls += 1
        if self.calls > 1:
            raise Rejected.because("service_denied", self.name, got="too many calls")
        return super().unwrap(wrapped, context=context)


UNFIT = [Short(), Echo(), Forgetful(), Careless(), Tiring()]


def test_half_a_key_is_no_key() -> None:
    with pytest.raises(Rejected) as refused:
        open_content(GOOD[2], Short())
    assert refused.value.code == "wrong_key"


@pytest.mark.parametrize("service", UNFIT, ids=lambda service: type(service).__name__)
def test_no_vault_is_made_by_a_service_that_will_not_open_it(tmp_path: Path, service: LocalService) -> None:
    with pytest.raises((Unavailable, Rejected)):
        EncryptedFileVault.create(tmp_path / "vault.json", service)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("service", UNFIT, ids=lambda service: type(service).__name__)
def test_a_vault_is_not_moved_to_a_service_that_will_not_open_it(tmp_path: Path, service: LocalService) -> None:
    path, unlock = tmp_path / "vault.json", Passphrase(PASSPHRASE)
    EncryptedFileVault.create(path, unlock, kdf=CHEAP)
    before = path.read_bytes()
    with pytest.raises((Unavailable, Rejected)):
        relock(path, unlock, service)
    assert path.read_bytes() == before


def test_a_custodian_whose_vault_could_not_be_made_leaves_a_folder_to_try_again_in(tmp_path: Path) -> None:
    home, service = tmp_path / "home", LocalService()
    with pytest.raises(Rejected):
        init_custodian(home, Forgetful())
    made = init_custodian(home, service)
    assert open_vault(home, service).signing_key.verify_key == made.key


def test_the_service_is_asked_once_for_an_opening_and_not_for_the_work(tmp_path: Path) -> None:
    service = LocalService()
    EncryptedFileVault.create(tmp_path / "vault.json", service)
    service.asked.clear()
    vault = EncryptedFileVault.open(tmp_path / "vault.json", service)
    for _ in range(10):
        vault.unwrap(vault.wrap(b"dek", aad=b"a"), aad=b"a")
    assert service.asked == ["unwrap"]


def test_the_file_holds_no_key_in_clear(tmp_path: Path) -> None:
    service = LocalService()
    EncryptedFileVault.create(tmp_path / "vault.json", service)
    data = (tmp_path / "vault.json").read_bytes()
    opened = open_content(data, service)
    secrets = [json.loads(opened.content)[name] for name in ("kek", "signing", "publisher")]
    for secret in (*secrets, opened.key.hex(), service.key.hex()):
        assert secret.encode() not in data


def test_vaults_that_are_opened_at_the_same_time_wait_for_each_other_and_not_for_ever() -> None:
    """OpenSSL's threads are one pool: two derivations of several lanes took some each, and waited for the rest."""
    program = (
        "import threading; from cloister.custodian.vaults.vault_file import Kdf;"
        "work = lambda: Kdf(memory_kib=8192, passes=3, lanes=4).derive(b's' * 16, b'x' * 16);"
        "threads = [threading.Thread(target=work) for _ in range(6)];"
        "[thread.start() for thread in threads]; [thread.join() for thread in threads]"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0  # noqa: S603 - ours
