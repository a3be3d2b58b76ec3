"""What the listener tells the application of a client's certificate, over real TLS."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from cloister.custodian.peer_certificate import peer_certificate
from cloister.errors import Malformed
from cloister.listener import impatient

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.types import Receive, Scope, Send


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the common name of the peer."""
    _ = receive
    found = peer_certificate(scope)
    body = b"nobody" if found is None else found.subject.rfc4514_string().encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _self_signed(folder: Path, name: str) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    subject, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = certificate.public_bytes(Encoding.PEM)
    pem += key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = folder / f"{name}.pem"
    path.write_bytes(pem)
    return path


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_peers_certificate_is_in_the_scope_of_every_request_of_its_connection(tmp_path: Path, loop: Any) -> None:
    server, client = _self_signed(tmp_path, "server"), _self_signed(tmp_path, "client")

    def context(_config: uvicorn.Config, _default: object) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(server)
        made.load_verify_locations(client)
        made.verify_mode = ssl.CERT_OPTIONAL
        return made

    async def play() -> list[bytes]:
        http = impatient(5, places=10)
        config = uvicorn.Config(
            _app, port=0, http=http, lifespan="off", log_config=None, ws="none", ssl_context_factory=context
        )
        serving = uvicorn.Server(config)
        task = asyncio.create_task(serving.serve())
        while not serving.started:  # noqa: ASYNC110 - the server tells in no other way
            await asyncio.sleep(0.01)
        port = serving.servers[0].sockets[0].getsockname()[1]
        found = []
        try:
            for own in (None, client):
                trusting = ssl.create_default_context(cafile=server)
                if own is not None:
                    trusting.load_cert_chain(own)
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", port, ssl=trusting, server_hostname="localhost"
                )
                for _ in range(2):
                    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
                    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                    found.append(await reader.readexactly(length))
                writer.close()
        finally:
            serving.should_exit = True
            await task
        return found

    runner = asyncio.Runner(loop_factory=None if loop == "asyncio" else __import__("uvloop").new_event_loop)
    with runner:
        assert runner.run(play()) == [b"nobody", b"nobody", b"CN=client", b"CN=client"]


def test_a_scope_without_tls_has_no_peer_and_a_broken_one_is_malformed() -> None:
    assert peer_certificate({"type": "http"}) is None
    assert peer_certificate({"type": "http", "extensions": {"tls": {"client_cert_chain": ()}}}) is None
    with pytest.raises(Malformed):
        peer_certificate({"extensions": {"tls": {"client_cert_chain": ("no certificate",)}}})
