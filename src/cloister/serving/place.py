"""Where a server listens: read from a command line, and held to TLS beyond this machine."""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cloister.errors import Unavailable, UsageError
from cloister.serving.live_context import following

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Place", "is_loopback", "open_listener", "parse_place", "server_context"]

_BACKLOG = 256
_MAX_PORT = 65535
_PLACE = re.compile(r"(\[[0-9a-fA-F:]+\]|[0-9.]+|localhost):([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Place:
    """An address to listen at; port 0 is any that is free."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return it as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_place(text: str, *, encrypted: bool, server: str) -> Place:
    """Return the address in ``text``. Raises ``UsageError``, also for one that others reach without TLS.

    ``server`` is what listens there, for the error.
    """
    found = _PLACE.fullmatch(text)
    if found is None or int(found[2]) > _MAX_PORT:
        msg = f"listen: {text[:80]}: want HOST:PORT, the host by its number"
        raise UsageError(msg)
    host = "127.0.0.1" if found[1] == "localhost" else found[1].strip("[]")
    if not is_loopback(host) and not encrypted:
        msg = f"{server}: listening beyond this machine without tls"  # of a relay: RFC 9458 section 6.1
        raise UsageError(
            msg, hint="give --tls-certificate and --tls-key, or --behind-proxy where another server ends tls"
        )
    return Place(host, int(found[2]))


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine, by its number or by the one name that is always it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def server_context(certificate: Path, key: Path, *, server: str) -> ssl.SSLContext:
    """Return TLS 1.3 with that certificate, and with the next one once the files hold it. Raises ``UsageError``."""
    return following(lambda: _context(certificate, key, server=server), (certificate, key))


def _context(certificate: Path, key: Path, *, server: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except OSError as exc:  # ssl.SSLError is one
        msg = f"{server}: {certificate}: no certificate with the key {key}"
        raise UsageError(msg, hint="want both in pem, the key without a password") from exc
    return context


def open_listener(place: Place, *, send_timeout_s: int) -> socket.socket:
    """Return a listening socket; a client that takes nothing for so long is dropped. Raises ``Unavailable``."""
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Inherited by what is accepted: the server itself would keep what it cannot get rid of for ever.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, send_timeout_s * 1000)
        listener.bind((place.host, place.port))
        listener.listen(_BACKLOG)
    except OSError as exc:
        listener.close()
        msg = f"listen: {place}: {exc.strerror or exc}"
        raise Unavailable(msg, hint="choose another place, or stop what listens there", code="address_taken") from exc
    return listener
