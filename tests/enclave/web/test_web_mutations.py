"""Ten thousand damaged inputs for every parser of the web server, and random frames for HTTP/2 as a whole."""

from __future__ import annotations

import asyncio
import random
import re
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from web_stage import LIMITS, looped
from wire_tap import Tap, through

from cloister.enclave.web.chunked import ChunkedBody
from cloister.enclave.web.exchange import Answer, Outcome
from cloister.enclave.web.http1 import Http1Connection
from cloister.enclave.web.http1_head import parse_head
from cloister.enclave.web.http2 import Http2Connection
from cloister.enclave.web.listener import Connections
from cloister.errors import Malformed
from mutations import MUTATIONS, mutated

if TYPE_CHECKING:
    from cloister.enclave.web.exchange import Body, Exchange, Head

HEADS = [
    b"POST /v2/models/m/infer?x=1 HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\nexpect: 100-continue\r\n\r\n",
    b"GET /healthz HTTP/1.0\r\nconnection: keep-alive, upgrade\r\nupgrade: h2c\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nempty:\r\n\r\n",
]
CHUNKS = b"4\r\nwiki\r\nA\r\n0123456789\r\n0\r\n\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def conversation() -> bytes:
    """Return what an honest HTTP/2 client says that asks three times."""
    http = H2Connection(H2Configuration(header_encoding="latin-1"))
    http.initiate_connection()
    for number, method, path, body in (
        (1, "POST", "/echo", b"hello" * 40),
        (3, "GET", "/none", b""),
        (5, "POST", "/", b"x"),
    ):
        lines = [(":method", method), (":path", path), (":authority", "x"), (":scheme", "https"), ("x-y", "z")]
        length = [("content-length", str(len(body)))] if body else []
        http.send_headers(number, [*lines, *length], end_stream=not body)
        if body:
            http.send_data(number, body, end_stream=True)
    http.ping(b"01234567")
    return http.data_to_send()


