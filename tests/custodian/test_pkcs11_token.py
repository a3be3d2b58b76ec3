"""A vault locked by a PKCS #11 token, on SoftHSM2: opens by its key and PIN, fails closed in every other way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from softhsm_kit import PIN, SoftHsm

from cloister.custodian.vaults.encrypted_file import EncryptedFileVault, open_by_shares, relock, split_vault
from cloister.custodian.vaults.key_service import connect
from cloister.custodian.vaults.pkcs11_token import MODULE_VARIABLE, PIN_FILE_VARIABLE, PIN_VARIABLE, Pkcs11Token
from cloister.custodian.vaults.shares import Division
from cloister.custodian.vaults.unlock import Passphrase
from cloister.custodian.vaults.vault_file import service_of
from cloister.errors import CloisterError, Rejected, Unavailable, UsageError
from cloister.private_file import write_private

if TYPE_CHECKING:
    from pathlib import Path

    from cloister.custodian.vaults.key_service import KeyService

NAME = "pkcs11:token=cloister;object=vault"


def _service(hsm: SoftHsm, name: str = NAME) -> KeyService:
    return connect(name, hsm.environment)


def test_the_token_gives_back_what_it_wrapped_in_the_same_context_only(hsm: SoftHsm) -> None:
    service, key = _service(hsm), os.urandom(32)
    wrapped = service.wrap(key, context="vault/a")
    assert service.unwrap(wrapped, context="vault/a") == key
    assert key not in wrapped
    assert service.wrap(key, context="vault/a") != wrapped
    for context, data in (("vault/b", wrapped), ("", wrapped), ("vault/a", wrapped + b"\0"), ("vault/a", b"")):
        with pytest.raises(Rejected) as refused:
            service.unwrap(data, context=context)
        assert refused.value.code == "wrong_key"


def test_one_altered_bit_anywhere_is_a_wrong_key(hsm: SoftHsm) -> None:
    service = _service(hsm)
    wrapped = service.wrap(os.urandom(32), context="c")
    for at in range(len(wrapped)):
        damaged = wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :]
        with pytest.raises(Rejected) as refused:
            service.unwrap(damaged, context="c")
        assert refused.value.code == "wrong_key"
    for size in range(len(wrapped)):
        with pytest.raises(Rejected):
            service.unwrap(wrapped[:size], context="c")


@pytest.mark.parametrize(
    "other", ["pkcs11:token=cloister;object=other", "pkcs11:token=a%20second%3B%20token;object=vault"]
)
def test_another_key_or_another_token_opens_nothing(hsm: SoftHsm, other: str) -> None:
    wrapped = _service(hsm).wrap(os.urandom(32), context="c")
    strange = _service(hsm, other)
    assert strange.name == other
    with pytest.raises(Rejected) as refused:
        strange.unwrap(wrapped, context="c")
    assert refused.value.code == "wrong_key"


@pytest.mark.parametrize(
    ("name", "fault", "code"),
    [
        ("pkcs11:token=cloister;object=nothing", Rejected, "no_such_key"),
        ("pkcs11:token=absent;object=vault", Unavailable, ""),
        ("pkcs11:token=cloister;object=loose", UsageError, ""),
        ("pkcs11:token=cloister;object=bare", UsageError, ""),
        ("pkcs11:token=cloister;object=short", UsageError, ""),
        ("pkcs11:token=cloister;object=twice", UsageError, ""),
    ],
)
def test_a_missing_token_or_key_or_one_that_could_leave_fails_closed(
    hsm: SoftHsm, name: str, fault: type[CloisterError], code: str
) -> None:
    service = _service(hsm, name)
    for use in (lambda: service.wrap(bytes(32), context="c"), lambda: service.unwrap(bytes(60), context="c")):
        with pytest.raises(fault) as refused:
            use()
        assert getattr(refused.value, "code", "") == code
        assert code != "" or "token" in refused.value.message


def test_a_wrong_pin_is_denied_is_tried_once_and_is_not_shown(hsm: SoftHsm) -> None:
    service = connect(NAME, {MODULE_VARIABLE: hsm.module, PIN_VARIABLE: "CANARY-9"})
    with pytest.raises(Rejected) as refused:
        service.wrap(bytes(32), context="c")
    assert refused.value.code == "service_denied"
    for thing in (service, refused.value, refused.value.hint, refused.value.__cause__, refused.value.message):
        assert "CANARY" not in f"{thing!r} {thing}"
    assert _service(hsm).wrap(bytes(32), context="c")  # and the right one opens it still


def test_a_pin_comes_from_the_environment_or_a_private_file(hsm: SoftHsm, tmp_path: Path) -> None:
    only_module = {MODULE_VARIABLE: hsm.module}
    assert connect(NAME, {**only_module, PIN_VARIABLE: PIN}).wrap(bytes(32), context="c")
    open_to_all = tmp_path / "pin"
    open_to_all.write_text(PIN)
    open_to_all.chmod(0o644)
    for environment in (
        only_module,
        {**only_module, PIN_FILE_VARIABLE: str(open_to_all)},
        {**only_module, PIN_FILE_VARIABLE: str(tmp_path / "absent")},
    ):
        with pytest.raises(UsageError):
            connect(NAME, environment)


def test_a_pin_that_is_no_text_is_in_no_error(hsm: SoftHsm, tmp_path: Path) -> None:
    write_private(tmp_path / "pin", b"CANARY\xff")
    with pytest.raises(UsageError, match="not text") as refused:
        connect(NAME, {**hsm.environment, PIN_FILE_VARIABLE: str(tmp_path / "pin")})
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None


@pytest.mark.parametrize("module", ["", "libsofthsm2.so", "/nowhere/module.so", "/usr/lib"])
def test_a_module_is_named_by_its_absolute_path(hsm: SoftHsm, module: str) -> None:
    with pytest.raises(UsageError):
        connect(NAME, {**hsm.environment, MODULE_VARIABLE: module})


def test_a_module_that_is_none_is_refused(hsm: SoftHsm, tmp_path: Path) -> None:
    (tmp_path / "module.so").write_bytes(b"no library")
    service = connect(NAME, {**hsm.environment, MODULE_VARIABLE: str(tmp_path / "module.so")})
    with pytest.raises(UsageError):
        service.wrap(bytes(32), context="c")


@pytest.mark.parametrize(
    "name",
    [
        "pkcs11:",
        "pkcs11:token=cloister",
        "pkcs11:object=vault",
        "pkcs11:token=;object=vault",
        "pkcs11:token=cloister;object=vault;object=other",
        "pkcs11:token=cloister;object=vault;serial=1",
        "pkcs11:token=cloister;object=vault?pin-value=CANARY",
        "pkcs11:token=cloister;object=vault?module-path=/tmp/CANARY.so",
        "pkcs11:token=cloister;object=CANARY%0a",
        f"pkcs11:token=cloister;object={'k' * 33}",
        "PKCS11:token=cloister;object=vault",
        "kmip:CANARY",
        "",
    ],
)
def test_a_name_of_any_other_shape_is_refused_and_not_repeated(hsm: SoftHsm, name: str) -> None:
    with pytest.raises(UsageError) as refused:
        connect(name, hsm.environment)
    assert "CANARY" not in f"{refused.value} {refused.value.hint}"


def test_a_vault_of_a_token_opens_by_it_and_holds_no_key_of_it(hsm: SoftHsm, tmp_path: Path) -> None:
    path, service = tmp_path / "vault.json", _service(hsm)
    made = EncryptedFileVault.create(path, service)
    again = EncryptedFileVault.open(path, service)
    assert (again.kid, again.kek_id) == (made.kid, made.kek_id)
    assert service_of(path.read_bytes()) == NAME
    with pytest.raises(UsageError):
        EncryptedFileVault.open(path, Passphrase(b"correct horse"))
    with pytest.raises(UsageError):
        EncryptedFileVault.open(path, _service(hsm, "pkcs11:token=cloister;object=other"))
    assert PIN.encode() not in path.read_bytes()


def test_a_vault_whose_token_is_gone_comes_back_by_shares(hsm: SoftHsm, tmp_path: Path) -> None:
    path, service = tmp_path / "vault.json", _service(hsm)
    made = EncryptedFileVault.create(path, service)
    shares = split_vault(path, service, Division(need=2, of=3))
    assert isinstance(service, Pkcs11Token)
    with pytest.raises(Unavailable):
        EncryptedFileVault.open(path, _Renamed(replace(service, token="gone")))  # noqa: S106 - its label
    relock(path, open_by_shares(path, shares[1:]), _service(hsm, "pkcs11:token=cloister;object=other"))
    again = EncryptedFileVault.open(path, _service(hsm, "pkcs11:token=cloister;object=other"))
    assert again.kid == made.kid


class _Renamed:
    """The token of that name, which is not there any more."""

    def __init__(self, inner: KeyService) -> None:
        self.name = NAME
        self.wrap, self.unwrap = inner.wrap, inner.unwrap


def _cloister(hsm: SoftHsm, home: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **hsm.environment, "CLOISTER_CUSTODIAN_HOME": str(home), **more}
    command = [sys.executable, "-m", "cloister", *words, "--json"]
    return subprocess.run(  # noqa: S603 - our own words
        command, capture_output=True, text=True, env=environment, timeout=60, check=False
    )


def test_a_custodian_lives_by_a_token_from_the_command_line(hsm: SoftHsm, tmp_path: Path) -> None:
    home = tmp_path / "home"
    denied = _cloister(hsm, home, "custodian", "init", "--vault", NAME, **{PIN_FILE_VARIABLE: "", PIN_VARIABLE: "12"})
    assert denied.returncode == 4, denied
    assert list(home.iterdir()) == []
    made = _cloister(hsm, home, "custodian", "init", "--vault", NAME)
    assert made.returncode == 0, made
    shown = _cloister(hsm, home, "custodian", "show")
    assert json.loads(shown.stdout)["key"] == json.loads(made.stdout)["key"]
    swapped = _cloister(hsm, home, "custodian", "show", CLOISTER_CUSTODIAN_VAULT="pkcs11:token=cloister;object=other")
    assert swapped.returncode == 2
    both = _cloister(hsm, home, "custodian", "show", "--key-file", str(tmp_path / "x.key"))
    assert both.returncode == 2
    expected = _cloister(hsm, home, "custodian", "show", CLOISTER_CUSTODIAN_KEY_FILE=str(tmp_path / "x.key"))
    assert expected.returncode == 2, "a vault of a service took the place of one that a key file opens"
    assert PIN not in "".join(item.stdout + item.stderr for item in (denied, made, shown, swapped, both, expected))
