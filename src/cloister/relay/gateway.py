"""Whom a relay serves: the gateway's address, read from a command line and held to TLS."""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cloister.errors import UsageError
from cloister.relay.link import GatewayTls
from cloister.relay.peer_tls import PeerContext, parse_gateway_name
from cloister.relay.renewal import Renewal
from cloister.serving.place import is_loopback

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["client_context", "gateway_tls_of", "parse_gateway", "renewal_of"]


def parse_gateway(url: str) -> str:
    """Return the origin of a gateway, maybe with a path before its resources. Raises ``UsageError``."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as exc:
        msg = "gateway: not a url"
        raise UsageError(msg) from exc
    plain = parts.scheme == "http" and is_loopback(host or "")
    if not host or "@" in parts.netloc or not (parts.scheme == "https" or plain):
        msg = "gateway: want https://HOST[:PORT]"
        raise UsageError(msg, hint="plain http is for a gateway on this machine")
    if parts.query or parts.fragment or not re.fullmatch(r"[\x21-\x7e]+", url):
        msg = "gateway: want no query, no fragment and ascii only"
        raise UsageError(msg)
    return url.rstrip("/")


def gateway_tls_of(
    origin: str, peers: tuple[str, ...], *, authorities: Path | None, certificate: Path | None, key: Path | None
) -> GatewayTls:
    """Return what connections to a gateway are held to, as the command line says it. Raises ``UsageError``.

    Without ``peers`` a gateway is known by its host's name. With them it is one of these by its certificate's URI,
    below ``authorities`` and no others, and we show a certificate too where there is one.
    """
    if not peers:
        if certificate is not None or key is not None:
            msg = "relay: a certificate for the gateway wants --gateway-peer, for whoever it is shown to"
            raise UsageError(msg)
        return GatewayTls(make=lambda: client_context(authorities))
    names = tuple(map(parse_gateway_name, peers))
    if authorities is None:
        msg = "relay: --gateway-peer wants --gateway-ca, the file of the custodian's authorities"
        raise UsageError(msg)
    if not origin.startswith("https:"):
        msg = "relay: --gateway-peer wants a gateway over https"
        raise UsageError(msg)
    if key is not None and certificate is None:
        msg = "relay: want --gateway-certificate with --gateway-key"
        raise UsageError(msg)
    files = tuple(path for path in (authorities, certificate, key) if path is not None)
    return GatewayTls(
        make=lambda: PeerContext.of(names, authorities=authorities, certificate=certificate, key=key), files=files
    )


def renewal_of(
    custodian: str | None, *, ca: Path | None, certificate: Path | None, key: Path | None, authorities: Path | None
) -> Renewal | None:
    """Return what renews our certificate, None where no custodian is named. Raises ``UsageError``."""
    if custodian is None:
        return None
    if not _is_https(custodian):
        msg = "relay: --custodian: want https://HOST[:PORT]"
        raise UsageError(msg)
    if certificate is None or authorities is None or key is not None:
        msg = "relay: --custodian renews --gateway-certificate and --gateway-ca, the key in the certificate's file"
        raise UsageError(msg)
    return Renewal(custodian=custodian.rstrip("/"), ca=ca, certificate=certificate, authorities=authorities)


def _is_https(url: str) -> bool:
    """Tell whether it is https://HOST[:PORT], maybe with a path, as the client that asks there takes it too."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    bare = not (parts.query or parts.fragment or "@" in parts.netloc)
    return parts.scheme == "https" and bool(host) and bare and re.fullmatch(r"[\x21-\x7e]+", url) is not None


def client_context(authorities: Path | None) -> ssl.SSLContext:
    """Return what certificates of the gateway are held to. Raises ``UsageError``."""
    try:
        context = ssl.create_default_context(cafile=authorities)
    except OSError as exc:
        msg = f"relay: {authorities}: no certificates in pem"
        raise UsageError(msg) from exc
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
