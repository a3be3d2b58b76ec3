"""Running a proxy: its own sockets on this machine alone, signals, an orderly end.

An address that is not this machine's is refused, and a port is never shared: whoever else listened on it would be
handed the token. A unix socket is of mode 0600 from the first moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
import stat
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvicorn

from cloister.client.proxy.app import ProxyApp
from cloister.client.proxy.gate import Gate
from cloister.client.trust_file import is_loopback
from cloister.errors import Unavailable, UsageError
from cloister.listener import impatient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cloister.client.proxy.limits import Limits
    from cloister.client.proxy.upstream import Upstream

__all__ = ["Address", "parse_address", "serve_proxy"]

_BACKLOG = 64
_MAX_PORT = 65535
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[0-9.]+|localhost):([0-9]{1,5})")
_GRACE_S = 5


@dataclass(frozen=True, slots=True)
class Address:
    """An address of this machine's own; port 0 is any that is free."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return it as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Return an address that only this machine can reach. Raises ``UsageError`` for any other."""
    found = _ADDRESS.fullmatch(text)
    if found is not None and int(found[2]) <= _MAX_PORT:
        host = "127.0.0.1" if found[1] == "localhost" else found[1].strip("[]")
        if is_loopback(f"http://{found[1]}"):
            return Address(host, int(found[2]))
    msg = f"listen: {text[:80]}: want an address of this machine alone, such as 127.0.0.1:8470"
    raise UsageError(msg, hint="others ask an enclave through a proxy of their own")


@contextlib.contextmanager
def listening(where: Address | Path) -> Iterator[socket.socket]:
    """Yield a listening socket; one that is a file is gone afterwards. Raises ``Unavailable``, ``UsageError``."""
    if isinstance(where, Address):
        family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
        # Named as TCP, asyncio sends at once; without SO_REUSEPORT nobody else can listen beside us.
        with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _listen(listener, (where.host, where.port), str(where))
            yield listener
        return
    _remove_stale(where)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        before = os.umask(0o177)
        try:
            _listen(listener, str(where), str(where))
        finally:
            os.umask(before)
        try:
            yield listener
        finally:
            where.unlink(missing_ok=True)


def _listen(listener: socket.socket, place: tuple[str, int] | str, name: str) -> None:
    try:
        listener.bind(place)
        listener.listen(_BACKLOG)
    except OSError as exc:
        msg = f"listen: {name}: {exc.strerror or exc}"
        raise Unavailable(msg, hint="choose another place, or stop what listens there") from exc


def _remove_stale(path: Path) -> None:
    """Take away a socket of ours that nobody listens on any more. Raises ``UsageError`` for anything else there."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise UsageError(msg) from exc
    if not stat.S_ISSOCK(status.st_mode) or status.st_uid != os.geteuid():
        msg = f"{path}: exists already, and is no socket of ours"
        raise UsageError(msg)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    msg = f"{path}: a proxy listens there already"
    raise UsageError(msg)


class _Server(uvicorn.Server):
    """A server that leaves signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing."""
        yield


async def serve_proxy(
    upstream: Upstream,
    where: Address | Path,
    *,
    token: str | None,
    limits: Limits,
    on_listening: Callable[[str], None],
) -> None:
    """Serve a verified ``upstream`` until a stop signal. ``on_listening`` is told where, once the place is ours."""
    logging.getLogger("uvicorn").handlers = [logging.NullHandler()]  # its lines name what a program sent
    logging.getLogger("uvicorn").propagate = False
    stop = asyncio.Event()
    with listening(where) as listener, _signals(stop):
        hosts = (str(where).rpartition(":")[0],) if isinstance(where, Address) else ()
        app = ProxyApp(upstream, Gate(token, hosts=hosts), limits)
        server = _Server(_uvicorn_config(app, limits))
        verifying = asyncio.create_task(upstream.keep_verified())
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        on_listening(_url(where, listener))
        ended = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((serving, verifying, ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            server.should_exit = True
            verifying.cancel()
            ended.cancel()
            await serving


def _uvicorn_config(app: ProxyApp, limits: Limits) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        access_log=False,
        h11_max_incomplete_event_size=limits.max_head_bytes,
        http=impatient(limits.patience_s, places=limits.max_connections),
        lifespan="off",
        limit_concurrency=limits.max_connections,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
        ws="none",
    )


def _url(where: Address | Path, listener: socket.socket) -> str:
    if not isinstance(where, Address):
        return f"unix:{where}"
    return f"http://{Address(where.host, listener.getsockname()[1])}"


@contextlib.contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    """Let SIGTERM and SIGINT set ``stop``, in the process' main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
