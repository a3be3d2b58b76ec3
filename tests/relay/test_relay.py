"""The relay: everything passes through it and nothing of the client, and a hostile one gains nothing by it."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING

import httpx2
import pytest
from client_town import Reply, scan
from relay_kit import cut, read_body, relayed

from cloister.channel.keyset import CHUNKED_REQUEST_TYPE, CHUNKED_RESPONSE_TYPE, GATEWAY_PATH, KEYSET_PATH
from cloister.client import TruncatedResponse
from cloister.errors import CloisterError, Rejected, Unavailable, UsageError
from cloister.relay.gateway import parse_gateway
from cloister.relay.limits import Limits
from cloister.serving.place import parse_place
from loops import asynchronous

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay_kit import Relayed

    from cloister.client import AsyncClient

HEAD = f"POST {GATEWAY_PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: {CHUNKED_REQUEST_TYPE}\r\n"
TELLING = {
    "accept-language": "de-CH",
    "attested-instance": "ab" * 32,
    "authorization": "Bearer who-i-am",
    "cookie": "me=1",
    "forwarded": "for=192.0.2.7",
    "from": "me@example.test",
    "referer": "https://me.example.test/",
    "user-agent": "mine/1.0",
    "via": "1.1 mine",
    "x-forwarded-for": "192.0.2.7",
    "x-request-id": "0123456789",
}


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@asynchronous
async def test_a_client_works_unchanged_through_it() -> None:
    async with relayed() as relay, await relay.client() as client:
        assert client.enclave.instance == relay.gateway.town.enclave.instance
        for brightest in (3, 7):
            answer = await client.infer("digits", inputs={"image": scan(brightest)})
            assert answer.outputs["label"].tolist() == [brightest]
            assert answer.units == 1


@asynchronous
async def test_t61_the_gateway_sees_nothing_of_the_client(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with relayed() as relay, httpx2.AsyncClient(trust_env=False) as http:
        kinds = (CHUNKED_REQUEST_TYPE, f"{CHUNKED_REQUEST_TYPE}; me=1", CHUNKED_REQUEST_TYPE.upper())
        for kind, more in zip(kinds, ({}, TELLING, {"incremental": "?1;me"}), strict=True):
            headers = {"content-type": kind, **more}
            await http.post(relay.url + GATEWAY_PATH, content=b"sealed", headers=headers)
            await http.get(relay.url + KEYSET_PATH + "?nonce=" + "A" * 43, headers=more)
        assert len(set(relay.gateway.heads)) == 2, "whoever asks, the same bytes"
        assert relay.gateway.bodies == [b"sealed", b""] * 3
        post = relay.gateway.heads[0].decode().lower()
        names = {line.partition(":")[0] for line in post.split("\r\n")[1:] if line}
        assert names == {
            "host",
            "accept",
            "accept-encoding",
            "connection",
            "user-agent",
            "content-type",
            "content-length",
        }
        seen = b"".join(relay.gateway.heads)
        assert not [value for value in (*TELLING.values(), "127.0.0.1:" + str(relay.port)) if value.encode() in seen]
    assert not [record for record in caplog.records if record.name.startswith(("uvicorn", "httpx2", "cloister"))]


@asynchronous
async def test_nothing_by_which_the_gateway_could_know_a_client_again_comes_back() -> None:
    async with relayed() as relay, httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.get(relay.url + KEYSET_PATH + "?nonce=" + "A" * 43)
        assert answer.status_code == 200
        assert set(answer.headers) == {"content-type", "date", "transfer-encoding"}


@asynchronous
async def test_pieces_pass_both_ways_as_they_come() -> None:
    async with relayed() as relay:
        got: asyncio.Queue[bytes] = asyncio.Queue()
        go_on = asyncio.Event()

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while size := int(await reader.readuntil(b"\r\n"), 16):
                got.put_nowait((await reader.readexactly(size + 2))[:-2])
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\nincremental: ?1\r\n" % CHUNKED_RESPONSE_TYPE.encode())
            writer.write(b"transfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
            await writer.drain()
            await go_on.wait()
            writer.write(b"6\r\nsecond\r\n0\r\n\r\n")
            await writer.drain()

        relay.gateway.script = script
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write((HEAD + "incremental: ?1\r\ntransfer-encoding: chunked\r\n\r\n").encode() + b"3\r\none\r\n")
        assert await asyncio.wait_for(got.get(), 20) == b"one", "before the second was sent"
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")
        assert await asyncio.wait_for(got.get(), 20) == b"two"
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        assert b"incremental: ?1" in head
        assert await asyncio.wait_for(reader.readuntil(b"first"), 20), "before the second was sent"
        go_on.set()
        assert b"second" in await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 20)
        writer.close()
        assert b"incremental: ?1" in relay.gateway.heads[0]


@asynchronous
@pytest.mark.parametrize(
    ("request_line", "lines", "want"),
    [
        ("POST /", f"content-type: {CHUNKED_REQUEST_TYPE}\r\n", 404),
        ("POST /v2/models/digits/infer", "content-type: application/json\r\n", 404),
        ("GET /healthz", "", 404),
        (f"PUT {GATEWAY_PATH}", f"content-type: {CHUNKED_REQUEST_TYPE}\r\n", 405),
        (f"POST {KEYSET_PATH}", f"content-type: {CHUNKED_REQUEST_TYPE}\r\n", 405),
        (f"POST {GATEWAY_PATH}", "content-type: application/json\r\n", 415),
        (f"POST {GATEWAY_PATH}", "", 415),
        (f"POST {GATEWAY_PATH}", f"content-type: {CHUNKED_REQUEST_TYPE}\r\ncontent-encoding: gzip\r\n", 415),
        (f"POST {GATEWAY_PATH}", f"content-type: {CHUNKED_REQUEST_TYPE}\r\ncontent-type: text/x\r\n", 415),
        (f"POST {GATEWAY_PATH}?me=1", f"content-type: {CHUNKED_REQUEST_TYPE}\r\n", 400),
        (f"GET {KEYSET_PATH}?nonce=me", "", 400),
        (f"GET {KEYSET_PATH}?nonce={'A' * 43}&me=1", "", 400),
        (f"GET {GATEWAY_PATH}?me=1", "", 400),
        ("CONNECT other.test:443", "", 404),
    ],
)
async def test_nothing_else_passes(request_line: str, lines: str, want: int) -> None:
    async with relayed() as relay:
        text = f"{request_line} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n{lines}\r\n"
        assert status(await relay.typed(text.encode())) == want
        assert relay.gateway.heads == []


@asynchronous
async def test_a_target_that_names_another_server_goes_to_the_one_gateway() -> None:
    async with relayed() as relay:
        target = f"http://other.test{GATEWAY_PATH}"
        head = HEAD.replace(GATEWAY_PATH, target).replace("host: x", "host: other.test")
        await relay.typed(f"{head}content-length: 2\r\nconnection: close\r\n\r\nxx".encode())
        assert all(b"other.test" not in head for head in relay.gateway.heads)


@asynchronous
async def test_t82_bodies_too_long_or_too_slow_are_not_passed_on() -> None:
    async with relayed(Limits(max_request_bytes=1000, body_timeout_s=1)) as relay:
        said = f"{HEAD}content-length: 1001\r\nconnection: close\r\n\r\n"
        assert status(await relay.typed(said.encode())) == 413
        assert relay.gateway.heads == []
        found = (
            f"{HEAD}transfer-encoding: chunked\r\nconnection: close\r\n\r\n".encode()
            + b"3e9\r\n"
            + b"x" * 1001
            + b"\r\n0\r\n\r\n"
        )
        assert status(await relay.typed(found)) == 413
        slow = f"{HEAD}content-length: 10\r\nconnection: close\r\n\r\nhalf".encode()
        assert status(await relay.typed(slow)) == 408
        assert relay.gateway.bodies == [], "no part was taken for a whole"


@asynchronous
async def test_t82_a_head_too_long_or_too_slow_is_not_waited_for() -> None:
    async with relayed(Limits(max_head_bytes=1000, patience_s=1)) as relay:
        assert status(await relay.typed((HEAD + "x: " + "y" * 5000).encode())) in {400, 431}
        assert await relay.typed(HEAD.encode()) == b""


@asynchronous
async def test_what_looks_like_smuggling_is_refused() -> None:
    """Bad input 50."""
    async with relayed() as relay:
        for lines in (
            "content-length: 2\r\ntransfer-encoding: chunked\r\n",
            "content-length: 2\r\ncontent-length: 3\r\n",
            "content-length: +2\r\n",
            "transfer-encoding: gzip, chunked\r\n",
            "content-length: 2\r\n x: folded\r\n",
        ):
            answer = await relay.typed(f"{HEAD}{lines}connection: close\r\n\r\nxx".encode())
            assert status(answer) in {400, 501}, lines
        assert relay.gateway.bodies == []


@asynchronous
async def test_a_request_that_breaks_off_breaks_off_at_the_gateway() -> None:
    async with relayed() as relay:
        for framing in ("content-length: 100\r\n\r\n", "transfer-encoding: chunked\r\n\r\n32\r\n"):
            relay.gateway.broken_off.clear()
            _, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            writer.write((HEAD + framing).encode() + b"x" * 20)
            await writer.drain()
            await asyncio.sleep(0.2)
            writer.close()
            await asyncio.wait_for(relay.gateway.broken_off.wait(), 20)
        assert relay.gateway.bodies == []


@asynchronous
async def test_an_answer_that_breaks_off_breaks_off_at_the_client() -> None:
    async with relayed(Limits(max_response_bytes=4000)) as relay:

        async def breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_body(relay.gateway.heads[-1], reader)
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
            await writer.drain()

        async def long(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await breaks(reader, writer)
            writer.write(b"1388\r\n" + b"x" * 5000 + b"\r\n0\r\n\r\n")
            await writer.drain()

        for script in (breaks, long):
            relay.gateway.script = script
            answer = await relay.typed(f"{HEAD}content-length: 2\r\n\r\nxx".encode())
            assert status(answer) == 200
            assert b"first" in answer
            assert not answer.endswith(b"0\r\n\r\n")


@asynchronous
async def test_a_gateway_that_is_gone_or_silent_is_told_by_status() -> None:
    async with relayed(Limits(gateway_timeout_s=1)) as relay:
        request = f"{HEAD}content-length: 2\r\nconnection: close\r\n\r\nxx".encode()

        async def gone(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            await reader.read()

        for script, want in ((gone, 502), (silent, 504)):
            relay.gateway.script = script
            answer = await relay.typed(request)
            assert status(answer) == want
            assert re.search(rb'\{"status":%d,"type":"about:blank"\}$' % want, answer)


@asynchronous
async def test_t58_a_relay_that_cuts_is_refused() -> None:
    async with relayed() as relay, await relay.client() as client:
        sizes: list[int] = []
        town = relay.gateway.town
        await _asked(relay, client, lambda reply: sizes.append(len(b"".join(reply.parts))) or reply)
        for at in (33, sizes[0] // 2, sizes[0] - 1):
            with pytest.raises(TruncatedResponse):
                await _asked(relay, client, lambda reply, at=at: cut(reply, at))
        assert town.enclave.allowance == 10 - 4, "each was answered once, and cut on the way"


@asynchronous
async def test_t55_a_relay_that_alters_swaps_or_replays_is_refused() -> None:
    async with relayed() as relay, await relay.client() as client:
        kept: list[Reply] = []
        await _asked(relay, client, lambda reply: kept.append(reply) or reply)

        def altered(reply: Reply) -> Reply:
            data = bytearray(b"".join(reply.parts))
            data[len(data) // 2] ^= 1
            return Reply(parts=[bytes(data)])

        for change in (altered, lambda _: kept[0]):
            with pytest.raises(Rejected):
                await _asked(relay, client, change)
        sealed = relay.gateway.bodies[-1]
        relay.gateway.town.reply_change = lambda reply: reply
        served = relay.gateway.town.enclave.index
        damaged = sealed[:-1] + bytes([sealed[-1] ^ 1])
        async with httpx2.AsyncClient(trust_env=False) as http:
            answer = await http.post(
                relay.url + GATEWAY_PATH, content=damaged, headers={"content-type": CHUNKED_REQUEST_TYPE}
            )
        assert (answer.status_code, relay.gateway.town.enclave.index) == (400, served)


@asynchronous
async def test_a_relay_that_lies_about_the_enclave_is_refused() -> None:
    async with relayed() as relay:
        for lie in (
            lambda _: Reply(status=503, kind="text/plain", parts=[b"later"]),
            lambda reply: Reply(kind=reply.kind, parts=[b"".join(reply.parts)[:-9]]),
            lambda reply: Reply(kind=reply.kind, parts=[b"".join(reply.parts).replace(b'"nonce":"', b'"nonce":"A')]),
        ):
            relay.gateway.town.reply_change = lie
            with pytest.raises(CloisterError):
                await relay.client()


async def _asked(relay: Relayed, client: AsyncClient, change: Callable[[Reply], Reply]) -> None:
    """Ask about one picture; the relay is played by ``change``, between the enclave and it."""
    relay.gateway.town.reply_change = lambda reply: reply
    await client.model("digits")  # known from here on, so that the one exchange is the inference
    relay.gateway.town.reply_change = change
    await client.infer("digits", inputs={"image": scan(3)})


@pytest.mark.parametrize(
    "text", ["", "8480", "example.test:80", "0.0.0.0:8480", "[::]:1", "127.0.0.1:65536", "127.0.0.1"]
)
def test_places_that_are_none_or_reach_beyond_this_machine_without_tls_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_place(text, encrypted=False, server="relay")


def test_places_are_read() -> None:
    assert str(parse_place("0.0.0.0:443", encrypted=True, server="relay")) == "0.0.0.0:443"
    assert str(parse_place("[::1]:0", encrypted=False, server="relay")) == "[::1]:0"
    assert str(parse_place("localhost:80", encrypted=False, server="relay")) == "127.0.0.1:80"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "enclave.test",
        "ftp://enclave.test",
        "http://enclave.test",
        "https://me:secret@enclave.test",
        "https://a.test?x=1",
        "https://a.test#x",
        "https://a.test/ x",
        "https://:1",
        "https://a.test:99999",
    ],
)
def test_gateways_that_are_none_are_refused(url: str) -> None:
    with pytest.raises(UsageError):
        parse_gateway(url)


def test_gateways_are_read() -> None:
    assert parse_gateway("https://enclave.test:8443/") == "https://enclave.test:8443"
    assert parse_gateway("http://127.0.0.1:8443/one") == "http://127.0.0.1:8443/one"


@asynchronous
async def test_a_place_that_is_taken_is_unavailable() -> None:
    from cloister.serving.place import Place, open_listener  # noqa: PLC0415 - of this test alone

    async with relayed() as relay:
        with pytest.raises(Unavailable):
            open_listener(Place("127.0.0.1", relay.port), send_timeout_s=1)
