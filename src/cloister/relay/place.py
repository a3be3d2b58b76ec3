"""Where a relay listens and whom it serves: read from a command line, and held to TLS."""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cloister.errors import Unavailable, UsageError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Place", "client_context", "open_listener", "parse_gateway", "parse_place", "server_context"]

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


def parse_place(text: str, *, encrypted: bool) -> Place:
    """Return the address in ``text``. Raises ``UsageError``, also for one that others reach without TLS."""
    found = _PLACE.fullmatch(text)
    if found is None or int(found[2]) > _MAX_PORT:
        msg = f"listen: {text[:80]}: want HOST:PORT, the host by its number"
        raise UsageError(msg)
    host = "127.0.0.1" if found[1] == "localhost" else found[1].strip("[]")
    if not _is_loopback(host) and not encrypted:
        msg = "relay: listening beyond this machine without tls"  # RFC 9458 section 6.1
        raise UsageError(
            msg, hint="give --tls-certificate and --tls-key, or --behind-proxy where another server ends tls"
        )
    return Place(host, int(found[2]))


def parse_gateway(url: str) -> str:
    """Return the origin of a gateway, maybe with a path before its resources. Raises ``UsageError``."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as exc:
        msg = "gateway: not a url"
        raise UsageError(msg) from exc
    plain = parts.scheme == "http" and _is_loopback(host or "")
    if not host or "@" in parts.netloc or not (parts.scheme == "https" or plain):
        msg = "gateway: want https://HOST[:PORT]"
        raise UsageError(msg, hint="plain http is for a gateway on this machine")
    if parts.query or parts.fragment or not re.fullmatch(r"[\x21-\x7e]+", url):
        msg = "gateway: want no query, no fragment and ascii only"
        raise UsageError(msg)
    return url.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return TLS 1.3 with that certificate. Raises ``UsageError``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except OSError as exc:  # ssl.SSLError is one
        msg = f"relay: {certificate}: no certificate with the key {key}"
        raise UsageError(msg, hint="want both in pem, the key without a password") from exc
    return context


def client_context(authorities: Path | None) -> ssl.SSLContext:
    """Return what certificates of the gateway are held to. Raises ``UsageError``."""
    try:
        context = ssl.create_default_context(cafile=authorities)
    except OSError as exc:
        msg = f"relay: {authorities}: no certificates in pem"
        raise UsageError(msg) from exc
    context.minimum_version = ssl.TLSVersion.TLSv1_2
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
        raise Unavailable(msg, hint="choose another place, or stop what listens there") from exc
    return listener
