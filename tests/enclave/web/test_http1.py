"""HTTP/1.1 by hand: what is read differently by two servers, who is slow, who does not read (bad inputs 50 and 52)."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from dataclasses import replace

import pytest
from web_stage import LIMITS, answered, looped, post, stage

from cloister.enclave.web.chunked import ChunkedBody
from cloister.enclave.web.exchange import Outcome
from cloister.enclave.web.http1_head import parse_head
from cloister.errors import Malformed
from rings import no_rings

HOST = "host: x"


@looped
async def test_one_connection_serves_many_requests_and_every_size_of_body() -> None:
    async with stage() as served:
        reader, writer = await served.connect()
        for size in (0, 1, 100, 65_535, 65_536, 65_537, 300_000, 1 << 20):
            body = random.Random(size).randbytes(size)
            writer.write(post("/echo", body))
            assert await answered(reader) == (200, body)
        assert await served.ended(8) == [Outcome.ANSWERED] * 8


@looped
async def test_a_request_may_come_in_any_pieces() -> None:
    data = post("/echo", b"hello") + post("/echo", b"", "transfer-encoding: chunked").replace(
        b"content-length: 0\r\n", b""
    )
    data += b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    async with stage() as served:
        for step in (1, 2, 3, 7, 50, len(data)):
            reader, writer = await served.connect()
            for at in range(0, len(data), step):
                writer.write(data[at : at + step])
                await asyncio.sleep(0)
            assert await answered(reader) == (200, b"hello")
            assert await answered(reader) == (200, b"abcde")


@looped
async def test_requests_sent_ahead_are_answered_in_their_order() -> None:
    async with stage() as served:
        reader, writer = await served.connect()
        writer.write(b"".join(post("/echo", b"%d" % at * 5000) for at in range(40)))
        for at in range(40):
            assert await answered(reader) == (200, b"%d" % at * 5000)


@pytest.mark.parametrize(
    "lines",
    [
        ["content-length: 5", "transfer-encoding: chunked"],
        ["content-length: 5", "content-length: 6"],
        ["content-length: 5", "content-length: 5"],
        ["content-length: 5, 5"],
        ["content-length: +5"],
        ["content-length: 0x5"],
        ["content-length: 5\xb2"],
        ["content-length: 1000000000000000000"],
        ["transfer-encoding: gzip, chunked"],
        ["transfer-encoding: chunked, chunked"],
        ["transfer-encoding: xchunked"],
        ["transfer-encoding : chunked"],
        ["x: a", " folded: b"],
        ["content-length: 5", "host: y"],
        ["content-length: 5", "expect: something"],
        ["x: a\x00b"],
        ["x: a\nb: c"],
        ["\x7f: a"],
    ],
)
@looped
async def test_what_two_servers_could_read_differently_is_refused(lines: list[str]) -> None:
    async with stage() as served:
        data = "\r\n".join(["POST /echo HTTP/1.1", HOST, *lines]).encode("latin-1") + b"\r\n\r\n0\r\n\r\nGET /smuggled"
        assert (await served.typed(data)).startswith(b"HTTP/1.1 400 ")
        assert served.echo.heads == []


@pytest.mark.parametrize(
    "line",
    [
        "GET /echo HTTP/1.1",  # and no host
        "GET /echo HTTP/0.9",
        "GET /echo HTTP/2.0",
        "GET http://evil/echo HTTP/1.1\r\nhost: x",
        "GET * HTTP/1.1\r\nhost: x",
        "GET /a b HTTP/1.1\r\nhost: x",
        "GET /a\t HTTP/1.1\r\nhost: x",
        "G\xe9T / HTTP/1.1\r\nhost: x",
        "CONNECT x:1 HTTP/1.1\r\nhost: x",
        "GET /\xff HTTP/1.1\r\nhost: x",
        "\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00",
    ],
)
@looped
async def test_a_bad_request_line_is_refused(line: str) -> None:
    async with stage() as served:
        assert (await served.typed(line.encode("latin-1") + b"\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        assert served.echo.heads == []


@looped
async def test_heads_too_long_are_431_and_too_many_lines_are_refused() -> None:
    async with stage() as served:
        assert b" 431 " in (await served.typed(f"GET / HTTP/1.1\r\n{HOST}\r\nx: {'a' * 40_000}\r\n\r\n".encode()))[:20]
        many = "".join(f"h{at}: 1\r\n" for at in range(200))
        assert b" 400 " in (await served.typed(f"GET / HTTP/1.1\r\n{HOST}\r\n{many}\r\n".encode()))[:20]


@looped
async def test_a_body_too_long_is_refused_before_it_is_read_and_its_sender_hears_why() -> None:
    async with stage() as served:
        answer = await served.typed(post("/echo", bytes(4 << 20)))
        assert answer.startswith(b"HTTP/1.1 413 ")
        chunked = b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        chunked += (b"40000\r\n" + bytes(0x40000) + b"\r\n") * 5
        assert (await served.typed(chunked)).startswith(b"HTTP/1.1 413 ")
        assert served.echo.bodies == []
        assert await served.ended(2) == [Outcome.FAILED] * 2


@looped
async def test_t82_silence_a_byte_now_and_then_and_half_a_body_are_not_waited_for() -> None:
    async with stage() as served:
        begun = asyncio.get_running_loop().time()
        silent, half, body = await asyncio.gather(
            served.typed(b""),
            served.typed(b"GET /echo HTTP/1.1\r\nhost: x\r\nx-slow: "),
            served.typed(post("/echo", b"half", length=10)),
        )
        assert (silent, half) == (b"", b"")
        assert body.startswith(b"HTTP/1.1 408 ")
        assert 0.9 < asyncio.get_running_loop().time() - begun < 8


@looped
async def test_t82_a_byte_now_and_then_wins_no_time() -> None:
    async with stage() as served:
        reader, writer = await served.connect()
        begun = asyncio.get_running_loop().time()
        ended = asyncio.create_task(reader.read())
        while not ended.done():
            writer.write(b"E")
            await asyncio.sleep(0.05)
        assert asyncio.get_running_loop().time() - begun < 8


@looped
async def test_t82_who_does_not_read_is_cut_and_holds_no_memory_for_ever() -> None:
    async with stage() as served:
        for path in ("/long", "/chunks"):
            served.echo.chunks = 1000
            raw = socket.socket()
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.connect(("127.0.0.1", served.port))
            raw.sendall(post(path, b""))
            with raw:
                ends = await served.ended(1 if path == "/long" else 2)
                assert ends[-1] is Outcome.CUT


@looped
async def test_a_chunk_leaves_only_when_the_one_before_has() -> None:
    """E5: the application looks at the lease before each chunk, so none may be asked for ahead."""
    async with stage() as served:
        served.echo.chunks = 1000
        asked = 0
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", served.port))
        raw.sendall(post("/chunks", b""))
        with raw:
            await asyncio.sleep(0.3)
            asked = len(served.listener.connections)
            assert asked == 1
            assert served.echo.ends == []
        await served.ended(1)


@looped
async def test_an_answer_that_is_cut_has_its_framing_and_not_its_rest() -> None:
    async with stage() as served:
        reader, writer = await served.connect()
        writer.write(post("/cut", b""))
        assert await answered(reader) == (200, b"0" * 10 + b"1" * 10)
        assert await served.ended(1) == [Outcome.CUT]


@looped
async def test_who_leaves_before_its_answer_ends_the_work_for_it() -> None:
    async with stage() as served:
        _, writer = await served.connect()
        writer.write(post("/held", b"x"))
        await served.asked()
        writer.transport.abort()
        assert await served.ended(1) == [Outcome.FAILED]


@looped
async def test_the_longest_idle_connection_gives_its_place_up() -> None:
    async with stage(replace(LIMITS, max_connections=3, idle_timeout_s=60)) as served:
        idle = []
        for _ in range(3):
            reader, writer = await served.connect()
            writer.write(post("/echo", b"x"))
            assert await answered(reader) == (200, b"x")
            idle.append((reader, writer))
        reader, writer = await served.connect()
        writer.write(post("/echo", b"y"))
        assert await answered(reader) == (200, b"y")
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(idle[0][0].readexactly(1), 10)
        idle[1][1].write(post("/echo", b"z"))
        assert await answered(idle[1][0]) == (200, b"z")


@looped
async def test_where_all_places_are_busy_one_more_is_told_so() -> None:
    async with stage(replace(LIMITS, max_connections=1)) as served:
        reader, writer = await served.connect()
        writer.write(post("/held", b"x"))
        await served.asked()
        assert (await served.typed(post("/echo", b"y"))).startswith(b"HTTP/1.1 503 ")
        served.echo.gate.set()
        assert await answered(reader) == (200, b"x")


@looped
async def test_idle_connections_end_and_a_thousand_cost_nothing() -> None:
    async with stage(replace(LIMITS, idle_timeout_s=1)) as served:
        reader, writer = await served.connect()
        writer.write(post("/echo", b"x"))
        assert await answered(reader) == (200, b"x")
        assert await asyncio.wait_for(reader.read(), 10) == b""


@looped
async def test_expect_head_close_and_http_1_0() -> None:
    async with stage() as served:
        reader, writer = await served.connect()
        writer.write(post("/echo", b"", "expect: 100-continue", length=2))
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).startswith(b"HTTP/1.1 100 ")
        writer.write(b"hi")
        assert await answered(reader) == (200, b"hi")
        head = await served.typed(b"HEAD /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert head.endswith(b"\r\n\r\n")
        assert b"connection: close" in head
        old = await served.typed(b"GET /none HTTP/1.0\r\n\r\n")
        assert old.startswith(b"HTTP/1.1 404 ")
        assert old.endswith(b"none")
        upgraded = await served.typed(
            b"GET /none HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\r\n"
        )
        assert upgraded.startswith(b"HTTP/1.1 404 "), "an upgrade may be asked for, and is not granted"


@looped
async def test_stopping_answers_what_is_asked_and_ends_the_rest() -> None:
    async with stage() as served:
        reader, writer = await served.connect()
        writer.write(post("/held", b"x"))
        idle, _ = await served.connect()
        await served.asked()
        stopping = asyncio.create_task(served.listener.stop(5))
        assert await asyncio.wait_for(idle.read(), 10) == b""
        served.echo.gate.set()
        assert await answered(reader) == (200, b"x")
        await stopping


def test_ten_thousand_damaged_heads_are_read_or_malformed() -> None:
    rng = random.Random(7)
    good = post("/v2/models/m/infer?x=1", b"", "authorization: Bearer abc", length=5)
    for _ in range(10_000):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(data))
            match rng.randrange(3):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    del data[at : at + rng.randrange(1, 5)]
                case _:
                    data[at:at] = rng.randbytes(rng.randrange(1, 3))
        try:
            found = parse_head(bytes(data), pinned=False)
        except Malformed:
            continue
        assert found.head.target.startswith("/")
        assert sum(name == "host" for name, _ in found.head.headers) <= 1


def test_a_head_and_the_token_in_it_are_gone_without_the_collector() -> None:
    with no_rings():
        head = b"GET /v2 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer token\r\n\r\n"
        parse_head(head, pinned=True)
        for bad in (head[:-1], head.replace(b"host", b"hos t"), b"\x16\x03\x01"):
            with contextlib.suppress(Malformed):
                parse_head(bad, pinned=True)


def _fed(pieces: list[bytes]) -> ChunkedBody:
    body = ChunkedBody()
    for piece in pieces:
        body.feed(piece)
    return body


@pytest.mark.parametrize(
    "data",
    [
        b"5;ext=1\r\nabcde\r\n0\r\n\r\n",
        b" 5\r\nabcde\r\n0\r\n\r\n",
        b"+5\r\nabcde\r\n0\r\n\r\n",
        b"0x5\r\nabcde\r\n0\r\n\r\n",
        b"5\nabcde\n0\n\n",
        b"5\r\nabcdeX\r\n0\r\n\r\n",
        b"5\r\nabcde\r\n0\r\ntrailer: 1\r\n\r\n",
        b"123456789\r\n",
        b"\r\n\r\n",
        b"-1\r\n\r\n",
    ],
)
def test_a_chunk_that_another_server_could_read_differently_is_malformed(data: bytes) -> None:
    for step in (1, len(data)):
        with pytest.raises(Malformed):
            _fed([data[at : at + step] for at in range(0, len(data), step)])


def test_chunks_give_the_body_however_they_are_cut() -> None:
    rng = random.Random(3)
    for _ in range(300):
        parts = [rng.randbytes(rng.randrange(1, 40)) for _ in range(rng.randrange(0, 5))]
        data = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\nREST"
        body, rest, at = ChunkedBody(), b"", 0
        while at < len(data):
            step = rng.randrange(1, 30)
            if body.done:
                rest += data[at : at + step]
            else:
                rest += body.feed(data[at : at + step])
            at += step
        assert (bytes(body.body), rest, body.done) == (b"".join(parts), b"REST", True)
