"""A session with a custodian, kept in a file of mode 0600: its token, and the key without which that is worthless.

One line of JSON: ``v``, ``url``, ``ca`` (PEM or null), ``session``, ``token``, ``key`` (32 bytes, base64url),
``expires_at``, ``renew_until``. The key is made here, and leaves this machine never.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import httpx2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister.errors import Rejected
from cloister.identity.dpop import make_proof
from cloister.journal import Secret
from cloister.wire import Fields, dump_b64u, dump_json, dump_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Generator

    from cloister.wire import Json

__all__ = ["KeyProof", "SessionFile"]

_KEY_BYTES = 32
_RENEW_BELOW = timedelta(minutes=7)
_UNAUTHORIZED = 401
_NONCE = "dpop-nonce"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFile:
    """One session as it is kept."""

    url: str
    ca_pem: str | None
    session: str
    token: Secret[str]
    key: Secret[bytes]
    expires_at: datetime
    renew_until: datetime

    def dump(self) -> bytes:
        """Return the file's bytes."""
        document: dict[str, Json] = {
            "ca": self.ca_pem, "expires_at": dump_time(self.expires_at), "key": dump_b64u(self.key.reveal()),
            "renew_until": dump_time(self.renew_until), "session": self.session, "token": self.token.reveal(),
            "url": self.url, "v": 1,
        }  # fmt: skip
        return dump_json(document) + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a session file. Raises ``Malformed``."""
        fields = Fields.parse(data, what="session file")
        fields.literal("v", 1)
        ca = fields.take("ca")
        found = cls(
            url=fields.text("url"),
            ca_pem=ca if isinstance(ca, str) else None,
            session=fields.text("session", cap=64),
            token=Secret(fields.text("token", cap=256)),
            key=Secret(fields.b64u("key", size=_KEY_BYTES)),
            expires_at=fields.time("expires_at"),
            renew_until=fields.time("renew_until"),
        )
        fields.end()
        return found

    def renewed(self, shown: Any) -> Self:
        """Return it as it stands after a renewal."""
        return replace(self, expires_at=parse_time(str(shown["expires_at"]), what="custodian's answer: expires_at"))

    def proof(self) -> KeyProof:
        """Return what proves the key with every request."""
        return KeyProof(self.key, self.token)

    def is_waning(self, now: datetime) -> bool:
        """Tell whether it is time to renew it, and it can be."""
        return self.expires_at - now < _RENEW_BELOW and self.expires_at < self.renew_until

    def demand_good(self, now: datetime) -> None:
        """Refuse to go on with a session that is over. Raises ``Rejected`` (``session_over``)."""
        if now >= self.expires_at:
            raise Rejected.because("session_over", self.session, hint="log in again: 'cloister custodian login'")


class KeyProof(httpx2.Auth):
    """Proves with every request that the key is held (RFC 9449); once more with the nonce that a custodian asks for."""

    def __init__(self, key: Secret[bytes], token: Secret[str], *, scheme: str = "DPoP") -> None:
        """Prove ``key`` beside ``token``; by scheme Bearer where a session is only asked for."""
        self._key = Ed25519PrivateKey.from_private_bytes(key.reveal())
        self._token, self._scheme = token, scheme
        self._nonce: str | None = None

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Send it with a proof of its own, twice at most."""
        request.headers["authorization"] = f"{self._scheme} {self._token.reveal()}"
        request.headers["dpop"] = self._prove(request)
        answer = yield request
        nonce = answer.headers.get(_NONCE)
        if answer.status_code == _UNAUTHORIZED and nonce is not None and nonce != self._nonce:
            self._nonce = nonce
            request.headers["dpop"] = self._prove(request)
            yield request

    def _prove(self, request: httpx2.Request) -> str:
        return make_proof(
            self._key.public_key(),
            self._key.sign,
            identity=secrets.token_urlsafe(18),
            method=request.method,
            address=str(request.url),
            token=self._token.reveal(),
            now=datetime.now(UTC),
            nonce=self._nonce,
        )
