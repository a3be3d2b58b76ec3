"""One GET to an address that an administrator named, and nowhere else: what SSRF needs is not there (T81).

The name is looked up once and every address it has is judged; the connection goes to one of those that were judged, so
that a second look-up cannot lead elsewhere (rebinding). No redirect is followed, no proxy taken from the environment,
no credential sent. Link-local addresses, where clouds keep what an instance may do, are refused whatever the settings
say. What comes back is bounded in size, and all of it in time.

Not done here: what may be asked for (``issuer_keys``). A look-up of a name takes as long as the system lets it.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import threading
from enum import Enum
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cloister.errors import Rejected, Unavailable

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

__all__ = ["DEADLINE_S", "Reach", "guarded_get", "is_allowed"]

DEADLINE_S = 5.0  # seconds from the first connection to the last byte
_MAX_ADDRESSES = 8  # of one name
_HTTP_OK, _HTTP_REDIRECTS = 200, range(300, 400)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_SITE = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
_NEVER = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8", "169.254.0.0/16", "fe80::/10", "fec0::/10",  # this host, link-local
        "100.100.100.200/32", "168.63.129.16/32", "fd00:ec2::/32", "fd20:ce::/64",  # what clouds tell instances
        "2002::/16", "2001::/32", "64:ff9b::/96", "64:ff9b:1::/48",  # an IPv4 address inside, whichever
    )
)  # fmt: skip


class Reach(Enum):
    """How far away from the internet an address may be."""

    PUBLIC = "public"
    SITE = "site"
    LOOPBACK = "loopback"


def is_allowed(text: str, reach: Reach) -> bool:
    """Tell whether a connection may go to this address."""
    address: Address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_multicast or address.is_unspecified or any(address in network for network in _NEVER):
        return False
    if address.is_loopback:
        return reach is Reach.LOOPBACK
    if any(address in network for network in _SITE):
        return reach is not Reach.PUBLIC
    return address.is_global and not address.is_reserved


def guarded_get(
    url: str,
    *,
    cap: int,
    reach: Reach,
    tls: ssl.SSLContext,
    resolve: Callable[..., list[tuple[Any, ...]]] = socket.getaddrinfo,
    deadline_s: float = DEADLINE_S,
) -> bytes:
    """Return the body of a 200 answer of at most ``cap`` bytes.

    ``url`` has passed ``parse_url``; plain http is for loopback alone. Raises ``Rejected`` (``address_not_allowed``);
    ``Unavailable``.
    """
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    if not secure and reach is not Reach.LOOPBACK:
        raise Rejected.because("address_not_allowed", host, got="plain http", want="https")
    port = parts.port or (443 if secure else 80)
    addresses = _judged(host, port, reach, resolve)
    with _connected(addresses, port, host, deadline_s) as (plain, over):
        try:
            if secure:
                plain = tls.wrap_socket(plain, server_hostname=host, suppress_ragged_eofs=False)  # noqa: PLW2901
            with plain:
                body = _exchange(plain, parts.path or "/", parts.netloc, cap, host)
        except (OSError, http.client.HTTPException, ValueError, Unavailable) as exc:
            if over.is_set() or isinstance(exc, TimeoutError):
                raise _silent(host, f"not done within {deadline_s:.0f} s") from exc
            if isinstance(exc, Unavailable):
                raise
            raise _silent(host, type(exc).__name__.lower()) from exc
    if over.is_set():
        raise _silent(host, f"not done within {deadline_s:.0f} s")
    return body


def _judged(host: str, port: int, reach: Reach, resolve: Callable[..., list[tuple[Any, ...]]]) -> list[str]:
    """Return the addresses of a name, each allowed: one that is not makes all of them suspect."""
    try:
        found = resolve(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as exc:
        raise _silent(host, "no such name") from exc
    addresses = list(dict.fromkeys(str(item[4][0]) for item in found))[:_MAX_ADDRESSES]
    for address in addresses:
        if not is_allowed(address, reach):
            hint = "see issuer_addresses in docs/reference/settings.md"
            raise Rejected.because("address_not_allowed", host, got=address[:64], want=reach.value, hint=hint)
    if not addresses:
        raise _silent(host, "no address")
    return addresses


@contextlib.contextmanager
def _connected(
    addresses: list[str], port: int, host: str, deadline_s: float
) -> Iterator[tuple[socket.socket, threading.Event]]:
    """Yield a connection to one of the addresses, cut off at the deadline whatever it does; tell whether it was."""
    over = threading.Event()
    for address in addresses:
        try:
            connection = socket.create_connection((address, port), timeout=deadline_s / len(addresses))
        except OSError:
            continue
        break
    else:
        raise _silent(host, "not reached")
    connection.settimeout(deadline_s)
    handle = connection.dup()  # TLS takes the other one over; a shutdown of this one ends both

    def end() -> None:
        over.set()
        with contextlib.suppress(OSError):
            handle.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(deadline_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield connection, over
    finally:
        timer.cancel()
        handle.close()
        connection.close()


def _exchange(connection: socket.socket, path: str, authority: str, cap: int, host: str) -> bytes:
    head = (
        f"GET {path} HTTP/1.1\r\nHost: {authority}\r\nAccept: application/json\r\nAccept-Encoding: identity\r\n"
        "User-Agent: cloister\r\nConnection: close\r\n\r\n"
    )
    connection.sendall(head.encode("ascii"))
    response = http.client.HTTPResponse(connection, method="GET")
    try:
        response.begin()
        if response.status in _HTTP_REDIRECTS:
            raise _silent(host, f"status {response.status}, a redirect: none is followed")
        if response.status != _HTTP_OK or response.getheader("content-encoding", "identity") != "identity":
            raise _silent(host, f"status {response.status}")
        body = response.read(cap + 1)
        if len(body) > cap:
            raise _silent(host, f"more than {cap} bytes")
        if response.length:
            raise _silent(host, "cut off")
        return body
    finally:
        response.close()


def _silent(host: str, why: str) -> Unavailable:
    msg = f"{host}: {why}"
    return Unavailable(msg, hint="is it up, and does its certificate hold? keys may be given by hand too")
