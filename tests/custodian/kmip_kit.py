"""A KMIP server in a process of its own, everybody's certificates, and one between that alters answers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from moto_kit import await_port

from cloister.custodian.vaults.kmip import (
    AUTHORITY_VARIABLE,
    CERTIFICATE_VARIABLE,
    KEY_VARIABLE,
    SERVER_VARIABLE,
)
from cloister.custodian.vaults.ttlv import Item, dump, parse
from cloister.testing.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Between", "KmipServer", "between", "make_certificates", "start_kmip", "swap"]

_CHILD = Path(__file__).with_name("kmip_server.py")
_START_S = 60


@dataclass(frozen=True)
class KmipServer:
    """A running server: where, who proves what, and the identifiers of its keys."""

    port: int
    folder: Path
    keys: dict[str, str] = field(default_factory=dict)

    def environment(self, port: int | None = None) -> dict[str, str]:
        """Return what a custodian is given; with ``port``, of somebody else on this machine."""
        return {
            SERVER_VARIABLE: f"127.0.0.1:{port or self.port}",
            AUTHORITY_VARIABLE: str(self.folder / "ca.pem"),
            CERTIFICATE_VARIABLE: str(self.folder / "client.pem"),
            KEY_VARIABLE: str(self.folder / "client.key"),
        }


def make_certificates(folder: Path, *, address: str = "127.0.0.1") -> None:
    """Write an authority and certificates by it: of a server at ``address``, and of a client."""
    authority = ec.generate_private_key(ec.SECP256R1())
    root = _certificate("authority", authority.public_key(), authority, ca=True)
    (folder / "ca.pem").write_bytes(root)
    for who, usage in (("server", ExtendedKeyUsageOID.SERVER_AUTH), ("client", ExtendedKeyUsageOID.CLIENT_AUTH)):
        key = ec.generate_private_key(ec.SECP256R1())
        (folder / f"{who}.key").touch(mode=0o600)
        (folder / f"{who}.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        (folder / f"{who}.pem").write_bytes(
            _certificate(who, key.public_key(), authority, address=address, usage=usage)
        )


def _certificate(
    name: str, key: ec.EllipticCurvePublicKey, authority: ec.EllipticCurvePrivateKey, *, ca: bool = False,
    address: str = "", usage: x509.ObjectIdentifier | None = None,
) -> bytes:  # fmt: skip
    now = datetime.now(UTC)
    issuer, subject = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("authority", name))
    builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    if ca:
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
    builder = builder.add_extension(issued_by, critical=False)
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        names = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(address))])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(authority, SHA256()).public_bytes(Encoding.PEM)


def start_kmip(folder: Path) -> Iterator[KmipServer]:
    """Serve until the generator is closed, with keys that PyKMIP's own client made."""
    make_certificates(folder)
    port = free_port()
    command = [sys.executable, str(_CHILD), "serve", str(folder), str(port)]
    with (folder / "output").open("wb") as output:
        # A session of its own: the server has children, and they go with it.
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)  # noqa: S603 - our own words
    try:
        await_port(port)
        made = subprocess.run(  # noqa: S603 - our own words
            [sys.executable, str(_CHILD), "keys", str(folder), str(port)],
            capture_output=True,
            check=True,
            timeout=_START_S,
        )
        yield KmipServer(port, folder, json.loads(made.stdout))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@dataclass
class Between:
    """Who stands between: passes a request on, and what ``change`` makes of the answer back."""

    port: int
    change: Callable[[bytes], bytes]
    asked: int = 0


@contextlib.contextmanager
def between(
    server: KmipServer, change: Callable[[bytes], bytes], *, certificates: Path | None = None
) -> Iterator[Between]:
    """Serve on another port with the server's certificate, or with one of ``certificates``."""
    folder = certificates or server.folder
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(folder / "server.pem", folder / "server.key")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        state = Between(listener.getsockname()[1], change)
        thread = threading.Thread(target=_serve, args=(listener, ours, server, state), daemon=True)
        thread.start()
        try:
            yield state
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=30)


def swap(tag: int, change: Callable[[Any], Any]) -> Callable[[bytes], bytes]:
    """Return what changes the value of every item of that tag in an answer."""

    def walk(item: Item) -> Item:
        if item.tag == tag:
            return Item(item.tag, item.kind, change(item.value))
        return Item(item.tag, item.kind, tuple(map(walk, item.value))) if isinstance(item.value, tuple) else item

    return lambda answer: dump(walk(parse(answer)))


def _serve(listener: socket.socket, ours: ssl.SSLContext, server: KmipServer, state: Between) -> None:
    with contextlib.suppress(OSError):
        while True:
            plain, _ = listener.accept()
            with plain, contextlib.suppress(OSError), ours.wrap_socket(plain, server_side=True) as outer:
                request = _message(outer)
                state.asked += 1
                outer.sendall(state.change(_pass_on(server, request)))
                outer.unwrap()


def _pass_on(server: KmipServer, request: bytes) -> bytes:
    theirs = ssl.create_default_context(cafile=str(server.folder / "ca.pem"))
    theirs.load_cert_chain(server.folder / "client.pem", server.folder / "client.key")
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as plain,
        theirs.wrap_socket(plain, server_hostname="127.0.0.1") as inner,
    ):
        inner.sendall(request)
        return _message(inner)


def _message(secure: ssl.SSLSocket) -> bytes:
    data = b""
    while len(data) < 8 or len(data) < 8 + int.from_bytes(data[4:8], "big"):
        part = secure.recv(65536)
        if not part:
            raise ConnectionError
        data += part
    return data
