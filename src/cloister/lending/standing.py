"""What forbids an instance to get anything more, and what of its loan is not blocked: for lease, voucher and ticket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.errors import Reason
from cloister.lending.state import InstanceStatus
from cloister.lending.terms import consumer_meter, model_meter

if TYPE_CHECKING:
    from datetime import datetime

    from cloister.lending.state import InstanceState, LoanState
    from cloister.lending.terms import Consumer, Meter, ModelDigest

__all__ = ["blocked_meters", "standing_consumers", "standing_models", "stops"]

_STANDING = {
    InstanceStatus.BLOCKED: "blocked",
    InstanceStatus.FORKED: "fork_detected",
    InstanceStatus.OVERDRAWN: "overdrawn",
    InstanceStatus.DEAD: "instance_dead",
    InstanceStatus.CLOSED: "instance_closed",
    InstanceStatus.FENCED: "stale_epoch",
}


def stops(
    instance: InstanceState, loan: LoanState, *, told_epoch: int, epoch: int, now: datetime
) -> tuple[tuple[Reason, ...], InstanceStatus]:
    """Return every reason to end this instance, and where it stands then.

    ``told_epoch`` is the epoch that its message names, ``epoch`` the custodian's.
    """
    reasons: list[Reason] = []
    status = instance.status
    if status is not InstanceStatus.ACTIVE:
        reasons.append(Reason(code=_STANDING[status], subject="instance"))
    found: list[tuple[Reason, InstanceStatus]] = []
    if instance.epoch != epoch or told_epoch != epoch:
        got = min(instance.epoch, told_epoch) if instance.epoch != epoch else told_epoch
        stale = Reason(code="stale_epoch", subject="instance", got=str(got), want=str(epoch))
        found.append((stale, InstanceStatus.FENCED))
    if loan.blocked:
        found.append((Reason(code="blocked", subject="loan"), InstanceStatus.BLOCKED))
    if instance.policy_digest != loan.policy_digest:
        changed = Reason(code="policy_changed", subject="loan", got=instance.policy_digest, want=loan.policy_digest)
        found.append((changed, InstanceStatus.BLOCKED))
    elif loan.agreed_at is not None and instance.attested_at < loan.agreed_at:
        found.append((Reason(code="contract_changed", subject="loan"), InstanceStatus.BLOCKED))
    if now >= instance.attested_at + loan.evidence_age:
        found.append((Reason(code="evidence_too_old", subject="instance"), InstanceStatus.BLOCKED))
    if now >= instance.dead_at and status is InstanceStatus.ACTIVE:
        found.append((Reason(code="instance_dead", subject="instance"), InstanceStatus.DEAD))
    reasons += [reason for reason, _ in found]
    if status is InstanceStatus.ACTIVE and found:
        status = found[0][1]
    return tuple(reasons), status


def standing_models(loan: LoanState) -> tuple[ModelDigest, ...]:
    """Return the models that are not blocked now, with those that they replace, for who has nothing newer yet."""
    standing = (digest for model in loan.terms.models for digest in model.standing)
    return tuple(digest for digest in dict.fromkeys(standing) if digest not in loan.blocked_models)


def standing_consumers(loan: LoanState) -> tuple[Consumer, ...] | None:
    """Return the consumers that are not blocked now; None: anybody."""
    listed = loan.terms.consumers
    return None if listed is None else tuple(item for item in listed if item.id not in loan.blocked_consumers)


def blocked_meters(loan: LoanState) -> frozenset[Meter]:
    """Return the meters whose ceilings must not rise."""
    models = {model_meter(model.name) for model in loan.terms.models if model.digest in loan.blocked_models}
    return frozenset(models | {consumer_meter(consumer) for consumer in loan.blocked_consumers})
