"""A vault locked by a key of a KMIP server, on PyKMIP's: opens by that key, fails closed in every other way."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from kmip_kit import between, make_certificates, swap

from cloister.custodian.vaults.encrypted_file import EncryptedFileVault
from cloister.custodian.vaults.key_service import connect
from cloister.custodian.vaults.kmip import AUTHORITY_VARIABLE, CERTIFICATE_VARIABLE, KEY_VARIABLE, SERVER_VARIABLE
from cloister.errors import CloisterError, Rejected, Unavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kmip_kit import KmipServer

    from cloister.custodian.vaults.key_service import KeyService


def _service(kmip: KmipServer, key: str = "vault", port: int | None = None, **more: str) -> KeyService:
    return connect(f"kmip:{kmip.keys.get(key, key)}", {**kmip.environment(port), **more})


def _refusal(use: Callable[[], object]) -> CloisterError:
    with pytest.raises(CloisterError) as refused:
        use()
    return refused.value


def test_the_server_gives_back_what_it_wrapped_in_the_same_context_only(kmip: KmipServer) -> None:
    service, key = _service(kmip), os.urandom(32)
    wrapped = service.wrap(key, context="vault/a")
    assert service.unwrap(wrapped, context="vault/a") == key
    assert key not in wrapped
    assert service.wrap(key, context="vault/a") != wrapped
    for context, data in (("vault/b", wrapped), ("", wrapped), ("vault/a", wrapped + b"\0"), ("vault/a", b"")):
        refused = _refusal(lambda context=context, data=data: service.unwrap(data, context=context))
        assert isinstance(refused, Rejected)
        assert refused.code == "wrong_key"


def test_one_altered_bit_or_a_shorter_tag_is_a_wrong_key(kmip: KmipServer) -> None:
    """The server takes tags of any length: it is we who have them whole."""
    service = _service(kmip)
    wrapped = service.wrap(os.urandom(32), context="c")
    damaged = [wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :] for at in (0, 11, 12, 43, 44, 59)]
    for data in (*damaged, wrapped[:-1], wrapped[:-12], wrapped[:28], wrapped[:12]):
        refused = _refusal(lambda data=data: service.unwrap(data, context="c"))
        assert isinstance(refused, Rejected)
        assert refused.code == "wrong_key"


@pytest.mark.parametrize(
    ("key", "fault", "code"),
    [
        ("other", Rejected, "wrong_key"),
        ("inactive", Rejected, "service_denied"),
        ("no-such-identifier", Rejected, "no_such_key"),
        ("secret data", Rejected, "service_denied"),
    ],
)
def test_another_key_a_key_that_is_not_active_and_none_are_told_apart(
    kmip: KmipServer, key: str, fault: type[CloisterError], code: str
) -> None:
    wrapped = _service(kmip).wrap(os.urandom(32), context="c")
    refused = _refusal(lambda: _service(kmip, key).unwrap(wrapped, context="c"))
    assert isinstance(refused, fault)
    assert refused.code == code  # type: ignore[attr-defined]


@pytest.mark.parametrize("key", ["short", "secret data"])
def test_no_vault_is_made_by_a_key_that_is_not_aes_256(kmip: KmipServer, key: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="AES key of 256"):
        EncryptedFileVault.create(tmp_path / "vault.json", _service(kmip, key))
    assert list(tmp_path.iterdir()) == []


def test_a_stranger_to_the_authority_is_not_asked_and_not_told_anything(kmip: KmipServer, tmp_path: Path) -> None:
    """Neither a server by another authority nor a client by one."""
    make_certificates(tmp_path)
    with between(kmip, bytes, certificates=tmp_path) as strange:
        assert isinstance(_refusal(lambda: _service(kmip, port=strange.port).wrap(bytes(32), context="c")), Unavailable)
        assert strange.asked == 0
    ours = {CERTIFICATE_VARIABLE: str(tmp_path / "client.pem"), KEY_VARIABLE: str(tmp_path / "client.key")}
    assert isinstance(_refusal(lambda: _service(kmip, **ours).wrap(bytes(32), context="c")), Unavailable)


def test_a_server_of_the_same_authority_at_another_address_is_not_asked(kmip: KmipServer, tmp_path: Path) -> None:
    make_certificates(tmp_path, address="127.0.0.2")
    with between(kmip, bytes, certificates=tmp_path) as other:
        own = {AUTHORITY_VARIABLE: str(tmp_path / "ca.pem")}
        refused = _refusal(lambda: _service(kmip, port=other.port, **own).wrap(bytes(32), context="c"))
        assert isinstance(refused, Unavailable)
        assert "SSLCertVerificationError" in refused.message
        assert other.asked == 0


def test_a_server_that_speaks_old_tls_is_not_asked(kmip: KmipServer) -> None:
    service = _service(kmip)
    assert service._tls().minimum_version is ssl.TLSVersion.TLSv1_2  # type: ignore[attr-defined]
    assert service._tls().check_hostname  # type: ignore[attr-defined]


ODD: dict[str, Callable[[bytes], bytes]] = {
    "of another key": swap(0x420094, lambda _: "77"),
    "of another operation": swap(0x42005C, lambda _: 0x1F),
    "of an older version": swap(0x42006B, lambda _: 2),
    "a payload without data": swap(0x42007C, lambda _: ()),
    "cut": lambda answer: answer[:-8],
    "longer than it says": lambda answer: answer[:4] + (len(answer) - 16).to_bytes(4, "big") + answer[8:],
    "far too long": lambda _: bytes.fromhex("42007b017ffffff8") + bytes(64),
    "http": lambda _: b"HTTP/1.1 200 OK\r\n\r\n" + bytes(64),
    "nothing": lambda _: b"",
}


@pytest.mark.parametrize("odd", ODD)
def test_an_answer_that_is_none_fails_closed(kmip: KmipServer, odd: str) -> None:
    wrapped = _service(kmip).wrap(b"CANARY-" * 4 + b"CANA", context="c")
    with between(kmip, ODD[odd]) as altered:
        refused = _refusal(lambda: _service(kmip, port=altered.port).unwrap(wrapped, context="c"))
    assert isinstance(refused, Unavailable)
    assert altered.asked == 1
    assert "CANARY" not in f"{refused!r} {refused.hint} {refused.__cause__!r}"


def test_a_failure_that_says_nothing_is_a_wrong_key_only_where_the_key_works(kmip: KmipServer) -> None:
    """T19: a server that is broken must not look like a vault file that was altered."""
    wrapped = _service(kmip).wrap(os.urandom(32), context="c")
    with between(kmip, swap(0x42007F, lambda _: 1)) as broken:  # every operation fails, for no reason
        refused = _refusal(lambda: _service(kmip, port=broken.port).unwrap(wrapped, context="c"))
    assert isinstance(refused, Unavailable)
    refused = _refusal(lambda: _service(kmip).unwrap(wrapped, context="d"))
    assert isinstance(refused, Rejected)


def test_a_text_of_the_server_is_not_shown(kmip: KmipServer) -> None:
    with between(kmip, swap(0x42007D, lambda _: "CANARY")) as loud:
        refused = _refusal(lambda: _service(kmip, "no-such-identifier", loud.port).wrap(bytes(32), context="c"))
    assert "CANARY" not in f"{refused!r} {refused.message} {refused.hint} {refused.__cause__!r}"


def test_a_server_that_drips_is_not_waited_for(kmip: KmipServer, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped = _service(kmip).wrap(bytes(32), context="c")
    monkeypatch.setattr("cloister.custodian.vaults.kmip._DEADLINE_S", 2)
    over = threading.Event()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(kmip.folder / "server.pem", kmip.folder / "server.key")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            plain, _ = listener.accept()
            with plain, contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as secure:
                secure.sendall(bytes.fromhex("42007b0100008000"))
                while not over.wait(0.05):
                    secure.sendall(b"\0")

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            refused = _refusal(lambda: _service(kmip, port=listener.getsockname()[1]).unwrap(wrapped, context="c"))
        finally:
            over.set()
            thread.join()
    assert isinstance(refused, Unavailable)
    assert "TimeoutError" in refused.message


def test_a_server_that_is_down_is_unavailable(kmip: KmipServer) -> None:
    refused = _refusal(lambda: _service(kmip, port=9).wrap(bytes(32), context="c"))
    assert isinstance(refused, Unavailable)
    assert refused.hint


@pytest.mark.parametrize(
    "server", ["", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999", "https://a:1", "u:CANARY@a:1", "a b:1"]
)
def test_a_server_is_a_host_and_a_port(kmip: KmipServer, server: str) -> None:
    refused = _refusal(lambda: _service(kmip, **{SERVER_VARIABLE: server}))
    assert isinstance(refused, UsageError)
    assert "CANARY" not in f"{refused} {refused.hint}"


@pytest.mark.parametrize("variable", [AUTHORITY_VARIABLE, CERTIFICATE_VARIABLE, KEY_VARIABLE])
def test_no_certificate_is_left_to_chance(kmip: KmipServer, variable: str, tmp_path: Path) -> None:
    assert isinstance(_refusal(lambda: _service(kmip, **{variable: ""})), UsageError)
    service = _service(kmip, **{variable: str(tmp_path / "absent")})
    assert isinstance(_refusal(lambda: service.wrap(bytes(32), context="c")), UsageError)


def test_a_private_key_that_others_can_read_or_that_asks_for_a_password_is_refused(
    kmip: KmipServer, tmp_path: Path
) -> None:
    place = tmp_path / "client.key"
    place.write_bytes((kmip.folder / "client.key").read_bytes())
    place.chmod(0o644)
    service = _service(kmip, **{KEY_VARIABLE: str(place)})
    assert "0600" in str(_refusal(lambda: service.wrap(bytes(32), context="c")))
    command = [
        "openssl",
        "pkey",
        "-in",
        str(place),
        "-aes256",
        "-passout",
        "pass:word",
        "-out",
        str(tmp_path / "locked"),
    ]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - our own words
    (tmp_path / "locked").chmod(0o600)
    service = _service(kmip, **{KEY_VARIABLE: str(tmp_path / "locked")})
    assert isinstance(_refusal(lambda: service.wrap(bytes(32), context="c")), UsageError)


@pytest.mark.parametrize(
    "name", ["kmip:", "kmip:a b", "kmip:a\n", "kmip:-a", "kmip:\u00e4", "kmip:" + "a" * 129, "KMIP:1", "kmip:CANARY?"]
)
def test_a_name_of_any_other_shape_is_refused_and_not_repeated(kmip: KmipServer, name: str) -> None:
    refused = _refusal(lambda: connect(name, kmip.environment()))
    assert isinstance(refused, UsageError)
    assert "CANARY" not in f"{refused} {refused.hint}"


@pytest.mark.timeout(300)
def test_a_custodian_lives_by_a_kmip_server_from_the_command_line(kmip: KmipServer, tmp_path: Path) -> None:
    def cloister(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **kmip.environment(), "CLOISTER_CUSTODIAN_HOME": str(tmp_path / "home"), **more}
        command = [sys.executable, "-m", "cloister", "custodian", *words, "--json"]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100, check=False)  # noqa: S603 - our own words

    made = cloister("init", "--vault", f"kmip:{kmip.keys['vault']}")
    assert made.returncode == 0, made
    shown = cloister("show")
    assert json.loads(shown.stdout)["key"] == json.loads(made.stdout)["key"]
    down = cloister("show", **{SERVER_VARIABLE: "127.0.0.1:9"})
    assert (down.returncode, "Traceback" in down.stderr) == (5, False)