def test_mutated_heads_are_malformed_or_heads() -> None:
    for seed, head in enumerate(HEADS):
        parse_head(head, pinned=True)
        for data in mutated(head, count=MUTATIONS // 2, seed=seed):
            with suppress(Malformed):
                found = parse_head(data, pinned=True)
                assert found.head.target.startswith("/")
                assert found.length >= -1


def test_mutated_chunks_are_malformed_or_a_body() -> None:
    for at, data in enumerate(mutated(CHUNKS)):
        whole, cut = [], at % (len(data) + 1)
        for pieces in ((data,), (data[:cut], data[cut:]), [data[i : i + 1] for i in range(len(data))]):
            body = ChunkedBody()
            try:
                rest = b"".join([body.feed(piece) if not body.done else piece for piece in pieces])
            except Malformed:
                whole.append(None)
            else:
                whole.append((bytes(body.body), body.done, rest if body.done else b""))
        assert len({str(item) for item in whole}) == 1, "however it is cut"


@looped
async def test_mutated_connections_of_either_protocol_end_well() -> None:
    talks = (
        (Http1Connection, HEADS[0] + b"0123456789" + HEADS[2] + CHUNKS + HEADS[1], 1),
        (Http2Connection, conversation(), 2),
    )
    for kind, honest, seed in talks:
        rng = random.Random(seed)
        _, echo, _ = await through(kind, [honest])
        assert echo.begun == 2 + (kind is Http1Connection)
        for data in mutated(honest, count=MUTATIONS // 2, seed=seed):
            cut = rng.randrange(len(data) + 1)
            await through(kind, (data[:cut], data[cut:]))


NAMES = [
    ":method",
    ":path",
    ":scheme",
    ":authority",
    "content-length",
    "host",
    "te",
    "x",
    "",
    "connection",
    "A",
    "\xe9",
]
VALUES = [
    "GET",
    "POST",
    "HEAD",
    "/",
    "/echo",
    "/chunks",
    "/long",
    "/cut",
    "/none",
    "https",
    "x",
    "",
    "1",
    "-1",
    "9" * 5000,
]
VALUES += ["1_0", "\xb2", "a\r\nb", "a\0b", " x ", "trailers", "y" * 9000]


def frames(rng: random.Random) -> list[bytes]:
    """Return random frames, most of them well formed, in a random order, on few streams."""
    encoder = Encoder()
    found = [PREFACE + SettingsFrame(0).serialize()]
    for _ in range(rng.randrange(1, 40)):
        frame = _frame(rng, encoder)
        for flag in (flag.name for flag in frame.defined_flags):
            if rng.random() < 0.5 and flag not in {"PADDED", "PRIORITY"}:
                frame.flags.add(flag)
        if isinstance(frame, HeadersFrame) and rng.random() < 0.8:
            frame.flags.add("END_HEADERS")
        with suppress(Exception):  # some of what is drawn cannot be written
            found.append(frame.serialize())
    return found


def _frame(rng: random.Random, encoder: Encoder) -> Frame:  # noqa: PLR0911 - one for each kind
    number = rng.choice((1, 1, 3, 3, 5, 7, 9))
    match rng.randrange(14):
        case 0 | 1 | 2 | 3:
            lines = [(":method", rng.choice(VALUES[:3])), (":path", rng.choice(VALUES[3:9])), (":scheme", "https")]
            lines += [(rng.choice(NAMES), rng.choice(VALUES)) for _ in range(rng.choice((0, 0, 0, 1, 2, 3)))]
            return HeadersFrame(number, encoder.encode(lines, huffman=False))
        case 4 | 5 | 6:
            return DataFrame(number, rng.randbytes(rng.choice((0, 1, 100, 16_384))))
        case 7:
            return RstStreamFrame(number, rng.randrange(16))
        case 8:
            values = {rng.randrange(10): rng.choice((0, 1, 16_384, (1 << 31) - 1, (1 << 32) - 1)) for _ in range(3)}
            return SettingsFrame(0, values)
        case 9:
            return WindowUpdateFrame(rng.choice((0, number)), rng.choice((1, 1000, (1 << 31) - 1)))
        case 10:
            return PingFrame(0, rng.randbytes(8))
        case 11:
            return rng.choice((PriorityFrame(number, depends_on=number), GoAwayFrame(0, number)))
        case 12:
            return rng.choice((ContinuationFrame(number, rng.randbytes(20)), PushPromiseFrame(number, 2)))
        case _:
            return HeadersFrame(number, rng.randbytes(rng.randrange(60)))


@looped
async def test_random_frames_never_raise_and_leave_nothing() -> None:
    for seed in range(1500):
        rng = random.Random(seed)
        room = rng.choice((None, None, 100, 100_000))
        pieces = frames(rng)
        if rng.random() < 0.3:
            pieces = [b"".join(pieces)]
        _, echo, _ = await asyncio.wait_for(through(Http2Connection, pieces, room=room), 30)
        for head in echo.heads:
            assert re.fullmatch(r"/[\x21-\x7e]*", head.target)
            assert not [line for line in head.headers if re.search(r"[\x00\r\n]", "".join(line))]


def asked(
    *lines: tuple[str, str], count: int = 1, method: str = "GET", path: str = "/echo", reset: bool = False
) -> bytes:
    """Return requests in one piece, each reset again at once where that is said."""
    encoder = Encoder()
    data = PREFACE + SettingsFrame(0).serialize()
    for number in range(1, 2 * count, 2):
        head = [(":method", method), (":path", path), (":scheme", "https"), (":authority", "x"), *lines]
        frame = HeadersFrame(number, encoder.encode(head), flags=["END_HEADERS", "END_STREAM"])
        data += frame.serialize() + (RstStreamFrame(number, 8).serialize() if reset else b"")
    return data


@looped
async def test_t82_a_stream_that_is_reset_in_the_packet_that_opens_it_gives_its_place_back() -> None:
    _, echo, _ = await through(Http2Connection, [asked(count=50, reset=True)])
    assert echo.begun == 50, "and each was ended, as every test here demands"


@looped
async def test_a_connection_that_is_gone_before_its_request_was_begun_gives_the_place_back() -> None:
    for kind, data in ((Http1Connection, b"GET /echo HTTP/1.1\r\nhost: x\r\n\r\n"), (Http2Connection, asked())):
        _, echo, _ = await through(kind, [data], turns=0)
        assert echo.begun == 1


@looped
async def test_t82_requests_sent_ahead_whose_answers_are_not_read_do_not_fill_the_memory() -> None:
    first = b"GET /none HTTP/1.1\r\nhost: x\r\n\r\n"
    tap, _, _ = await through(Http1Connection, [first * 100] * 200, room=10_000)
    assert len(tap.written) < 20_000
    encoder = Encoder()
    piece, pieces = b"", [asked(count=0)]
    for number in range(1, 20_001, 2):
        head = [(":method", "HEAD"), (":path", "/none"), (":scheme", "https"), (":authority", "x")]
        piece += HeadersFrame(number, encoder.encode(head), flags=["END_HEADERS", "END_STREAM"]).serialize()
        if number % 100 == 99:
            pieces.append(piece)
            piece = b""
    tap, _, read = await through(Http2Connection, pieces, room=10_000)
    assert read < 100
    assert len(tap.written) < 50_000


@looped
async def test_two_lengths_or_what_is_none_are_told_so_over_http_2() -> None:
    """Bad input 50; two of them once came out of the server as an error of ours."""
    for values in (["0", "0"], ["0", "abc"], ["9" * 4000, "9" * 4000], ["1_0"], ["-0"], ["+0"]):
        lines = [("content-length", value) for value in values]
        tap, echo, _ = await through(Http2Connection, [asked(*lines, method="POST")])
        assert (tap.closing, echo.begun) in {(True, 0), (False, 0)}
        assert not echo.bodies


@looped
async def test_a_target_over_http_2_is_held_to_the_form_it_has_over_http_1() -> None:
    for path in ("*", "x", "/a b", "/\x7f", "/\u00e9", "http://other.test/"):
        _, echo, _ = await through(Http2Connection, [asked(path=path)])
        assert echo.heads == [], path


def test_a_body_in_chunks_of_a_byte_is_not_taken_apart_for_ever() -> None:
    body = ChunkedBody()
    with pytest.raises(Malformed):
        body.feed(b"1\r\nx\r\n" * 65_537)


class _Stubborn:
    """Answers although it was told to stop, as what was charged and is being signed does; both parts in one."""

    def __init__(self) -> None:
        self.ends: list[Outcome] = []

    def begin(self, head: Head) -> Exchange:
        del head
        return self

    def fits(self, size: int) -> None:
        del size

    arrived = fits

    def late(self) -> Answer:
        return Answer(status=408)

    async def answer(self, body: Body) -> Answer:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return Answer(status=200, body=body)

    def end(self, outcome: Outcome) -> None:
        self.ends.append(outcome)


@looped
async def test_an_answer_whose_connection_has_gone_is_not_written_and_ends_as_cut() -> None:
    stubborn = _Stubborn()
    connection = Http1Connection(stubborn, Connections(LIMITS, encrypted=True, pinned=True))
    tap = Tap(connection, None)
    connection.connection_made(tap)
    request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
    connection.get_buffer(-1)[: len(request)] = request
    connection.buffer_updated(len(request))
    await asyncio.sleep(0)
    tap.close()
    connection.connection_lost(None)
    for _ in range(4):
        await asyncio.sleep(0)
    assert not tap.written
    assert stubborn.ends == [Outcome.CUT]
