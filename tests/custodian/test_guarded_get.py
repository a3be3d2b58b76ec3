"""Fetching from an address that somebody named (list 69, T81): over real sockets, and never where it must not go."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization
from identity_kit import Authority, dns

from cloister.custodian.guarded_get import Reach, guarded_get, is_allowed
from cloister.errors import Rejected, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PUBLIC = ("8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8")
SITE = ("10.0.0.1", "172.16.5.4", "192.168.1.1", "100.64.0.1", "fd12::1", "::ffff:10.0.0.1")
LOOPBACK = ("127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1")
NEVER = (
    "0.0.0.0",  # noqa: S104 - never asked
    "0.1.2.3", "169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "fec0::1", "224.0.0.1", "ff02::1",
    "255.255.255.255", "240.0.0.1", "::", "100.100.100.200", "168.63.129.16", "fd00:ec2::254", "fd20:ce::254",
    "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "2001:0:a9fe:a9fe::1", "192.0.2.1",
    "2001:db8::1",
)  # fmt: skip


@pytest.mark.parametrize("address", [*PUBLIC, *SITE, *LOOPBACK, *NEVER])
def test_an_address_is_asked_only_as_far_as_the_settings_reach(address: str) -> None:
    got = {reach for reach in Reach if is_allowed(address, reach)}
    if address in NEVER:
        assert got == set()
    elif address in LOOPBACK:
        assert got == {Reach.LOOPBACK}
    elif address in SITE:
        assert got == {Reach.SITE, Reach.LOOPBACK}
    else:
        assert got == set(Reach)


class Web:
    """A web server that answers with whatever bytes it is told, over TLS."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(now=datetime.now(UTC))
        self.pem = folder / "server.pem"
        self.answer: list[bytes] = [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"]
        self.pause_s = 0.0
        self.asked: list[bytes] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.context = self._certified("localhost")
        self.secure = True
        threading.Thread(target=self._serve, daemon=True).start()

    def _certified(self, name: str) -> ssl.SSLContext:
        from cryptography.x509.oid import ExtendedKeyUsageOID  # noqa: PLC0415 - here only

        der, key = self.authority.client(dns(name), eku=(ExtendedKeyUsageOID.SERVER_AUTH,))
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.pem.write_bytes(ssl.DER_cert_to_PEM_cert(der).encode() + private)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.pem)
        return context

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self.socket.accept()
            except OSError:
                return
            with contextlib.suppress(OSError):
                self._answer(plain)

    def _answer(self, plain: socket.socket) -> None:
        with plain, self.context.wrap_socket(plain, server_side=True) if self.secure else plain as connection:
            self.asked.append(connection.recv(4096))
            for part in self.answer:
                connection.sendall(part)
                time.sleep(self.pause_s)
            if isinstance(connection, ssl.SSLSocket):
                connection.unwrap()

    def get(self, path: str = "/keys", **changes: Any) -> bytes:
        tls = ssl.create_default_context(cadata=self.authority.pem)
        options = {"cap": 1000, "reach": Reach.LOOPBACK, "tls": tls, "deadline_s": 2.0} | changes
        scheme = "https" if self.secure else "http"
        return guarded_get(f"{scheme}://localhost:{self.port}{path}", resolve=_v4, **options)


def _v4(host: str, port: int, **_: object) -> list[tuple[Any, ...]]:
    del host
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    made = Web(tmp_path)
    yield made
    made.socket.close()


