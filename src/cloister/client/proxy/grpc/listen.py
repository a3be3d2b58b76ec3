"""The gRPC server of a proxy: its own place on this machine alone, with its limits.

The port is shared with nobody (the library would share it by default), and a unix socket is of mode 0600.

Not done here: hurrying a program that is slow with one message. Connections end after an hour instead, and their
number is bounded.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc

from cloister.client.proxy.address import Address, remove_stale
from cloister.client.proxy.grpc.service import Guard, Service
from cloister.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from cloister.client.proxy.gate import Gate
    from cloister.client.proxy.limits import Limits
    from cloister.client.proxy.upstream import Upstream

__all__ = ["grpc_listening"]

_ROOM = 1 << 20  # bytes of a message beside its tensors
_MAX_AGE_MS = 3600 * 1000
_GRACE_S = 5


@asynccontextmanager
async def grpc_listening(
    upstream: Upstream, where: Address | Path, *, gate: Gate, limits: Limits
) -> AsyncIterator[str]:
    """Serve calls and yield the target that clients take. Raises ``Unavailable`` where the place is not ours."""
    server = grpc.aio.server(
        interceptors=(Guard(gate),), options=_options(limits), maximum_concurrent_rpcs=limits.max_exchanges
    )
    server.add_generic_rpc_handlers((Service(upstream).handler(),))
    target = _bound(server, where)
    await server.start()
    try:
        yield target
    finally:
        await server.stop(_GRACE_S)
        _leave(where)


def _bound(server: grpc.aio.Server, where: Address | Path) -> str:
    """Take the place and return what clients call it."""
    if isinstance(where, Address):
        return str(Address(where.host, _add_port(server, str(where), str(where))))
    remove_stale(where)
    before = os.umask(0o177)
    try:
        _add_port(server, f"unix:{where}", str(where))
    finally:
        os.umask(before)
    return f"unix:{where}"


def _add_port(server: grpc.aio.Server, target: str, name: str) -> int:
    try:
        return int(server.add_insecure_port(target))
    except RuntimeError as exc:
        msg = f"listen: {name}: taken, or not ours"
        raise Unavailable(msg, hint="choose another place, or stop what listens there", code="address_taken") from exc


def _leave(where: Address | Path) -> None:
    if not isinstance(where, Address):
        where.unlink(missing_ok=True)


def _options(limits: Limits) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),
        ("grpc.max_allowed_incoming_connections", limits.max_connections),
        ("grpc.max_concurrent_streams", limits.max_exchanges),
        ("grpc.max_connection_age_ms", _MAX_AGE_MS),
        ("grpc.max_connection_age_grace_ms", limits.send_timeout_s * 1000),
        ("grpc.max_metadata_size", limits.max_head_bytes),
        ("grpc.absolute_max_metadata_size", limits.max_head_bytes),
        ("grpc.max_receive_message_length", limits.max_request_bytes + _ROOM),
        ("grpc.max_send_message_length", limits.max_response_bytes + _ROOM),
        ("grpc.server_handshake_timeout_ms", limits.patience_s * 1000),
    ]
