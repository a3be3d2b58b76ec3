"""What a front page and long lists show, a page at a time; the whole of it is in ``loan_views`` and its like."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from cloister.custodian.service.loan_views import instance_json, loan_brief
from cloister.custodian.store.blocks import BlockKind, list_blocks
from cloister.custodian.store.instances import some_instances
from cloister.custodian.store.keys import FIRST_EPOCH, keks
from cloister.custodian.store.lists import borrowers_of, count_all, granted_to_each, loan_ids, loans_with_open_asks
from cloister.custodian.store.loans import some_loans
from cloister.custodian.store.models import find_model, list_models
from cloister.custodian.store.spending import Moved, moved_in_steps, totals
from cloister.custodian.store.usage import consumers_by_use
from cloister.errors import Rejected
from cloister.sealed.envelope import Envelope
from cloister.wire import dump_time

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from cloister.custodian.service.context import Context
    from cloister.lending.terms import LoanId, ModelDigest
    from cloister.wire import Json

__all__ = ["borrowers", "burn_down", "consumer_page", "counts", "instance_page", "loan_page", "model_keys", "waiting"]

_WAITING = 10  # loans named whose borrowers wait


def counts(context: Context) -> dict[str, int]:
    """Return how many there are of each thing."""
    with context.reading() as connection:
        return asdict(count_all(connection, context.now()))


def waiting(context: Context) -> Json:
    """Return the loans whose borrowers wait for an answer, who waits longest first."""
    with context.reading() as connection:
        found = loans_with_open_asks(connection, limit=_WAITING)
        names = borrowers_of(connection, [loan for loan, _ in found])
    return [{"borrower": names[loan], "loan": loan, "requests": number} for loan, number in found]


def borrowers(context: Context, loans: Sequence[LoanId]) -> dict[str, str]:
    """Return who borrows each of these loans."""
    with context.reading() as connection:
        return {str(loan): name for loan, name in borrowers_of(connection, loans).items()}


def loan_page(context: Context, *, like: str, skip: int, limit: int) -> Json:
    """Return some loans shortly, newest first, with what each was granted; and how many there are in all."""
    now = context.now()
    with context.reading() as connection:
        found, total = loan_ids(connection, like=like, skip=skip, limit=limit)
        rows, granted = some_loans(connection, found), granted_to_each(connection, found)
        loans: list[Json] = [
            {**loan_brief(connection, rows[loan], context.config, now), "granted": granted[loan]} for loan in found
        ]
    return {"loans": loans, "total": total}


def burn_down(context: Context, loan: LoanId, *, step: timedelta, steps: int) -> Json:
    """Return what one loan had left of its units at the end of each step, and what it spent in each.

    What is left is what was granted and neither spent nor written off: the allowance, and what instances hold of it.
    """
    now = context.now()
    start = now - step * steps
    with context.reading() as connection:
        sums = totals(connection, loan).get(loan)
        nothing = Moved(spent=[0] * steps, added=[0] * steps)
        moved = moved_in_steps(connection, loan, start=start, step=step, steps=steps).get(loan, nothing)
    left = 0 if sums is None else sums.granted - sums.spent - sums.written_off
    ends: list[Json] = []
    for gone, come in zip(reversed(moved.spent), reversed(moved.added), strict=True):
        ends.append(left)
        left += gone - come
    ends.append(left)
    return {"from": dump_time(start), "left": ends[::-1], "spent": list(moved.spent)}


def instance_page(context: Context, *, skip: int, limit: int) -> Json:
    """Return some instances, those that are not over first; how many may serve now, and how many there are."""
    now = context.now()
    with context.reading() as connection:
        found, total = some_instances(connection, skip=skip, limit=limit)
        loans = [row.state.loan for row in found]
        serving = count_all(connection, now).live
        names = borrowers_of(connection, loans)
    return {
        "borrowers": {str(loan): name for loan, name in names.items()},
        "enclaves": [instance_json(row, now) for row in found],
        "serving": serving,
        "total": total,
    }


def consumer_page(context: Context, *, skip: int, limit: int) -> Json:
    """Return some consumers of all loans, who used most first, and how many there are."""
    with context.reading() as connection:
        found, total = consumers_by_use(connection, skip=skip, limit=limit)
        names = borrowers_of(connection, [loan for loan, _, _ in found])
        stopped = {(item.loan, item.subject) for item in list_blocks(connection) if item.kind is BlockKind.CONSUMER}
    rows: list[Json] = [
        {"blocked": (loan, who) in stopped, "borrower": names[loan], "consumer": who, "loan": loan, "units": units}
        for loan, who, units in found
    ]
    return {"consumers": rows, "total": total}


def model_keys(context: Context, digest: ModelDigest) -> Json:
    """Return how a model's key is wrapped, by which of our keys of what age; and its other versions, by its name.

    Nothing that is returned opens anything.
    """
    with context.reading() as connection:
        row = find_model(connection, digest)
        if row is None:
            raise Rejected.because("not_found", "model")
        made = {item.id: item for item in keks(connection)}
        others = [item for item in list_models(connection) if item.name == row.name]
    envelope = Envelope.parse(row.envelope)
    wrapped: list[Json] = []
    for one in envelope.recipients:
        kek = made.get(one.kek_id)
        wrapped.append(
            {
                "epoch": FIRST_EPOCH if kek is None else kek.number,
                "kek_id": one.kek_id,
                "key_version": one.key_version,
                "made_at": None if kek is None else dump_time(kek.made_at),
                "retired": kek is not None and kek.retired_at is not None,
            }
        )
    return {
        "keys": wrapped,
        "versions": [
            {
                "digest": item.digest,
                "published_at": dump_time(item.published_at),
                "withdrawn_at": None if item.withdrawn_at is None else dump_time(item.withdrawn_at),
            }
            for item in others
        ],
    }
