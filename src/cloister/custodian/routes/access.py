"""Who may come in: tokens, and devices with a TPM."""

from __future__ import annotations

from cloister.custodian import devices_http, handlers
from cloister.custodian.calls import BORROWER, Again, Body, Member
from cloister.custodian.routes import duties
from cloister.custodian.routes.route import ADMIN, MANAGE, VIEWERS, route

__all__ = ["ACCESS"]

_TOKENS = (
    route("GET", "/v1/tokens", ADMIN, handlers.list_tokens),
    route(
        "POST", "/v1/tokens", ADMIN, handlers.create_token, body=Body.JSON, again=Again.KEYED, duty=duties.PERSON,
        members=(
            Member(name="role", type="string", doc="`admin`, `lender`, `auditor`, `viewer` or `borrower`"),
            Member(name="name", type="string", doc="whose token it is"),
            Member(name="loan", type="string", doc="for a borrower: its loan", required=False),
            Member(name="life_s", type="integer", doc="seconds the token is good for", required=False),
            Member(name="person", type="string", doc="who answers for it; two tokens of one person are one person",
                   required=False),
            Member(name="sha256", type="string", doc="of a token that its holder made, hex; the answer has none then",
                   required=False),
        ),
    ),
    route("DELETE", "/v1/tokens/{token}", ADMIN, handlers.revoke_token, again=Again.KEYED),
)  # fmt: skip

_DEVICES = (
    route(
        "POST", "/v1/devices/enrolments", MANAGE | BORROWER, devices_http.begin, body=Body.JSON, limited=True,
        again=Again.FRESH,
        members=devices_http.BEGIN_MEMBERS,
    ),
    route(
        "POST", "/v1/devices/enrolments/{enrolment}/finish", MANAGE | BORROWER, devices_http.finish, body=Body.JSON,
        again=Again.SINGLE,
        members=devices_http.FINISH_MEMBERS,
    ),
    route("GET", "/v1/devices", VIEWERS, devices_http.list_devices),
    route("GET", "/v1/devices/{device}", VIEWERS, devices_http.show),
    route(
        "POST", "/v1/devices/{device}/label", MANAGE, devices_http.label, body=Body.JSON, again=Again.KEYED,
        members=(Member(name="label", type="string", doc="at most 64 characters, may be empty"),),
    ),
    route(
        "POST", "/v1/devices/{device}/retire", MANAGE, devices_http.retire, body=Body.JSON, again=Again.KEYED,
        members=(Member(name="reason", type="string", doc="at most 200 characters, may be empty"),),
    ),
    route(
        "POST", "/v1/devices/{device}/readmit", ADMIN, devices_http.readmit, body=Body.JSON, again=Again.KEYED,
        duty=duties.READMIT,
    ),
)  # fmt: skip

ACCESS = (*_TOKENS, *_DEVICES)
