"""Loans: made, topped up, amended, asked for more by their borrowers."""

from __future__ import annotations

from cloister.custodian import handlers
from cloister.custodian.calls import BORROWER, STATEMENT_TYPE, Again, Body, Member
from cloister.custodian.routes import duties
from cloister.custodian.routes.route import (
    CLAUSES,
    LIMITS,
    MANAGE,
    METER,
    REASON,
    UNITS,
    VIEWERS,
    WATCHERS_AND_VIEWERS,
    route,
)

__all__ = ["LOANS"]

_BORROWERS = (
    route(
        "POST", "/v1/loans/{loan}/requests", BORROWER, handlers.ask_more, body=Body.JSON,
        members=(UNITS, METER, REASON), again=Again.KEYED,
    ),
    route("GET", "/v1/loans/{loan}/summary", WATCHERS_AND_VIEWERS, handlers.summary),
    route("GET", "/v1/loans/{loan}/contract", WATCHERS_AND_VIEWERS, handlers.show_contract),
    route(
        "POST", "/v1/loans/{loan}/contract", BORROWER, handlers.accept_contract, body=Body.JSON, again=Again.KEYED,
        members=(
            Member(name="version", type="integer", doc="the version that is signed: the newest"),
            Member(name="signature", type="string", doc="Ed25519 over the contract's payload, base64url"),
        ),
    ),
)  # fmt: skip

_LOANS = (
    route(
        "POST", "/v1/loans", MANAGE, handlers.create_loan, body=Body.JSON, again=Again.KEYED,
        members=(
            Member(name="borrower", type="string", doc="the borrower's name, shown to consumers as the operator"),
            Member(name="models", type="array", doc="`{name, digest, allowance?, ticketed?}`, at least one"),
            Member(name="allowance", type="integer", doc="units of the whole loan"),
            Member(name="consumers", type="array or null", doc="`{id, allowance?, token?}`; null means anybody"),
            Member(name="policy", type="object", doc="appraisal policy (docs/spec/policy.md)"),
            CLAUSES,
            *LIMITS,
        ),
    ),
    route(
        "POST", "/v1/loans/{loan}/vouchers", MANAGE, handlers.sign_voucher, body=Body.JSON, answers=STATEMENT_TYPE,
        again=Again.SIGNED,
        members=(
            Member(name="request", type="string", doc="the request file's exact bytes, base64url"),
            Member(name="units", type="integer", doc="the most units it may carry; the offline term's by default",
                   required=False),
        ),
    ),
    # Signed by the instance key inside, whoever brings it.
    route(
        "POST", "/v1/loans/{loan}/vouchers/settle", MANAGE | BORROWER, handlers.settle_voucher, body=Body.STATEMENT,
        again=Again.SIGNED,
    ),
    route("GET", "/v1/loans", VIEWERS, handlers.list_loans),
    route("GET", "/v1/loans/{loan}", VIEWERS, handlers.show_loan),
    route(
        "POST", "/v1/loans/{loan}/top-up", MANAGE, handlers.top_up, body=Body.JSON, members=(UNITS, METER),
        again=Again.KEYED,
    ),
    route(
        "POST", "/v1/loans/{loan}/set", MANAGE, handlers.set_units, body=Body.JSON, members=(UNITS, METER),
        again=Again.KEYED,
    ),
    route(
        "POST", "/v1/loans/{loan}/requests/{request}/approve", MANAGE, handlers.approve, body=Body.JSON,
        again=Again.KEYED,
        members=(Member(name="units", type="integer", doc="other than asked for", required=False),),
    ),
    route(
        "POST", "/v1/loans/{loan}/requests/{request}/deny", MANAGE, handlers.deny, body=Body.JSON, again=Again.KEYED,
        members=(REASON,),
    ),
    route(
        "POST", "/v1/loans/{loan}/consumers", MANAGE, handlers.add_consumers, body=Body.JSON, again=Again.KEYED,
        members=(Member(name="consumers", type="array", doc="`{id, allowance?, token?}`, at least one"),),
    ),
    route(
        "POST", "/v1/loans/{loan}/amend", MANAGE, handlers.amend, body=Body.JSON, again=Again.KEYED,
        members=(CLAUSES, *LIMITS),
    ),
    route(
        "POST", "/v1/loans/{loan}/models", MANAGE, handlers.roll_out, body=Body.JSON, again=Again.KEYED,
        members=(
            Member(name="digest", type="string", doc="the newer version, published before"),
            Member(name="name", type="string", doc="of a model that the loan has"),
        ),
    ),
    route(
        "POST", "/v1/loans/{loan}/policy", MANAGE, handlers.replace_policy, body=Body.JSON, again=Again.KEYED,
        duty=duties.POLICY,
        members=(Member(name="policy", type="object", doc="policy of a higher version"),),
    ),
)  # fmt: skip

LOANS = (*_BORROWERS, *_LOANS)
