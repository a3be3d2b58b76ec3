"""A token that comes with the tokens of its devices: a detached EAT bundle (RFC 9711 section 6, JSON form).

    [["JWT", overall], {"GPU-0": token, ...}]

The overall token names every device in ``submods`` with the digest of its token:

    "submods": {"GPU-0": ["DIGEST", ["SHA-256", digest]]}

NRAS writes the digest as hexadecimal of SHA-256 over the token's characters; RFC 9711 as base64url. Both are read.
``verify_digests`` proves that the devices' tokens are exactly those the overall token speaks of: none missing, none
more. A plain token is a bundle without devices.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cloister.attest.tokens.claimset import parse_value
from cloister.attest.tokens.jws import MAX_TOKEN_BYTES, Jws
from cloister.errors import Malformed
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.findings import Findings
    from cloister.wire import Json

__all__ = ["MAX_BUNDLE_BYTES", "MAX_DEVICES", "Bundle", "verify_digests"]

MAX_BUNDLE_BYTES = 448 * 1024  # bytes of a token with its devices
MAX_DEVICES = 32  # devices of one bundle
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")
_HASHES = {"SHA-256": "sha256", "SHA256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """The overall token and those of its devices, by name."""

    overall: Jws
    devices: Mapping[str, Jws]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a plain token or a bundle. Raises ``Malformed``."""
        if len(data) > MAX_BUNDLE_BYTES:
            msg = f"token: {len(data)} bytes, want at most {MAX_BUNDLE_BYTES}"
            raise Malformed(msg)
        if not data.startswith(b"["):
            return cls(overall=Jws.parse(data, what="token"), devices={})
        match parse_value(data, what="token bundle"):
            case [["JWT", str(overall)], devices] if isinstance(devices, dict) and 0 < len(devices) <= MAX_DEVICES:
                named = {name: _device(name, text) for name, text in devices.items()}
                return cls(overall=_token(overall, "token"), devices=named)
            case _:
                msg = f'token bundle: want [["JWT", token], {{name: token}}] with 1 to {MAX_DEVICES} devices'
                raise Malformed(msg)


def _device(name: str, text: Json) -> Jws:
    if not isinstance(text, str) or not _NAME.fullmatch(name):
        msg = "token bundle: device out of form"
        raise Malformed(msg)
    return _token(text, f"token of {name}")


def _token(text: str, what: str) -> Jws:
    if not text.isascii():
        msg = f"{what}: not ascii"
        raise Malformed(msg)
    if len(text) > MAX_TOKEN_BYTES:
        msg = f"{what}: {len(text)} characters, want at most {MAX_TOKEN_BYTES}"
        raise Malformed(msg)
    return Jws.parse(text.encode("ascii"), what=what)


def verify_digests(bundle: Bundle, claims: Mapping[str, Json], findings: Findings) -> None:
    """Record whether the devices' tokens are those the overall token, already proven, speaks of (submodule_mismatch).

    Raises ``Malformed`` for ``submods`` that are no digests.
    """
    named = claims.get("submods")
    digests = named if isinstance(named, dict) else {}
    got, want = sorted(bundle.devices), sorted(digests)
    findings.expect(
        got == want, "submodule_mismatch", "devices of the token", got=", ".join(got)[:256], want=", ".join(want)[:256]
    )
    for name in sorted({*got} & {*want}):
        algorithm, digest = _take_digest(digests[name], name)
        found = hashlib.new(algorithm, bundle.devices[name].text).digest()
        findings.expect(
            digest in {found.hex(), dump_b64u(found)},
            "submodule_mismatch",
            f"digest of {name}",
            got=found.hex(),
            want=digest[:128],
        )


def _take_digest(value: Json, name: str) -> tuple[str, str]:
    """Return hash and digest of one ``["DIGEST", [hash, digest]]`` (RFC 9711 section 4.2.18.2)."""
    match value:
        case ["DIGEST", [str(algorithm), str(digest)]] if algorithm in _HASHES:
            return _HASHES[algorithm], digest
        case _:
            msg = f'token: submods: {name}: want ["DIGEST", [hash, digest]]'
            raise Malformed(msg)
