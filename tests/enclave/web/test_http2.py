"""HTTP/2 with ``h2`` on the other side, and its attacks: floods of resets, of nothing, readers that open no window."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, Event, ResponseReceived, StreamEnded, StreamReset
from h2.settings import SettingCodes
from web_stage import answered, looped, post, stage

from cloister.enclave.config import EnclaveConfig
from cloister.enclave.config import Tls as Kind
from cloister.enclave.tls import prepare_tls
from cloister.enclave.web.exchange import Outcome
from cloister.enclave.web.listener import server_context
from rings import no_rings

if TYPE_CHECKING:
    from web_stage import Stage


class Tls:
    """The server's own TLS, and a client that takes any key: pinning is tested elsewhere."""

    def __init__(self) -> None:
        config = EnclaveConfig(loan=Path("loan.json"), models=(Path("sealed"),), tls=Kind.GENERATED)
        made = prepare_tls(config, datetime.now(UTC))
        assert made is not None
        self.server = server_context(made.chain + made.key)
        self.client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.client.check_hostname = False
        self.client.verify_mode = ssl.CERT_NONE
        self.client.set_alpn_protocols(["h2"])


class Peer:
    """A client by hand: writes what it is told, collects events."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, window: int | None) -> None:
        self.http = H2Connection(H2Configuration(header_encoding="latin-1"))
        self._reader = reader
        self._writer = writer
        self.events: list[Event] = []
        self.http.initiate_connection()
        if window is not None:
            self.http.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
        self._acknowledges = window is None
        self.flush()

    @classmethod
    async def meet(cls, served: Stage, tls: Tls, window: int | None = None) -> Peer:
        return cls(*await served.connect(tls.client), window)

    def flush(self) -> None:
        self._writer.write(self.http.data_to_send())

    def ask(self, path: str, body: bytes = b"", *lines: tuple[str, str], method: str = "POST", end: bool = True) -> int:
        number = self.http.get_next_available_stream_id()
        head = [(":method", method), (":path", path), (":authority", "enclave"), (":scheme", "https"), *lines]
        self.http.send_headers(number, head, end_stream=end and not body)
        for at in range(0, len(body), 16_384):
            self.http.send_data(number, body[at : at + 16_384], end_stream=end and at + 16_384 >= len(body))
        self.flush()
        return number

    async def until(self, number: int, *kinds: type[Event]) -> list[Event]:
        """Read until one of ``kinds`` came for a stream, or for the connection."""
        async with asyncio.timeout(10):
            while not any(
                isinstance(event, kinds) and getattr(event, "stream_id", number) in (number, None)
                for event in self.events
            ):
                data = await self._reader.read(65_536)
                if not data:
                    break
                for event in self.http.receive_data(data):
                    self.events.append(event)
                    if isinstance(event, DataReceived) and self._acknowledges:
                        self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                self.flush()
        return [event for event in self.events if getattr(event, "stream_id", None) in (number, None)]

    async def answer(self, number: int) -> tuple[int, bytes]:
        events = await self.until(number, StreamEnded, StreamReset)
        status = next(dict(event.headers)[":status"] for event in events if isinstance(event, ResponseReceived))
        return int(status), b"".join(event.data for event in events if isinstance(event, DataReceived))


@looped
async def test_tls_agrees_on_the_protocol_and_both_are_served() -> None:
    tls = Tls()
    async with stage(context=tls.server, pinned=True) as served:
        peer = await Peer.meet(served, tls)
        assert await peer.answer(peer.ask("/echo?x=1", b"hello")) == (200, b"hello")
        head = served.echo.heads[0]
        assert (head.method, head.target, head.all("host"), head.pinned) == ("POST", "/echo?x=1", ["enclave"], True)
        tls.client.set_alpn_protocols(["http/1.1"])
        reader, writer = await served.connect(tls.client)
        writer.write(post("/echo", b"older"))
        assert await answered(reader) == (200, b"older")
        assert served.echo.heads[1].pinned


@looped
async def test_older_tls_is_refused_and_no_early_data_is_taken() -> None:
    """Bad input 51."""
    tls = Tls()
    async with stage(context=tls.server) as served:
        tls.client.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await served.connect(tls.client)
    assert tls.server.num_tickets == 0, "without a ticket there is nothing to resume, and no early data"


@looped
async def test_many_streams_are_answered_at_once_each_with_its_own() -> None:
    tls = Tls()
    async with stage(context=tls.server) as served:
        peer = await Peer.meet(served, tls)
        held = peer.ask("/held", b"held")
        asked = {peer.ask("/echo", b"%d" % at * 100): b"%d" % at * 100 for at in range(50)}
        for number, body in asked.items():
            assert await peer.answer(number) == (200, body)
        served.echo.gate.set()
        assert await peer.answer(held) == (200, b"held")
        assert await served.ended(51) == [Outcome.ANSWERED] * 51


@looped
async def test_long_bodies_pass_the_windows_both_ways() -> None:
    tls = Tls()
    async with stage(context=tls.server) as served:
        peer = await Peer.meet(served, tls)
        served.echo.chunks = 20
        assert await peer.answer(peer.ask("/chunks")) == (200, b"".join(b"%d" % (at % 10) * 65_536 for at in range(20)))
        assert await peer.answer(peer.ask("/echo", b"x" * 60_000)) == (200, b"x" * 60_000)
        status, body = await peer.answer(peer.ask("/cut"))
        assert (status, body) == (200, b"0" * 10 + b"1" * 10)
        assert (await served.ended(3))[-1] is Outcome.CUT


@looped
async def test_a_body_too_long_is_refused_by_what_it_says_and_by_what_it_is() -> None:
    tls = Tls()
    async with stage(context=tls.server) as served:
        peer = await Peer.meet(served, tls)
        number = peer.ask("/echo", b"", ("content-length", str(4 << 20)), end=False)
        assert (await peer.answer(number))[0] == 413
        assert served.echo.bodies == []


@looped
async def test_t82_a_slow_body_is_told_so_and_a_slow_reader_is_reset() -> None:
    tls = Tls()
    async with stage(context=tls.server) as served:
        slow = await Peer.meet(served, tls)
        assert (await slow.answer(slow.ask("/echo", b"half", end=False)))[0] == 408
        deaf = await Peer.meet(served, tls, window=10)
        number = deaf.ask("/chunks")
        await deaf.until(number, StreamReset)
        assert (await served.ended(2))[-1] is not Outcome.ANSWERED


@looped
async def test_t82_streams_opened_and_reset_again_and_again_end_the_connection() -> None:
    """CVE-2023-44487: each would begin work for nobody."""
    tls = Tls()
    async with stage(context=tls.server) as served:
        peer = await Peer.meet(served, tls)
        for _ in range(400):
            number = peer.ask("/held", b"x")
            peer.http.reset_stream(number)
            peer.flush()
        events = await peer.until(-1, ConnectionTerminated)
        ended = [event for event in events if isinstance(event, ConnectionTerminated)]
        assert ended
        assert len(served.echo.bodies) < 400


@looped
async def test_t82_frames_that_carry_nothing_end_the_connection() -> None:
    tls = Tls()
    async with stage(context=tls.server) as served:
        peer = await Peer.meet(served, tls)
        for _ in range(2000):
            peer.http.ping(b"01234567")
        peer.flush()
        assert any(isinstance(event, ConnectionTerminated) for event in await peer.until(-1, ConnectionTerminated))


@looped
async def test_what_is_no_http_2_at_all_ends_the_connection() -> None:
    tls = Tls()
    async with stage(context=tls.server) as served:
        for noise in (
            b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
            b"\x00" * 100,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff",
        ):
            reader, writer = await served.connect(tls.client)
            writer.write(noise)
            await asyncio.wait_for(reader.read(), 10)
        assert served.echo.heads == []


@looped
async def test_stopping_tells_the_other_side_and_answers_what_is_asked() -> None:
    tls = Tls()
    async with stage(context=tls.server) as served:
        peer = await Peer.meet(served, tls)
        number = peer.ask("/held", b"x")
        await served.asked()
        stopping = asyncio.create_task(served.listener.stop(5))
        await asyncio.sleep(0.05)
        served.echo.gate.set()
        assert await peer.answer(number) == (200, b"x")
        await stopping


@looped
async def test_streams_and_the_tokens_in_them_are_gone_without_the_collector() -> None:
    tls = Tls()
    async with stage(context=tls.server, pinned=True) as served:
        peer = await Peer.meet(served, tls)
        assert await peer.answer(peer.ask("/echo", b"first")) == (200, b"first")
        with no_rings():
            for path in ("/echo", "/chunks", "/none"):
                await peer.answer(peer.ask(path, b"more", ("authorization", "Bearer token")))
            await peer.until(peer.ask("/cut", b"more"), StreamReset)
            await served.ended(4)
