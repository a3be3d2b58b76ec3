"""From nothing to serving: keys, challenge, evidence, release, open, load (walk 2 of docs/architecture.md).

Read ``boot`` from top to bottom. Keys are made here and live in memory only; every answer of the custodian is
verified by the key that the loan file pins; the models that are opened are exactly those of the loan.

Not done here: the first lease (``renew``), the gateway (``app``).
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.crypto.hpke import Kem, KemPrivateKey
from cloister.crypto.sign import SigningKey
from cloister.enclave.loader import Loader, MakerRule
from cloister.enclave.packages import find_packages
from cloister.enclave.pool import ModelPool
from cloister.enclave.release import ask_release
from cloister.errors import Reason, Rejected
from cloister.telemetry.spans import spanned

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloister.attest.software import SoftwareManifest
    from cloister.enclave.config import EnclaveConfig
    from cloister.enclave.custodian_link import Link
    from cloister.enclave.engines import Engine
    from cloister.enclave.evidence import EvidenceSource
    from cloister.enclave.loanfile import LoanFile
    from cloister.enclave.logs import EventLog
    from cloister.enclave.packages import FoundPackage
    from cloister.lending.contract import SignedContract
    from cloister.lending.messages import Grant
    from cloister.lending.terms import ModelTerms
    from cloister.telemetry.spans import Spans

__all__ = ["Booted", "boot", "matched"]


@dataclass(slots=True, kw_only=True)
class Booted:
    """An instance that holds its models and has no lease yet. ``wipe`` drops everything secret."""

    key: SigningKey
    kem: KemPrivateKey
    grant: Grant
    pool: ModelPool
    software: SoftwareManifest
    contract: SignedContract | None = None

    def wipe(self) -> None:
        """Unload the models. The keys go with the last reference to them."""
        self.pool.close()


async def boot(
    config: EnclaveConfig,
    loan: LoanFile,
    *,
    source: EvidenceSource,
    software: SoftwareManifest,
    engine: Engine,
    link: Link,
    log: EventLog,
    progress: Callable[[int, int], None] | None = None,
    spans: Spans | None = None,
) -> Booted:
    """Return the booted instance; ``spans`` is where it is told how long each step took.

    Raises ``Rejected`` with the custodian's reasons or with what does not fit, ``Malformed``, ``Unavailable``.
    """
    # 1. Fresh keys, in memory, never stored: a restart is another instance.
    key = SigningKey.generate()
    kem = KemPrivateKey.generate(Kem.MLKEM768_X25519)

    # 2. Sealed models where they lie, before the custodian is bothered.
    access = config.access(os.environ)
    packages = await asyncio.to_thread(find_packages, config.models, access)

    # 3. Challenge, evidence, release: keys for exactly this instance.
    with spanned(spans, "enclave.attest", {"cloister.tee": source.tee}):
        released = await ask_release(loan, key=key, kem=kem, source=source, software=software, link=link, log=log)
    grant = released.grant

    # 4. Exactly the loan's models: by digest, by signature, by key; into memory, into the engine.
    makers = MakerRule(required=config.require_model_signature, makers=config.model_makers)
    loader = Loader(
        grant=grant,
        kem=kem,
        engine=engine,
        prepack=config.prepack,
        batched=frozenset(config.batching),
        makers=makers,
        second=config.second_publisher,
        access=access,
        progress=progress,
    )
    pool = ModelPool(loader, log, budget=config.memory_budget, patience_s=config.limits.model_wait_s)
    with spanned(spans, "enclave.load", {"cloister.models": len(grant.keys)}):
        await pool.add(matched(grant, packages))
    return Booted(key=key, kem=kem, grant=grant, pool=pool, software=software, contract=released.contract)


def matched(grant: Grant, packages: Sequence[FoundPackage]) -> list[tuple[ModelTerms, FoundPackage]]:
    """Return each granted model with its sealed package.

    Raises ``Rejected`` (``model_missing``) naming every granted model that no package here is: a folder
    with another model, or another version, under the right name is missing too (T23, T24).
    """
    by_digest = {package.digest: package for package in packages}
    granted = {key.model for key in grant.keys}
    wanted = [terms for terms in grant.terms.models if terms.digest in granted]
    missing = tuple(
        Reason(code="model_missing", subject=f"model {terms.name}", got="no such package", want=terms.digest)
        for terms in wanted
        if terms.digest not in by_digest
    )
    if missing or not wanted:
        missing = missing or (Reason(code="model_missing", subject="grant", got="no model of the loan"),)
        message = "; ".join(map(str, missing))
        raise Rejected(message, reasons=missing, hint="put the sealed model that the loan names where 'models' points")
    return [(terms, by_digest[terms.digest]) for terms in wanted]
