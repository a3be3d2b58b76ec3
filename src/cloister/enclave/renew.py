"""The renew loop: report, settle and ask again, before time or units run out; end when told or forgotten (E9, E10).

Renewed at T/3 after the last success, then every T/10 with jitter. A signed stop ends the instance at once; 2T
without renewal end it too. There is no local grace.
"""

from __future__ import annotations

import asyncio
import secrets
from enum import Enum
from typing import TYPE_CHECKING

from cloister.enclave.logs import Event
from cloister.errors import CloisterError, Malformed, Rejected, Unavailable
from cloister.lending.messages import Lease
from cloister.telemetry.spans import spanned

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from cloister.enclave.certificate import InstanceIdentity
    from cloister.enclave.custodian_link import Link
    from cloister.enclave.introductions import Introductions
    from cloister.enclave.logs import EventLog
    from cloister.enclave.metering import Metering
    from cloister.enclave.metrics import Metrics
    from cloister.lending.messages import Refusal
    from cloister.telemetry.spans import Spans

__all__ = ["Ending", "Renewal"]

_NONCE_BYTES = 16
_WORD_EVERY_S = 1  # seconds between two tries to learn whose word counts
_TICK_S = 0.2  # seconds between looks at the clock, and between heartbeats: what slept is noticed on waking
_CALL_AT_MOST = 3  # one call may take T/3
_REPORT_AT_MOST = 4  # one usage report T/4: a lease must still be had behind it
_REPORT_AT_LEAST = 60  # what would have less than T/60 before a renewal goes with that


class Ending(Enum):
    """Why an instance ended."""

    DRAINED = "drained"
    STOPPED = "stopped"
    EXPIRED = "expired"


