"""A vault locked by the state of a TPM, on swtpm: opens in that state alone, fails closed in every other way."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cloister.attest.tpm.algorithms import Alg
from cloister.custodian.vaults.encrypted_file import EncryptedFileVault, open_by_shares, relock, split_vault
from cloister.custodian.vaults.key_service import connect
from cloister.custodian.vaults.shares import Division
from cloister.custodian.vaults.tpm_state import TPM_VARIABLE
from cloister.custodian.vaults.unlock import Passphrase
from cloister.custodian.vaults.vault_file import service_of
from cloister.errors import Rejected, Unavailable, UsageError
from cloister.tpm.commands import Tpm
from cloister.tpm.sealing import MAX_SECRET_BYTES, SealedSecret, seal_to_pcrs
from cloister.tpm.transport import SocketTransport
from swtpm import start_swtpm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cloister.custodian.vaults.key_service import KeyService
    from swtpm import Swtpm

pytestmark = pytest.mark.tpm
NAME = "tpm:sha256:7,11"
UPDATE = hashlib.sha256(b"an update").digest()
TRANSIENT, HMAC_SESSIONS, POLICY_SESSIONS = 0x80000000, 0x02000000, 0x03000000  # Part 2 section 7.2


def _extend(swtpm: Swtpm, *pcrs: int) -> None:
    with SocketTransport(swtpm.socket) as transport:
        for pcr in pcrs:
            Tpm(transport).pcr_extend(pcr, UPDATE)


def _left(swtpm: Swtpm) -> list[int]:
    """Return what is loaded in the TPM."""
    with SocketTransport(swtpm.socket) as transport:
        tpm = Tpm(transport)
        return [item for first in (TRANSIENT, HMAC_SESSIONS, POLICY_SESSIONS) for item in tpm.handles(first)]


def _environment(swtpm: Swtpm) -> dict[str, str]:
    return {TPM_VARIABLE: f"unix:{swtpm.socket}"}


def _service(swtpm: Swtpm, name: str = NAME) -> KeyService:
    return connect(name, _environment(swtpm))


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swtpm]:
    """Yield the TPM of a machine that measured its boot into PCRs 4, 7 and 11."""
    with start_swtpm(tmp_path_factory.mktemp("tpm")) as running:
        _extend(running, 4, 7, 11)
        yield running


@pytest.fixture
def swtpm(booted: Swtpm) -> Iterator[Swtpm]:
    """Yield that TPM, and see that nothing is left in it."""
    yield booted
    assert _left(booted) == []


def _refusal(use: Callable[[], object]) -> Rejected:
    with pytest.raises(Rejected) as refused:
        use()
    return refused.value


def test_the_tpm_gives_back_what_it_sealed_in_the_same_context_only(swtpm: Swtpm) -> None:
    service, key = _service(swtpm), os.urandom(32)
    wrapped = service.wrap(key, context="vault/a")
    assert service.unwrap(wrapped, context="vault/a") == key
    assert key not in wrapped
    for context in ("vault/b", ""):
        assert _refusal(lambda context=context: service.unwrap(wrapped, context=context)).code == "wrong_key"  # type: ignore[misc]


def test_one_altered_or_missing_byte_anywhere_is_a_wrong_key(swtpm: Swtpm) -> None:
    service = _service(swtpm)
    wrapped = service.wrap(bytes(32), context="c")
    for at in range(len(wrapped)):
        damaged = wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :]
        for data in (damaged, wrapped[:at]):
            assert _refusal(lambda data=data: service.unwrap(data, context="c")).code == "wrong_key", at  # type: ignore[misc]
    assert _refusal(lambda: service.unwrap(wrapped + b"\0", context="c")).code == "wrong_key"


def test_a_secret_that_this_tpm_sealed_for_something_else_is_a_wrong_key(swtpm: Swtpm) -> None:
    with SocketTransport(swtpm.socket) as transport:
        tpm = Tpm(transport)
        values = tpm.pcr_read((7, 11))
        strange = [seal_to_pcrs(tpm, secret, values).dump() for secret in (b"x", bytes(32), bytes(MAX_SECRET_BYTES))]
    for wrapped in strange:
        assert _refusal(lambda wrapped=wrapped: _service(swtpm).unwrap(wrapped, context="c")).code == "wrong_key"  # type: ignore[misc]


def test_a_vault_file_that_names_fewer_pcrs_opens_nothing(swtpm: Swtpm) -> None:
    wrapped = _service(swtpm).wrap(bytes(32), context="c")
    for fewer in ("tpm:sha256:7", "tpm:sha256:4,7", "tpm:sha256:4,7,11"):
        assert _refusal(lambda fewer=fewer: _service(swtpm, fewer).unwrap(wrapped, context="c")).code == "wrong_key"  # type: ignore[misc]


def test_a_secret_relabelled_with_pcrs_that_did_not_change_stays_shut(swtpm: Swtpm) -> None:
    sealed = SealedSecret.parse(_service(swtpm).wrap(bytes(32), context="c"))
    relabelled = SealedSecret(
        pcrs=(4,), policy=sealed.policy, parent=sealed.parent, private=sealed.private, public=sealed.public
    ).dump()
    refused = _refusal(lambda: _service(swtpm, "tpm:sha256:4").unwrap(relabelled, context="c"))
    assert refused.code == "pcr_mismatch"


def test_a_pcr_that_nothing_was_measured_into_is_refused(swtpm: Swtpm) -> None:
    with pytest.raises(UsageError, match="pcr 9, 14"):
        _service(swtpm, "tpm:sha256:7,9,14").wrap(bytes(32), context="c")


def test_a_key_that_does_not_fit_is_refused(swtpm: Swtpm) -> None:
    for size in (0, MAX_SECRET_BYTES - 31):
        with pytest.raises(UsageError):
            _service(swtpm).wrap(bytes(size), context="c")
    assert _service(swtpm).wrap(bytes(MAX_SECRET_BYTES - 32), context="c")


def test_after_a_pcr_changed_the_vault_is_shut_and_shares_relock_it(tmp_path: Path) -> None:
    path = tmp_path / "vault.json"
    with start_swtpm(tmp_path) as swtpm:
        _extend(swtpm, 7, 11)
        made = EncryptedFileVault.create(path, _service(swtpm))
        shares = split_vault(path, _service(swtpm), Division(need=2, of=3))
        assert service_of(path.read_bytes()) == NAME
        with pytest.raises(UsageError):
            EncryptedFileVault.open(path, Passphrase(b"correct horse"))
        _extend(swtpm, 4)  # not one of those that count
        assert EncryptedFileVault.open(path, _service(swtpm)).kid == made.kid
        _extend(swtpm, 11)
        refused = _refusal(lambda: EncryptedFileVault.open(path, _service(swtpm)))
        assert [reason.code for reason in refused.reasons] == ["pcr_mismatch"]
        assert "shares combine" in (refused.hint or "")
        assert UPDATE.hex() not in f"{refused} {refused.hint}"
        relock(path, open_by_shares(path, shares[1:]), _service(swtpm))
        assert EncryptedFileVault.open(path, _service(swtpm)).kid == made.kid
        assert _left(swtpm) == []
    with start_swtpm(tmp_path, again=True) as rebooted:
        assert _refusal(lambda: EncryptedFileVault.open(path, _service(rebooted))).code == "pcr_mismatch"
        _extend(rebooted, 7, 11, 11)  # the same boot again
        assert EncryptedFileVault.open(path, _service(rebooted)).kid == made.kid
        assert _left(rebooted) == []


def test_a_stolen_vault_file_does_not_open_on_another_tpm_in_the_same_state(swtpm: Swtpm, tmp_path: Path) -> None:
    wrapped = _service(swtpm).wrap(bytes(32), context="c")
    with start_swtpm(tmp_path, name="thief") as other:
        _extend(other, 7, 11)
        refused = _refusal(lambda: _service(other).unwrap(wrapped, context="c"))
        assert refused.code == "wrong_key"
        assert "shares" in (refused.hint or "")
        assert _left(other) == []


def test_a_tpm_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    for kind in ("device", "unix"):
        service = connect(NAME, {TPM_VARIABLE: f"{kind}:{tmp_path / 'absent'}"})
        with pytest.raises(Unavailable):
            service.wrap(bytes(32), context="c")


def test_a_device_that_is_no_tpm_is_unavailable(swtpm: Swtpm) -> None:
    wrapped = _service(swtpm).wrap(bytes(32), context="c")
    for device in ("/dev/null", "/dev/zero"):
        service = connect(NAME, {TPM_VARIABLE: f"device:{device}"})
        for use in (lambda: service.wrap(bytes(32), context="c"), lambda: service.unwrap(wrapped, context="c")):  # noqa: B023 - used at once
            with pytest.raises(Unavailable):
                use()


def test_a_tpm_whose_owner_has_a_password_is_denied_and_named(tmp_path: Path) -> None:
    with start_swtpm(tmp_path) as swtpm:
        _extend(swtpm, 7, 11)
        with SocketTransport(swtpm.socket) as transport:  # TPM2_HierarchyChangeAuth: no command of ours
            password = bytes.fromhex("00000009 40000009 0000 01 0000 0004 6f776e72".replace(" ", ""))
            body = bytes.fromhex("40000001") + password
            size = (10 + len(body)).to_bytes(4, "big")
            assert transport.transceive(bytes.fromhex("8002") + size + bytes.fromhex("00000129") + body)[6:10] == bytes(
                4
            )
        refused = _refusal(lambda: _service(swtpm).wrap(bytes(32), context="c"))
        assert refused.code == "service_denied"
        assert "owner hierarchy" in (refused.hint or "")


def test_a_tpm_without_a_sha256_bank_is_named(swtpm: Swtpm, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Tpm.pcr_read
    monkeypatch.setattr(Tpm, "pcr_read", lambda tpm, pcrs: real(tpm, pcrs, bank=Alg.SHA512))  # which swtpm has not on
    with pytest.raises(UsageError, match="sha256"):
        _service(swtpm).wrap(bytes(32), context="c")


@pytest.mark.parametrize(
    "name",
    [
        "tpm:", "tpm:sha256", "tpm:sha256:", "tpm:sha1:7", "tpm:7", "tpm:sha256:11,7", "tpm:sha256:7,7",
        "tpm:sha256:07", "tpm:sha256:7,", "tpm:sha256:,7", "tpm:sha256:7, 11", "tpm:sha256:16", "tpm:sha256:23",
        "tpm:sha256:7,24", "tpm:sha256:-1", "tpm:sha256:7+11", "tpm:sha256:\u0667", "tpm:sha256:7\n",
        "TPM:sha256:7", "tpm:sha256:7:CANARY",
    ],
)  # fmt: skip
def test_a_name_of_any_other_shape_is_refused_and_not_repeated(name: str) -> None:
    with pytest.raises(UsageError) as refused:
        connect(name, {})
    assert "CANARY" not in f"{refused.value} {refused.value.hint}"


@pytest.mark.parametrize("where", ["", "tpm0", "unix:", "unix:tpm.sock", "tcp:/127.0.0.1:2321", "device:../dev/tpm0"])
def test_a_way_to_the_tpm_of_any_other_shape_is_refused(where: str) -> None:
    with pytest.raises(UsageError, match=TPM_VARIABLE):
        connect(NAME, {TPM_VARIABLE: where})


def _cloister(swtpm: Swtpm, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **_environment(swtpm), "CLOISTER_CUSTODIAN_HOME": str(home)}
    command = [sys.executable, "-m", "cloister", *words, "--json"]
    return subprocess.run(  # noqa: S603 - our own words
        command, capture_output=True, text=True, env=environment, timeout=60, check=False
    )


def test_a_custodian_lives_by_its_tpm_from_the_command_line(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with start_swtpm(tmp_path) as swtpm:
        _extend(swtpm, 7)
        refused = _cloister(swtpm, home, "custodian", "init", "--vault", NAME)
        assert refused.returncode == 2, refused
        assert list(home.iterdir()) == []
        _extend(swtpm, 11)
        made = _cloister(swtpm, home, "custodian", "init", "--vault", NAME)
        assert made.returncode == 0, made
        shown = _cloister(swtpm, home, "custodian", "show")
        assert json.loads(shown.stdout)["key"] == json.loads(made.stdout)["key"]
        _extend(swtpm, 7)
        shut = _cloister(swtpm, home, "custodian", "show")
        assert shut.returncode == 4, shut
        assert "pcr_mismatch" in shut.stdout + shut.stderr
        assert "shares combine" in shut.stdout + shut.stderr
        assert "Traceback" not in shut.stderr
        assert _left(swtpm) == []
