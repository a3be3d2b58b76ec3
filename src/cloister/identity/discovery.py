"""Where an issuer's keys are: its discovery document (OpenID Connect Discovery 1.0, RFC 8414), read and not fetched.

The document says where the keys are and nothing else that is believed here: algorithms and the rest are the Relying
Party's to say. It must be of the issuer that was asked, to the letter (RFC 8414 section 3.3), and must keep its keys at
the same origin: a document that leads elsewhere is refused, and who has keys elsewhere names the place.

Not done here: fetching, and to which addresses a name may lead.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from cloister.attest.tokens.claimset import parse_claimset
from cloister.errors import Malformed, Rejected

__all__ = ["MAX_DISCOVERY_BYTES", "discovery_url", "origin", "parse_discovery", "parse_url"]

MAX_DISCOVERY_BYTES = 64 * 1024  # bytes of one discovery document
_MAX_URL_CHARS = 512
_MAX_PORT = 0xFFFF
_WELL_KNOWN = "/.well-known/openid-configuration"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_URL = re.compile(
    r"(https?)://([a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])(:[0-9]{1,5})?(/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?"
)


def parse_url(text: str, *, what: str) -> str:
    """Return the URL of an issuer or of its keys: https, host in lower case, no user, query or fragment.

    Plain http passes for this machine's own names alone: a development's. Raises ``Malformed``.
    """
    found = _URL.fullmatch(text) if len(text) <= _MAX_URL_CHARS else None
    if found is None or (found[1] == "http" and found[2] not in _LOOPBACK):
        msg = f"{what}: want https://host[:port][/path]"
        raise Malformed(msg)
    if found[3] is not None and not 0 < int(found[3][1:]) <= _MAX_PORT:
        msg = f"{what}: port out of range"
        raise Malformed(msg)
    return text


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of a URL that ``parse_url`` passed (RFC 6454 section 4)."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def discovery_url(issuer: str) -> str:
    """Return where the document of ``issuer`` is (OpenID Connect Discovery 1.0 section 4)."""
    return issuer.removesuffix("/") + _WELL_KNOWN


def parse_discovery(data: bytes, *, issuer: str) -> str:
    """Return the ``jwks_uri`` of the discovery document of ``issuer``.

    Raises ``Malformed``; ``Rejected`` (``issuer_mismatch``) for another issuer's document or keys at another origin.
    """
    if len(data) > MAX_DISCOVERY_BYTES:
        msg = f"discovery document: {len(data)} bytes, want at most {MAX_DISCOVERY_BYTES}"
        raise Malformed(msg)
    members = parse_claimset(data, what="discovery document")
    got, uri = members.get("issuer"), members.get("jwks_uri")
    if not isinstance(got, str) or not isinstance(uri, str):
        msg = "discovery document: want issuer and jwks_uri"
        raise Malformed(msg)
    if got != issuer:
        raise Rejected.because("issuer_mismatch", "discovery document", got=ascii(got)[1:-1][:256], want=issuer)
    keys = parse_url(uri, what="discovery document: jwks_uri")
    if origin(keys) != origin(issuer):
        raise Rejected.because(
            "issuer_mismatch", "jwks_uri", got=keys[:256], want="the issuer's own origin", hint="name jwks_uri yourself"
        )
    return keys
