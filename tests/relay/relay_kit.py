"""A relay on a real socket, and behind it a gateway that writes down every byte it is sent."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import httpx2
from client_town import ENCLAVE, TOKEN, Reply, Town, unchecked

from cloister.client import AsyncClient, Retry
from cloister.relay.gateway import client_context
from cloister.relay.limits import Limits
from cloister.relay.link import GatewayTls
from cloister.relay.serve import serve_relay
from cloister.serving.place import Place

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


@dataclass
class Gateway:
    """An enclave in memory on a socket of its own; ``script`` takes the place of its answers."""

    town: Town
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    broken_off: asyncio.Event = field(default_factory=asyncio.Event)
    script: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests."""
        with contextlib.suppress(ConnectionError):
            try:
                while True:
                    self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                    if self.script is not None:
                        await self.script(reader, writer)
                        return
                    await self._answer(writer, await read_body(self.heads[-1], reader))
            except asyncio.IncompleteReadError as exc:
                if exc.partial or len(self.heads) > len(self.bodies):
                    self.broken_off.set()
            finally:
                writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, body: bytes) -> None:
        self.bodies.append(body)
        method, target, _ = self.heads[-1].split(b" ", 2)
        request = httpx2.Request(method.decode(), ENCLAVE + target.decode(), content=body)
        request.headers["attested-instance"] = self.town.enclave.instance  # a balancer's to know, not the relay's
        response = await self.town.handle_async_request(request)
        lines = [
            f"HTTP/1.1 {response.status_code} X",
            "transfer-encoding: chunked",
            "set-cookie: tag=1",
            "location: /x",
        ]
        lines += [f"{name}: {value}" for name, value in response.headers.items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
        async for part in response.aiter_raw():
            if part:
                writer.write(b"%x\r\n%b\r\n" % (len(part), part))
                await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()


async def read_body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    """Read a body of either framing to its end."""
    lower = head.lower()
    if b"transfer-encoding: chunked" not in lower:
        return await reader.readexactly(int((lower.partition(b"content-length: ")[2].partition(b"\r")[0]) or 0))
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)
    return body


@dataclass
class Relayed:
    """A relay that runs."""

    url: str
    gateway: Gateway

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def client(self) -> AsyncClient:
        """Return a consumer who knows the relay's address alone."""
        town = self.gateway.town
        trust = town.trust(custodian=unchecked(), operators=unchecked(), tls=unchecked())
        at_once = Retry(first_pause=timedelta(0))
        return await AsyncClient.verify(
            self.url, trust, token=TOKEN, schemes=town.schemes, clock=town.clock, retry=at_once
        )

    async def typed(self, data: bytes) -> bytes:
        """Send ``data`` and return all that comes back until the relay ends the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        try:
            return await asyncio.wait_for(reader.read(), 20)
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def relayed(limits: Limits | None = None) -> AsyncIterator[Relayed]:
    """Run gateway and relay for the length of a block."""
    gateway = Gateway(Town())
    server = await asyncio.start_server(gateway.serve, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    task = asyncio.create_task(
        serve_relay(
            address,
            Place("127.0.0.1", 0),
            limits=limits or Limits(),
            tls=None,
            gateway_tls=GatewayTls(make=lambda: client_context(None)),
            stop=stop,
            on_listening=listening.set_result,
        )
    )
    try:
        yield Relayed(await listening, gateway)
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)
        server.close()


def cut(reply: Reply, at: int) -> Reply:
    """Return the reply without what stands from ``at`` on."""
    return Reply(parts=[b"".join(part for part in reply.parts if isinstance(part, bytes))[:at]])
