"""A vault locked by a transit engine: the contract with a server of the tests' own, and live for who has a real one."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import socket
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from transit_kit import TOKEN, TransitServer, start_transit

from cloister.custodian.tls import authority_certificate, write_server_certificate
from cloister.custodian.vaults.encrypted_file import EncryptedFileVault
from cloister.custodian.vaults.key_service import connect
from cloister.custodian.vaults.transit import TOKEN_FILE_VARIABLE
from cloister.errors import CloisterError, Rejected, Unavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloister.custodian.vaults.key_service import KeyService

NAME = "transit:transit/vault"
LIVE = "CLOISTER_LIVE_TRANSIT"


@pytest.fixture
def server() -> Iterator[TransitServer]:
    """Yield a server."""
    yield from start_transit()


def _service(server: TransitServer, name: str = NAME, **more: str) -> KeyService:
    return connect(name, {**server.environment, **more})


def test_the_engine_gives_back_what_it_wrapped_in_the_same_context_only(server: TransitServer) -> None:
    service, key = _service(server), os.urandom(32)
    wrapped = service.wrap(key, context="vault/a")
    assert wrapped.startswith(b"vault:v1:")
    assert service.unwrap(wrapped, context="vault/a") == key
    flipped = wrapped[:-4] + (b"AAAA" if wrapped[-4:] != b"AAAA" else b"BBBB")
    for context, data in (("vault/b", wrapped), ("vault/a", flipped), ("vault/a", wrapped.replace(b":v1:", b":v9:"))):
        with pytest.raises(Rejected) as refused:
            service.unwrap(data, context=context)
        assert refused.value.code == "wrong_key"
    with pytest.raises(Rejected) as refused:
        _service(server, "transit:transit/other").unwrap(wrapped, context="vault/a")
    assert refused.value.code == "wrong_key"


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"vault:v1:", b"vault:v1:\r\nX", b"vault:v1:A?B", b"other:v1:AAAA"])
def test_what_no_engine_wrote_is_not_sent_to_it(server: TransitServer, data: bytes) -> None:
    with pytest.raises(Rejected) as refused:
        _service(server).unwrap(data, context="c")
    assert refused.value.code == "wrong_key"
    assert server.paths == []


def test_a_vault_lives_through_a_rotation_of_the_engines_key(server: TransitServer, tmp_path: Path) -> None:
    path, service = tmp_path / "vault.json", _service(server)
    made = EncryptedFileVault.create(path, service)
    server.rotate("vault")
    assert EncryptedFileVault.open(path, service).kid == made.kid
    server.keys["vault"][0] = os.urandom(32)
    with pytest.raises(Rejected):
        EncryptedFileVault.open(path, service)


@pytest.mark.parametrize(
    ("name", "more", "code"),
    [
        ("transit:transit/nothing", {}, "no_such_key"),
        ("transit:elsewhere/vault", {}, "no_such_key"),
        (NAME, {"VAULT_TOKEN": "hvs.CANARY"}, "service_denied"),
    ],
)
def test_a_missing_key_and_a_wrong_token_are_told_apart(
    server: TransitServer, name: str, more: dict[str, str], code: str
) -> None:
    service = _service(server, name, **more)
    for use in (lambda: service.wrap(bytes(32), context="c"), lambda: service.unwrap(b"vault:v1:AAAA", context="c")):
        with pytest.raises(Rejected) as refused:
            use()
        assert refused.value.code == code
        assert "CANARY" not in f"{refused.value} {refused.value.hint} {service!r}"


@pytest.mark.parametrize(
    ("status", "body", "fault", "code"),
    [
        (500, b'{"errors":["1 error occurred: cipher: message authentication failed"]}', Rejected, "wrong_key"),
        (500, b'{"errors":["internal error"]}', Unavailable, ""),
        (503, b'{"errors":["Vault is sealed"]}', Unavailable, ""),
        (429, b"{}", Unavailable, ""),
        (400, b'{"errors":["CANARY"]}', Unavailable, ""),
        (400, b'{"errors":{"CANARY":1}}', Unavailable, ""),
        (307, b"", Unavailable, ""),
        (204, b"", Unavailable, ""),
        (200, b"", Unavailable, ""),
        (200, b"[]", Unavailable, ""),
        (200, b'{"data":null}', Unavailable, ""),
        (200, b'{"data":{"plaintext":7}}', Unavailable, ""),
        (200, b'{"data":{"plaintext":"!"}}', Unavailable, ""),
        (200, b'{"data":{"plaintext":"' + "\u00e4".encode() + b'"}}', Unavailable, ""),
        (200, b'{"data":{"plaintext":"' + b"A" * 70_000 + b'"}}', Unavailable, ""),
    ],
)
def test_an_answer_that_is_none_fails_closed_and_is_not_repeated(
    server: TransitServer, status: int, body: bytes, fault: type[CloisterError], code: str
) -> None:
    server.answer = (status, body)
    with pytest.raises(fault) as refused:
        _service(server).unwrap(b"vault:v1:AAAA", context="c")
    assert getattr(refused.value, "code", "") == code
    assert "CANARY" not in f"{refused.value.message} {refused.value.hint}"
    assert len(server.paths) == 1, "a redirect was followed"


def test_an_engine_that_drips_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloister.custodian.vaults.transit._DEADLINE_S", 0.5)
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
                while not over.wait(0.05):
                    connection.sendall(b" ")

        thread = threading.Thread(target=drip)
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        service = connect(NAME, {"VAULT_ADDR": address, "VAULT_TOKEN": TOKEN})
        try:
            with pytest.raises(Unavailable, match="TimeoutError"):
                service.unwrap(b"vault:v1:AAAA", context="c")
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize(
    "address",
    [
        "https://\u2603.example",
        "https://a b",
        "https://[::1",
        "https://x:99999",
        "https://x:0",
        "https://\ud800",
        "https:///",
    ],
)
def test_an_address_that_is_none_is_a_usage_error(address: str) -> None:
    with pytest.raises(UsageError, match="VAULT_ADDR"):
        connect(NAME, {"VAULT_ADDR": address, "VAULT_TOKEN": TOKEN})


def test_an_engine_that_wraps_into_something_else_is_refused(server: TransitServer) -> None:
    for text in ("plain", "vault:v1:" + "A" * 9000, "vault:v1:AAAA\n"):
        server.answer = (200, json.dumps({"data": {"ciphertext": text}}).encode())
        with pytest.raises(Unavailable):
            _service(server).wrap(bytes(32), context="c")


def test_an_engine_too_old_to_know_associated_data_makes_no_vault(
    server: TransitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    respond = server.respond

    def old(path: str, token: str | None, asked: dict[str, Any]) -> tuple[int, bytes]:
        return respond(path, token, {name: value for name, value in asked.items() if name != "associated_data"})

    monkeypatch.setattr(server, "respond", old)
    with pytest.raises(Unavailable) as refused:
        EncryptedFileVault.create(tmp_path / "vault.json", _service(server))
    assert "context" in refused.value.message
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_down_is_unavailable(server: TransitServer) -> None:
    with pytest.raises(Unavailable) as refused:
        _service(server, VAULT_ADDR="http://127.0.0.1:9").wrap(bytes(32), context="c")
    assert refused.value.hint


def test_token_namespace_and_address_go_where_they_belong(server: TransitServer, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.touch(mode=0o600)
    secret.write_text(TOKEN + "\n")
    environment = {"BAO_ADDR": server.url + "/", TOKEN_FILE_VARIABLE: str(secret), "BAO_NAMESPACE": "team-a"}
    connect(NAME, environment).wrap(bytes(32), context="c")
    assert server.paths == ["/v1/transit/encrypt/vault"]
    assert server.headers[0]["x-vault-token"] == TOKEN
    assert server.headers[0]["x-vault-namespace"] == "team-a"
    secret.chmod(0o644)
    with pytest.raises(UsageError):
        connect(NAME, environment)


def test_over_tls_only_the_authority_that_was_named_is_believed(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority = ec.generate_private_key(ec.SECP256R1())
    pkcs8 = authority.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "ca.pem").write_bytes(authority_certificate(pkcs8, name="tests", now=now))
    write_server_certificate(tmp_path, pkcs8, names=("127.0.0.1",), now=now)
    for server in start_transit(certificate=tmp_path / "server.pem", key=tmp_path / "server.key"):
        assert _service(server, VAULT_CACERT=str(tmp_path / "ca.pem")).wrap(bytes(32), context="c")
        with pytest.raises(Unavailable):
            _service(server).wrap(bytes(32), context="c")
        for wrong in ("absent.pem", "server.key"):
            with pytest.raises(UsageError):
                _service(server, VAULT_CACERT=str(tmp_path / wrong)).wrap(bytes(32), context="c")
        assert len(server.paths) == 1


@pytest.mark.parametrize(
    "address",
    [
        "",
        "http://vault.example:8200",
        "ftp://127.0.0.1",
        "https://",
        "https://user:CANARY@vault.example",
        "https://vault.example/v1",
        "https://vault.example?x=1",
        "https://vault.example:99999",
        "https://[::1",
        "127.0.0.1:8200",
    ],
)
def test_an_address_is_https_or_loopback_and_nothing_more(address: str) -> None:
    with pytest.raises(UsageError) as refused:
        connect(NAME, {"VAULT_ADDR": address, "VAULT_TOKEN": TOKEN})
    assert "CANARY" not in f"{refused.value} {refused.value.hint}"


@pytest.mark.parametrize("token", ["", "two words", "line\nend", "\u00e4", "t" * 4097])
def test_a_token_is_printable_and_there(token: str) -> None:
    with pytest.raises(UsageError) as refused:
        connect(NAME, {"VAULT_ADDR": "https://vault.example", "VAULT_TOKEN": token})
    assert not token or token not in refused.value.message


@pytest.mark.parametrize(
    "name",
    [
        "transit:", "transit:vault", "transit:/vault", "transit:transit/", "transit:a//b", "transit:../sys/vault",
        "transit:transit/../../sys", "transit:transit/va%2fult", "transit:transit/vault?x", "transit:transit/vault\n",
        "transit:" + "a/" * 9 + "b", "TRANSIT:transit/vault",
    ],
)  # fmt: skip
def test_a_name_leads_to_no_other_path(name: str) -> None:
    with pytest.raises(UsageError):
        connect(name, {"VAULT_ADDR": "https://vault.example", "VAULT_TOKEN": TOKEN})


def test_no_log_has_the_key_or_the_token(server: TransitServer, caplog: pytest.LogCaptureFixture) -> None:
    service, key = _service(server), b"CANARY-" * 4 + b"CANA"
    with caplog.at_level(logging.DEBUG):
        service.unwrap(service.wrap(key, context="c"), context="c")
    for secret in ("CANARY", base64.b64encode(key).decode(), TOKEN):
        assert secret not in caplog.text


@pytest.mark.skipif(
    LIVE not in os.environ, reason=f"no real engine: set {LIVE}=transit:MOUNT/KEY, VAULT_ADDR, VAULT_TOKEN"
)
def test_a_real_engine_keeps_the_contract(tmp_path: Path) -> None:
    service = connect(os.environ[LIVE], os.environ)
    made = EncryptedFileVault.create(tmp_path / "vault.json", service)
    assert EncryptedFileVault.open(tmp_path / "vault.json", service).kid == made.kid
    wrapped = service.wrap(bytes(32), context="a")
    with pytest.raises(Rejected) as refused:
        service.unwrap(wrapped, context="b")
    assert refused.value.code == "wrong_key"