def test_what_is_there_comes_back_and_nothing_of_us_goes_out(web: Web) -> None:
    web.answer = [b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n", b'{"k":', b'"1234"}'[:5]]
    assert web.get() == b'{"k":"1234'
    (asked,) = web.asked
    assert asked.startswith(b"GET /keys HTTP/1.1\r\nHost: localhost:")
    assert b"cookie" not in asked.lower()
    assert b"authorization" not in asked.lower()


def test_chunks_and_answers_without_a_length_are_read_to_their_end(web: Web) -> None:
    web.answer = [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"]
    assert web.get() == b"{}"
    web.answer = [b"HTTP/1.1 200 OK\r\n\r\n{}"]
    assert web.get() == b"{}"


BAD: dict[str, list[bytes]] = {
    "a redirect": [b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n"],
    "a redirect for good": [b"HTTP/1.1 308 x\r\nlocation: file:///etc/passwd\r\ncontent-length: 0\r\n\r\n"],
    "not found": [b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}"],
    "an error": [b"HTTP/1.1 500 x\r\ncontent-length: 2\r\n\r\n{}"],
    "too large by its length": [b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n" + b"x" * 1001],
    "too large in chunks": [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        b"3e9\r\n" + b"x" * 1001 + b"\r\n",
    ],
    "too large without a length": [b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 2000],
    "cut off": [b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{}"],
    "packed": [b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}"],
    "no http": [b"SSH-2.0-x\r\n"],
    "a length of minus one": [b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n" + b"x" * 2000],
    "headers without end": [b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 5000],
    "a header of a megabyte": [b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1_000_000],
    "nothing": [],
}


@pytest.mark.parametrize("name", BAD)
def test_an_answer_that_is_none_is_unavailable(web: Web, name: str) -> None:
    web.answer = BAD[name]
    with pytest.raises(Unavailable):
        web.get()


@pytest.mark.parametrize("part", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"])
def test_a_server_that_drips_is_left_at_the_deadline(web: Web, part: bytes) -> None:
    web.answer, web.pause_s = [part, *([b"x"] * 100)], 0.1
    began = time.monotonic()
    with pytest.raises(Unavailable, match="not done within"):
        web.get(deadline_s=0.6)
    assert time.monotonic() - began < 3


def test_a_server_that_says_nothing_in_its_handshake_is_left_at_the_deadline(web: Web) -> None:
    web.secure = False
    web.answer, web.pause_s = [b"\x16\x03\x03"], 30
    tls = ssl.create_default_context()
    with pytest.raises(Unavailable, match="not done within"):
        guarded_get(
            f"https://localhost:{web.port}/", cap=10, reach=Reach.LOOPBACK, tls=tls, resolve=_v4, deadline_s=0.5
        )


def test_a_server_of_another_name_or_authority_is_not_believed(web: Web) -> None:
    with pytest.raises(Unavailable):
        web.get(tls=ssl.create_default_context())
    web.context = web._certified("other.example")
    with pytest.raises(Unavailable):
        web.get()


def test_plain_http_is_for_this_machine_alone(web: Web) -> None:
    web.secure = False
    assert web.get() == b"{}"
    for reach in (Reach.PUBLIC, Reach.SITE):
        with pytest.raises(Rejected) as caught:
            web.get(reach=reach)
        assert caught.value.code == "address_not_allowed"


def _resolving(*addresses: str) -> Any:
    def resolve(host: str, port: int, **_: object) -> list[tuple[Any, ...]]:
        del host
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    return resolve


@pytest.mark.parametrize(
    "addresses",
    [("127.0.0.1",), ("169.254.169.254",), ("::1",), ("10.0.0.1",), ("8.8.8.8", "127.0.0.1"), ("8.8.8.8", "fe80::1")],
)
def test_69_a_name_that_leads_inside_is_refused_before_a_connection(
    addresses: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("a connection"))
    with pytest.raises(Rejected) as caught:
        guarded_get(
            "https://login.example/keys", cap=10, reach=Reach.PUBLIC, tls=ssl.create_default_context(),
            resolve=_resolving(*addresses),
        )  # fmt: skip
    assert caught.value.code == "address_not_allowed"


def test_69_a_name_that_is_looked_up_again_leads_nowhere_else(web: Web) -> None:
    """Rebinding: the second look-up of a hostile resolver never happens."""
    answers = iter([("127.0.0.1",), ("169.254.169.254",)])

    def resolve(host: str, port: int, **options: object) -> Any:
        return _resolving(*next(answers))(host, port, **options)

    tls = ssl.create_default_context(cadata=web.authority.pem)
    url = f"https://localhost:{web.port}/"
    assert guarded_get(url, cap=10, reach=Reach.LOOPBACK, tls=tls, resolve=resolve) == b"{}"
    assert next(answers) == ("169.254.169.254",)


def test_another_address_of_the_name_is_tried_where_the_first_does_not_answer(web: Web) -> None:
    tls = ssl.create_default_context(cadata=web.authority.pem)
    url = f"https://localhost:{web.port}/"
    found = guarded_get(url, cap=10, reach=Reach.LOOPBACK, tls=tls, resolve=_resolving("127.0.0.2", "127.0.0.1"))
    assert found == b"{}"


def test_a_name_that_is_none_is_unavailable() -> None:
    tls = ssl.create_default_context()
    for resolve in (_resolving(), None):
        options = {} if resolve is None else {"resolve": resolve}
        with pytest.raises(Unavailable):
            guarded_get("https://no-such-name.invalid/", cap=10, reach=Reach.PUBLIC, tls=tls, **options)


def test_certificates_that_have_ended_are_not_believed(web: Web) -> None:
    web.authority.now = datetime.now(UTC) - timedelta(days=3)
    web.context = web._certified("localhost")
    with pytest.raises(Unavailable):
        web.get()
