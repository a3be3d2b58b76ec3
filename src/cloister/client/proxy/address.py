"""Places to listen at that only this machine, or only this user, can reach.

An address that is not this machine's is refused, and a port is never shared: whoever else listened on it would be
handed the token. A unix socket is of mode 0600 from the first moment.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.client.trust_file import is_loopback
from cloister.errors import Unavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Address", "listening", "parse_address", "remove_stale"]

_BACKLOG = 64
_MAX_PORT = 65535
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[0-9.]+|localhost):([0-9]{1,5})")


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
    remove_stale(where)
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
        raise Unavailable(msg, hint="choose another place, or stop what listens there", code="address_taken") from exc


def remove_stale(path: Path) -> None:
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
