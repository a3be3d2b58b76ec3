"""Challenge and release: walk 2, steps 4 to 10 (docs/spec/release.md).

The order is the whole point: the nonce is taken before anything is verified, the decision is made over
what the loan is *now*, and the key leaves after its audit entry was committed.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.attest.binding import ReleaseBinding
from cloister.attest.clones import clone_doubts
from cloister.attest.ear import issue_ear
from cloister.attest.endorse.gather import gather
from cloister.attest.policy import Policy
from cloister.attest.rats import NONCE_BYTES, Nonce
from cloister.crypto.hpke import DEFAULT_SUITE, seal_to
from cloister.crypto.sign import Statement
from cloister.custodian.service.contracts import contract_in_force
from cloister.custodian.service.devices import demand_standing
from cloister.custodian.service.rewrapping import held_keks
from cloister.custodian.service.standing import counted_clocks, loan_row, loan_state
from cloister.custodian.store.devices import note_device
from cloister.custodian.store.instances import (
    InstanceRow,
    find_instance,
    insert_instance,
    insert_nonce,
    open_nonces,
    purge_nonces,
    renew_attestation,
    standing_instances,
    take_nonce,
)
from cloister.custodian.store.keys import ReleasedKeyRow, insert_released_key, move_instance
from cloister.custodian.store.loans import take_turn
from cloister.custodian.store.models import find_model
from cloister.custodian.store.releases import ReleaseRow, insert_release, purge_releases
from cloister.custodian.vaults import unwrap_dek
from cloister.errors import Malformed, Rejected, Unavailable
from cloister.lending.events import EventKind
from cloister.lending.messages import Challenge, Grant, ReleasedKey
from cloister.lending.release import Denied, Grantable, decide, key_info, register, verify_attest
from cloister.lending.terms import instance_id
from cloister.sealed.envelope import Envelope
from cloister.telemetry.spans import spanned

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cloister.attest.rats import AttestationResult
    from cloister.custodian.service.context import Context, Transaction
    from cloister.custodian.service.devices import DeviceAuthority
    from cloister.custodian.tokens import Actor
    from cloister.custodian.vaults import FindKek
    from cloister.lending.messages import AttestRequest
    from cloister.lending.state import LoanState
    from cloister.lending.terms import LoanId, ModelDigest

__all__ = ["attest", "challenge"]

_NONCE_MEMORY = timedelta(minutes=10)  # how long a dead nonce is still told from one we never gave
_MAX_RESULT_AGE = timedelta(seconds=60)  # from verification to decision
_EAR_LIFE = timedelta(days=1)


def challenge(context: Context, actor: Actor, loan: LoanId) -> bytes:
    """Return a signed, single-use nonce for one attestation for this loan. Bounded for each loan (T51)."""
    nonce = Nonce(context.rng(NONCE_BYTES))

    def work(transaction: Transaction) -> tuple[int, timedelta]:
        take_turn(transaction.connection, loan)
        offline = loan_row(transaction.connection, loan).terms.clauses.offline
        ttl = timedelta(seconds=context.config.nonce_ttl_s)
        if offline is not None:
            ttl = max(ttl, offline.lasts)  # it may travel on removable media
        purge_nonces(transaction.connection, transaction.now, keep=_NONCE_MEMORY)
        if open_nonces(transaction.connection, loan, transaction.now) >= context.config.nonces_per_loan:
            raise Rejected.because("too_many_requests", "challenge", hint="answer the open challenges, or wait")
        insert_nonce(transaction.connection, nonce, loan, transaction.now + ttl)
        transaction.record(EventKind.CHALLENGE_ISSUED, actor, loan)
        return transaction.epoch.epoch, ttl

    epoch, ttl = context.transact(work, beside=True)
    key = context.vault.signing_key
    message = Challenge(nonce=nonce, custodian=key.verify_key, loan=loan, epoch=epoch, ttl=ttl)
    return Statement.sign(key, Challenge.LABEL, message.dump()).dump()


def attest(
    context: Context, actor: Actor, loan: LoanId, statement: bytes, *, devices: DeviceAuthority | None = None
) -> bytes:
    """Return a signed grant with the loan's keys for the enclave that ``statement`` proves.

    Raises ``Malformed``, ``Unavailable`` (nothing released), or ``Rejected`` with every reason; a
    refusal is in the audit log before anybody reads it.
    """
    details: dict[str, str] = {}
    try:
        # 4. bytes -> request, signed by the instance key it names.
        request, digest = verify_attest(statement)
        details["req_digest"] = digest.hex()
        if request.loan != loan:  # T42: a token for one loan asks for another
            raise Rejected.because("wrong_loan", "attest request", got=request.loan, want=loan)
        if request.evidence.tee in context.verifier.tees:
            details["tee"] = request.evidence.tee  # as it says; the log takes names of ours alone
        # 5. The nonce, once: used up whatever comes of it.
        _take(context, request)
        # 6. and 7. Endorsements, fetched in no transaction; evidence -> result, by the policy as it stands.
        policy = _policy(context, loan)
        with spanned(context.spans, "endorsements.fetch"):
            endorsements = _fetch(context, request, policy)
        with spanned(context.spans, "evidence.verify") as span:
            result = _verify(context, request, policy, endorsements)
            span.note({"cloister.tee": result.tee})
        # 8. to 10. Decide, seal, log, keep what it was decided by, commit.
        with spanned(context.spans, "key.release"):
            return _release(context, actor, request, digest, result, endorsements=endorsements, devices=devices)
    except (Malformed, Rejected) as refusal:
        context.refuse(EventKind.ATTESTATION_REFUSED, actor, loan, refusal, **details)
        raise


def _take(context: Context, request: AttestRequest) -> None:
    found, now = context.transact(
        lambda work: (take_nonce(work.connection, request.nonce, work.now), work.now), beside=True
    )
    if found is None or found.loan != request.loan:
        raise Rejected.because("nonce_unknown", "nonce", hint="ask for a fresh challenge")
    if found.used:
        raise Rejected.because("nonce_used", "nonce", hint="ask for a fresh challenge")
    if now >= found.expires_at:
        raise Rejected.because("nonce_expired", "nonce", hint="ask for a fresh challenge")


def _policy(context: Context, loan: LoanId) -> Policy:
    with context.reading() as connection:
        return Policy.parse(loan_row(connection, loan).policy)


def _fetch(context: Context, request: AttestRequest, policy: Policy) -> Mapping[str, bytes]:
    """Return what verifying needs. For a TEE that the policy does not name nobody is asked anything."""
    if request.evidence.tee not in policy.tees:
        return {}
    return gather(context.verifier, context.endorsements, request.evidence, request.devices, context.now())


def _verify(
    context: Context, request: AttestRequest, policy: Policy, endorsements: Mapping[str, bytes]
) -> AttestationResult:
    binding = ReleaseBinding(
        nonce=request.nonce,
        custodian=context.vault.signing_key.verify_key.raw,
        instance_pub=request.instance_pub.raw,
        kem_pub=request.kem_pub,
        software=request.software,
        devices=request.devices,
    )
    return context.verifier.verify(request.evidence, binding, policy, context.now(), endorsements)


def _release(
    context: Context,
    actor: Actor,
    request: AttestRequest,
    digest: bytes,
    result: AttestationResult,
    *,
    endorsements: Mapping[str, bytes],
    devices: DeviceAuthority | None,
) -> bytes:
    def work(transaction: Transaction) -> bytes:
        take_turn(transaction.connection, request.loan)
        device = demand_standing(transaction, devices, request.evidence, result)
        row = loan_row(transaction.connection, request.loan)
        contract = contract_in_force(transaction.connection, row)
        loan = loan_state(transaction.connection, row, context.config)
        loan = replace(loan, countersigned=contract is not None)
        known = {item.state.id: item.state for item in standing_instances(transaction.connection, loan=request.loan)}
        own = find_instance(transaction.connection, instance_id(request.instance_pub.raw))  # of whichever loan
        if own is not None:
            known[own.state.id] = own.state
        kem_digest = hashlib.sha256(request.kem_pub).digest()
        decision = decide(
            request,
            result,
            loan=loan,
            instances=known.values(),
            custodian=context.vault.signing_key.verify_key,
            now=max(transaction.now, result.verified_at),
            max_age=_MAX_RESULT_AGE,
            quiet_until=transaction.epoch.quiet_until,
            clocks=counted_clocks(context.config),
            kept_kem=own is not None and hmac.compare_digest(own.kem_digest, kem_digest),
        )
        if isinstance(decision, Denied):
            raise Rejected("; ".join(map(str, decision.reasons)), reasons=decision.reasons)
        keys = _seal_keys(transaction, request.loan, decision)
        grant = _grant(transaction, digest, decision, keys, loan=loan, result=result)
        grant = replace(grant, contract=contract or b"")
        _register(transaction, actor, grant, decision, keys, loan=loan, result=result)
        note_device(transaction.connection, grant.instance, device)
        _keep(transaction, request, grant, policy=row.policy, endorsements=endorsements)
        return Statement.sign(context.vault.signing_key, Grant.LABEL, grant.dump()).dump()

    return context.transact(work, beside=True)


def _grant(
    transaction: Transaction,
    digest: bytes,
    decision: Grantable,
    keys: Sequence[_Leaving],
    *,
    loan: LoanState,
    result: AttestationResult,
) -> Grant:
    return Grant(
        instance=decision.instance,
        request_digest=digest,
        epoch=transaction.epoch.epoch,
        terms=loan.terms,
        policy_digest=loan.policy_digest,
        result=_ear(transaction.context, result, transaction.now),
        publisher=transaction.context.vault.publisher_key.verify_key,
        keys=tuple(key.sealed for key in keys),
        block_version=loan.block_version,
    )


def _ear(context: Context, result: AttestationResult, now: datetime) -> str:
    return issue_ear(result, key=context.vault.signing_key, issuer=context.config.name, now=now, ttl=_EAR_LIFE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Leaving:
    """A model key as it leaves, and which envelope it came from: what a leaked copy is traced by."""

    sealed: ReleasedKey
    source: ReleasedKeyRow


def _seal_keys(transaction: Transaction, loan: LoanId, decision: Grantable) -> list[_Leaving]:
    """Encrypt each model key to the KEM key that the *result* binds (T3), for this use and no other (T20)."""
    if decision.kem_id != DEFAULT_SUITE.kem:
        raise Rejected.because(
            "kem_not_allowed", "kem key", got=f"{decision.kem_id:#06x}", want=f"{DEFAULT_SUITE.kem:#06x}"
        )
    keks = held_keks(transaction.connection, transaction.context.vault)
    return [_seal_key(transaction, model.digest, loan, decision, keks) for model in decision.models]


def _seal_key(
    transaction: Transaction, model: ModelDigest, loan: LoanId, decision: Grantable, keks: FindKek
) -> _Leaving:
    row = find_model(transaction.connection, model)
    if row is None:
        msg = f"model {model}: lent and not in the store"
        raise Unavailable(msg)
    vault, envelope = transaction.context.vault, Envelope.parse(row.envelope)
    if envelope.manifest_digest != model:
        raise Rejected.because("wrong_model", "envelope", got=envelope.manifest_digest, want=model)
    dek, key_version = unwrap_dek(vault, envelope, keks)
    info = key_info(model=model, loan=loan, instance=decision.instance, key_version=key_version)
    enc, ciphertext = seal_to(DEFAULT_SUITE, decision.kem_pub, info=info, plaintext=dek)
    source = ReleasedKeyRow(
        instance=decision.instance,
        model=model,
        envelope=hashlib.sha256(row.envelope).digest(),
        kek_id=envelope.recipient(vault.kid).kek_id,
        key_version=key_version,
        at=transaction.now,
    )
    sealed = ReleasedKey(model=model, key_version=key_version, enc=enc, ciphertext=ciphertext)
    return _Leaving(sealed=sealed, source=source)


def _register(
    transaction: Transaction,
    actor: Actor,
    grant: Grant,
    decision: Grantable,
    keys: Sequence[_Leaving],
    *,
    loan: LoanState,
    result: AttestationResult,
) -> None:
    """Register the instance with limit 0, or note that it attested again; log every key that leaves (I7)."""
    if decision.again is not None:
        state = decision.again
        renew_attestation(
            transaction.connection, state.id,
            result=grant.result, tier=result.tier.value, policy_digest=loan.policy_digest, now=transaction.now,
        )  # fmt: skip
    else:
        state = register(
            decision,
            loan=loan,
            epoch=transaction.epoch.epoch,
            now=transaction.now,
            clone_proof=not clone_doubts(result),
        )
        row = InstanceRow(
            state=state,
            kem_digest=hashlib.sha256(decision.kem_pub).digest(),
            tee=result.tee,
            tier=result.tier.value,
            result=grant.result,
            clock=decision.clock.code,
        )
        insert_instance(transaction.connection, row)
    move_instance(transaction.connection, state.id)
    for key in keys:
        source = key.source
        insert_released_key(transaction.connection, source)
        transaction.record(
            EventKind.KEY_RELEASED, actor, state.id,
            loan=state.loan, model=source.model, key_version=source.key_version, policy_digest=loan.policy_digest,
            clock=decision.clock.code, envelope=source.envelope.hex(), kek=source.kek_id,
            req_digest=grant.request_digest.hex(), software=hashlib.sha256(result.bound["software"]).hexdigest(),
            tee=result.tee, tier=result.tier.value,
        )  # fmt: skip


def _keep(
    transaction: Transaction,
    request: AttestRequest,
    grant: Grant,
    *,
    policy: bytes,
    endorsements: Mapping[str, bytes],
) -> None:
    """Keep everything this release was decided by, to judge it again; forget what is past its retention."""
    keep = timedelta(days=transaction.context.config.release_retention_days)
    purge_releases(transaction.connection, transaction.now - keep)
    row = ReleaseRow(
        instance=grant.instance,
        instance_pub=request.instance_pub.raw,
        loan=request.loan,
        at=transaction.now,
        nonce=request.nonce,
        custodian=transaction.context.vault.signing_key.verify_key.raw,
        kem_pub=request.kem_pub,
        evidence=request.evidence,
        devices=request.devices,
        software=request.software,
        policy=policy,
        endorsements=endorsements,
    )
    insert_release(transaction.connection, row)
