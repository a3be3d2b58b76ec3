"""One running enclave instance: what boot made, wired to what serves it. ``wipe`` undoes it all."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.channel.keyset import EngineInfo, Keyset, KeysetModel
from cloister.enclave.admission import Admission
from cloister.enclave.certificate import Certifier, InstanceIdentity
from cloister.enclave.clock_source import find_clock_source
from cloister.enclave.direct import Direct
from cloister.enclave.gateway import Gateway
from cloister.enclave.inference import Inference
from cloister.enclave.inner import InnerApi
from cloister.enclave.introductions import Introductions
from cloister.enclave.listener_identity import ListenerIdentity
from cloister.enclave.logs import Event
from cloister.enclave.media import CLOSE, MediaFolder
from cloister.enclave.metering import Metering
from cloister.enclave.metrics import CLOCK_CODES, Metrics
from cloister.enclave.modes import ListenerCertificate, Mtls
from cloister.enclave.published import KeysetPublisher
from cloister.enclave.relays import RelayRule
from cloister.enclave.renew import Renewal
from cloister.enclave.revocations import Revocations
from cloister.enclave.rollout import Rollout
from cloister.enclave.tickets import Tickets
from cloister.enclave.vouchers import Vouchers
from cloister.errors import CloisterError, Unavailable
from cloister.lending.lease import LeaseState
from cloister.lending.terms import LOAN_METER

if TYPE_CHECKING:
    from datetime import datetime

    from cloister.enclave.boot import Booted
    from cloister.enclave.clock import Clock
    from cloister.enclave.config import EnclaveConfig
    from cloister.enclave.custodian_link import Link
    from cloister.enclave.engines import Engine
    from cloister.enclave.evidence import EvidenceSource
    from cloister.enclave.listener_tls import ListenerTls
    from cloister.enclave.loanfile import LoanFile
    from cloister.enclave.logs import EventLog
    from cloister.enclave.pool import Staged
    from cloister.enclave.published import Describe
    from cloister.enclave.release import Released
    from cloister.enclave.served import ServedModel
    from cloister.lending.contract import SignedContract
    from cloister.lending.terms import Terms
    from cloister.telemetry.spans import Spans

__all__ = ["EnclaveInstance"]


class EnclaveInstance:
    """Everything that serves, from one boot."""

    def __init__(
        self,
        booted: Booted,
        config: EnclaveConfig,
        loan: LoanFile,
        *,
        source: EvidenceSource,
        engine: Engine,
        link: Link,
        clock: Clock,
        log: EventLog,
        spans: Spans | None = None,
        tls: ListenerTls | None = None,
    ) -> None:
        """Wire it up; nothing is served before a lease and a keyset are there."""
        self._booted: Booted | None = booted
        self._config = config
        self._loan = loan
        self._engine = EngineInfo(kind=engine.kind, digest=_engine_digest(engine, booted))
        self._tls_spki = () if tls is None else tls.pinned
        self._link = link
        self.log = log
        self._receipt_key = booted.key.verify_key
        self._closing = b""
        self.clock_source = find_clock_source(source.tee)
        self.log.write(
            Event.CLOCK_SOURCE,
            code=self.clock_source.name,
            step=self.clock_source.kernel,
            state="guarded" if self.clock_source.guarded else "host",
        )
        self.metrics = Metrics(tuple(model.name for model in booted.grant.terms.models))
        self.metering = Metering(key=booted.key, grant=booted.grant, custodian=loan.custodian_key, clock=clock, log=log)
        self._policy_digest = booted.grant.policy_digest
        self.pool = booted.pool
        self.pool.show(self.metrics)
        name, custodian, always = self.metering.instance, loan.custodian_key, config.mtls is Mtls.ALWAYS
        self._certifier = Certifier(link, key=booted.key, instance=name, custodian=custodian)
        self.identity = InstanceIdentity(link, self._certifier, clock=clock, log=log, always=always and link.is_online)
        self.listener = self._listener_identity(tls, clock)
        self.relays = RelayRule(config.relays, self.listener, now=self.metering.now, metrics=self.metrics)
        link.certify = self.identity.ask
        self.introductions = Introductions(self.metering, link, custodian=custodian, log=log)
        self.renewal = Renewal(
            self.metering, link, introductions=self.introductions, metrics=self.metrics, log=log,
            identity=self.identity, spans=spans,
        )  # fmt: skip
        self.inference = Inference(self.metering, self.metrics, config, Tickets(self.metering, link), self.pool)
        self.media = None if config.media is None else MediaFolder(config.media)
        self.vouchers = None if self.media is None else Vouchers(self.metering, self.media, log=log)
        self.revocations = None if self.media is None else Revocations(self.metering, self.media, log=log)
        describe = self._describing(booted.grant.terms, booted.contract, self.pool.models)
        self.publisher = KeysetPublisher(source, describe, clock=clock, limits=config.limits, log=log)
        self.api = InnerApi(
            self.pool, self.metering, self.inference,
            introductions=self.introductions, contract=booted.contract, spans=spans,
        )  # fmt: skip
        self.rollout = Rollout(self, config=config, loan=loan, source=source, link=link, log=log)
        self.admission = Admission(config.limits, self.metrics)
        self.gateway = Gateway(self.api, self.publisher, self.metering, admission=self.admission, log=log)
        self.direct = Direct(self.api, self.metering, admission=self.admission, log=log)

    def _listener_identity(self, tls: ListenerTls | None, clock: Clock) -> ListenerIdentity | None:
        """Return what keeps the listener's certificate, where the custodian's is to be shown."""
        if self._config.listener_certificate is not ListenerCertificate.ISSUED or tls is None or tls.own is None:
            return None
        return ListenerIdentity(self._certifier, tls.own, clock=clock, log=self.log, show=tls.show)

    @property
    def booted(self) -> Booted | None:
        """What boot made and rollouts need; None once it is wiped."""
        return self._booted

    async def change_over(self, released: Released, staged: Staged) -> None:
        """Serve newer versions under newer terms, and say so, in one step between two requests.

        Raises as the attester does, and as ``Metering.take_terms``; then nothing has changed.
        """
        newer = {model.terms.name: model for model in staged.models}
        models = tuple(newer.get(model.terms.name, model) for model in self.pool.models)
        terms = released.grant.terms

        def swap() -> None:
            if self._booted is None:
                msg = "model: this instance has ended"
                raise Unavailable(msg)
            self.metering.take_terms(terms)
            self.api.contract = released.contract
            staged.adopt()

        await self.publisher.replace(self._describing(terms, released.contract, models), swap)

    def _describing(self, terms: Terms, contract: SignedContract | None, models: tuple[ServedModel, ...]) -> Describe:
        """Return what makes the keyset that evidence binds: keys, models, loan, custodian, engine, policy."""
        agreed = terms.dump() if contract is None else contract.payload
        digest = hashlib.sha256(agreed).hexdigest()
        shown = tuple(
            KeysetModel(
                name=model.terms.name, digest=model.terms.digest, loan_digest=digest, ticketed=model.terms.ticketed
            )
            for model in models
        )
        return lambda ohttp_keys, nbf, exp: self._keyset(shown, ohttp_keys, nbf, exp)

    def _keyset(self, models: tuple[KeysetModel, ...], ohttp_keys: bytes, nbf: datetime, exp: datetime) -> Keyset:
        return Keyset(
            instance=self.metering.instance,
            service=self._config.service,
            nbf=nbf,
            exp=exp,
            ohttp_keys=ohttp_keys,
            receipt_keys=(self._receipt_key,),
            models=models,
            engine=self._engine,
            policy_digest=self.metering.policy_digest or self._policy_digest,
            custodian=self._loan.custodian_key,
            loan=self._loan.loan,
            tls_spki_sha256=self._tls_spki,
        )

    def checks(self) -> dict[str, tuple[str, str]]:
        """Return how each part stands: its name, then ``ok``, ``degraded`` or ``failed``, and why.

        ``failed`` keeps it from serving; a renewal that failed lately does not yet.
        """
        lease = self.metering.snapshot().state is LeaseState.ACTIVE
        try:
            keyset = bool(self.publisher.keys)
        except Unavailable:
            keyset = False
        late = self.renewal.failing
        return {
            "custodian": ("degraded", "renewal_failing") if late else ("ok", "ok"),
            "keyset": ("ok", "ok") if keyset else ("failed", "no_keyset"),
            "lease": ("ok", "ok") if lease else ("failed", "no_lease"),
            "models": ("failed", "unloaded") if self._booted is None else ("ok", "ok"),
            "serving": ("failed", "draining") if self.admission.draining else ("ok", "ok"),
        }

    def not_ready(self) -> list[str]:
        """Return why this instance does not serve now; empty when it does."""
        order = ("draining", "unloaded", "no_lease", "no_keyset")
        codes = {code for state, code in self.checks().values() if state == "failed"}
        return [code for code in order if code in codes]

    def measure(self) -> None:
        """Bring the gauges up to date."""
        snapshot, now = self.metering.snapshot(), self.metering.now()
        left = 0.0 if snapshot.deadline is None else max(0.0, (snapshot.deadline - now).total_seconds())
        self.metrics.set("cloister_lease_active", int(snapshot.state is LeaseState.ACTIVE))
        self.metrics.set("cloister_lease_seconds_left", round(left, 3))
        self.metrics.set("cloister_lease_ceiling_units", snapshot.limits.get(LOAN_METER, 0))
        self.metrics.set("cloister_lease_used_units", snapshot.used.get(LOAN_METER, 0))
        self.metrics.set("cloister_keyset_seconds_left", round(max(0.0, self.publisher.seconds_left), 3))
        for code in CLOCK_CODES:
            self.metrics.set("cloister_clock_anomalies_total", self.metering.anomalies[code], code)
        for terms in self.metering.terms.models:
            self.metrics.set("cloister_units_remaining", self.metering.remaining(terms.name, None), terms.name)

    async def measured(self) -> None:
        """Bring the gauges up to date, for a listener."""
        self.measure()

    def wipe(self) -> None:
        """Stop for good: no more exchanges, models unloaded, keys dropped. Harmless the second time.

        The last count is signed first, for the instance key goes too; ``send_close`` sends it.
        """
        self.admission.draining = True
        if self._booted is None:
            return
        self._closing = self.metering.close()
        self._certifier.wipe()
        self.publisher.wipe()
        self.inference.close()
        self._booted.wipe()
        self._booted = None
        self.log.write(Event.WIPED, instance=self.metering.instance)

    async def send_close(self) -> None:
        """Send the last usage reports, then the last count.

        Raises ``Unavailable`` or ``Rejected``; then the rest of N is written off, and nothing else is lost. Without
        the reports the close still goes out: what they would have said is then charged and not itemised.
        """
        if self._closing:
            try:
                await self._send_reports()
            except CloisterError as exc:
                self.log.write(Event.REPORT_FAILED, error=type(exc).__name__)
            if self.media is not None and self._link.is_online:
                self.media.write(CLOSE, self._closing)  # should the network be gone, a courier can bring it
            await self._link.close(self.metering.instance, self._closing)
            self.log.write(Event.CLOSED, instance=self.metering.instance)

    async def _send_reports(self) -> None:
        """Send what is unreported; what does not get through is left in the folder, where there is one."""
        try:
            if self._link.is_online:
                await self.renewal.report(within=timedelta(seconds=self._config.limits.custodian_timeout_s))
        finally:
            if self.vouchers is not None:
                await asyncio.to_thread(self.vouchers.report)


def _engine_digest(engine: Engine, booted: Booted) -> str:
    """Return what the keyset says of the engine: its kind and version, within the software that was started."""
    name = f"{engine.kind} {engine.version}".encode()
    return hashlib.sha256(booted.software.digest + name).hexdigest()
