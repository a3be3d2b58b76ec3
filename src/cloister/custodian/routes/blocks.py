"""Stops: of a model, loan, instance or consumer, and drills of them."""

from __future__ import annotations

from cloister.custodian import handlers
from cloister.custodian.calls import Again, Body, Member
from cloister.custodian.routes import duties
from cloister.custodian.routes.route import LOAN, MANAGE, VIEWERS, route

__all__ = ["BLOCKS"]

BLOCKS = (
    route("GET", "/v1/blocks", VIEWERS, handlers.list_blocks),
    route(
        "POST", "/v1/blocks", MANAGE, handlers.block, body=Body.JSON, again=Again.KEYED,
        members=(
            Member(name="kind", type="string", doc="`model`, `loan`, `instance` or `consumer`"),
            Member(name="subject", type="string", doc="digest, loan id, instance id or consumer id"),
            Member(name="loan", type="string", doc="for a consumer: its loan", required=False),
            Member(name="reason", type="string", doc="at most 200 characters, may be empty"),
        ),
    ),
    route(
        "DELETE", "/v1/blocks/{kind}/{subject}", MANAGE, handlers.unblock,
        again=Again.KEYED, query=(LOAN,), duty=duties.UNBLOCK,
    ),
    route(
        "POST", "/v1/drills", MANAGE, handlers.record_drill, body=Body.JSON, again=Again.KEYED,
        members=(
            Member(name="kind", type="string", doc="what was blocked: `model`, `loan` or `instance`"),
            Member(name="subject", type="string", doc="digest, loan id or instance id"),
            Member(name="results", type="array", doc="`{instance, measured_ms, promised_ms, units, promised_units}`"),
        ),
    ),
)  # fmt: skip
