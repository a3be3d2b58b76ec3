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
from cloister.crypto.hpke import DEFAULT_SUITE, Kem, KemPrivateKey, open_with
from cloister.crypto.sign import SigningKey, Statement
from cloister.enclave.logs import Event
from cloister.enclave.packages import find_packages
from cloister.enclave.served import ServedModel, wants_prepacking
from cloister.errors import Malformed, Reason, Rejected
from cloister.lending.contract import verify_in_force
from cloister.lending.messages import AttestRequest, Challenge
from cloister.lending.release import key_info, verify_grant
from cloister.lending.terms import instance_id
from cloister.sealed.formats import parse_model
from cloister.sealed.formats.places import opened_files
from cloister.sealed.open import open_model, verify_digest, verify_manifest
from cloister.stores import open_source

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
    from cloister.sealed.open import OpenedModel
    from cloister.stores import Access

__all__ = ["Booted", "boot"]

_INSPECT = "the owner sees why with 'cloister model inspect'"


@dataclass(slots=True, kw_only=True)
class Booted:
    """An instance that holds its models and has no lease yet. ``wipe`` drops everything secret."""

    key: SigningKey
    grant: Grant
    models: tuple[ServedModel, ...]
    software: SoftwareManifest
    contract: SignedContract | None = None

    def wipe(self) -> None:
        """Unload the models. The keys go with the last reference to them."""
        for model in self.models:
            model.close()
        self.models = ()


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
    loader = _Loader(grant=grant, kem=kem, engine=engine, prepack=config.prepack, access=access, progress=progress)
    models = await _load_all(loader, packages, log)
    return Booted(key=key, grant=grant, models=models, software=software, contract=contract)


async def _load_all(loader: _Loader, packages: Sequence[FoundPackage], log: EventLog) -> tuple[ServedModel, ...]:
    """Load every granted model, or none."""
    models: list[ServedModel] = []
    try:
        for terms, package in _matched(loader.grant, packages):
            models.append(await asyncio.to_thread(loader.load, terms, package))
            log.write(Event.MODEL_LOADED, model=terms.name, digest=terms.digest, bytes=models[-1].manifest.size)
    except BaseException:
        for model in models:
            model.close()
        raise
    return tuple(models)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loader:
    """Opens packages with the keys of one grant."""

    grant: Grant
    kem: KemPrivateKey
    engine: Engine
    prepack: tuple[str, ...] | None
    access: Access
    progress: Callable[[int, int], None] | None

    def load(self, terms: ModelTerms, package: FoundPackage) -> ServedModel:
        """Open one package into memory and load it: signature, digest, key, every byte, formats, then the engine."""
        verified = verify_manifest(package.manifest_bytes, package.signature_bytes, [self.grant.publisher])
        verify_digest(verified, terms.digest)
        with open_source(package.place, access=self.access) as source:
            opened = open_model(source, verified, self._key(terms), progress=self.progress)
        try:
            _demand_sound(opened, terms)
            prepack = wants_prepacking(self.prepack, terms.name, verified.manifest.card)
            running = self.engine.load(opened, prepack=prepack)
        except BaseException:
            opened.close()
            raise
        return ServedModel(terms=terms, manifest=verified.manifest, opened=opened, running=running)

    def _key(self, terms: ModelTerms) -> bytes:
        """Return the model's key: it opens for this model, loan, instance and version only."""
        grant = self.grant
        released = next(key for key in grant.keys if key.model == terms.digest)
        info = key_info(
            model=terms.digest, loan=grant.terms.loan, instance=grant.instance, key_version=released.key_version
        )
        return open_with(DEFAULT_SUITE, self.kem, info=info, enc=released.enc, ciphertext=released.ciphertext)


def _demand_sound(opened: OpenedModel, terms: ModelTerms) -> None:
    """Prove, over the memory that the engine gets, that each file is sound in its format and none a pickle (T25).

    Raises ``Rejected`` with the cause and no more: names and shapes of tensors are the owner's, who sees them with
    ``cloister model inspect``.
    """
    try:
        parse_model(opened_files(opened))
    except Malformed:
        raise Rejected.because("model_malformed", f"model {terms.name}", hint=_INSPECT) from None
    except Rejected as exc:
        raise Rejected.because(exc.code, f"model {terms.name}", hint=_INSPECT) from None
