"""The other side: a Relying Party that believes an attestation service, and knows its issuer's URL alone.

1. Keys: discovery below the issuer's URL names them, on the issuer's own origin, and says that it is this issuer.
2. The signature, by a key of the issuer, with ES256 or RS256: never by what the token's header brings along.
3. In time; from this issuer; for this audience; in answer to this nonce, where one was sent.

A token that is proven may still say no: ``tier`` is the Relying Party's to look at, and so is the policy's digest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx2

from cloister.attest.ear import EAR_TYPE, MAX_TOKEN_CHARS, parse_ear
from cloister.attest.findings import Findings
from cloister.attest.rules import NotChecked
from cloister.attest.tokens.jws import Jws
from cloister.attest.tokens.keyset import MAX_KEYSET_BYTES, KeySet
from cloister.attest.tokens.proof import verify_signature
from cloister.attest.tokens.registered import verify_audience, verify_issuer, verify_times
from cloister.crypto.sign import KeyId
from cloister.errors import Malformed, Unavailable
from cloister.identity.discovery import discovery_url, parse_discovery
from cloister.verifier.asking import web_client
from cloister.verifier.settings import ALGORITHMS, demand_issuer
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from cloister.attest.ear import Ear

__all__ = ["Reader", "fetch_keys", "parse_keys"]

_TIMEOUT_S = 10.0
_OK = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One Relying Party. ``audience`` None passes any: said by whoever leaves it out."""

    issuer: str
    keys: KeySet
    audience: str | None
    nonce: str | None = None

    def verify(self, token: str, now: datetime) -> Ear:
        """Return what the token says once it is proven.

        Raises ``Malformed``; ``Rejected`` with the codes of ``verify_signature`` and ``verify_times``, with
        ``token_type_wrong``, ``issuer_mismatch``, ``audience_mismatch`` and ``nonce_mismatch``: all there are, once the
        signature holds.
        """
        jws = Jws.parse(token.encode(), what="token", cap=MAX_TOKEN_CHARS)
        findings = Findings("token")
        verify_signature(jws, self.keys, frozenset(ALGORITHMS), now, findings, what="token")
        kind = (jws.typ or "").lower().removeprefix("application/")  # RFC 8725 section 3.11
        findings.expect(kind == EAR_TYPE, "token_type_wrong", "typ of token", got=kind[:64], want=EAR_TYPE)
        claims = jws.claimset(what="token")
        verify_times(claims, now, findings, what="token", ends=True, starts_issued=True)
        verify_issuer(claims, frozenset({self.issuer}), findings)
        wanted = NotChecked("nobody said for whom") if self.audience is None else frozenset({self.audience})
        verify_audience(claims, wanted, findings)
        ear = parse_ear(jws.payload, KeyId(jws.kid or ""))
        if self.nonce is not None:
            got = dump_b64u(ear.nonce)
            findings.expect(got == self.nonce, "nonce_mismatch", "nonce", got=got, want=self.nonce[:128])
        findings.settle()
        return ear


def parse_keys(data: bytes) -> KeySet:
    """Return the keys of a file. Raises ``Malformed``."""
    return KeySet.parse(data)


def fetch_keys(issuer: str, *, ca: Path | None = None) -> KeySet:
    """Return the keys of the issuer at a URL, by discovery (OpenID Connect Discovery 1.0 section 4).

    No redirect is followed, no proxy taken from the environment, and keys come from the issuer's own origin. Raises
    ``UsageError`` for what is no issuer's URL, ``Rejected`` (``issuer_mismatch``), ``Malformed``, ``Unavailable``.
    """
    demand_issuer(issuer)
    with web_client(ca, timeout_s=_TIMEOUT_S) as client:
        return KeySet.parse(_get(client, parse_discovery(_get(client, discovery_url(issuer)), issuer=issuer)))


def _get(client: httpx2.Client, url: str) -> bytes:
    try:
        with client.stream("GET", url) as response:
            if response.status_code != _OK:
                msg = f"{url}: status {response.status_code}, want {_OK}"
                raise Unavailable(msg)
            data = b""
            for part in response.iter_raw():
                data += part
                if len(data) > MAX_KEYSET_BYTES:
                    msg = f"{url}: want at most {MAX_KEYSET_BYTES} bytes"
                    raise Malformed(msg)
            return data
    except httpx2.HTTPError as exc:
        msg = f"{url}: {type(exc).__name__}"
        raise Unavailable(msg) from exc
