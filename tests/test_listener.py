"""The listening sockets of both servers: whom they wait for, and whom not (T82)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import uvicorn

from cloister.listener import impatient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Receive, Scope, Send

PATIENCE_S = 1


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer at once on ``/rash``, elsewhere once the body is there, with its length."""
    size, more = 0, scope["path"] != "/rash"
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = b"%d" % size
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _played(story: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
    """Play a story over one connection to a server of our listener."""

    async def play() -> None:
        http = impatient(PATIENCE_S, places=10)
        config = uvicorn.Config(_app, port=0, http=http, lifespan="off", log_config=None, ws="none")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - the server tells in no other way
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await story(reader, writer)
        finally:
            writer.close()
            server.should_exit = True
            await serving

    asyncio.run(play())


def _post(path: bytes, length: int, body: bytes = b"") -> bytes:
    return b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (path, length, body)


async def _answer(reader: asyncio.StreamReader) -> bytes:
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).lower()
    assert head.startswith(b"http/1.1 200"), head
    length = int(head.partition(b"content-length:")[2].partition(b"\r")[0])
    return await reader.readexactly(length)


def test_who_was_answered_in_the_middle_of_its_body_and_sends_no_more_is_cut() -> None:
    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_post(b"/rash", 10, b"12345"))
        assert await _answer(reader) == b"0"
        assert await asyncio.wait_for(reader.read(), 10 * PATIENCE_S) == b""

    _played(story)


def test_who_sends_the_rest_of_it_in_time_is_served_again() -> None:
    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_post(b"/rash", 10, b"12345"))
        assert await _answer(reader) == b"0"
        writer.write(b"67890" + _post(b"/", 4, b"ab"))  # and a next one behind it, slow in its turn
        await asyncio.sleep(1.5 * PATIENCE_S)
        writer.write(b"cd")
        assert await _answer(reader) == b"4"

    _played(story)


def test_a_request_behind_another_has_its_own_time_for_its_body() -> None:
    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_post(b"/", 2, b"ab") + _post(b"/", 4, b"ab"))
        assert await _answer(reader) == b"2"
        await asyncio.sleep(1.5 * PATIENCE_S)
        writer.write(b"cd")
        assert await _answer(reader) == b"4"

    _played(story)
