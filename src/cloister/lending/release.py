"""Who may have a key: one pure decision, and what the released key is bound to (docs/spec/release.md).

Walk 2 of the house: the verifier has spoken, the nonce is taken, and inside one transaction this
decides over loan, result, blocks, allowance and time, with all reasons. Keys are encrypted to the KEM
key inside the *result*, never to one in a request.

Not done here: verifying evidence (``attest.verifier``), taking the nonce once, HPKE, storing.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.attest.rats import TrustTier
from cloister.crypto.sign import Statement, VerifyKey
from cloister.errors import Reason, Rejected
from cloister.lending.clock import lifetime
from cloister.lending.clock_trust import COUNTED_CLOCKS, judge_clock
from cloister.lending.ending import is_live
from cloister.lending.messages import AttestRequest, Grant
from cloister.lending.state import InstanceState, InstanceStatus
from cloister.lending.terms import LOAN_METER, InstanceId, LoanId, ModelDigest, ModelTerms, instance_id
from cloister.wire import lp

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from cloister.attest.rats import AttestationResult
    from cloister.lending.clock_trust import ClockPolicy, ClockStanding
    from cloister.lending.state import LoanState

__all__ = ["BOOT_TIME", "Denied", "Grantable", "decide", "key_info", "register", "verify_attest", "verify_grant"]

BOOT_TIME = timedelta(minutes=5)  # from key release to the first lease request
_KEY_LABEL = b"cloister/release-key/v1"


def key_info(*, model: ModelDigest, loan: LoanId, instance: InstanceId, key_version: int) -> bytes:
    """Return the HPKE info string of a released key (RFC 9180 section 5.1).

    It names all that the key is for: with another model, loan, instance or version it does not open.
    """
    parts = (model.encode(), loan.encode(), instance.encode(), key_version.to_bytes(8, "big"))
    return _KEY_LABEL + lp(*parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grantable:
    """A yes: these models may be opened by this instance. Keys and clock come from the attestation result.

    ``again`` is the instance where it runs already and is registered.
    """

    instance: InstanceId
    instance_pub: VerifyKey
    kem_id: int
    kem_pub: bytes
    models: tuple[ModelTerms, ...]
    clock: ClockStanding
    again: InstanceState | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """A no, with every reason."""

    reasons: tuple[Reason, ...]


def verify_attest(statement: bytes) -> tuple[AttestRequest, bytes]:
    """Return the request and SHA-256 over its payload: signed by the instance key that it names.

    Proves possession of that key and nothing more; the evidence inside is unverified. Raises
    ``Malformed`` and ``Rejected``.
    """
    signed = Statement.parse(statement, label=AttestRequest.LABEL)
    request = AttestRequest.parse(signed.payload)  # names the key to verify with; used only after that
    payload = signed.verify([request.instance_pub])
    return request, hashlib.sha256(payload).digest()


def decide(
    request: AttestRequest,
    result: AttestationResult,
    *,
    loan: LoanState,
    instances: Iterable[InstanceState],
    custodian: VerifyKey,
    now: datetime,
    max_age: timedelta,
    quiet_until: datetime | None = None,
    clocks: ClockPolicy = COUNTED_CLOCKS,
    kept_kem: bool = False,
) -> Grantable | Denied:
    """Decide whether the instance that ``result`` is about may have the keys of ``loan``.

    ``instances`` are all of this loan, ``max_age`` is how old the result may be, ``clocks`` whose clock counts,
    ``kept_kem`` says that an instance that is known shows the KEM key that it showed before. The reasons are
    ``wrong_loan``, ``binding_mismatch``, ``evidence_not_trusted``, ``evidence_too_old``,
    ``policy_changed``, ``blocked``, ``contract_unsigned``, ``allowance_exhausted``, ``too_many_instances``,
    ``instance_known`` and ``recovering``.
    """
    pub = VerifyKey(result.bound.get("instance_pub", b""))
    identity = instance_id(pub.raw)
    known = tuple(instances)
    own = next((item for item in known if item.id == identity), None)
    again = own is not None and _may_attest_again(own, loan, kept_kem=kept_kem, now=now)
    models = tuple(model for model in loan.terms.models if model.digest not in loan.blocked_models)
    live = sum(1 for item in known if is_live(item, now=now) and not (again and item is own))
    reasons = (
        *_evidence_reasons(request, result, loan=loan, custodian=custodian, now=now, max_age=max_age),
        *_loan_reasons(loan, models=models, live=live, again=again),
    )
    if own is not None and not again:
        reasons = (*reasons, Reason(code="instance_known", subject="instance", got=identity))
    if quiet_until is not None and now < quiet_until:
        reasons = (*reasons, Reason(code="recovering", subject="custodian"))
    if reasons:
        return Denied(reasons=reasons)
    return Grantable(
        instance=identity,
        instance_pub=pub,
        kem_id=request.kem_id,
        kem_pub=result.bound["kem_pub"],
        models=models,
        clock=judge_clock(result, clocks),
        again=own if again else None,
    )


def register(
    grantable: Grantable,
    *,
    loan: LoanState,
    epoch: int,
    now: datetime,
    boot_time: timedelta = BOOT_TIME,
    clone_proof: bool = False,
) -> InstanceState:
    """Return the new instance: ceiling zero, nothing used, no request answered.

    It has ``boot_time`` to open its models and ask for its first lease, and holds a place that long.
    """
    return InstanceState(
        id=grantable.instance,
        loan=loan.terms.loan,
        key=grantable.instance_pub,
        epoch=epoch,
        policy_digest=loan.policy_digest,
        attested_at=now,
        committed_at=now,
        dead_at=now + max(boot_time, lifetime(loan.terms.holds)),
        clone_proof=clone_proof,
        clock_trusted=grantable.clock.trusted,
    )


def verify_grant(statement: bytes, *, custodian: VerifyKey, request_digest: bytes, instance: InstanceId) -> Grant:
    """Return the grant once it is proven to be the custodian's answer to our own request.

    ``request_digest`` is SHA-256 over the payload of our ``AttestRequest``. Raises ``Malformed`` and
    ``Rejected`` (``wrong_instance``, ``wrong_request``).
    """
    grant = Grant.parse(Statement.parse(statement, label=Grant.LABEL).verify([custodian]))
    if grant.instance != instance:
        raise Rejected.because("wrong_instance", "grant", got=grant.instance, want=instance)
    if not hmac.compare_digest(grant.request_digest, request_digest):
        raise Rejected.because("wrong_request", "grant", got=grant.request_digest.hex(), want=request_digest.hex())
    return grant


def _evidence_reasons(
    request: AttestRequest,
    result: AttestationResult,
    *,
    loan: LoanState,
    custodian: VerifyKey,
    now: datetime,
    max_age: timedelta,
) -> tuple[Reason, ...]:
    reasons = []
    if request.loan != loan.terms.loan:
        reasons.append(Reason(code="wrong_loan", subject="attest request", got=request.loan, want=loan.terms.loan))
    bound = {
        "custodian": custodian.raw,
        "devices": request.devices,
        "instance_pub": request.instance_pub.raw,
        "kem_pub": request.kem_pub,
        "software": request.software,
    }
    reasons += [
        Reason(code="binding_mismatch", subject=name)
        for name, value in bound.items()
        if not hmac.compare_digest(result.bound.get(name, b""), value)
    ]
    if result.tier not in (TrustTier.AFFIRMING, TrustTier.WARNING):
        reasons.append(Reason(code="evidence_not_trusted", subject="evidence", got=result.tier.value))
    if not result.verified_at <= now < result.verified_at + max_age:
        reasons.append(Reason(code="evidence_too_old", subject="evidence"))
    if result.policy_digest != loan.policy_digest:
        changed = (result.policy_digest, loan.policy_digest)
        reasons.append(Reason(code="policy_changed", subject="loan", got=changed[0], want=changed[1]))
    return tuple(reasons)


def _may_attest_again(own: InstanceState, loan: LoanState, *, kept_kem: bool, now: datetime) -> bool:
    """Tell whether an instance that is known may have keys again: it runs, and a newer version is rolled out."""
    rolling = any(model.replaces for model in loan.terms.models)
    runs = own.status is InstanceStatus.ACTIVE and is_live(own, now=now)
    return rolling and runs and kept_kem and own.loan == loan.terms.loan


def _loan_reasons(loan: LoanState, *, models: tuple[ModelTerms, ...], live: int, again: bool) -> tuple[Reason, ...]:
    reasons = []
    if loan.blocked:
        reasons.append(Reason(code="blocked", subject="loan"))
    if not models:
        reasons.append(Reason(code="blocked", subject="every model of the loan"))
    if loan.terms.clauses.borrower is not None and not loan.countersigned:
        want = "the borrower's signature over the newest version"
        reasons.append(Reason(code="contract_unsigned", subject="loan", want=want))
    if loan.balances.get(LOAN_METER, 0) < 1 and not again:  # what is left may be all with it
        reasons.append(Reason(code="allowance_exhausted", subject=LOAN_METER, got="0", want="at least 1"))
    if live >= loan.terms.max_instances:
        want = f"at most {loan.terms.max_instances}"
        reasons.append(Reason(code="too_many_instances", subject="loan", got=str(live + 1), want=want))
    return tuple(reasons)
