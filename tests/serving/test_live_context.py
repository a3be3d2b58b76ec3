"""Small servers take a new certificate over for the next handshake, and keep the old one where the new is no use."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from mtls_kit import SERVER, Identity, forge

from cloister.errors import UsageError
from cloister.serving.place import server_context

if TYPE_CHECKING:
    from pathlib import Path

CA = forge(None, common_name="some authority", ca=True, uses=())


def _write(folder: Path, identity: Identity) -> tuple[Path, Path]:
    certificate, key = folder / "a.pem", folder / "a.key"
    certificate.write_bytes(identity.certificate.public_bytes(Encoding.PEM))
    key.write_bytes(identity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate, key


def _server() -> Identity:
    return forge(CA, dns=["localhost"], uses=(SERVER,), common_name="localhost")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_next_handshake_shows_the_new_certificate_and_an_open_connection_goes_on(
    tmp_path: Path, loop: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = _server(), _server()
    certificate, key = _write(tmp_path, first)
    context = server_context(certificate, key, server="relay")
    trusting = ssl.create_default_context(cadata=CA.certificate.public_bytes(Encoding.PEM).decode())

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1):
                writer.write(data)
            writer.close()
            await writer.wait_closed()

    async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, int]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname="localhost")
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return reader, writer, x509.load_der_x509_certificate(der).serial_number

    async def leave(writer: asyncio.StreamWriter) -> None:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def play() -> list[int]:
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        reader, writer, serial = await connect(port)
        found = [serial]
        key.write_bytes(b"half a key")
        for again in (False, True):
            if again:
                _write(tmp_path, second)
            _, other, serial = await connect(port)
            found.append(serial)
            await leave(other)
        writer.write(b"x")
        assert await asyncio.wait_for(reader.readexactly(1), 10) == b"x"
        await leave(writer)
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.1)  # the other ends close too
        return found

    factory = None if loop == "asyncio" else __import__("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        old, new = first.certificate.serial_number, second.certificate.serial_number
        assert runner.run(play()) == [old, old, new]
    events = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert events == ["tls_kept", "tls_changed"]


def test_a_server_without_a_certificate_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        server_context(tmp_path / "none.pem", tmp_path / "none.key", server="relay")
