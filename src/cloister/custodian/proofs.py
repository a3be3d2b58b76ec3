"""Proofs of possession at this custodian: for its addresses, with its nonces, each once (RFC 9449).

What was seen is remembered in this process, for as long as it would be good. Another custodian over the same database
has another memory, and a new process none: therefore a custodian that is not alone wants a nonce in every proof, which
only the process that gave it takes. Alone, ``dpop_nonce`` decides.

Not done here: what a proof says (``identity.dpop``), which key a session is bound to (``service.sessions``).
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections import OrderedDict
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cloister.errors import Rejected, Unavailable
from cloister.identity.dpop import WINDOW, verify_proof
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from cloister.custodian.config import Config
    from cloister.custodian.presented import Presented

__all__ = ["Proofs"]

_MAX_SEEN = 32_768  # proofs remembered at once, about 5 MB
_KEY_BYTES = 32
_NONCE_BYTES = 18
_NONCE_LIFE_S = 60  # seconds of one nonce; the one before it is still taken


class Proofs:
    """Proves possession of keys, for one custodian. May be used by several threads at once."""

    def __init__(
        self, config: Config, *, shared: bool, rng: Callable[[int], bytes], address: Callable[[], str]
    ) -> None:
        """Nothing was seen yet; nonces are this process's own. ``address`` is the custodian's public one."""
        self._config = config
        self._wanted = shared or config.dpop_nonce
        self._key = rng(_KEY_BYTES)
        self._lock = threading.Lock()
        self._seen: OrderedDict[bytes, datetime] = OrderedDict()
        self._address = address

    def __len__(self) -> int:
        """Return how many proofs are remembered."""
        return len(self._seen)

    def prove(self, presented: Presented, token: str, now: datetime, *, key: bytes | None) -> bytes:
        """Return the thumbprint of the key that was held for this request.

        ``key`` is the one that it has to be, None where any will do. A proof is taken once. Raises ``Rejected``:
        ``dpop_invalid``, ``dpop_nonce_wanted``; ``Unavailable`` where there have been too many.
        """
        proven = verify_proof(
            presented.proof or "",
            method=presented.method,
            addresses=self._addresses(presented.path),
            token=token,
            now=now,
            nonces=(self.nonce(now), self.nonce(now - timedelta(seconds=_NONCE_LIFE_S))) if self._wanted else (),
        )
        if key is not None and not hmac.compare_digest(proven.thumbprint, key):
            raise Rejected.because("dpop_invalid", "proof", got="another key", want="the key of the session")
        self._take(proven.id, now, proven.over_at + WINDOW)
        return proven.thumbprint

    def nonce(self, now: datetime) -> str:
        """Return the nonce of a moment: nothing is stored for it."""
        slot = int(now.timestamp()) // _NONCE_LIFE_S
        return dump_b64u(hmac.digest(self._key, b"%d" % slot, hashlib.sha256)[:_NONCE_BYTES])

    def _addresses(self, path: str) -> set[str]:
        """Return what this path is called from outside: by the public address, or by a name of the certificate.

        What a caller says in ``Host`` is not asked: who passes on a request to another server could say anything.
        """
        public = urlsplit(self._address())
        port = "" if public.port is None else f":{public.port}"
        hosts = {f"[{name}]" if ":" in name else name for name in self._config.names}
        places = {public.netloc, *(host + port for host in hosts)}
        return {f"{public.scheme}://{place}{public.path.rstrip('/')}{path}" for place in places}

    def _take(self, identity: bytes, now: datetime, until: datetime) -> None:
        """Note a proof, once. Only whoever has a good token gets here: strangers cannot fill the memory."""
        with self._lock:
            while self._seen and next(iter(self._seen.values())) <= now:
                self._seen.popitem(last=False)
            if identity in self._seen:
                raise Rejected.because("dpop_invalid", "proof", got="seen before", want="a new jti")
            if len(self._seen) >= _MAX_SEEN:
                msg = "proofs: too many within a minute"
                raise Unavailable(msg, retry_after_s=_NONCE_LIFE_S)
            self._seen[identity] = until
