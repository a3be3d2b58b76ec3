"""Both servers send at once: an answer that waits for its reader's acknowledgement costs 40 ms each time.

asyncio turns that waiting off (TCP_NODELAY) for sockets that say they are TCP; ``socket.socket`` by itself does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from datetime import UTC, datetime
from pathlib import Path

from cloister.custodian.config_file import load_config
from cloister.custodian.serve import bind
from cloister.enclave.config import EnclaveConfig
from cloister.enclave.serve import _listening


async def _sends_at_once(listener: socket.socket) -> bool:
    """Tell whether asyncio turned the waiting off for a connection that this listener accepted."""
    found: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def accepted(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made = writer.get_extra_info("socket")
        found.set_result(bool(made.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
        writer.close()

    async with await asyncio.start_server(accepted, sock=listener):
        with contextlib.closing(socket.create_connection(listener.getsockname())):
            return await asyncio.wait_for(found, 10)


def test_the_custodian_does_not_wait_before_it_sends() -> None:
    config = load_config("", environment={"CLOISTER_CUSTODIAN_PORT": "0"}, now=datetime.now(UTC))
    assert asyncio.run(_sends_at_once(bind(config)))


def test_the_enclave_does_not_wait_before_it_sends() -> None:
    config = EnclaveConfig(loan=Path("loan.json"), models=(Path("sealed"),), port=0)
    with _listening(config) as listener:
        assert asyncio.run(_sends_at_once(listener))
