"""Whom a relay serves: the gateway's address, read from a command line and held to TLS."""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cloister.errors import UsageError
from cloister.serving.place import is_loopback

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["client_context", "parse_gateway"]


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


def client_context(authorities: Path | None) -> ssl.SSLContext:
    """Return what certificates of the gateway are held to. Raises ``UsageError``."""
    try:
        context = ssl.create_default_context(cafile=authorities)
    except OSError as exc:
        msg = f"relay: {authorities}: no certificates in pem"
        raise UsageError(msg) from exc
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
