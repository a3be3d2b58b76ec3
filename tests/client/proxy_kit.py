"""A proxy on a real socket, in front of an enclave in memory."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
from client_town import ENCLAVE, TOKEN, Town, scan

from cloister.client.proxy.address import Address
from cloister.client.proxy.limits import Limits
from cloister.client.proxy.serve import serve_proxy
from cloister.client.proxy.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LOCAL = "local-token-0123456789abcdefghijklmnop"
ANY_PORT = Address("127.0.0.1", 0)
INFER = "/v2/models/digits/infer"


@dataclass
class Door:
    """An open proxy: where it is, and a program that holds the local token."""

    address: str
    upstream: Upstream
    program: httpx2.AsyncClient
    grpc: str | None = None

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    async def infer(self, brightest: int = 3, **headers: str) -> httpx2.Response:
        """Ask about one picture."""
        head, body = question(brightest)
        length = {"inference-header-content-length": str(head)}
        return await self.program.post(INFER, content=body, headers={**length, **headers})


def question(brightest: int = 3) -> tuple[int, bytes]:
    """Return the length of the JSON, and the body of a request about one picture."""
    pixels = scan(brightest).astype("<f4")
    head = (
        b'{"inputs":[{"name":"image","datatype":"FP32","shape":[1,64],"parameters":{"binary_data_size":%d}}]}'
        % pixels.nbytes
    )
    return len(head), head + pixels.tobytes()


def label(answer: httpx2.Response) -> int:
    """Return what the enclave of ``client_town`` answered."""
    assert answer.status_code == 200, answer.text
    size = int(answer.headers["inference-header-content-length"])
    return int(np.frombuffer(answer.content[size:], dtype="<i8")[0])


async def upstream_of(town: Town, **changes: Any) -> Upstream:
    """Return the verified enclave of a town."""
    return await Upstream.verify(
        ENCLAVE, town.trust(**changes), token=TOKEN, schemes=town.schemes, transport=town, clock=town.clock
    )


@asynccontextmanager
async def open_door(
    upstream: Upstream,
    where: Address | Path = ANY_PORT,
    *,
    token: str | None = LOCAL,
    limits: Limits | None = None,
    **options: Any,
) -> AsyncIterator[Door]:
    """Run a proxy; it ends with the block."""
    told: asyncio.Future[tuple[str, str | None]] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve_proxy(
            upstream,
            where,
            token=token,
            limits=limits or Limits(),
            on_listening=lambda *places: told.set_result(places),
            **options,
        )
    )
    await asyncio.wait((told, serving), return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        await serving
    address, target = told.result()
    transport = None if isinstance(where, Address) else httpx2.AsyncHTTPTransport(uds=str(where))
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    base = address if isinstance(where, Address) else "http://localhost"
    try:
        async with httpx2.AsyncClient(base_url=base, headers=headers, transport=transport, timeout=30) as program:
            yield Door(address, upstream, program, target)
    finally:
        serving.cancel()
        await asyncio.wait((serving,))
        await upstream.close()
