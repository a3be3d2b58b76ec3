"""Keys of issuers: those that a document brings, and those that are fetched for it, kept a while and followed (T81).

What is asked is the issuer's own origin, or the ``jwks_uri`` that an administrator wrote, and nothing that a token or
an answer names. Keys are fetched anew every hour; where that fails the old ones serve a day and no longer. A token with
a key nobody knows makes one more fetch, at most every ``AGAIN``: strangers cannot make us ask as often as they like,
and only a few callers wait for the answer.

Not done here: the connection (``guarded_get``).
"""

from __future__ import annotations

import functools
import hashlib
import ssl
import threading
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.attest.tokens.keyset import MAX_KEYSET_BYTES, KeySet
from cloister.custodian.guarded_get import Reach, guarded_get
from cloister.errors import CloisterError, Unavailable, UsageError
from cloister.identity import Issuer, IssuerKind, Keys, parse_keys
from cloister.identity.discovery import MAX_DISCOVERY_BYTES, discovery_url, parse_discovery

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from cloister.custodian.config import Config

__all__ = ["AGAIN", "IssuerKeys", "Standing", "getter"]

AGAIN = timedelta(seconds=30)  # between two tries for one issuer
REFRESH = timedelta(hours=1)
KEPT = timedelta(days=1)  # keys that cannot be fetched anew are good for so long
_MAX_WAITING = 4  # callers that wait for keys at once; others are told to come again
_NONE = Keys(tokens=KeySet(keys=()))

Place = tuple[str, str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How it stands with the keys of one issuer: when they came, when they were last asked for, what went wrong."""

    keys: Keys | None = None
    data: bytes = b""
    digest: bytes = b""
    fetched_at: datetime | None = None
    tried_at: datetime | None = None
    problem: str | None = None


class IssuerKeys:
    """Keeps keys in memory; after a start they are fetched again. May be used by several threads at once."""

    def __init__(self, get: Callable[[str, int], bytes]) -> None:
        """``get`` returns what is at a URL, of at most so many bytes, or raises ``CloisterError``."""
        self._get = get
        self._standing: dict[Place, Standing] = {}
        self._lock = threading.Lock()
        self._turns: dict[Place, threading.Lock] = {}
        self._waiting = threading.BoundedSemaphore(_MAX_WAITING)

    def of(self, issuer: Issuer, now: datetime) -> Keys:
        """Return the keys that speak for an issuer now; none where they are not to be had."""
        if issuer.keys is not None:
            return parse_keys(issuer.kind, issuer.keys)
        found = self.standing(issuer)
        if found.keys is None or found.fetched_at is None or now - found.fetched_at > KEPT:
            return _NONE
        return found.keys

    def fetched(self, issuer: Issuer, now: datetime) -> bytes | None:
        """Return the fetched keys of an issuer as they came; empty once they are too old, None where none came yet."""
        found = self.standing(issuer)
        if found.fetched_at is None:
            return None
        return b"" if now - found.fetched_at > KEPT else found.data

    def standing(self, issuer: Issuer) -> Standing:
        """Return how it stands with the keys that are fetched."""
        return self._standing.get(_place(issuer), Standing())

    def keep(self, issuers: list[Issuer]) -> None:
        """Forget the keys of all others."""
        places = {_place(issuer) for issuer in issuers}
        with self._lock:
            self._standing = {place: item for place, item in self._standing.items() if place in places}
            self._turns = {place: item for place, item in self._turns.items() if place in places}

    def is_due(self, issuer: Issuer, now: datetime) -> bool:
        """Tell whether its keys are to be fetched anew: an hour old, or never had."""
        if issuer.keys is not None:
            return False
        found = self.standing(issuer)
        return found.fetched_at is None or abs(now - found.fetched_at) >= REFRESH

    def refresh(self, issuer: Issuer, now: datetime) -> None:
        """Fetch the keys, unless that was tried a moment ago. A failure is kept in ``standing``.

        Who comes while another fetches waits for it. Raises ``Unavailable`` where too many wait.
        """
        if not self._waiting.acquire(blocking=False):
            msg = "keys of an issuer are being fetched"
            raise Unavailable(msg, retry_after_s=2)
        try:
            with self._lock:
                turn = self._turns.setdefault(_place(issuer), threading.Lock())
            with turn:
                found = self.standing(issuer)
                if found.tried_at is None or abs(now - found.tried_at) >= AGAIN:
                    self._fetch(issuer, found, now)
        finally:
            self._waiting.release()

    def _fetch(self, issuer: Issuer, before: Standing, now: datetime) -> None:
        try:
            data = self._get(self._uri(issuer), MAX_KEYSET_BYTES)
            digest = hashlib.sha256(data).digest()
            keys = parse_keys(issuer.kind, data) if digest != before.digest else before.keys  # the same stay the same
            after = Standing(keys=keys, data=data, digest=digest, fetched_at=now, tried_at=now)
        except CloisterError as exc:
            after = Standing(
                keys=before.keys,
                data=before.data,
                digest=before.digest,
                fetched_at=before.fetched_at,
                tried_at=now,
                problem=exc.message[:200],
            )
        with self._lock:
            self._standing[_place(issuer)] = after

    def _uri(self, issuer: Issuer) -> str:
        """Return where the keys are: as the administrator said, else as the issuer's own document says."""
        if issuer.jwks_uri is not None or issuer.kind is IssuerKind.SPIFFE:
            return issuer.jwks_uri or ""  # of a trust domain without keys a document always has one
        return parse_discovery(self._get(discovery_url(issuer.name), MAX_DISCOVERY_BYTES), issuer=issuer.name)


def getter(config: Config, home: Path) -> Callable[[str, int], bytes]:
    """Return how keys are fetched as the settings want it. Raises ``UsageError`` for an authority that is none."""
    reach = Reach(config.issuer_addresses)
    tls = functools.cache(ssl.create_default_context)  # it reads every authority of the system: when first used
    if config.issuer_ca:
        place = home / config.issuer_ca
        try:
            tls().load_verify_locations(cafile=place)
        except (OSError, ssl.SSLError) as exc:
            msg = f"issuer_ca: {place}: cannot be read as pem"
            raise UsageError(msg) from exc
    return lambda url, cap: guarded_get(url, cap=cap, reach=reach, tls=tls())


def _place(issuer: Issuer) -> Place:
    return issuer.name, issuer.kind.value, issuer.jwks_uri
