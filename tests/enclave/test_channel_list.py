"""The list of bad inputs to the channel, 37 to 52, by number: here over real sockets, plain and TLS, or where said.

| no. | attack | where |
|---|---|---|
| 37 | what should be sealed comes in the clear | here; `test_enclave_direct.py`, `test_enclave_gateway.py` |
| 38 | sealed to yesterday's key | here |
| 39, 40 | flipped and truncated ciphertext | here, every byte; answers: `tests/client/test_infer.py` |
| 41, 42 | path or model named outside | here |
| 43 | the same ciphertext twice | here: refused, and one unit; by `Idempotency-Key`: `test_enclave_metering.py` |
| 44 | same id, other body | `test_enclave_metering.py`, `test_enclave_direct.py` |
| 45 | answers of two consumers crossed | here |
| 46 | stream cut, dropped, swapped, doubled | `tests/channel/test_ohttp.py`, `tests/relay/test_relay.py` |
| 47 | keys without post-quantum | `tests/client/test_verify.py`, `tests/channel/test_ohttp.py` |
| 48 | padding | `test_enclave_gateway.py`, `tests/client/test_infer.py` |
| 49 | compression | here; `test_enclave_gateway.py` |
| 50 | smuggling | here; `web/test_http1.py`, `web/test_web_mutations.py`, `tests/relay/test_relay.py` |
| 51 | old TLS, other keys | here; `web/test_http2.py` |
| 52 | slow bodies, long heads | here; `web/test_http1.py`, `web/test_http2.py` |
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import TYPE_CHECKING

import pytest
from enclave_models import doubler
from enclave_parties import BOB, ConsumerSide, World, infer_body, make_world
from test_http2 import Tls

from cloister.channel.keyset import CHUNKED_REQUEST_TYPE, GATEWAY_PATH
from cloister.enclave.outer import Outer
from cloister.enclave.web.listener import Listener
from cloister.errors import Rejected
from loops import asynchronous

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from cloister.channel.ohttp import ResponseOpener
    from cloister.enclave.instance import EnclaveInstance

ROW = [1.0, 2.0, 3.0]
BLANK = b'{"status":400,"title":"Bad Request","type":"about:blank"}'
WAYS = pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])


class Door:
    """One enclave on a real socket, and one connection to it, made anew where it was ended."""

    def __init__(self, enclave: EnclaveInstance, port: int, context: ssl.SSLContext | None) -> None:
        self.enclave = enclave
        self.port = port
        self.context = context
        self._held: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=self.context)

    async def typed(self, data: bytes) -> bytes:
        """Send ``data`` on a connection of its own; return all that comes."""
        reader, writer = await self.connect()
        writer.write(data)
        try:
            return await asyncio.wait_for(reader.read(), 30)
        except ConnectionError:
            return b""
        finally:
            writer.transport.abort()

    async def post(
        self, body: bytes, *lines: str, path: str = GATEWAY_PATH, kind: str = CHUNKED_REQUEST_TYPE
    ) -> tuple[int, bytes, bytes]:
        """Return status, head without its date, and body."""
        head = [f"POST {path} HTTP/1.1", "host: x", f"content-type: {kind}", f"content-length: {len(body)}", *lines]
        self._held = self._held or await self.connect()
        reader, writer = self._held
        writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        got = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        fields = [line for line in got.split(b"\r\n") if not line.lower().startswith(b"date:")]
        sizes = [int(line.partition(b":")[2]) for line in fields if line.lower().startswith(b"content-length:")]
        data = await asyncio.wait_for(reader.readexactly(sizes[0]), 30)
        if b"connection: close" in fields:
            writer.transport.abort()
            self._held = None
        return int(got.split(b" ")[1]), b"\r\n".join(fields), data

    def served(self) -> int:
        return self.enclave.metering.snapshot().served

    def close(self) -> None:
        if self._held is not None:
            self._held[1].transport.abort()


@contextlib.asynccontextmanager
async def door(tmp_path: Path, *, encrypted: bool, **limits: int) -> AsyncIterator[tuple[Door, World]]:
    world, tls = make_world(tmp_path, {"m": doubler()}), Tls() if encrypted else None
    if tls is not None:
        tls.client.set_alpn_protocols(["http/1.1"])
    async with world.enclave(limits=limits) as enclave:
        held = enclave.gateway.admission.limits
        listener = Listener(Outer(enclave), held, context=None if tls is None else tls.server)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            await listener.start(listening)
            found = Door(enclave, listening.getsockname()[1], None if tls is None else tls.client)
            try:
                yield found, world
            finally:
                found.close()
                await listener.stop(0)


@WAYS
@asynchronous
async def test_37_to_40_what_is_in_the_clear_stale_flipped_or_cut_gets_one_answer_and_costs_nothing(
    tmp_path: Path,
    encrypted: bool,  # noqa: FBT001 - a case
) -> None:
    async with door(tmp_path, encrypted=encrypted) as (served, world):
        consumer = ConsumerSide(served.enclave, world.clock)
        asked = consumer.request("POST", "/v2/models/m/infer", infer_body([ROW]))
        assert (await served.post(infer_body([ROW]), kind="application/json"))[0] == 415
        assert (await served.post(infer_body([ROW]), path="/v2/models/m/infer", kind="application/json"))[0] == 421
        sealed, _ = await consumer.seal(asked)
        stale = bytes([sealed[0] ^ 0x55]) + sealed[1:]
        assert b"ohttp-key" in (await served.post(stale))[2]
        answers = set()
        for at in range(3, len(sealed)):
            damaged = bytearray(sealed)
            damaged[at] ^= 1 << (at % 8)
            answers.add(await served.post(bytes(damaged)))
        for size in (0, 1, 6, 7, 8, 1100, 1127, len(sealed) - 17, len(sealed) - 1):
            answers.add(await served.post(sealed[:size]))
        assert [(status, body) for status, _, body in answers] == [(400, BLANK)], "one answer, header included"
        assert served.served() == 0


def _open(opener: ResponseOpener, body: bytes) -> bytes:
    return b"".join([*opener.feed(body), opener.end()])


@WAYS
@asynchronous
async def test_41_to_45_nothing_outside_steers_nothing_passes_twice_nothing_crosses(
    tmp_path: Path,
    encrypted: bool,  # noqa: FBT001 - a case
) -> None:
    async with door(tmp_path, encrypted=encrypted) as (served, world):
        alice, bob = ConsumerSide(served.enclave, world.clock), ConsumerSide(served.enclave, world.clock, token=BOB)
        outer = (
            "x-model: other",
            "authorization: Bearer nobody",
            "date: Thu, 01 Jan 1970 00:00:00 GMT",
            "accept-encoding: gzip",
        )
        found = []
        for consumer in (alice, bob):
            sealed, opener = await consumer.seal(consumer.request("POST", "/v2/models/m/infer", infer_body([ROW])))
            status, head, body = await served.post(sealed, *outer, "inference-header-content-length: 9")
            assert (status, b"content-encoding" in head) == (200, False)
            found.append((sealed, opener, body))
        assert served.served() == 2
        for (_, opener, _), (_, _, other) in (found, found[::-1]):
            with pytest.raises(Rejected):
                _open(opener, other)
        for sealed, _, _ in found:
            assert (await served.post(sealed))[::2] == (400, BLANK)
        assert served.served() == 2


@WAYS
@asynchronous
async def test_50_and_52_smuggled_slow_and_long_requests_are_ended(tmp_path: Path, encrypted: bool) -> None:  # noqa: FBT001 - a case
    async with door(tmp_path, encrypted=encrypted, body_timeout_s=1) as (served, _):
        start = f"POST {GATEWAY_PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: {CHUNKED_REQUEST_TYPE}\r\n"
        smuggled = (
            "content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "content-length: 4\r\ncontent-length: 4\r\n\r\nxxxx",
            "content-length: 4\r\n x: folded\r\n\r\nxxxx",
            "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        )
        # At once, for each waits until its connection is ended.
        *answers, long, slow, silent = await asyncio.gather(
            *(served.typed((start + lines).encode()) for lines in smuggled),
            served.typed(start.encode() + b"x: " + b"y" * 100_000),
            served.typed(start.encode() + b"content-length: 9\r\n\r\nx"),
            served.typed(start.encode()),
        )
        for lines, answer in zip(smuggled, answers, strict=True):
            assert answer.startswith(b"HTTP/1.1 400 "), lines
            assert answer.count(b"HTTP/1.1 ") == 1
        assert long.startswith(b"HTTP/1.1 431 ")
        assert slow.startswith(b"HTTP/1.1 408 ")
        assert silent == b"", "a head that does not come is not waited for"
        assert served.enclave.gateway.admission.waiting_bytes == 0


@asynchronous
async def test_51_older_tls_is_refused(tmp_path: Path) -> None:
    async with door(tmp_path, encrypted=True) as (served, _):
        assert served.context is not None
        served.context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await served.connect()
