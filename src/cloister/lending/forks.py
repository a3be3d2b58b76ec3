"""What proves that an enclave's memory was copied: two words of one key on one index (I8, docs/spec/usage.md).

Both words must have been verified under the instance's key before: an unsigned one proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.lending.messages import Receipt, UsageRecord
from cloister.lending.receipt import record_of

if TYPE_CHECKING:
    from cloister.lending.terms import InstanceId

__all__ = ["Fork", "find_contradiction"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """One index at which one instance has said two things."""

    instance: InstanceId
    index: int


def find_contradiction(first: Receipt, second: Receipt | UsageRecord) -> Fork | None:
    """Return the fork that a receipt proves together with another receipt, or with a record of its instance.

    None where both speak of different inferences, or agree.
    """
    if first.index != second.index:
        return None
    if isinstance(second, Receipt):
        differ = first.instance == second.instance and first != second
    else:
        differ = record_of(first) != second
    return Fork(instance=first.instance, index=first.index) if differ else None
