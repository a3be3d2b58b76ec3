"""No kind of vault ever leaves a plain key in a log, a backup, the database, an error, a process, or what it prints.

A whole life is lived with each: made, model sealed and published, key released, keys rotated, backed up, split and
locked anew, opened in wrong ways, and asked of services that answer oddly. Then every key that was in the custodian's
memory is searched for in all that was left behind.
"""

from __future__ import annotations

import base64
import logging
import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from custodian_kit import CHEAP, Bench
from leak_search import Search
from vault_grounds import GROUNDS, Ground, Machine, Wrong

from cloister.custodian.setup import backup_custodian, vault_place
from cloister.custodian.store.keys import keks
from cloister.custodian.vaults.encrypted_file import EncryptedFileVault, open_by_shares, relock, split_vault
from cloister.custodian.vaults.shares import Division
from cloister.custodian.vaults.unlock import KeyFile, Passphrase
from cloister.custodian.vaults.vault_file import open_content
from cloister.errors import CloisterError
from cloister.testing.key_service_contract import broken_promises
from cloister.testing.leaks import spellings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloister.custodian.vaults.unlock import Unlock

_RING_LABEL = b"cloister/vault/v1/kek"
OFTEN = frozenset({"passphrase", "key file", "pkcs11"})  # the whole life with each of the others is a drill
LIVES = [kind if kind in OFTEN else pytest.param(kind, marks=pytest.mark.drill) for kind in GROUNDS]
SERVICES = [kind for kind in GROUNDS if kind not in {"passphrase", "key file"}]


@pytest.fixture(params=GROUNDS)
def ground(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Ground]:
    """Yield one kind of vault, its service running and its settings in the environment."""
    folder = tmp_path_factory.mktemp("ground")
    machine = Machine(tokens=lambda: request.getfixturevalue("hsm"), kmip=lambda: request.getfixturevalue("kmip"))
    with GROUNDS[request.param](folder, machine) as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        yield made


def _keys_of(bench: Bench, unlock: Unlock) -> dict[str, bytes]:
    """Return every plain key that this custodian has had in its memory."""
    vault = bench.service.context.vault._vault  # the one that is watched
    assert isinstance(vault, EncryptedFileVault)
    found = {
        "key of the vault file": open_content(vault_place(bench.home).read_bytes(), unlock).key,
        "model key": bench.dek,
        "first kek": vault._secrets.kek,
        "signing seed": vault.signing_key.seed(),
        "publisher seed": vault.publisher_key.seed(),
        "tls authority": vault.tls_authority_key[36:68],
        "device authority": vault.device_authority_key[36:68],
    }
    with bench.service.context.reading() as connection:
        for row in keks(connection):
            if row.wrapped:
                cipher = vault._ring._cipher
                found[row.id] = cipher.decrypt(row.wrapped[:12], row.wrapped[12:], _RING_LABEL + row.id.encode())
    return found


def _live(bench: Bench, search: Search) -> dict[str, bytes]:
    """Publish, lend, release, renew, rotate, restart, release again, back up; return every key there was."""
    secrets: dict[str, bytes] = {}
    assert bench.publish().status_code == 201
    lent = bench.lend()
    toy = lent.boot()
    assert toy.released_dek() == bench.dek
    toy.renew()
    for body in ({}, {"incident": True, "reason": "a drill"}):
        answer = bench.post("/v1/keys/rotate", body)
        assert answer.status_code == 201, answer.text
        search.look_at_bytes("answer", answer.content)
        secrets |= _keys_of(bench, bench.unlock)  # now: an incident destroys those before it
    bench.restart()
    assert lent.boot().released_dek() == bench.dek
    for path in ("/v1/keys/status", "/v1/custodian", "/v1/audit?limit=1000", f"/v1/models/{bench.digest}", "/v1/loans"):
        search.look_at_bytes(path, bench.get(path).content)
    backup_custodian(bench.home, bench.folder / "backup.db")
    return secrets


def _refusal(path: Path, wrong: Wrong) -> CloisterError:
    try:
        EncryptedFileVault.open(path, wrong.unlock)
    except CloisterError as exc:
        return exc
    pytest.fail(f"opened: {wrong.name}")


