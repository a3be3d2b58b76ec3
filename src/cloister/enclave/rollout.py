"""A newer version of a model under a running loan: noticed at a renewal, released, opened, swapped in.

The lease lists a version that the terms of this instance do not know. Then it attests again with the keys it has, is
granted the newer terms and the newer key, opens the package from where models lie, and changes over: what runs in the
older version finishes there, its receipts name it, and nothing new enters it. Whatever fails leaves the older version
serving, and is tried again after the next renewal.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from cloister.enclave.boot import matched
from cloister.enclave.logs import Event
from cloister.enclave.packages import find_packages
from cloister.enclave.release import ask_release
from cloister.errors import CloisterError, Rejected, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.enclave.boot import Booted
    from cloister.enclave.config import EnclaveConfig
    from cloister.enclave.custodian_link import Link
    from cloister.enclave.evidence import EvidenceSource
    from cloister.enclave.instance import EnclaveInstance
    from cloister.enclave.loanfile import LoanFile
    from cloister.enclave.logs import EventLog
    from cloister.enclave.packages import FoundPackage
    from cloister.enclave.release import Released
    from cloister.lending.terms import ModelDigest

__all__ = ["Rollout"]


class Rollout:
    """Changes one instance over. ``tick`` it every second or so."""

    def __init__(
        self,
        instance: EnclaveInstance,
        *,
        config: EnclaveConfig,
        loan: LoanFile,
        source: EvidenceSource,
        link: Link,
        log: EventLog,
    ) -> None:
        """Change ``instance`` over."""
        self._instance = instance
        self._config = config
        self._loan = loan
        self._source = source
        self._link = link
        self._log = log
        self._tried = 0  # sequence number of the lease after which it was tried last
        self._released: Released | None = None  # what was released for a version that is not served yet

    async def tick(self) -> bool:
        """Change over if the latest lease lists a newer version; tell whether it was done.

        A failure is in the log and nowhere else. Without a network nothing is asked for: a restart brings it.
        """
        booted, seq = self._instance.booted, self._instance.metering.snapshot().seq
        news = self._instance.metering.news()
        if booted is None or not news or seq == self._tried or not self._link.is_online:
            return False
        self._tried = seq
        try:
            await self._change_over(booted, news)
        except CloisterError as exc:
            code = exc.logged
            self._log.write(Event.ROLLOUT_FAILED, code=code)
            return False
        return True

    async def _change_over(self, booted: Booted, news: frozenset[ModelDigest]) -> None:
        # 1. The package, before the custodian is bothered.
        packages = await self._packages(news)

        # 2. Keys by the ordinary release, to the keys this instance has; nothing but versions may differ.
        released = self._released
        if released is None or not news <= {key.model for key in released.grant.keys}:
            released = self._released = await ask_release(
                self._loan,
                key=booted.key,
                kem=booted.kem,
                source=self._source,
                software=booted.software,
                link=self._link,
                log=self._log,
            )
        if not self._instance.metering.terms.differs_in_versions_only(released.grant.terms):
            raise Rejected.because("terms_changed", "grant", want="other versions of the same models, and no more")

        # 3. Open what is new.
        pool = booted.pool
        serving = {model.terms.digest for model in pool.models}
        wanted = [item for item in matched(released.grant, packages) if item[0].digest not in serving]
        staged = await pool.stage(released.grant, wanted)

        # 4. One step: what is served, what is counted, what the keyset says.
        try:
            await self._instance.change_over(released, staged)
        except BaseException:
            staged.discard()
            raise
        self._released = None
        self._note(released)

    async def _packages(self, news: frozenset[ModelDigest]) -> Sequence[FoundPackage]:
        access = self._config.access(os.environ)
        try:
            packages = await asyncio.to_thread(find_packages, self._config.models, access)
        except OSError as exc:  # a folder that is being changed must not end who serves
            msg = f"models: cannot be looked through: {exc.strerror or type(exc).__name__}"
            raise Unavailable(msg) from exc
        if not news & {package.digest for package in packages}:
            raise Rejected.because("model_missing", "rollout", got="no such package", want=min(news))
        return packages

    def _note(self, released: Released) -> None:
        for terms in released.grant.terms.models:
            if terms.replaces:
                self._log.write(Event.MODEL_ROLLED_OUT, model=terms.name, digest=terms.digest)
