"""What the routes about usage and forks do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.custodian.calls import Call, Reply, json_reply, statement_reply
from cloister.custodian.service import forks, usage
from cloister.custodian.service.leases import parse_instance_id
from cloister.custodian.tokens import Role
from cloister.errors import Malformed, Rejected
from cloister.wire import MAX_INT, parse_time

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["report", "reports", "statement", "submit_fork"]


def report(call: Call) -> Reply:
    """Take an enclave's usage report; the answer is the signed acknowledgement, the same each time."""
    instance = parse_instance_id(call.parameters["instance"])
    return statement_reply(usage.report(call.service.context, instance, call.body))


def reports(call: Call) -> Reply:
    """Give an instance's signed usage reports, a page at a time."""
    instance = parse_instance_id(call.parameters["instance"])
    if call.actor.role is Role.BORROWER and usage.loan_of(call.service.context, instance) != call.actor.loan:
        raise Rejected.because("not_found", "instance")
    after = call.number("after", default=0, floor=0, cap=MAX_INT)
    return json_reply(usage.report_page(call.service.context, instance, after=after))


def statement(call: Call) -> Reply:
    """State, signed, what a loan used in a period, by model and consumer."""
    start, end = (_time(call, name, default) for name, default in zip(("from", "to"), usage.FOREVER, strict=True))
    if start >= end:
        msg = "query: from: want a time before to"
        raise Malformed(msg)
    return statement_reply(usage.statement(call.service.context, call.loan, start=start, end=end))


def submit_fork(call: Call) -> Reply:
    """Prove by two of its receipts that an instance's memory was copied; it is stopped at once."""
    body = call.fields()
    instance = parse_instance_id(body.text("instance", cap=64))
    return json_reply(forks.submit(call.service.context, instance, body))


def _time(call: Call, name: str, default: datetime) -> datetime:
    text = call.query.get(name)
    if text is None:
        return default
    moment = parse_time(text, what=f"query: {name}")
    if not usage.whole_minutes(moment):
        msg = f"query: {name}: want a whole minute"
        raise Malformed(msg)
    return moment