def _fail(bench: Bench, ground: Ground, search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open in every wrong way; each must be refused in words of ours, and with nothing written."""
    path = vault_place(bench.home)
    for wrong in ground.wrong:
        with monkeypatch.context() as patch:
            for name, value in wrong.patch.items():
                patch.setenv(name, value)
            refused = _refusal(path, wrong)
        search.look_at_error(refused)
        search.look_at_objects("error", refused, wrong.unlock)
    if not isinstance(ground.unlock, Passphrase | KeyFile):
        wrapped = ground.unlock.wrap(os.urandom(32), context="one")
        for context, data in (
            ("another", wrapped),
            ("one", wrapped[:-1]),
            ("one", wrapped[:20] + b"\0" + wrapped[21:]),
        ):
            with pytest.raises(CloisterError) as refused:
                ground.unlock.unwrap(data, context=context)
            search.look_at_error(refused.value)


def _share(bench: Bench, ground: Ground, search: Search) -> dict[str, bytes]:
    """Split the vault, open it by shares, lock it anew by them; return what was secret in that."""
    path = vault_place(bench.home)
    shares = split_vault(path, ground.unlock, Division(need=2, of=3))
    key = open_by_shares(path, shares[1:])
    bench.unlock = key
    bench.open()
    assert bench.lend().boot().released_dek() == bench.dek
    search.look_at_objects("opened by shares", bench.service, key)
    bench.close()
    for few in (shares[:1], (shares[0], shares[0])):
        with pytest.raises(CloisterError) as refused:
            open_by_shares(path, few)
        search.look_at_error(refused.value)
    relock(path, key, ground.unlock, kdf=CHEAP)
    with pytest.raises(CloisterError) as refused:
        open_by_shares(path, shares)
    search.look_at_error(refused.value)
    assert len(shares) == 3
    secrets = {f"part of {share.name}": share.part.values for share in shares}
    return {**secrets, "key of the first vault file": key.held.reveal()}


def _ask_from_outside(bench: Bench, ground: Ground, search: Search) -> None:
    """Serve by the command line; look at the process, its children and what it says."""
    environment = {**os.environ, "CLOISTER_CUSTODIAN_HOME": str(bench.home), "CLOISTER_CUSTODIAN_PORT": "0"}
    command = [sys.executable, "-X", "dev", "-m", "cloister", "custodian", "serve", *ground.words]
    with subprocess.Popen(  # noqa: S603 - our own words
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            assert process.stdout is not None
            said = b""
            while b"https://" not in said:
                line = process.stdout.readline()
                assert line, said.decode()
                said += line
            search.look_at_process(process.pid)
        finally:
            process.terminate()
            said += process.communicate(timeout=60)[0]
    search.look_at_bytes("what serving says", said)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("ground", LIVES, indirect=True)
def test_no_vault_ever_leaves_a_plain_key_behind(ground: Ground, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """T19 and T85, for every kind of vault."""
    with Search() as search:
        with Bench.locked_by(place, ground.unlock, settings={"kek_retention_days": 30}) as bench:
            secrets = {**_live(bench, search), **ground.secrets}
            assert len([name for name in secrets if name.startswith("kek:")]) == 2
            printed = search.look_at_objects("custodian", bench.service, ground.unlock)
            _fail(bench, ground, search, monkeypatch)
        secrets |= _share(bench, ground, search)
        secrets["key of the vault file, locked anew"] = open_content(
            vault_place(bench.home).read_bytes(), ground.unlock
        ).key
        _ask_from_outside(bench, ground, search)
        search.look_at_files(place, but=ground.private)
        search.look_at_process(os.getpid())
    assert {"custodian.db", "vault.json", "backup.db", "config.toml"} <= {
        where.split(" (")[0].rpartition("/")[2] for where in search.seen
    }
    assert {"EncryptedFileVault", "_Secrets", "Kek", "KekRing", "SigningKey", "Context"} <= printed
    assert search.log_lines > 0
    assert search.found(secrets) == set()


@dataclass
class _Careless:
    """Prints what it holds."""

    key: bytes
    other: Any = field(default=None, repr=False)


_Careless.__module__ = "cloister.of_a_test"


@pytest.mark.parametrize("place_of", ["log", "argument", "error", "cause", "note", "object", "file", "name", "process"])
def test_the_search_finds_a_key_wherever_it_is_left(place_of: str, tmp_path: Path) -> None:
    key = bytes(range(200, 232))
    error = ValueError("x")
    with Search() as search:
        match place_of:
            case "log":
                logging.getLogger("any.library").debug("sent %s", key.hex())
            case "argument":
                logging.getLogger("any.library").debug("sent %.1s", key)
            case "error":
                search.look_at_error(ValueError(key))
            case "cause":
                error.__cause__ = KeyError(key)
                search.look_at_error(error)
            case "note":
                error.add_note(repr(list(key)))
                search.look_at_error(error)
            case "object":
                assert search.look_at_objects("it", lambda: _Careless(b"", other=_Careless(key)).other) == set()
                held = _Careless(b"", other=[{"k": _Careless(key)}])
                assert search.look_at_objects("it", lambda: held) == {"_Careless"}
            case "file":
                (tmp_path / "a").write_bytes(b"...." + key + b"....")
                search.look_at_files(tmp_path)
            case "name":
                (tmp_path / key.hex()).touch()
                search.look_at_files(tmp_path)
            case _:
                command = [sys.executable, "-c", "input('up\\n')", key.hex()]
                with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:  # noqa: S603 - our own words
                    assert child.stdout is not None
                    assert child.stdout.readline() == b"up\n"  # the arguments are not there before it runs
                    search.look_at_process(os.getpid())
                    child.communicate(b"\n")
    assert {name for name, _ in search.found({"key": key, "another": bytes(range(32))})} == {"key"}


def test_the_search_knows_a_key_in_any_place_of_a_base64_text() -> None:
    key = os.urandom(32)
    for before in range(6):
        for after in range(4):
            data = os.urandom(before) + key + os.urandom(after)
            for text in (base64.b64encode(data), base64.urlsafe_b64encode(data)):
                assert any(spelling in text for spelling in spellings(key)), (before, after)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("ground", SERVICES, indirect=True)
def test_every_key_service_of_the_house_keeps_the_contract_that_plug_ins_are_held_to(ground: Ground) -> None:
    service = ground.unlock
    strange = next((wrong.unlock for wrong in ground.wrong if wrong.name.startswith("another ")), None)
    assert broken_promises(lambda: service, another=None if strange is None else lambda: strange) == ()
