"""The settings of a consumer's outer connections, out of its trust: no cookies, no redirects, no proxy to this machine.

The enclave's TLS certificate is checked as the trust says; under attested keys (``pinned_tls``) by those alone.
"""

from __future__ import annotations

import ssl
from datetime import timedelta
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import httpx2

from cloister.attest.rules import NotChecked
from cloister.client.pinned_tls import PinnedContext
from cloister.client.trust_file import CustodianPin, is_loopback
from cloister.errors import Malformed, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from cloister.client.plan import Open
    from cloister.client.trust_file import Trust

__all__ = ["AGENT", "custodian_options", "enclave_options", "pinned_options"]

CONNECT_TIMEOUT = timedelta(seconds=10)
AGENT = "cloister"
_IDLE_S = 60  # seconds a connection is kept on which nothing is asked; an enclave keeps it for 75
_LIMITS = httpx2.Limits(max_connections=256, max_keepalive_connections=64, keepalive_expiry=_IDLE_S)


def _options(url: str, tls: ssl.SSLContext | bool, timeout: timedelta) -> dict[str, Any]:  # noqa: FBT001 - httpx2's own type
    """Return the settings of one client; a fresh cookie jar that takes no cookie."""
    return {
        "cookies": CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
        "follow_redirects": False,
        "headers": {"user-agent": AGENT},
        "limits": _LIMITS,
        "timeout": httpx2.Timeout(timeout.total_seconds(), connect=CONNECT_TIMEOUT.total_seconds()),
        "trust_env": not is_loopback(url),
        "verify": tls,
    }


def _context(ca_pem: str | None, *, what: str) -> ssl.SSLContext:
    if ca_pem is not None and not ca_pem.strip():
        msg = f"{what}: empty"  # for ssl an empty bundle is none, and none is the system's
        raise Malformed(msg)
    try:
        context = ssl.create_default_context(cadata=ca_pem)
    except (ssl.SSLError, TypeError) as exc:  # TypeError: text beyond ascii
        msg = f"{what}: no certificate in PEM"
        raise Malformed(msg) from exc
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def enclave_options(url: str, trust: Trust, timeout: timedelta) -> dict[str, Any]:
    """Return the settings for the enclave, its certificate held to the trust. Raises ``UsageError``, ``Malformed``."""
    if isinstance(trust.tls, NotChecked):
        return _options(url, tls=False, timeout=timeout)
    if url.startswith("http:") and not is_loopback(url):
        msg = f"{url}: plain http, while the trust checks the enclave's tls certificate"
        raise UsageError(msg, hint="use https, or say tls not_checked in the trust: bodies are encrypted either way")
    return _options(url, _context(trust.tls.ca_pem, what="trust: tls"), timeout)


def pinned_options(step: Open, timeout: timedelta, certificate: Path | str | None) -> dict[str, Any]:
    """Return the settings for TLS under the attested keys of a step, and under no other."""
    return _options(step.url, PinnedContext.of(step.keys, hybrid=step.hybrid, certificate=certificate), timeout)


def custodian_options(trust: Trust, timeout: timedelta) -> dict[str, Any] | None:
    """Return the settings for the custodian, None where the trust names none. Raises ``Malformed``."""
    pin = trust.custodian
    if not isinstance(pin, CustodianPin):
        return None
    return _options(pin.url, _context(pin.ca_pem, what="trust: custodian"), timeout)
