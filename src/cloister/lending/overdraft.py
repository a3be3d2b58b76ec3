"""What was served beyond the ceilings because a voucher allowed it: booked as owed (docs/spec/voucher.md, section 6).

Units of an overdraft have no escrow behind them. The first contact books them: the ceiling rises to what was
served, out of the ledger's ``overdraft``, whose negative is what the loan owes; the next top-up pays that first. An
instance that ends without a word is booked to its full reach: else silence would be cheaper than a statement.

Not done here: paying (``ledger.repay``), promising (``voucher_grant``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cloister.lending.events import Event, EventKind
from cloister.lending.ledger import OVERDRAFT, Posting, escrow

if TYPE_CHECKING:
    from cloister.lending.messages import Units
    from cloister.lending.state import InstanceState
    from cloister.lending.terms import Meter

__all__ = ["Booked", "book", "promised", "reach_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """An instance whose ceilings cover what it served, and what that took."""

    instance: InstanceState
    postings: tuple[Posting, ...]
    events: tuple[Event, ...]


def reach_of(instance: InstanceState, meter: Meter) -> int:
    """Return how far this instance may ever have come on this meter: its ceiling, or beyond it by an overdraft."""
    return max(instance.limits.get(meter, 0), instance.reach.get(meter, 0))


def promised(instance: InstanceState) -> int:
    """Return the most units beyond a ceiling that this instance may have served and not been booked for."""
    return max((reach_of(instance, meter) - instance.limits.get(meter, 0) for meter in instance.reach), default=0)


def book(instance: InstanceState, used: Units) -> Booked:
    """Raise each ceiling to ``used`` where that is more. The caller has proven ``used`` to be within reach."""
    over = {
        meter: units - instance.limits.get(meter, 0)
        for meter, units in used.items()
        if units > instance.limits.get(meter, 0)
    }
    postings = tuple(
        Posting(
            loan=instance.loan,
            meter=meter,
            debit_account=OVERDRAFT,
            credit_account=escrow(instance.id),
            units=units,
        )
        for meter, units in over.items()
    )
    events = tuple(
        Event(
            kind=EventKind.OVERDRAFT_BOOKED,
            actor=instance.id,
            subject=instance.loan,
            details={"meter": meter, "units": units},
        )
        for meter, units in over.items()
    )
    raised = replace(instance, limits={**instance.limits, **{meter: used[meter] for meter in over}})
    return Booked(instance=raised if over else instance, postings=postings, events=events)
