"""The enclave of ``client_town`` behind real sockets and TLS, as an operator, or a man in the middle, has it.

Each connection may get another key; what was heard on it after the handshake is kept, so that a test can say
that nothing was.
"""

from __future__ import annotations

import contextlib
import hashlib
import socketserver
import ssl
import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

from client_town import TOKEN, Town, unchecked
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from cloister.channel.bhttp import BinaryRequest
from cloister.channel.keyset import GATEWAY_PATH, KEYSET_PATH, KEYSET_TYPE
from cloister.client import AsyncClient, Client, Retry
from cloister.wire import parse_b64u

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from cloister.channel.bhttp import BinaryResponse
    from cloister.channel.keyset import Keyset


@dataclass(frozen=True, kw_only=True)
class Key:
    """A TLS key with its certificate: whoever has it can show it."""

    spki: bytes
    pem: bytes = field(repr=False)

    @classmethod
    def make(cls, called: str = "anybody") -> Self:
        made = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, called)])
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(made.public_key())
        dated = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        certificate = dated.serial_number(7).sign(made, SHA256())
        public = made.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        private = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return cls(spki=hashlib.sha256(public).digest(), pem=private + certificate.public_bytes(Encoding.PEM))

    @property
    def certificate(self) -> str:
        """The certificate alone, in PEM."""
        return self.pem[self.pem.index(b"-----BEGIN CERT") :].decode()

    def context(self, folder: Path, *, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
        """Return the server's side of TLS under this key."""
        file = folder / f"{self.spki.hex()}.pem"
        file.write_bytes(self.pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = newest
        context.num_tickets = 0
        context.load_cert_chain(file)
        return context


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64


@dataclass
class PinnedTown:
    """One listener; used in a ``with`` block."""

    folder: Path
    own: Key = field(default_factory=Key.make)
    town: Town = field(default_factory=Town)
    heard: list[bytes] = field(default_factory=list)
    """What came on each connection after its handshake."""
    keys: Callable[[int], Key] | None = None
    """The key that a connection shows, by its number; the enclave's own where this is None."""
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    listed: tuple[bytes, ...] | None = None
    change: Callable[[BinaryResponse], BinaryResponse] = lambda response: response
    cut: int = 0
    """Bytes that are missing at the end of each direct answer."""
    hangs_up: bool = False
    """Whether each answer says that its connection ends, and it does."""
    vanishes: bool = False
    """Whether connections end after each answer, unsaid."""
    clients: tuple[Key, ...] = ()
    """Whose certificates it asks for; of others it takes none."""
    shown: list[bytes] = field(default_factory=list)
    """The certificate that came with each connection on which one was shown."""
    direct: list[BinaryRequest] = field(default_factory=list)
    sealed: int = 0
    _making: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        self.town.enclave.keyset_change = self._listing
        town = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    town.serve(self.request)

        self._server = _Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _listing(self, keyset: Keyset) -> Keyset:
        return replace(keyset, tls_spki_sha256=(self.own.spki,) if self.listed is None else self.listed)

    def arguments(self, **changes: Any) -> dict[str, Any]:
        """Return the arguments of ``Client.verify``."""
        trust = self.town.trust(tls=unchecked(), custodian=unchecked(), operators=unchecked())
        at_once = Retry(first_pause=timedelta(0))
        given = {
            "trust": trust,
            "token": TOKEN,
            "schemes": self.town.schemes,
            "clock": self.town.clock,
            "retry": at_once,
        }
        return {"url": self.url, "way": "pinned", **given, **changes}

    def client(self, **changes: Any) -> Client:
        return Client.verify(**self.arguments(**changes))

    async def async_client(self, **changes: Any) -> AsyncClient:
        return await AsyncClient.verify(**self.arguments(**changes))

    def serve(self, raw: Any) -> None:
        with self._making:
            number = len(self.heard)
            self.heard.append(b"")
        key = self.own if self.keys is None else self.keys(number)
        with self._making:
            context = key.context(self.folder, newest=self.newest)
        if self.clients:
            context.verify_mode = ssl.CERT_OPTIONAL
            context.load_verify_locations(cadata="".join(item.certificate for item in self.clients))
        with context.wrap_socket(raw, server_side=True) as stream:
            self.shown += filter(None, [stream.getpeercert(binary_form=True)])
            file = stream.makefile("rwb")
            while line := file.readline():
                self.heard[number] += line
                method, target, _ = line.decode().split(" ")
                headers = []
                while (line := file.readline()) not in (b"\r\n", b""):
                    self.heard[number] += line
                    name, _, value = line.decode().partition(":")
                    headers.append((name.lower(), value.strip()))
                body = file.read(int(dict(headers).get("content-length", "0")))
                self.heard[number] += body
                reply = self._reply(BinaryRequest(method=method, path=target, headers=tuple(headers), body=body))
                file.write(reply.replace(b"\r\n", b"\r\nconnection: close\r\n", 1) if self.hangs_up else reply)
                file.flush()
                if self.hangs_up or self.vanishes or self.cut:
                    return

    def _reply(self, request: BinaryRequest) -> bytes:
        with self.town._lock:
            return self._answered(request)

    def _answered(self, request: BinaryRequest) -> bytes:
        if request.path.startswith(KEYSET_PATH):
            nonce = parse_b64u(parse_qs(urlsplit(request.path).query)["nonce"][0], what="nonce", size=32)
            return _http(200, [("content-type", KEYSET_TYPE)], self.town.enclave.document(nonce).dump())
        if request.path == GATEWAY_PATH:
            self.sealed += 1
            reply = self.town._gateway(request.body, dict(request.headers).get("attested-instance"))
            return _http(reply.status, [("content-type", reply.kind)], b"".join(map(_whole, reply.parts)))
        self.direct.append(request)
        response = self.change(self.town.enclave.answer(request))
        data = _http(response.status, [*response.headers, *response.trailers], response.body)
        return data[: len(data) - self.cut]


def _whole(part: bytes | Exception) -> bytes:
    assert isinstance(part, bytes)
    return part


def _http(status: int, headers: list[tuple[str, str]], body: bytes) -> bytes:
    lines = [f"{name}: {value}" for name, value in [*headers, ("content-length", str(len(body)))]]
    return "\r\n".join([f"HTTP/1.1 {status} x", *lines, "", ""]).encode() + body
