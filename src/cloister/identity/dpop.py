"""Proof of possession of a key, for one request (RFC 9449, docs/spec/session.md).

``verify_proof`` proves that whoever sent a request held the private key to the public key in the proof, just now, for
this method and address and with this token. Which key that has to be is the caller's to compare: the proof brings its
own, and proves nothing else about it.

Not done here: seeing a proof twice (whoever serves remembers ``Possession.id``), making nonces, the token itself.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from cloister.attest.findings import Findings
from cloister.attest.tokens.claimset import parse_claimset
from cloister.attest.tokens.jws import Jws
from cloister.attest.tokens.keyset import KeySet
from cloister.attest.tokens.proof import verify_signature
from cloister.errors import Malformed, Rejected
from cloister.wire import dump_b64u, dump_json, lp, parse_b64u

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from cloister.wire import Json

__all__ = [
    "ALGORITHMS",
    "MAX_PROOF_BYTES",
    "WINDOW",
    "Possession",
    "make_proof",
    "thumbprint",
    "token_hash",
    "verify_proof",
]

MAX_PROOF_BYTES = 4096  # bytes of one proof
WINDOW = timedelta(seconds=60)  # how far ``iat`` may be from our clock, either way
ALGORITHMS = frozenset({"ES256", "EdDSA"})
_TYPE = "dpop+jwt"
_MAX_ID_CHARS = 128  # characters of ``jti``
_MEMBERS = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}
_PRIVATE = frozenset({"d", "dp", "dq", "k", "oth", "p", "q", "qi"})
_HEADER = frozenset({"alg", "jwk", "typ"})
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Possession:
    """A key that was held just now. ``id`` is of this one proof, under this key; it is good until ``over_at``."""

    thumbprint: bytes
    id: bytes
    over_at: datetime


def verify_proof(
    text: str,
    *,
    method: str,
    addresses: Collection[str],
    token: str,
    now: datetime,
    nonces: Collection[str] = (),
) -> Possession:
    """Prove that a key was held for this request (RFC 9449 section 4.3); return which.

    ``addresses`` are those that the server goes by for what is asked; ``nonces`` those that are good now, none where
    none is wanted. Raises ``Rejected``: ``dpop_invalid``, ``dpop_nonce_wanted`` (its only reason).
    """
    try:
        possession, claims = _signed(text, now)
        _verify_claims(claims, method=method, addresses=addresses, token=token, now=now)
    except Malformed as exc:
        raise _invalid(exc.message) from exc
    except Rejected as exc:
        raise _invalid(exc.message) if exc.code != "dpop_invalid" else exc from exc
    if nonces and claims.get("nonce") not in nonces:
        raise Rejected.because("dpop_nonce_wanted", "proof", hint="prove it again with the nonce in DPoP-Nonce")
    return possession


def _signed(text: str, now: datetime) -> tuple[Possession, Mapping[str, Json]]:
    """Return whose key signed the proof, and what it says."""
    if len(text) > MAX_PROOF_BYTES or not text.isascii():
        msg = f"want at most {MAX_PROOF_BYTES} ascii characters"
        raise Malformed(msg)
    jws = Jws.parse(text.encode("ascii"), what="proof")
    header = parse_claimset(parse_b64u(text.partition(".")[0], what="proof header"), what="proof header")
    if header.get("typ") != _TYPE or set(header) != _HEADER:
        msg = f"header: want typ {_TYPE}, alg and jwk, and nothing else"
        raise Malformed(msg)
    jwk = header["jwk"]
    if not isinstance(jwk, dict):
        msg = "header: jwk: want an object"
        raise Malformed(msg)
    public = _public_members(jwk)
    mark = hashlib.sha256(dump_json(public)).digest()
    verify_signature(jws, KeySet.parse(dump_json(public)), ALGORITHMS, now, Findings("proof"), what="proof")
    claims = jws.claimset(what="proof")
    identity = claims.get("jti")
    if not isinstance(identity, str) or not 0 < len(identity) <= _MAX_ID_CHARS:
        msg = f"jti: want a string of 1 to {_MAX_ID_CHARS} characters"
        raise Malformed(msg)
    once = hashlib.sha256(lp(mark, identity.encode())).digest()
    return Possession(thumbprint=mark, id=once, over_at=_issued_at(claims) + WINDOW), claims


def _issued_at(claims: Mapping[str, Json]) -> datetime:
    value = claims.get("iat")
    if type(value) not in (int, float):
        msg = "iat: want a number"
        raise Malformed(msg)
    try:
        return datetime.fromtimestamp(float(value), UTC)  # type: ignore[arg-type]  # narrowed by type() above
    except (OverflowError, ValueError, OSError) as exc:
        msg = "iat: no time"
        raise Malformed(msg) from exc


def _verify_claims(
    claims: Mapping[str, Json], *, method: str, addresses: Collection[str], token: str, now: datetime
) -> None:
    """Prove that the proof is for this request: method, address, time, token."""
    if claims.get("htm") != method:
        raise _invalid("htm is not the method of the request")
    said = claims.get("htu")
    wanted = {_normal(address) for address in addresses}
    if not isinstance(said, str) or _normal(said) not in wanted:
        raise _invalid("htu is not the address of the request")
    if abs(_issued_at(claims) - now) > WINDOW:
        raise _invalid("iat is too far from the time")
    if claims.get("ath") != token_hash(token):
        raise _invalid("ath is not of the token")


def _normal(address: str) -> tuple[str, str, int | None, str]:
    """Return an address without query and fragment, its host in lower case, its port spelled out."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as exc:
        msg = "htu: no address"
        raise Malformed(msg) from exc
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").lower(), port or _PORTS.get(scheme), unquote(parts.path) or "/"


