"""A thousand connections that ask seldom: one process holds them, without an error, for a bounded price each."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from web_stage import answered

import cloister

pytestmark = pytest.mark.drill

COUNT = 1000
MAX_BYTES_EACH = 256 * 1024
GET = b"GET /echo HTTP/1.1\r\nhost: x\r\n\r\n"
HERE = Path(__file__).parent
CHILD = """
import asyncio, sys, uvloop
from cloister.enclave.config import Limits
from test_http2 import Tls
from web_stage import stage

async def main() -> None:
    context = Tls().server if sys.argv[1] == "tls" else None
    async with stage(Limits(idle_timeout_s=600), context=context) as served:
        print(served.port, flush=True)
        await asyncio.to_thread(sys.stdin.read)

uvloop.run(main())
"""


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("way", ["plain", "tls"])
def test_a_thousand_idle_connections_are_held_and_all_answer_again(way: str) -> None:
    paths = (Path(cloister.__file__).parents[1], HERE, HERE.parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(str(path) for path in paths)}
    command = [sys.executable, "-c", CHILD, way]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as child:  # noqa: S603 - ourselves
        assert child.stdout is not None
        port = int(child.stdout.readline())
        each = asyncio.run(_hold(port, child.pid, _context() if way == "tls" else None))
        child.communicate()
    print(f"{COUNT} idle connections over {way}: {each / 1024:.1f} KiB each")  # noqa: T201 - the figure
    assert each < MAX_BYTES_EACH


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _hold(port: int, pid: int, context: ssl.SSLContext | None) -> float:
    """Return bytes of the server's memory for each connection, once all were asked on and idle."""
    held: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def more(count: int) -> None:
        held.extend([await asyncio.open_connection("127.0.0.1", port, ssl=context) for _ in range(count)])
        await ask(held[-count:])

    async def ask(some: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> None:
        for reader, writer in some:
            writer.write(GET)
            assert await answered(reader) == (200, b"")

    await more(20)  # what is taken once is taken now
    before = _resident(pid)
    await more(COUNT - 20)
    each = (_resident(pid) - before) / (COUNT - 20)
    await ask(held)
    for _, writer in held:
        writer.transport.abort()
    return each
