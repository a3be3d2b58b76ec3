"""The API as one table (docs/reference/custodian-api.md). App, OpenAPI document and tests read this one."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from cloister.custodian import devices_http, handlers, keys_http, log_http, usage_http
from cloister.custodian.calls import ANYBODY, BORROWER, JSON_TYPE, STATEMENT_TYPE, Body, Member, Route
from cloister.custodian.events import EVENT_STREAM, events
from cloister.custodian.tokens import Role

if TYPE_CHECKING:
    from cloister.custodian.calls import Handler

__all__ = ["ADMIN", "MANAGE", "ROUTES", "STAFF"]

ADMIN = frozenset({Role.ADMIN})
MANAGE = frozenset({Role.ADMIN, Role.LENDER})
STAFF = frozenset({Role.ADMIN, Role.LENDER, Role.AUDITOR})
WATCHERS = STAFF | BORROWER

_CLAUSES = Member(
    name="clauses", type="object", required=False,
    doc="`purpose`, `hours`, `precision`, `offline`, `refund`, `borrower` (key), `sub_allowances`, "
    "`revocations` (docs/spec/contract.md)",
)  # fmt: skip
_LIMITS = (
    Member(name="ttl_s", type="integer", doc="T: seconds a lease lives", required=False),
    Member(name="rate_cap", type="integer", doc="units per second, 0 for no cap", required=False),
    Member(name="max_ceiling", type="integer", doc="units one instance may hold unserved", required=False),
    Member(name="untrusted_ceiling", type="integer", doc="the same where its clock is not trusted", required=False),
    Member(name="max_instances", type="integer", doc="instances that may live at once", required=False),
)
_UNITS = Member(name="units", type="integer", doc="units, 1 to 2**53 - 1")
_METER = Member(name="meter", type="string", doc="`loan` (default), `model:NAME` or `consumer:ID`", required=False)
_REASON = Member(name="reason", type="string", doc="at most 200 characters", required=False)
_AFTER = Member(name="after", type="integer", doc="index of the last entry known; -1 for none", required=False)
_LIMIT = Member(name="limit", type="integer", doc="entries in one answer, at most 1000; 100 by default", required=False)
_LOAN = Member(name="loan", type="string", doc="id of a loan", required=False)


def _route(
    method: str,
    path: str,
    roles: frozenset[Role] | None,
    handler: Handler,
    *,
    body: Body = Body.NONE,
    members: tuple[Member, ...] = (),
    query: tuple[Member, ...] = (),
    answers: str = JSON_TYPE,
    once: bool = False,
    limited: bool = False,
    deep: bool = False,
) -> Route:
    summary = (inspect.getdoc(handler) or "").partition("\n")[0]
    return Route(
        method=method, path=path, roles=roles, summary=summary, handler=handler, body=body, members=members,
        query=query, answers=answers, once=once, limited=limited, stream=answers == EVENT_STREAM, deep=deep,
    )  # fmt: skip


_PUBLIC = (
    _route("GET", "/healthz", ANYBODY, handlers.healthz),
    _route("GET", "/readyz", ANYBODY, handlers.readyz),
    _route("GET", "/openapi.json", ANYBODY, handlers.openapi),
    _route("GET", "/v1/custodian", ANYBODY, handlers.custodian),
    _route(
        "GET", "/v1/instances/{instance}/status", ANYBODY, handlers.status, answers=STATEMENT_TYPE,
        query=(Member(name="nonce", type="string", doc="32 bytes of the asker's choice, base64url"),),
    ),
)  # fmt: skip

_ENCLAVES = (
    _route("POST", "/v1/loans/{loan}/challenge", BORROWER, handlers.challenge, answers=STATEMENT_TYPE, limited=True),
    _route("POST", "/v1/loans/{loan}/attest", BORROWER, handlers.attest, body=Body.STATEMENT, answers=STATEMENT_TYPE),
    # Signed by the instance key inside: the signature is the authentication (C1).
    _route(
        "POST", "/v1/instances/{instance}/lease", ANYBODY, handlers.lease, body=Body.STATEMENT, answers=STATEMENT_TYPE
    ),
    _route(
        "POST",
        "/v1/instances/{instance}/renewal",
        ANYBODY,
        handlers.renew,
        body=Body.JSON,
        members=(
            Member(name="report", type="string", doc="the usage report's exact bytes, base64url"),
            Member(name="request", type="string", doc="the lease request's exact bytes, base64url"),
        ),
    ),
    _route(
        "POST", "/v1/instances/{instance}/ticket", ANYBODY, handlers.ticket, body=Body.STATEMENT, answers=STATEMENT_TYPE
    ),
    _route("POST", "/v1/instances/{instance}/close", ANYBODY, handlers.close, body=Body.STATEMENT),
)

_BORROWERS = (
    _route(
        "POST", "/v1/loans/{loan}/requests", BORROWER, handlers.ask_more, body=Body.JSON,
        members=(_UNITS, _METER, _REASON), once=True,
    ),
    _route("GET", "/v1/loans/{loan}/summary", WATCHERS, handlers.summary),
    _route("GET", "/v1/loans/{loan}/contract", WATCHERS, handlers.show_contract),
    _route(
        "POST", "/v1/loans/{loan}/contract", BORROWER, handlers.accept_contract, body=Body.JSON, once=True,
        members=(
            Member(name="version", type="integer", doc="the version that is signed: the newest"),
            Member(name="signature", type="string", doc="Ed25519 over the contract's payload, base64url"),
        ),
    ),
)  # fmt: skip

_MODELS = (
    _route(
        "POST", "/v1/models", MANAGE, handlers.publish, body=Body.JSON, once=True,
        members=(
            Member(name="manifest", type="string", doc="exact bytes of manifest.json, base64url"),
            Member(name="signature", type="string", doc="exact bytes of manifest.sig, base64url"),
            Member(name="envelope", type="object", doc="content of envelope.json"),
        ),
    ),
    _route("GET", "/v1/models", STAFF, handlers.list_models),
    _route("GET", "/v1/models/{digest}", STAFF, handlers.show_model),
    _route("POST", "/v1/models/{digest}/withdraw", MANAGE, handlers.withdraw, body=Body.JSON, once=True),
)  # fmt: skip

_LOANS = (
    _route(
        "POST", "/v1/loans", MANAGE, handlers.create_loan, body=Body.JSON, once=True,
        members=(
            Member(name="borrower", type="string", doc="the borrower's name, shown to consumers as the operator"),
            Member(name="models", type="array", doc="`{name, digest, allowance?, ticketed?}`, at least one"),
            Member(name="allowance", type="integer", doc="units of the whole loan"),
            Member(name="consumers", type="array or null", doc="`{id, allowance?}`; null means anybody"),
            Member(name="policy", type="object", doc="appraisal policy (docs/spec/policy.md)"),
            _CLAUSES,
            *_LIMITS,
        ),
    ),
    _route(
        "POST", "/v1/loans/{loan}/vouchers", MANAGE, handlers.sign_voucher, body=Body.JSON, answers=STATEMENT_TYPE,
        members=(
            Member(name="request", type="string", doc="the request file's exact bytes, base64url"),
            Member(name="units", type="integer", doc="the most units it may carry; the offline term's by default",
                   required=False),
        ),
    ),
    # Signed by the instance key inside, whoever brings it.
    _route(
        "POST", "/v1/loans/{loan}/vouchers/settle", MANAGE | BORROWER, handlers.settle_voucher, body=Body.STATEMENT
    ),
    _route("GET", "/v1/loans", STAFF, handlers.list_loans),
    _route("GET", "/v1/loans/{loan}", STAFF, handlers.show_loan),
    _route(
        "POST", "/v1/loans/{loan}/top-up", MANAGE, handlers.top_up, body=Body.JSON, members=(_UNITS, _METER), once=True
    ),
    _route(
        "POST", "/v1/loans/{loan}/set", MANAGE, handlers.set_units, body=Body.JSON, members=(_UNITS, _METER), once=True
    ),
    _route(
        "POST", "/v1/loans/{loan}/requests/{request}/approve", MANAGE, handlers.approve, body=Body.JSON, once=True,
        members=(Member(name="units", type="integer", doc="other than asked for", required=False),),
    ),
    _route(
        "POST", "/v1/loans/{loan}/requests/{request}/deny", MANAGE, handlers.deny, body=Body.JSON, once=True,
        members=(_REASON,),
    ),
    _route(
        "POST", "/v1/loans/{loan}/consumers", MANAGE, handlers.add_consumers, body=Body.JSON, once=True,
        members=(Member(name="consumers", type="array", doc="`{id, allowance?}`, at least one"),),
    ),
    _route(
        "POST", "/v1/loans/{loan}/amend", MANAGE, handlers.amend, body=Body.JSON, once=True,
        members=(_CLAUSES, *_LIMITS),
    ),
    _route(
        "POST", "/v1/loans/{loan}/models", MANAGE, handlers.roll_out, body=Body.JSON, once=True,
        members=(
            Member(name="digest", type="string", doc="the newer version, published before"),
            Member(name="name", type="string", doc="of a model that the loan has"),
        ),
    ),
    _route(
        "POST", "/v1/loans/{loan}/policy", MANAGE, handlers.replace_policy, body=Body.JSON, once=True,
        members=(Member(name="policy", type="object", doc="policy of a higher version"),),
    ),
)  # fmt: skip

_BLOCKS = (
    _route("GET", "/v1/blocks", STAFF, handlers.list_blocks),
    _route(
        "POST", "/v1/blocks", MANAGE, handlers.block, body=Body.JSON, once=True,
        members=(
            Member(name="kind", type="string", doc="`model`, `loan`, `instance` or `consumer`"),
            Member(name="subject", type="string", doc="digest, loan id, instance id or consumer id"),
            Member(name="loan", type="string", doc="for a consumer: its loan", required=False),
            Member(name="reason", type="string", doc="at most 200 characters, may be empty"),
        ),
    ),
    _route("DELETE", "/v1/blocks/{kind}/{subject}", MANAGE, handlers.unblock, query=(_LOAN,)),
    _route(
        "POST", "/v1/drills", MANAGE, handlers.record_drill, body=Body.JSON, once=True,
        members=(
            Member(name="kind", type="string", doc="what was blocked: `model`, `loan` or `instance`"),
            Member(name="subject", type="string", doc="digest, loan id or instance id"),
            Member(name="results", type="array", doc="`{instance, measured_ms, promised_ms, units, promised_units}`"),
        ),
    ),
)  # fmt: skip

_RECALL = (
    _route(
        "POST", "/v1/recall", MANAGE, handlers.recall, body=Body.JSON,
        members=(
            Member(name="policy", type="object", doc="judge by this policy, not by each loan's own", required=False),
            Member(name="bundle", type="string", doc="judge by this signed bundle (base64url), not by the "
                   "custodian's own endorsements", required=False),
            Member(name="at", type="string", doc="judge as of this time (RFC 3339); now by default", required=False),
            Member(name="stop", type="boolean", doc="block live instances that fall; `stop_on_recall` by default",
                   required=False),
            Member(name="after", type="integer", doc="number of the last release known; 0 for none", required=False),
            Member(name="limit", type="integer", doc="releases in one answer, at most 100; 100 by default",
                   required=False),
        ),
    ),
)  # fmt: skip

_KEYS = (
    _route("GET", "/v1/keys", STAFF, keys_http.list_keys),
    _route("GET", "/v1/keys/status", STAFF, keys_http.status_of_keys, answers=STATEMENT_TYPE),
    _route(
        "POST", "/v1/keys/rotate", ADMIN, keys_http.rotate_keys, body=Body.JSON, members=keys_http.ROTATE_MEMBERS,
        once=True,
    ),
    _route(
        "POST", "/v1/keys/schedule", ADMIN, keys_http.schedule_rotation, body=Body.JSON,
        members=keys_http.SCHEDULE_MEMBERS, once=True,
    ),
)  # fmt: skip

_LOOKING = (
    _route("GET", "/v1/instances", STAFF, handlers.list_instances),
    _route("GET", "/v1/audit", STAFF, handlers.audit, query=(_AFTER, _LIMIT)),
    _route("GET", "/v1/audit/checkpoint", STAFF, handlers.checkpoint, answers=STATEMENT_TYPE),
    _route("GET", "/v1/events", WATCHERS, events, query=(_AFTER, _LOAN), answers=EVENT_STREAM),
)

_LOG = (
    _route(
        "GET", "/log/checkpoint", ANYBODY, log_http.log_checkpoint, query=(log_http.SIZE, log_http.QUORUM),
        answers=log_http.TEXT_TYPE,
    ),
    _route(
        "GET", "/log/consistency", ANYBODY, log_http.log_consistency,
        query=(log_http.OLD, log_http.SIZE, log_http.QUORUM), answers=log_http.TEXT_TYPE,
    ),
    # Entries before tiles: the path of the second is any.
    _route("GET", "/log/tile/entries/{tile}", STAFF, log_http.log_entries, answers=log_http.TILE_TYPE, deep=True),
    _route("GET", "/log/tile/{tile}", ANYBODY, log_http.log_tile, answers=log_http.TILE_TYPE, deep=True),
    # Signed by a witness that the settings name: the signature is the authentication.
    _route("POST", "/log/cosignatures", ANYBODY, log_http.cosignatures, body=Body.TEXT),
    _route("GET", "/v1/loans/{loan}/audit", WATCHERS, log_http.loan_entries, query=(_AFTER, _LIMIT)),
    _route(
        "GET", "/v1/audit/{index}/proof", WATCHERS, log_http.proof, query=(log_http.SIZE, log_http.QUORUM),
        answers=log_http.TEXT_TYPE,
    ),
)  # fmt: skip

_TOKENS = (
    _route("GET", "/v1/tokens", ADMIN, handlers.list_tokens),
    _route(
        "POST", "/v1/tokens", ADMIN, handlers.create_token, body=Body.JSON, once=True,
        members=(
            Member(name="role", type="string", doc="`admin`, `lender`, `auditor` or `borrower`"),
            Member(name="name", type="string", doc="whose token it is"),
            Member(name="loan", type="string", doc="for a borrower: its loan", required=False),
            Member(name="life_s", type="integer", doc="seconds the token is good for", required=False),
        ),
    ),
    _route("DELETE", "/v1/tokens/{token}", ADMIN, handlers.revoke_token),
)  # fmt: skip

_DEVICES = (
    _route(
        "POST", "/v1/devices/enrolments", MANAGE | BORROWER, devices_http.begin, body=Body.JSON, limited=True,
        members=devices_http.BEGIN_MEMBERS,
    ),
    _route(
        "POST", "/v1/devices/enrolments/{enrolment}/finish", MANAGE | BORROWER, devices_http.finish, body=Body.JSON,
        members=devices_http.FINISH_MEMBERS,
    ),
    _route("GET", "/v1/devices", STAFF, devices_http.list_devices),
)  # fmt: skip

_USAGE = (
    # Signed by the instance key inside, as leases and closes are.
    _route(
        "POST", "/v1/instances/{instance}/usage", ANYBODY, usage_http.report, body=Body.STATEMENT,
        answers=STATEMENT_TYPE,
    ),
    _route(
        "GET", "/v1/instances/{instance}/usage", WATCHERS, usage_http.reports,
        query=(Member(name="after", type="integer", doc="index of the last record known; 0 for none", required=False),),
    ),
    _route(
        "GET", "/v1/loans/{loan}/usage", WATCHERS, usage_http.statement, answers=STATEMENT_TYPE, limited=True,
        query=(
            Member(name="from", type="string", doc="first minute (RFC 3339); all by default", required=False),
            Member(name="to", type="string", doc="the minute behind the last one; all by default", required=False),
        ),
    ),
    _route(
        "POST", "/v1/forks", ANYBODY, usage_http.submit_fork, body=Body.JSON, limited=True,
        members=(
            Member(name="instance", type="string", doc="id of the instance that signed"),
            Member(name="receipts", type="array", doc="two receipts of one index (base64url), or one that the "
                   "reported record contradicts"),
        ),
    ),
)  # fmt: skip

ROUTES = (
    *_PUBLIC,
    *_ENCLAVES,
    *_BORROWERS,
    *_MODELS,
    *_LOANS,
    *_BLOCKS,
    *_RECALL,
    *_KEYS,
    *_LOOKING,
    *_LOG,
    *_TOKENS,
    *_DEVICES,
    *_USAGE,
)
"""Every route there is."""
