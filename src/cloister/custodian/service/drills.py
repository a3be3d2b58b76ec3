"""Drills of the kill switch, written down for auditors: what staff measured beside what was promised (I3).

Proves that the instances exist and who says so. Not proven: that it was measured as told; staff has an interest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.custodian.service.blocks import take_kind
from cloister.custodian.service.leases import parse_instance_id
from cloister.custodian.store.instances import MAX_LISTED, find_instance
from cloister.errors import Rejected
from cloister.lending.events import EventKind
from cloister.lending.terms import MAX_UNITS
from cloister.wire import Fields

if TYPE_CHECKING:
    from cloister.custodian.service.context import Transaction
    from cloister.custodian.tokens import Actor
    from cloister.wire import Json

__all__ = ["record_drill"]

_MAX_MS = 86_400_000  # a day


def record_drill(transaction: Transaction, actor: Actor, body: Fields) -> Json:
    """Log ``{"kind", "subject", "results"}``, one entry for each instance that was asked.

    Raises ``Rejected`` (``not_found``) where an instance is none of ours; then nothing is logged.
    """
    kind = take_kind(body)
    subject = body.text("subject", cap=128, floor=1)
    results = body.items("results", cap=MAX_LISTED)
    body.end()
    if not results:
        body.fail("results", "want at least one")
    exceeded = sum(_record(transaction, actor, item, kind=kind.value, subject=subject) for item in results)
    return {"exceeded": exceeded, "recorded": len(results)}


def _record(transaction: Transaction, actor: Actor, item: Json, *, kind: str, subject: str) -> bool:
    """Log one result and tell whether it exceeds its promise."""
    fields = Fields(item, what="drill: result")
    instance = parse_instance_id(fields.text("instance", cap=64))
    measured, promised = (fields.integer(name, cap=_MAX_MS) for name in ("measured_ms", "promised_ms"))
    units, most = (fields.integer(name, cap=MAX_UNITS) for name in ("units", "promised_units"))
    fields.end()
    row = find_instance(transaction.connection, instance)
    if row is None:
        raise Rejected.because("not_found", "instance")
    exceeded = measured > promised or units > most
    transaction.record(
        EventKind.DRILL_RECORDED, actor, instance,
        exceeded=exceeded, kind=kind, loan=row.state.loan, measured_ms=measured, promised_ms=promised,
        promised_units=most, subject=subject, units=units,
    )  # fmt: skip
    return exceeded
