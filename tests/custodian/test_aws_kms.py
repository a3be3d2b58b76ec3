"""A vault locked by AWS KMS: on moto as far as that goes, on answers written down for what moto does not refuse."""

from __future__ import annotations

import base64
import json
import logging
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from moto_kit import REGION, Moto, start_moto

from cloister.custodian.vaults.encrypted_file import EncryptedFileVault
from cloister.custodian.vaults.key_service import connect
from cloister.custodian.vaults.vault_file import service_of
from cloister.errors import CloisterError, Rejected, Unavailable, UsageError
from cloister.testing.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ARN = f"arn:aws:kms:{REGION}:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"


@pytest.fixture(scope="module")
def server() -> Iterator[Moto]:
    """Yield a server for the tests of this file."""
    yield from start_moto()


@pytest.fixture
def moto(server: Moto, monkeypatch: pytest.MonkeyPatch) -> Moto:
    """Return the server, once the environment says where it is."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, Any], list[dict[str, Any]]]]:
    """Yield what starts a server that answers so, and returns the list of what it is asked."""
    servers: list[ThreadingHTTPServer] = []

    def start(status: int, document: Any) -> list[dict[str, Any]]:
        asked: list[dict[str, Any]] = []

        class Answers(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/x-amz-json-1.1")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        httpd = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        servers.append(httpd)
        for name, value in Moto(httpd.server_port).environment.items():
            monkeypatch.setenv(name, value)
        return asked

    yield start
    for httpd in servers:
        httpd.shutdown()
        httpd.server_close()


def test_the_service_gives_back_what_it_wrapped_in_the_same_context_only(moto: Moto) -> None:
    service, key = connect(f"aws-kms:{moto.new_key()}", {}), os.urandom(32)
    wrapped = service.wrap(key, context="vault/a")
    assert service.unwrap(wrapped, context="vault/a") == key
    assert key not in wrapped
    flipped = wrapped[:-1] + bytes([wrapped[-1] ^ 1])
    for context, data in (("vault/b", wrapped), ("vault/a", flipped), ("vault/a", b"none of its own")):
        with pytest.raises(Rejected) as refused:
            service.unwrap(data, context=context)
        assert refused.value.code == "wrong_key"


def test_another_key_of_the_same_account_opens_nothing(moto: Moto) -> None:
    wrapped = connect(f"aws-kms:{moto.new_key()}", {}).wrap(bytes(32), context="c")
    with pytest.raises(Rejected):
        connect(f"aws-kms:{moto.new_key()}", {}).unwrap(wrapped, context="c")


def test_a_key_that_is_not_there_is_named(moto: Moto) -> None:
    assert moto.port
    with pytest.raises(Rejected) as refused:
        connect(f"aws-kms:{ARN}", {}).wrap(bytes(32), context="c")
    assert refused.value.code == "no_such_key"
    assert ARN in refused.value.message


def test_a_vault_of_the_service_opens_by_it_and_not_when_it_was_altered(moto: Moto, tmp_path: Path) -> None:
    path, service = tmp_path / "vault.json", connect(f"aws-kms:{moto.new_key()}", {})
    made = EncryptedFileVault.create(path, service)
    assert EncryptedFileVault.open(path, service).kid == made.kid
    assert service_of(path.read_bytes()) == service.name
    members = json.loads(path.read_bytes())
    for name in ("wrapped", "salt", "nonce", "sealed"):
        text = members[name]
        at = len(text) // 2
        damaged = {**members, name: text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]}
        path.write_text(json.dumps(damaged, sort_keys=True, separators=(",", ":")))
        with pytest.raises(Rejected) as refused:
            EncryptedFileVault.open(path, service)
        assert refused.value.code == "wrong_key", name


@pytest.mark.parametrize(
    ("status", "code", "fault", "word"),
    [
        (400, "AccessDeniedException", Rejected, "service_denied"),
        (400, "UnrecognizedClientException", Rejected, "service_denied"),
        (400, "InvalidSignatureException", Rejected, "service_denied"),
        (400, "ExpiredTokenException", Rejected, "service_denied"),
        (400, "DisabledException", Rejected, "service_denied"),
        (400, "KMSInvalidStateException", Rejected, "service_denied"),
        (400, "NotFoundException", Rejected, "no_such_key"),
        (400, "InvalidCiphertextException", Rejected, "wrong_key"),
        (400, "IncorrectKeyException", Rejected, "wrong_key"),
        (400, "SomethingNew", Unavailable, ""),
        (400, "a name\nof two lines", Unavailable, ""),
        (500, "KMSInternalException", Unavailable, ""),
        (503, "DependencyTimeoutException", Unavailable, ""),
    ],
)
def test_a_refusal_is_told_by_its_cause_and_without_the_services_own_words(
    answer: Callable[..., Any], status: int, code: str, fault: type[CloisterError], word: str
) -> None:
    answer(status, {"__type": code, "message": "User: CANARY is not authorized"})
    with pytest.raises(fault) as refused:
        connect(f"aws-kms:{ARN}", {}).unwrap(b"wrapped", context="c")
    assert getattr(refused.value, "code", "") == word
    assert "CANARY" not in f"{refused.value.message} {refused.value.hint}"
    assert "\n" not in refused.value.message


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"KeyId": ARN},
        {"Plaintext": base64.b64encode(bytes(32)).decode()},
        {"KeyId": ARN[:-1] + "c", "Plaintext": base64.b64encode(bytes(32)).decode()},
        {"KeyId": ARN, "Plaintext": "A"},
        {"KeyId": ARN, "Plaintext": 7},
        {"KeyId": ARN, "Plaintext": ["AAAA"]},
        {"KeyId": [ARN], "Plaintext": {"a": 1}},
        [],
        [{"KeyId": ARN}],
        "text",
        7,
        None,
    ],
)
def test_an_answer_of_another_key_or_of_nothing_is_no_answer(answer: Callable[..., Any], document: Any) -> None:
    answer(200, document)
    with pytest.raises(Unavailable):
        connect(f"aws-kms:{ARN}", {}).unwrap(b"wrapped", context="c")


def test_it_is_asked_for_this_key_in_this_context(answer: Callable[..., Any]) -> None:
    asked = answer(200, {"KeyId": ARN, "Plaintext": base64.b64encode(bytes(32)).decode()})
    assert connect(f"aws-kms:{ARN}", {}).unwrap(b"wrapped", context="vault/v2/00") == bytes(32)
    wanted = {"KeyId": ARN, "EncryptionContext": {"cloister": "vault/v2/00"}, "CiphertextBlob": "d3JhcHBlZA=="}
    assert asked == [wanted]


def test_a_service_that_is_down_is_unavailable(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> None:
    assert moto.port
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Unavailable) as refused:
        connect(f"aws-kms:{ARN}", {}).unwrap(b"wrapped", context="c")
    assert refused.value.hint


def test_no_credentials_and_no_such_profile_are_our_fault(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> None:
    assert moto.port
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(UsageError):
        connect(f"aws-kms:{ARN}", {}).wrap(bytes(32), context="c")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(UsageError):
        connect(f"aws-kms:{ARN}", {}).wrap(bytes(32), context="c")


@pytest.mark.parametrize("url", ["http://192.0.2.1:1", "http://localhost.example:1", "http://127.0.0.1.example"])
def test_a_key_is_never_sent_in_clear_to_another_machine(moto: Moto, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    assert moto.port
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", url)
    with pytest.raises(UsageError):
        connect(f"aws-kms:{ARN}", {}).wrap(bytes(32), context="c")


def test_no_log_of_the_library_has_the_key(moto: Moto, caplog: pytest.LogCaptureFixture) -> None:
    service, key = connect(f"aws-kms:{moto.new_key()}", {}), b"CANARY-" * 4 + b"CANA"
    with caplog.at_level(logging.DEBUG):
        service.unwrap(service.wrap(key, context="c"), context="c")
    assert "CANARY" not in caplog.text
    assert base64.b64encode(key).decode() not in caplog.text


@pytest.mark.parametrize(
    "name",
    [
        "aws-kms:",
        "aws-kms:1234abcd-12ab-34cd-56ef-1234567890ab",
        "aws-kms:alias/vault",
        f"aws-kms:arn:aws:kms:{REGION}:123456789012:alias/vault",
        f"aws-kms:arn:aws:s3:{REGION}:123456789012:key/1",
        f"aws-kms:arn:evil:kms:{REGION}:123456789012:key/1",
        "aws-kms:arn:aws:kms:evil.example/:123456789012:key/1",
        f"aws-kms:{ARN}\n",
        f"aws-kms:{ARN}?x=1",
        f"AWS-KMS:{ARN}",
    ],
)
def test_a_name_that_is_no_arn_of_a_key_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        connect(name, {})