def _invalid(why: str) -> Rejected:
    return Rejected.because("dpop_invalid", "proof", got=why[:200], want="a proof for this request, made just now")


def token_hash(token: str) -> str:
    """Return ``ath`` of a token (RFC 9449 section 4.2)."""
    return dump_b64u(hashlib.sha256(token.encode("ascii")).digest())


def thumbprint(jwk: Mapping[str, Json]) -> bytes:
    """Return the SHA-256 thumbprint of a public key (RFC 7638). Raises ``Malformed``, also for a private one."""
    return hashlib.sha256(dump_json(_public_members(jwk))).digest()


def _public_members(jwk: Mapping[str, Json]) -> dict[str, Json]:
    """Return the members that make up the key; what else it says of itself is not read."""
    members = _MEMBERS.get(str(jwk.get("kty")), ())
    found = {name: jwk[name] for name in members if isinstance(jwk.get(name), str)}
    if not members or len(found) != len(members) or _PRIVATE & set(jwk):
        msg = "jwk: want a public key of kind EC or OKP"
        raise Malformed(msg)
    return found


def make_proof(
    key: Ed25519PublicKey,
    sign: Callable[[bytes], bytes],
    *,
    identity: str,
    method: str,
    address: str,
    token: str,
    now: datetime,
    nonce: str | None = None,
) -> str:
    """Return a proof for one request, signed by ``sign`` with the private key to ``key``."""
    jwk: dict[str, Json] = {"crv": "Ed25519", "kty": "OKP", "x": dump_b64u(key.public_bytes_raw())}
    parts = urlsplit(address)
    claims: dict[str, Json] = {
        "ath": token_hash(token), "htm": method, "htu": f"{parts.scheme}://{parts.netloc}{parts.path}",
        "iat": int(now.timestamp()), "jti": identity, **({} if nonce is None else {"nonce": nonce}),
    }  # fmt: skip
    head = dump_b64u(dump_json({"alg": "EdDSA", "jwk": jwk, "typ": _TYPE}))
    signed = f"{head}.{dump_b64u(dump_json(claims))}"
    return f"{signed}.{dump_b64u(sign(signed.encode('ascii')))}"
