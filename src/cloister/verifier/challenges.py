"""Challenges: nonces that are good once, for a while, and cost no memory until somebody answers (T51).

    nonce (32 bytes) = end (5 bytes, seconds since 1970) || random (11) || HMAC-SHA256(key, end || random)[:16]

Giving one writes nothing down, so that strangers who ask for a hundred thousand fill nothing. Only nonces that were
answered are remembered, until they end; there are no more of those than verifications in that time, which are bounded.
Where the memory is full nevertheless, nothing is taken. The key is made at start and kept nowhere: nonces of before a
restart, used or not, are unknown after it. So is each of another process: who gave a nonce has to take it.

Not done here: reading the clock (``now`` comes in).
"""

from __future__ import annotations

import hmac
import threading
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Final

from cloister.attest.rats import NONCE_BYTES, Nonce
from cloister.errors import Rejected, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

__all__ = ["Challenges"]

_END_BYTES: Final = 5
_RANDOM_BYTES: Final = 11
_BODY_BYTES: Final = _END_BYTES + _RANDOM_BYTES
_KEY_BYTES: Final = 32
_MAX_SPENT = 1 << 20  # answered nonces remembered at once
_FORGOTTEN_AT_ONCE = 64  # more than one comes in for each call, so that the memory shrinks
_FRESH = "ask for a fresh challenge"


class Challenges:
    """Gives nonces and takes each once."""

    def __init__(self, *, ttl: timedelta, rng: Callable[[int], bytes], max_spent: int = _MAX_SPENT) -> None:
        """Make a key of this process alone."""
        self._ttl, self._rng, self._max_spent = ttl, rng, max_spent
        self._key = rng(_KEY_BYTES)
        self._spent: dict[bytes, int] = {}
        self._lock = threading.Lock()

    def give(self, now: datetime) -> tuple[Nonce, datetime]:
        """Return a fresh nonce and the second from which it is too old."""
        end = int((now + self._ttl).timestamp())
        body = end.to_bytes(_END_BYTES, "big") + self._rng(_RANDOM_BYTES)
        return Nonce(body + self._tag(body)), datetime.fromtimestamp(end, UTC)

    def take(self, nonce: bytes, now: datetime) -> Nonce:
        """Use a nonce up, whatever comes of it.

        Raises ``Rejected`` (``nonce_unknown``, ``nonce_expired``, ``nonce_used``), ``Unavailable`` where no more can
        be remembered.
        """
        body, tag = nonce[:_BODY_BYTES], nonce[_BODY_BYTES:]
        if len(nonce) != NONCE_BYTES or not hmac.compare_digest(tag, self._tag(body)):
            raise Rejected.because("nonce_unknown", "nonce", hint=_FRESH)
        end, second = int.from_bytes(body[:_END_BYTES], "big"), int(now.timestamp())
        if second >= end:
            raise Rejected.because("nonce_expired", "nonce", hint=_FRESH)
        with self._lock:
            if nonce in self._spent:
                raise Rejected.because("nonce_used", "nonce", hint=_FRESH)
            self._forget(second)
            if len(self._spent) >= self._max_spent:
                msg = "challenges: more answered than can be remembered"
                raise Unavailable(msg)
            self._spent[nonce] = end
        return Nonce(nonce)

    def __len__(self) -> int:
        """Return how many answered nonces are remembered."""
        return len(self._spent)

    def _forget(self, second: int) -> None:
        """Drop nonces that are too old to be taken anyway, the first answered first, a few at a time."""
        old = [nonce for nonce, end in islice(self._spent.items(), _FORGOTTEN_AT_ONCE) if end <= second]
        for nonce in old:
            del self._spent[nonce]

    def _tag(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")[: NONCE_BYTES - _BODY_BYTES]