class Renewal:
    """Keeps one lease alive over one link."""

    def __init__(
        self,
        metering: Metering,
        link: Link,
        *,
        introductions: Introductions,
        metrics: Metrics,
        log: EventLog,
        identity: InstanceIdentity | None = None,
        spans: Spans | None = None,
    ) -> None:
        """Keep the lease of ``metering``, whose word counts by it, and the certificate of ``identity``."""
        self._identity = identity
        self._introductions = introductions
        self._word_at = 0.0
        self._metering = metering
        self._link = link
        self._metrics = metrics
        self._log = log
        self._spans = spans
        self._stopped = False
        self._apart = False
        self.failing = False
        """Whether the last call to the custodian brought no answer that holds."""

    async def once(self) -> Lease | Refusal:
        """Send the pending request or a new one with the usage reports before it, and take the answer.

        A report that did not get through keeps nobody from asking: the answer may be a stop. Else it is a
        refusal that says what is missing, and the next turn reports again.

        Raises ``Unavailable`` when no answer came, ``Malformed`` and ``Rejected`` for one that does not hold;
        then the same bytes are sent again next time (E2).
        """
        metering = self._metering
        try:
            with spanned(self._spans, "lease.renew") as span:
                statement = metering.request(secrets.token_bytes(_NONCE_BYTES))
                answer = metering.receive(await self._ask(statement))
                span.note({"cloister.result": "lease" if isinstance(answer, Lease) else "refusal"})
        except CloisterError:
            self.failing = True
            raise
        self.failing = False
        if isinstance(answer, Lease):
            self._metrics.add("cloister_renewals_total", label="lease")
            self._log.write(Event.LEASE_RENEWED, seq=answer.seq, seconds=answer.ttl.total_seconds())
        else:
            self._stopped = self._stopped or answer.stop
            self._metrics.add("cloister_renewals_total", label="stop" if answer.stop else "refusal")
            self._log.write(Event.LEASE_REFUSED, code=answer.reasons[0].code)
        return answer

    async def _ask(self, statement: bytes) -> bytes:
        """Return the answer to a request, with the last report that is due before it in the same call.

        After a call that failed they go apart once: a report that does not get through keeps no request back (U3).
        """
        metering, within = self._metering, self._metering.terms.ttl / _CALL_AT_MOST
        await self._keep_certificate(within)
        apart, self._apart = self._apart, True
        try:
            await self.report(within=metering.terms.ttl / _REPORT_AT_MOST, but=0 if apart else 1)
            report = metering.report()
        except CloisterError as exc:
            self._note(exc)
            report = None
        if report is None:
            answer = await self._link.renew(metering.instance, statement, within=within)
        else:
            told, answer = await self._link.renew_with(metering.instance, statement, report, within=within)
            self._told(told)
        self._apart = False
        return answer

    async def _keep_certificate(self, within: timedelta) -> None:
        """Renew the certificate where it is time to; one that cannot be had now keeps no request back."""
        if self._identity is None:
            return
        try:
            await self._identity.keep(within=within)
        except CloisterError as exc:
            self._note(exc)

    def _told(self, told: bytes | Rejected) -> None:
        """Take what came of a report; what is wrong with it is noted, and the answer beside it still counts."""
        try:
            if isinstance(told, Rejected):
                raise told
            self._metering.acknowledge(told)
        except CloisterError as exc:
            self._note(exc)

    async def report(self, *, within: timedelta, but: int = 0) -> None:
        """Send the usage reports that are due, one after the other, in ``within`` each, but for the last ``but``.

        Raises ``Unavailable``, ``Malformed`` and ``Rejected``; then the same bytes are sent again next time.
        """
        metering = self._metering
        while metering.reports_due() > but and (statement := metering.report()) is not None:
            metering.acknowledge(await self._link.report(metering.instance, statement, within=within))

    async def until_end(self, draw: Callable[[], float] | None = None) -> Ending:
        """Renew until the instance must end; without a network only watch for that end.

        ``draw`` gives random numbers of 0 to 1, for a repeatable run.
        """
        beating = asyncio.create_task(self._beat())  # beside the loop: a call may take T/3
        try:
            return await self._renew(draw or _jitter)
        finally:
            beating.cancel()

    async def _beat(self) -> None:
        while True:
            self._metering.beat()
            await asyncio.sleep(_TICK_S)

    async def _renew(self, draw: Callable[[], float]) -> Ending:
        jitter = draw()
        while not self._metering.must_end():
            wait = self._metering.next_renewal(jitter).total_seconds() if self._link.is_online else _TICK_S
            if wait > 0:
                await self.hear()
                await self._catch_up(jitter)
                await asyncio.sleep(min(wait, _TICK_S))
                continue
            jitter = draw()
            try:
                await self.once()
            except CloisterError as exc:
                self._note(exc)
                await asyncio.sleep(_TICK_S)
        return Ending.STOPPED if self._stopped else Ending.EXPIRED

    async def _catch_up(self, jitter: float) -> None:
        """Send the reports that have become whole since the last renewal, until it is nearly time for the next (U2a).

        None takes longer than until then, for the renewal must not wait. After a failure none goes before a renewal has
        got through: who cannot be reached is not asked all the time.
        """
        metering, ttl = self._metering, self._metering.terms.ttl
        while self._link.is_online and not self.failing and metering.reports_due():
            within = min(ttl / _REPORT_AT_MOST, metering.next_renewal(jitter))
            if within < ttl / _REPORT_AT_LEAST or (statement := metering.report()) is None:
                return
            try:
                metering.acknowledge(await self._link.report(metering.instance, statement, within=within))
            except CloisterError as exc:
                self.failing = True
                self._note(exc)

    async def hear(self) -> None:
        """Get whose word counts, where a lease names what is not here; after a failure again in a second."""
        now = asyncio.get_running_loop().time()
        if not self._introductions.is_due or now < self._word_at:
            return
        self._word_at = now + _WORD_EVERY_S
        try:
            await self._introductions.refresh(within=self._metering.terms.ttl / _CALL_AT_MOST)
        except CloisterError as exc:
            self._introductions.note(exc)

    def _note(self, error: CloisterError) -> None:
        unavailable = isinstance(error, Unavailable | Malformed)
        self._metrics.add("cloister_renewals_total", label="unavailable" if unavailable else "rejected")
        code = error.logged
        self._log.write(Event.RENEWAL_FAILED, code=code)


def _jitter() -> float:
    return secrets.randbelow(1000) / 1000
