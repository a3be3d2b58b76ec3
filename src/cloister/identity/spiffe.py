"""SPIFFE ids and trust bundles (SPIFFE-ID section 2, SPIFFE Trust Domain and Bundle section 4).

An id is ``spiffe://trust-domain/path``; the bundle of its trust domain, and no other, says which keys speak for it.

Not done here: verifying documents (``bearer``, ``certificate``).
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

from cloister.attest.chain import Certificate
from cloister.attest.tokens.claimset import parse_claimset
from cloister.attest.tokens.jws import take_x5c
from cloister.attest.tokens.keyset import MAX_KEYSET_BYTES, KeySet, jwks_items
from cloister.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.wire import Json

__all__ = ["parse_bundle", "parse_spiffe_id", "parse_trust_domain", "prefixes"]

MAX_ID_CHARS = 2048
_DOMAIN = re.compile(r"spiffe://[a-z0-9._-]{1,255}")
_ID = re.compile(r"(spiffe://[a-z0-9._-]{1,255})((?:/[A-Za-z0-9._-]+)+)")
_DOTS = frozenset({".", ".."})


def parse_trust_domain(text: str) -> str:
    """Return ``spiffe://trust-domain``. Raises ``Malformed``."""
    if not _DOMAIN.fullmatch(text):
        msg = "trust domain: want spiffe:// and lower-case letters, digits, dots, dashes, underscores"
        raise Malformed(msg)
    return text


def parse_spiffe_id(text: str) -> tuple[str, str]:
    """Return trust domain and path of a workload's id; a trust domain alone is none. Raises ``Malformed``."""
    found = _ID.fullmatch(text) if len(text) <= MAX_ID_CHARS else None
    if found is None or _DOTS & {*found[2].split("/")}:
        msg = "spiffe id: want spiffe://trust-domain/path"
        raise Malformed(msg)
    return found[1], found[2]


def prefixes(path: str) -> tuple[str, ...]:
    """Return a path and the paths it is below: ``/ns``, ``/ns/prod``, ``/ns/prod/sa``."""
    names = path[1:].split("/")
    return tuple("/" + "/".join(names[:size]) for size in range(1, len(names) + 1))


def parse_bundle(data: bytes) -> tuple[KeySet, tuple[Certificate, ...]]:
    """Return a trust bundle's keys of JWT-SVIDs and roots of X.509-SVIDs; either may be empty, not both.

    Elements of other uses are left out (Trust Domain and Bundle section 4.2.2). Raises ``Malformed``.
    """
    if len(data) > MAX_KEYSET_BYTES:
        msg = f"trust bundle: {len(data)} bytes, want at most {MAX_KEYSET_BYTES}"
        raise Malformed(msg)
    members = parse_claimset(data, what="trust bundle")
    roots = [_root(item) for item in jwks_items(members) if item.get("use") == "x509-svid"]
    keys = KeySet.of_jwks(members, use="jwt-svid")
    if any(key.kid is None for key in keys.keys):
        msg = "trust bundle: a jwt-svid key without kid"
        raise Malformed(msg)
    if not roots and not keys.keys:
        msg = "trust bundle: no key of an svid"
        raise Malformed(msg)
    return keys, tuple(roots)


def _root(item: Mapping[str, Json]) -> Certificate:
    texts = take_x5c(item, what="trust bundle")
    if texts is None or len(texts) != 1:
        msg = "trust bundle: an x509-svid key has exactly one certificate"
        raise Malformed(msg)
    try:
        return Certificate.parse(base64.b64decode(texts[0], validate=True))
    except ValueError as exc:
        msg = "trust bundle: x5c: not base64"
        raise Malformed(msg) from exc
