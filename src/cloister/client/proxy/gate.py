"""Who may come through: a program of this machine's user, and no page of a browser that was led here.

Over TCP everybody on this machine can connect, so a request carries the local token, and names this machine as its
host: a name of an attacker's that was made to point here (DNS rebinding) is not among them. Over a unix socket the mode
of its file decides.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from typing import TYPE_CHECKING

from cloister.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["HOST", "TOKEN", "Gate"]

HOST = "host_not_allowed"
TOKEN = "local_token"  # noqa: S105 - the code of a refusal

_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9.-]{1,253})(?::[0-9]{1,5})?", re.IGNORECASE)
_SCHEME = re.compile(r"(bearer|basic) +([A-Za-z0-9._~+/=-]{1,1024})", re.IGNORECASE)
_HINT = "send 'Authorization: Bearer TOKEN', or Basic with the token as the password; 'cloister proxy' says which file"


class Gate:
    """Admits requests. Without a token (a unix socket) it admits all."""

    def __init__(self, token: str | None, *, hosts: Iterable[str] = ()) -> None:
        """Demand ``token``; ``hosts`` are names of this machine besides the usual ones."""
        self._digest = None if token is None else _digest(token.encode("ascii"))
        self._hosts = _HOSTS | frozenset(hosts)

    def admit(self, *, hosts: list[str], authorization: list[str]) -> None:
        """Raise ``Rejected`` (``host_not_allowed``, ``local_token``) for who may not come through."""
        if self._digest is None:
            return
        found = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if found is None or found[1].lower() not in self._hosts:
            raise Rejected.because(HOST, "host", want="this machine by its address or as localhost")
        self.admit_token(authorization)

    def admit_token(self, authorization: list[str]) -> None:
        """Raise ``Rejected`` (``local_token``) where the token is not there exactly once, or is another."""
        found = _SCHEME.fullmatch(authorization[0]) if len(authorization) == 1 else None
        if self._digest is None:
            return
        if found is None or not hmac.compare_digest(_digest(_secret(found[1], found[2])), self._digest):
            got = "nothing" if not authorization else "another"
            raise Rejected.because(TOKEN, "authorization", got=got, want="the local token", hint=_HINT)


def _secret(scheme: str, credentials: str) -> bytes:
    if scheme.lower() == "bearer":
        return credentials.encode("ascii")
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""


def _digest(secret: bytes) -> bytes:
    """Return what is compared: equal in length whatever came."""
    return hashlib.sha256(secret).digest()
