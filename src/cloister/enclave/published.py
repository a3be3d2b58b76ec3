"""What an enclave shows of itself: its keyset, and evidence that binds it (docs/spec/channel.md).

A keyset is published for an hour and its keys are accepted five minutes longer, then dropped. Evidence for a
consumer's own nonce is collected for each request, one at a time and with few waiting, for a TEE is slow;
without a nonce the cached evidence of this keyset is shown.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeAlias

from cloister.attest.binding import ChannelBinding
from cloister.attest.rats import Nonce
from cloister.channel.keyset import NO_NONCE, EvidenceDocument, Keyset
from cloister.channel.ohttp import GatewayKeys
from cloister.enclave.logs import Event
from cloister.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from cloister.enclave.clock import Clock
    from cloister.enclave.config import Limits
    from cloister.enclave.evidence import EvidenceSource
    from cloister.enclave.logs import EventLog

__all__ = ["Describe", "KeysetPublisher"]

Describe: TypeAlias = "Callable[[bytes, datetime, datetime], Keyset]"
"""From OHTTP keys, the beginning and the end of their life to the keyset that evidence binds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Published:
    """One keyset, its keys and its cached evidence."""

    keys: GatewayKeys
    keyset: bytes
    cached: bytes
    until: timedelta


class KeysetPublisher:
    """Makes keysets and evidence. ``describe(ohttp_keys, nbf, exp)`` gives the rest of the keyset."""

    def __init__(
        self,
        source: EvidenceSource,
        describe: Describe,
        *,
        clock: Clock,
        limits: Limits,
        log: EventLog,
    ) -> None:
        """Publish nothing yet: ``tick`` does."""
        self._source = source
        self._describe = describe
        self._clock = clock
        self._lifetime = timedelta(seconds=limits.keyset_lifetime_s)
        self._overlap = timedelta(seconds=limits.keyset_overlap_s)
        self._max_waiting = limits.max_evidence_waiting
        self._log = log
        self._waiting = 0
        self._one = asyncio.Lock()
        self._turning = asyncio.Lock()  # one keyset is made at a time
        self._now: _Published | None = None
        self._retire_at: timedelta | None = None

    @property
    def keys(self) -> GatewayKeys:
        """The keys that open requests now. Raises ``Unavailable`` before the first keyset and after ``wipe``."""
        return self._published().keys

    @property
    def seconds_left(self) -> float:
        """Seconds until the next keyset."""
        return 0.0 if self._now is None else (self._now.until - self._clock.monotonic()).total_seconds()

    async def tick(self) -> None:
        """Publish, replace or retire what is due; call it at least every second.

        Raises as the attester does; keys past their end are dropped all the same.
        """
        async with self._turning:
            await self._tick()

    async def replace(self, describe: Describe, swap: Callable[[], None]) -> None:
        """Publish a keyset of ``describe`` now, with keys of its own; ``swap`` makes true what it says.

        Evidence is collected first; then ``swap`` and the change of keys are one step. Older keys open nothing after
        it: a consumer who has them is told so, verifies anew, and knows what answers. Raises as the attester does;
        then nothing has changed.
        """
        async with self._turning:
            published = await self._make(None, describe)
            swap()
            self._describe, self._now, self._retire_at = describe, published, None

    async def _tick(self) -> None:
        now = self._clock.monotonic()
        if self._now is None or now >= self._now.until:
            if self._now is not None and now >= self._now.until + self._overlap:
                self._now = None  # no fresh evidence in all that time: better closed than keys past their end
            await self._rotate()
        elif self._retire_at is not None and now >= self._retire_at:
            self._retire_at = None
            self._now = _Published(
                keys=GatewayKeys(self._now.keys.published()),
                keyset=self._now.keyset,
                cached=self._now.cached,
                until=self._now.until,
            )

    async def document(self, nonce: bytes | None) -> bytes:
        """Return the evidence document for ``nonce``, the cached one for None.

        Raises ``Unavailable`` when too many wait for fresh evidence already.
        """
        published = self._published()
        if nonce is None:
            return published.cached
        if self._waiting >= self._max_waiting:
            msg = "evidence: too many are waiting"
            raise Unavailable(msg, retry_after_s=1)
        self._waiting += 1
        try:
            return await self._collect(nonce, published.keyset)
        finally:
            self._waiting -= 1

    def wipe(self) -> None:
        """Drop the keys: nothing opens any more."""
        self._now = None

    def _published(self) -> _Published:
        if self._now is None:
            msg = "keyset: none is published"
            raise Unavailable(msg, retry_after_s=1)
        return self._now

    async def _rotate(self) -> None:
        older = None if self._now is None else self._now.keys
        self._now = await self._make(older, self._describe)
        self._retire_at = None if older is None else self._clock.monotonic() + self._overlap

    async def _make(self, older: GatewayKeys | None, describe: Describe) -> _Published:
        keys = GatewayKeys.generate(older=older)
        nbf = self._clock.wall().replace(microsecond=0)
        keyset = describe(keys.dump(), nbf, nbf + self._lifetime + self._overlap).dump()
        cached = await self._collect(NO_NONCE, keyset)
        self._log.write(Event.KEYS_ROTATED, count=len(keys.configs))
        return _Published(keys=keys, keyset=keyset, cached=cached, until=self._clock.monotonic() + self._lifetime)

    async def _collect(self, nonce: bytes, keyset: bytes) -> bytes:
        unbound = ChannelBinding(nonce=Nonce(nonce), keyset=keyset)
        async with self._one:
            evidence, binding = await asyncio.to_thread(self._source.collect, unbound)
        return EvidenceDocument(
            nonce=nonce,
            tee=evidence.tee,
            evidence=evidence.payload,
            keyset=keyset,
            devices=binding.devices,
            collateral=await asyncio.to_thread(self._source.endorsements),
        ).dump()
