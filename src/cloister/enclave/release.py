"""Ask for keys: challenge, evidence, release (walk 2 of docs/architecture.md). At boot, and again for a newer version.

Every answer of the custodian is verified by the key that the loan file pins.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.attest.binding import ReleaseBinding
from cloister.crypto.sign import Statement
from cloister.enclave.logs import Event
from cloister.errors import Rejected
from cloister.lending.contract import verify_in_force
from cloister.lending.messages import AttestRequest, Challenge
from cloister.lending.release import verify_grant
from cloister.lending.terms import instance_id

if TYPE_CHECKING:
    from cloister.attest.software import SoftwareManifest
    from cloister.crypto.hpke import KemPrivateKey
    from cloister.crypto.sign import SigningKey
    from cloister.enclave.custodian_link import Link
    from cloister.enclave.evidence import EvidenceSource
    from cloister.enclave.loanfile import LoanFile
    from cloister.enclave.logs import EventLog
    from cloister.lending.contract import SignedContract
    from cloister.lending.messages import Grant

__all__ = ["Released", "ask_release"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """The custodian's grant, and the contract that it releases on; None for a loan without one."""

    grant: Grant
    contract: SignedContract | None


async def ask_release(
    loan: LoanFile,
    *,
    key: SigningKey,
    kem: KemPrivateKey,
    source: EvidenceSource,
    software: SoftwareManifest,
    link: Link,
    log: EventLog,
) -> Released:
    """Return what is released to the instance that has these keys.

    Raises ``Rejected`` with the custodian's reasons or with what does not fit, ``Malformed``, ``Unavailable``.
    """
    instance = instance_id(key.verify_key.raw)

    # 1. The custodian's challenge: single use, for this loan, signed by the key the loan file pins.
    challenge = _verified_challenge(await link.challenge(loan.loan), loan)

    # 2. Evidence that binds nonce, custodian, both keys, what was started and the devices.
    unbound = ReleaseBinding(
        nonce=challenge.nonce,
        custodian=loan.custodian_key.raw,
        instance_pub=key.verify_key.raw,
        kem_pub=kem.public_bytes(),
        software=software.dump(),
    )
    evidence, binding = await asyncio.to_thread(source.collect, unbound)

    # 3. Evidence to the custodian; its grant must answer exactly this request, and be what was signed as the contract.
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
    return Released(grant=grant, contract=contract)


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
