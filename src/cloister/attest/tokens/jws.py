"""One compact JWS (RFC 7515 section 7.1), parsed and not verified.

A token is three base64url parts. Its header says which algorithm and which key its issuer used: a hint to find the
key among those a Relying Party was given, never a source of keys. ``jwk``, ``jku`` and ``x5u`` are not even kept
(RFC 8725 section 3.10); ``x5c`` is kept, to be walked to a pinned root or not at all.

Not done here: the signature (``proof``). JWE and the JSON serialisations are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cloister.attest.tokens.claimset import parse_claimset
from cloister.errors import Malformed
from cloister.wire import parse_b64u
from cloister.wire.fields import STEERING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.wire import Json

__all__ = ["MAX_TOKEN_BYTES", "MAX_X5C", "Jws", "take_x5c"]

MAX_TOKEN_BYTES = 128 * 1024  # bytes of one compact token
MAX_HEADER_BYTES = 48 * 1024  # bytes of its header, a chain of certificates included
MAX_SIGNATURE_BYTES = 1024  # bytes: RSA of 8192 bits
MAX_X5C = 6  # certificates in one x5c
_MAX_NAME_CHARS = 512  # characters of an algorithm or key id
_PARTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Jws:
    """A token in its parts. ``signed`` are the exact bytes under the signature (RFC 7515 section 5.1).

    ``critical`` names extensions the header demands (``crit``, and ``b64``, which changes what is signed).
    """

    text: bytes
    signed: bytes
    payload: bytes
    signature: bytes
    algorithm: str
    kid: str | None
    typ: str | None
    x5c: tuple[str, ...] | None
    critical: tuple[str, ...]

    @classmethod
    def parse(cls, text: bytes, *, what: str, cap: int = MAX_TOKEN_BYTES) -> Self:
        """Parse one compact token to its end. Raises ``Malformed``."""
        if len(text) > cap:
            msg = f"{what}: {len(text)} bytes, want at most {cap}"
            raise Malformed(msg)
        parts = text.split(b".")
        if len(parts) != _PARTS or not text.isascii():
            msg = f"{what}: no compact jws of {_PARTS} parts"
            raise Malformed(msg)
        header, payload, signature = (part.decode("ascii") for part in parts)
        members = parse_claimset(parse_b64u(header, what=f"{what} header", cap=MAX_HEADER_BYTES), what=f"{what} header")
        return cls(
            text=text,
            signed=text[: text.rindex(b".")],
            payload=parse_b64u(payload, what=f"{what} payload", cap=cap),
            signature=parse_b64u(signature, what=f"{what} signature", cap=MAX_SIGNATURE_BYTES),
            algorithm=_take_name(members, "alg", what) or "",
            kid=_take_name(members, "kid", what),
            typ=_take_name(members, "typ", what),
            x5c=take_x5c(members, what=f"{what} header"),
            critical=tuple(name for name in ("crit", "b64") if name in members),
        )

    def claimset(self, *, what: str) -> Mapping[str, Json]:
        """Return the payload's members. Raises ``Malformed``."""
        return parse_claimset(self.payload, what=what)


def _take_name(members: Mapping[str, Json], name: str, what: str) -> str | None:
    value = members.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME_CHARS or STEERING.search(value):
        msg = f"{what} header: {name}: want a string of 1 to {_MAX_NAME_CHARS} characters"
        raise Malformed(msg)
    return value


def take_x5c(members: Mapping[str, Json], *, what: str) -> tuple[str, ...] | None:
    """Return the member ``x5c`` (RFC 7515 section 4.1.6), still base64: a header or a JWK may have one."""
    value = members.get("x5c")
    if value is None:
        return None
    if not isinstance(value, list) or not 0 < len(value) <= MAX_X5C:
        msg = f"{what}: x5c: want an array of 1 to {MAX_X5C} certificates"
        raise Malformed(msg)
    texts = tuple(item for item in value if isinstance(item, str))
    if len(texts) != len(value):
        msg = f"{what}: x5c: want an array of strings"
        raise Malformed(msg)
    return texts
