"""From nothing to serving: keys, challenge, evidence, release, open, load (walk 2 of docs/architecture.md).

Read ``boot`` from top to bottom. Keys are made here and live in memory only; every answer of the custodian is
verified by the key that the loan file pins; the models that are opened are exactly those of the loan.

Not done here: the first lease (``renew``), the gateway (``app``).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.attest.binding import ReleaseBinding
from cloister.crypto.hpke import Kem, KemPrivateKey
from cloister.crypto.sign import SigningKey, Statement
from cloister.enclave.loader import Loader
from cloister.enclave.logs import Event
from cloister.enclave.packages import find_packages
from cloister.enclave.pool import ModelPool
from cloister.errors import Reason, Rejected
from cloister.lending.contract import verify_in_force
from cloister.lending.messages import AttestRequest, Challenge
from cloister.lending.release import verify_grant
from cloister.lending.terms import instance_id

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

__all__ = ["Booted", "boot"]


@dataclass(slots=True, kw_only=True)
class Booted:
    """An instance that holds its models and has no lease yet. ``wipe`` drops everything secret."""

    key: SigningKey
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
) -> Booted:
    """Return the booted instance.

    Raises ``Rejected`` with the custodian's reasons or with what does not fit, ``Malformed``, ``Unavailable``.
    """
    # 1. Fresh keys, in memory, never stored: a restart is another instance.
    key = SigningKey.generate()
    kem = KemPrivateKey.generate(Kem.MLKEM768_X25519)
    instance = instance_id(key.verify_key.raw)

    # 2. Sealed models where they lie, before the custodian is bothered.
    access = config.access(os.environ)
    packages = await asyncio.to_thread(find_packages, config.models, access)

    # 3. The custodian's challenge: single use, for this loan, signed by the key the loan file pins.
    challenge = _verified_challenge(await link.challenge(loan.loan), loan)

    # 4. Evidence that binds nonce, custodian, both keys, what was started and the devices.
    unbound = ReleaseBinding(
        nonce=challenge.nonce,
        custodian=loan.custodian_key.raw,
        instance_pub=key.verify_key.raw,
        kem_pub=kem.public_bytes(),
        software=software.dump(),
    )
    evidence, binding = await asyncio.to_thread(source.collect, unbound)

    # 5. Evidence to the custodian; its grant must answer exactly this request, and be what was signed as the contract.
    request = AttestRequest(
        loan=loan.loan,
        nonce=challenge.nonce,
        instance_pub=key.verify_key,
        kem_id=kem.kem,
        kem_pub=kem.public_bytes(),
        evidence=evidence,
        software=software.dump(),
        devices=binding.devices,
    ).dump()
    answer = await link.attest(loan.loan, Statement.sign(key, AttestRequest.LABEL, request).dump())
    digest = hashlib.sha256(request).digest()
    grant = verify_grant(answer, custodian=loan.custodian_key, request_digest=digest, instance=instance)
    contract = verify_in_force(
        grant.contract, terms=grant.terms, policy_digest=grant.policy_digest, custodian=loan.custodian_key
    )
    _demand_own_key(grant, loan)
    log.write(Event.ATTESTED, instance=instance, loan=grant.terms.loan, tee=source.tee)

    # 6. Exactly the loan's models: by digest, by signature, by key; into memory, into the engine.
    loader = Loader(grant=grant, kem=kem, engine=engine, prepack=config.prepack, access=access, progress=progress)
    pool = ModelPool(loader, log, budget=config.memory_budget, patience_s=config.limits.model_wait_s)
    await pool.add(_matched(grant, packages))
    return Booted(key=key, grant=grant, pool=pool, software=software, contract=contract)


def _verified_challenge(statement: bytes, loan: LoanFile) -> Challenge:
    """Return the challenge. Raises ``Rejected`` where it is another custodian's or for another loan."""
    challenge = Challenge.parse(Statement.parse(statement, label=Challenge.LABEL).verify([loan.custodian_key]))
    if challenge.custodian != loan.custodian_key:
        raise Rejected.because("wrong_custodian", "challenge", got=challenge.custodian.key_id)
    if challenge.loan != loan.loan:
        raise Rejected.because("wrong_loan", "challenge", got=challenge.loan, want=loan.loan)
    return challenge


def _demand_own_key(grant: Grant, loan: LoanFile) -> None:
    """Prove that the contract is signed by the key the borrower's loan file names, not by none or another's."""
    named = grant.terms.clauses.borrower
    if loan.borrower_key is not None and named != loan.borrower_key:
        got = "none" if named is None else named.key_id
        raise Rejected.because("contract_mismatch", "borrower's key", got=got, want=loan.borrower_key.key_id)


def _matched(grant: Grant, packages: Sequence[FoundPackage]) -> list[tuple[ModelTerms, FoundPackage]]:
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
