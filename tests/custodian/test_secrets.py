"""Unique strings in every secret, then searched for everywhere a thief or a reader could look (T19, T85)."""

from __future__ import annotations

import base64
import logging
from typing import TYPE_CHECKING

import pytest
from custodian_kit import PASSPHRASE, Bench, Toy

from cloister.custodian.setup import open_custodian
from cloister.custodian.tokens import new_token
from cloister.custodian.vaults.encrypted_file import EncryptedFileVault, KeyFile, Passphrase
from cloister.errors import CloisterError, Rejected

if TYPE_CHECKING:
    from pathlib import Path


def _spellings(secret: bytes) -> set[bytes]:
    """Return a secret as it could stand in a file: raw, hex, base64 of either alphabet."""
    return {
        secret,
        secret.hex().encode(),
        secret.hex().upper().encode(),
        base64.b64encode(secret).rstrip(b"="),
        base64.urlsafe_b64encode(secret).rstrip(b"="),
        repr(secret).encode(),
    }


def _found(secrets: dict[str, bytes], data: bytes) -> set[str]:
    return {name for name, secret in secrets.items() if any(spelling in data for spelling in _spellings(secret))}


def _secrets(bench: Bench, tokens: dict[str, str]) -> dict[str, bytes]:
    vault = bench.service.context.vault._vault  # the one that is watched
    assert isinstance(vault, EncryptedFileVault)
    found = {
        "dek": bench.dek,
        "kek": vault._secrets.kek,
        "signing seed": vault.signing_key.seed(),
        "publisher seed": vault.publisher_key.seed(),
        "tls authority": vault.tls_authority_key[36:68],
        "device authority": vault.device_authority_key[36:68],
        "passphrase": PASSPHRASE,
    }
    return found | {name: token.encode() for name, token in tokens.items()}


def _live(bench: Bench) -> dict[str, str]:
    """Use every token and every path a secret takes; return the tokens."""
    lent = bench.lend(consumers=[{"id": "ward-a"}])
    toy = lent.boot()
    toy.renew()
    staff = bench.token("lender")
    bench.post("/v1/loans", bench.loan_body(), token=staff, **{"Idempotency-Key": "remembered"})
    bad = Toy(lent, debug=True)
    lent.attest(bad.attest_statement(bad.take_challenge()))
    return {
        "admin token": bench.init.admin_token,
        "borrower token": lent.token["Authorization"].removeprefix("Bearer "),
        "lender token": staff["Authorization"].removeprefix("Bearer "),
        "consumer token": lent.made["consumer_tokens"]["ward-a"],
    }


def test_no_secret_stands_in_database_backup_or_any_file_of_the_home(bench: Bench, tmp_path: Path) -> None:
    """T19: neither a stolen database nor a backup opens anything."""
    secrets = _secrets(bench, _live(bench))
    bench.service.context.store.backup(tmp_path / "backup.db")
    places = [path for path in bench.home.rglob("*") if path.is_file()] + [tmp_path / "backup.db"]
    assert {"custodian.db", "custodian.db-wal", "backup.db", "vault.json"} <= {path.name for path in places}
    for path in places:
        assert not _found(secrets, path.read_bytes()), path


def test_a_backup_without_the_vaults_key_unseals_nothing(bench: Bench) -> None:
    """T19: everything was stolen but the passphrase."""
    _live(bench)
    bench.close()
    with pytest.raises(Rejected) as refused:
        open_custodian(bench.home, Passphrase(b"another passphrase"), make_verifier=lambda _: None)  # type: ignore[arg-type, return-value]
    assert refused.value.code == "wrong_key"
    bench.open()


def test_no_secret_stands_in_any_answer_log_or_audit_line(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """T85: tokens are shown once, when they are made; nothing else ever."""
    with caplog.at_level(logging.DEBUG):
        tokens = _live(bench)
        secrets = _secrets(bench, tokens)
        loan = bench.get("/v1/loans").json()["loans"][0]["loan"]
        paths = (
            "/v1/loans", f"/v1/loans/{loan}", f"/v1/loans/{loan}/summary", "/v1/models", f"/v1/models/{bench.digest}",
            "/v1/tokens", "/v1/instances", "/v1/blocks", "/v1/audit?limit=1000", "/v1/audit/checkpoint",
            "/v1/custodian", "/openapi.json", "/v1/devices", "/healthz", "/readyz", "/nothing",
        )  # fmt: skip
        answers = b"".join(bench.get(path).content for path in paths)
        for token in tokens.values():
            answers += bench.client.get("/v1/nothing", headers={"Authorization": f"Bearer {token}x"}).content
    assert not _found(secrets, answers)
    assert not _found(secrets, caplog.text.encode())


def test_no_error_carries_a_secret(bench: Bench, tmp_path: Path) -> None:
    secret = b"CANARY-in-a-passphrase"
    with pytest.raises(CloisterError) as refused:
        EncryptedFileVault.open(bench.home / "vault.json", Passphrase(secret))
    key = KeyFile.create(tmp_path / "a.key")
    with pytest.raises(CloisterError) as second:
        EncryptedFileVault.open(bench.home / "vault.json", key)
    for error in (refused.value, second.value):
        text = f"{error!r} {error.message} {error.hint} {error.__cause__!r}"
        assert "CANARY" not in text
        assert key.path.read_bytes().hex() not in text


def test_a_token_is_256_random_bits() -> None:
    sizes: list[int] = []

    def rng(size: int) -> bytes:
        sizes.append(size)
        return bytes(size)

    assert new_token(rng) == "clst_" + "A" * 43
    assert sizes == [32]


def test_a_remembered_answer_is_wrapped_by_the_vault(bench: Bench) -> None:
    """An answer that showed a token is kept for Idempotency-Key, but not in clear."""
    made = bench.post("/v1/loans", bench.loan_body(), **{"Idempotency-Key": "k"})
    token = made.json()["loan_file"]["token"].encode()
    with bench.service.context.reading() as connection:
        stored = connection.exec_driver_sql("SELECT answer FROM idempotency").scalar_one()
    assert token not in stored
    assert bench.post("/v1/loans", bench.loan_body(), **{"Idempotency-Key": "k"}).content == made.content
