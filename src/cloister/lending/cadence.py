"""What the custodian's own clock says about an instance's: how often it renews (docs/spec/lease.md section 10; T37).

An honest instance asks at T/3 after its last success, then every T/10. One that comes much later was cut off, or its
clock is slow; one that keeps coming faster than T/10 has a clock that runs fast. Either is an alarm for a person, and
changes nothing in the decision: the bounds (C6, C8) hold by the custodian's clock alone.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from cloister.lending.state import InstanceState

__all__ = ["judge_cadence"]

_LATE = 2 / 3  # of T since the last lease: three retries at T/10 would have come before
_CLOSEST = 0.075  # of T: T/10 with the most jitter
_BURST = 10  # renewals beyond the pace: the first lease, and one at once after each voided one


def judge_cadence(instance: InstanceState, *, seq: int, ttl: timedelta, now: datetime) -> str | None:
    """Return ``renewal_late`` or ``renewals_early`` where request ``seq`` does not come as T says; else None.

    Early is said once, when the pace is first exceeded, and again after it was kept.
    """
    if instance.limits and now - instance.committed_at > ttl * _LATE:
        return "renewal_late"
    if _early(instance, seq, ttl, now) and not _early(instance, seq - 1, ttl, instance.committed_at):
        return "renewals_early"
    return None


def _early(instance: InstanceState, seq: int, ttl: timedelta, at: datetime) -> bool:
    lived = max(timedelta(0), at - instance.attested_at)
    return seq - _BURST > lived / (ttl * _CLOSEST)
