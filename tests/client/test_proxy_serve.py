"""The proxy's own sockets: where it listens, whom it waits for, and how much it takes."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from typing import TYPE_CHECKING

import pytest
from client_town import Town
from proxy_kit import ANY_PORT, INFER, LOCAL, label, open_door, upstream_of

from cloister.channel.bhttp import BinaryResponse
from cloister.client.proxy.address import Address, parse_address
from cloister.client.proxy.limits import Limits
from cloister.client.proxy.token import default_token_file, open_token
from cloister.errors import CloisterError, Unavailable, UsageError
from loops import asynchronous

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
def town() -> Town:
    return Town()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8470", Address("127.0.0.1", 8470)),
        ("127.1.2.3:0", Address("127.1.2.3", 0)),
        ("localhost:1", Address("127.0.0.1", 1)),
        ("[::1]:8470", Address("::1", 8470)),
    ],
)
def test_addresses_of_this_machine_alone_are_taken(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0:8470",
        "[::]:8470",
        "192.168.1.2:8470",
        "[::ffff:10.0.0.1]:8470",
        "999.0.0.1:1",
        "localhost.evil.example:1",
        "127.0.0.1",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        ":8470",
        "",
    ],
)
def test_an_address_that_others_can_reach_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="this machine alone"):
        parse_address(text)


@asynchronous
async def test_a_port_that_is_taken_is_not_shared(town: Town) -> None:
    async with open_door(await upstream_of(town)) as door:
        with pytest.raises(Unavailable, match="listen"):
            async with open_door(await upstream_of(town), Address("127.0.0.1", door.port)):
                pass
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with pytest.raises(OSError, match="in use"):
                other.bind(("127.0.0.1", door.port))


@asynchronous
async def test_a_unix_socket_is_for_its_owner_alone_and_needs_no_token(town: Town, tmp_path: Path) -> None:
    path = tmp_path / "proxy.sock"
    async with open_door(await upstream_of(town), path, token=None) as door:
        assert door.address == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert label(await door.infer(8)) == 8
        with pytest.raises(UsageError, match="listens there already"):
            async with open_door(await upstream_of(town), path, token=None):
                pass
        assert label(await door.infer(1)) == 1
    assert not path.exists()


@asynchronous
async def test_a_socket_that_was_left_behind_is_replaced_and_a_file_never(town: Town, tmp_path: Path) -> None:
    path = tmp_path / "proxy.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with open_door(await upstream_of(town), path, token=None) as door:
        assert label(await door.infer(8)) == 8
    path.write_text("mine")
    with pytest.raises(UsageError, match="no socket of ours"):
        async with open_door(await upstream_of(town), path, token=None):
            pass
    assert path.read_text() == "mine"
    with pytest.raises(CloisterError):
        async with open_door(await upstream_of(town), tmp_path / ("x" * 200), token=None):
            pass


@asynchronous
async def test_a_body_beyond_the_cap_is_refused_before_and_while_it_is_read(town: Town) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield bytes(1000)

    async with open_door(await upstream_of(town), limits=Limits(max_request_bytes=2000)) as door:
        for body in (bytes(2001), endless()):
            answer = await door.program.post(INFER, content=body)
            assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert label(await door.infer(4)) == 4
    assert len(town.enclave.seen) == 1


@asynchronous
async def test_a_compressed_body_is_refused_by_name(town: Town) -> None:
    async with open_door(await upstream_of(town)) as door:
        for coding in ("gzip", "deflate", "identity, gzip"):
            answer = await door.infer(4, **{"content-encoding": coding})
            assert (answer.status_code, answer.json()["code"]) == (415, "content_encoding")


async def begun(door_port: int, text: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", door_port)
    writer.write(text)
    await writer.drain()
    return reader, writer


def half(size: int, sent: int) -> bytes:
    head = b"POST %b HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer %b\r\ncontent-length: %d\r\n\r\n"
    return head % (INFER.encode(), LOCAL.encode(), size) + bytes(sent)


@asynchronous
async def test_a_body_that_does_not_come_is_not_waited_for(town: Town) -> None:
    async with open_door(await upstream_of(town), limits=Limits(body_timeout_s=1)) as door:
        reader, writer = await begun(door.port, half(100, 10))
        assert b" 408 " in await asyncio.wait_for(reader.readline(), 20)
        writer.close()


@asynchronous
async def test_a_head_that_does_not_come_or_is_too_large_is_dropped(town: Town) -> None:
    async with open_door(await upstream_of(town), limits=Limits(patience_s=1, max_head_bytes=2000)) as door:
        reader, writer = await begun(door.port, b"POST / HTTP/1.1\r\nhost: loc")
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
        reader, writer = await begun(door.port, b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"x" * 5000)
        assert b" 400 " in await asyncio.wait_for(reader.readline(), 20)
        writer.close()
        assert label(await door.infer(4)) == 4


@asynchronous
async def test_too_many_requests_and_too_many_bytes_at_once_are_told_to_come_back(town: Town) -> None:
    limits = Limits(max_exchanges=2, max_waiting_bytes=1 << 20)
    async with open_door(await upstream_of(town), limits=limits) as door:
        waiting = [await begun(door.port, half(100, 10)) for _ in range(2)]
        answers = [await door.infer(4)]
        while answers[-1].status_code == 200:  # until both are there
            answers.append(await door.infer(4))
        assert (answers[-1].status_code, answers[-1].json()["code"]) == (429, "busy")
        for _, writer in waiting:
            writer.close()
        reader, writer = await begun(door.port, half(1 << 25, (1 << 20) + 1))
        assert b" 429 " in await asyncio.wait_for(reader.readline(), 20)
        writer.close()


@asynchronous
async def test_a_program_that_does_not_read_its_answer_is_left(town: Town) -> None:
    size = 64 << 20  # far more than the kernel keeps for both ends
    town.enclave.answer = lambda _: BinaryResponse(status=200, body=bytes(size))  # type: ignore[method-assign]
    upstream = await upstream_of(town)
    async with open_door(upstream, limits=Limits(send_timeout_s=1)) as door:
        asked = b"GET /v2 HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer %b\r\n\r\n" % LOCAL.encode()
        with socket.create_connection(("127.0.0.1", door.port)) as program:
            program.sendall(asked)
            while not upstream.passed:  # noqa: ASYNC110 - the proxy tells in no other way
                await asyncio.sleep(0.01)
            await asyncio.sleep(3)
            program.settimeout(20)
            came = 0
            while data := await asyncio.to_thread(program.recv, 1 << 20):
                came += len(data)
        assert 0 < came < size


def test_the_local_token_is_made_once_for_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "proxy.token"
    token = open_token(path)
    assert len(token) == 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert open_token(path) == token
    path.chmod(0o640)
    with pytest.raises(UsageError, match="0600"):
        open_token(path)


@pytest.mark.parametrize("text", [b"", b"short\n", b"x" * 129, b"two\nlines" * 8, b"with space" * 8, b"\xff" * 40])
def test_a_file_that_holds_no_token_is_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "proxy.token"
    path.touch(mode=0o600)
    path.write_bytes(text)
    with pytest.raises(UsageError):
        open_token(path)


def test_the_token_lies_in_the_users_own_state_folder(tmp_path: Path) -> None:
    assert default_token_file({"XDG_STATE_HOME": "/state", "HOME": "/home"}).parts[:3] == ("/", "state", "cloister")
    assert str(default_token_file({"HOME": str(tmp_path)})).startswith(f"{tmp_path}{os.sep}.local")
    for bad in ({}, {"HOME": "relative"}, {"XDG_STATE_HOME": "relative"}):
        with pytest.raises(UsageError) as refused:
            default_token_file(bad)
        assert "--local-token-file" in (refused.value.hint or "")


@asynchronous
async def test_an_ended_proxy_leaves_its_port(town: Town) -> None:
    async with open_door(await upstream_of(town), ANY_PORT) as door:
        port = door.port
    async with open_door(await upstream_of(town), Address("127.0.0.1", port)) as door:
        assert label(await door.infer(4)) == 4
