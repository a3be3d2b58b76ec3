"""Models, the keys that protect them, and judging releases of them again."""

from __future__ import annotations

from cloister.custodian import handlers, keys_http
from cloister.custodian.calls import STATEMENT_TYPE, Again, Body, Member
from cloister.custodian.routes import duties
from cloister.custodian.routes.route import ADMIN, MANAGE, VIEWERS, route

__all__ = ["MODELS"]

_MODELS = (
    route(
        "POST", "/v1/models", MANAGE, handlers.publish, body=Body.JSON, again=Again.KEYED,
        members=(
            Member(name="manifest", type="string", doc="exact bytes of manifest.json, base64url"),
            Member(name="signature", type="string", doc="exact bytes of manifest.sig, base64url"),
            Member(name="envelope", type="object", doc="content of envelope.json"),
        ),
    ),
    route("GET", "/v1/models", VIEWERS, handlers.list_models),
    route("GET", "/v1/models/{digest}", VIEWERS, handlers.show_model),
    route("POST", "/v1/models/{digest}/withdraw", MANAGE, handlers.withdraw, body=Body.JSON, again=Again.KEYED),
)  # fmt: skip

_KEYS = (
    route("GET", "/v1/keys", VIEWERS, keys_http.list_keys),
    route("GET", "/v1/keys/status", VIEWERS, keys_http.status_of_keys, answers=STATEMENT_TYPE),
    route(
        "POST", "/v1/keys/rotate", ADMIN, keys_http.rotate_keys, body=Body.JSON, members=keys_http.ROTATE_MEMBERS,
        again=Again.KEYED, duty=duties.INCIDENT,
    ),
    route(
        "POST", "/v1/keys/schedule", ADMIN, keys_http.schedule_rotation, body=Body.JSON,
        members=keys_http.SCHEDULE_MEMBERS, again=Again.KEYED, duty=duties.SCHEDULE,
    ),
    route(
        "POST", "/v1/keys/exports", ADMIN, keys_http.permit_export, body=Body.JSON,
        members=keys_http.EXPORT_MEMBERS, again=Again.KEYED, duty=duties.KEY_EXPORT,
    ),
    route("DELETE", "/v1/keys/exports/{proposal}", ADMIN, keys_http.revoke_permit, again=Again.KEYED),
)  # fmt: skip

_RECALL = (
    route(
        "POST", "/v1/recall", MANAGE, handlers.recall, again=Again.SETTLED, body=Body.JSON,
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

MODELS = (*_MODELS, *_KEYS, *_RECALL)
