"""The operator's API (docs/spec/operator-api.md): the one table of what a host answers beside its tenants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.custodian import certificates_http, handlers, watching_http
from cloister.custodian.calls import ANYBODY, STATEMENT_TYPE, Again, Body, Call, Member, Reply, Wanted, json_reply
from cloister.custodian.routes.route import AFTER, LIMIT, route
from cloister.custodian.service.access import MAX_LIFE_S, issue_token, token_list, withdraw_token
from cloister.custodian.tokens import Role

if TYPE_CHECKING:
    from cloister.custodian.calls import Route
    from cloister.custodian.service import Transaction
    from cloister.custodian.tenants.keeping import Keeping
    from cloister.wire import Fields, Json

__all__ = ["OPERATOR", "operator_routes"]

OPERATOR = frozenset({Role.OPERATOR})
_TENANT = "/operator/tenants/{tenant}"
_CREATE = (
    Member(name="name", type="string", doc="1 to 32 of `a` to `z`, `0` to `9` and `-`; never given twice"),
    Member(name="discoverable", type="boolean", doc="its public routes are for strangers too; false by default",
           required=False),
    Member(name="key_file", type="string", doc="file of the host's folder for keys; made where there is none. "
           "`NAME.key` by default", required=False),
    Member(name="passphrase_file", type="string", doc="file there with a passphrase", required=False),
    Member(name="service", type="string", doc="key service that locks the vault (docs/reference/vaults.md)",
           required=False),
    Member(name="environment_file", type="string", doc="file there with what the key service needs", required=False),
    Member(name="sha256", type="string", doc="digest of the first admin's token, made by its holder (hex); the answer "
           "then shows none", required=False),
    Member(name="settings", type="object", doc="settings of the tenant (docs/reference/settings.md)", required=False),
)  # fmt: skip


def operator_routes(keeping: Keeping) -> tuple[Route, ...]:
    """Return every route of the operator's API over these use cases."""
    return (*_public(), *_tenants(keeping), *_changes(keeping), *_tokens())


def _public() -> tuple[Route, ...]:
    return (
        route("GET", "/healthz", ANYBODY, watching_http.healthz),
        route("GET", "/readyz", ANYBODY, watching_http.readyz),
        route("GET", "/openapi.json", ANYBODY, handlers.openapi),
        route("GET", "/operator/audit", OPERATOR, handlers.audit, query=(AFTER, LIMIT)),
        route("GET", "/operator/audit/checkpoint", OPERATOR, handlers.checkpoint, answers=STATEMENT_TYPE),
    )


def _tenants(keeping: Keeping) -> tuple[Route, ...]:
    def list_tenants(_call: Call) -> Reply:
        """List tenants: state, health, totals, and nothing of their content."""
        return json_reply(keeping.list())

    def show_tenant(call: Call) -> Reply:
        """Show one tenant, as in the list."""
        return json_reply(keeping.show(call.parameters["tenant"]))

    def create_tenant(call: Call) -> Reply:
        """Make a tenant; the answer shows its first admin token once."""
        return json_reply(keeping.create(call.actor, call.fields()), status=201)

    return (
        route("GET", "/operator/tenants", OPERATOR, list_tenants),
        route(
            "POST", "/operator/tenants", OPERATOR, create_tenant, body=Body.JSON, members=_CREATE, again=Again.SINGLE
        ),
        route("GET", _TENANT, OPERATOR, show_tenant),
    )


def _changes(keeping: Keeping) -> tuple[Route, ...]:
    def suspend_tenant(call: Call) -> Reply:
        """Let a tenant be as if it were not there."""
        call.fields().end()
        return json_reply(keeping.suspend(call.actor, call.parameters["tenant"]))

    def resume_tenant(call: Call) -> Reply:
        """Let a suspended tenant come back; try one that is locked or failed again."""
        call.fields().end()
        return json_reply(keeping.resume(call.actor, call.parameters["tenant"]))

    def remove_tenant(call: Call) -> Reply:
        """Erase a suspended tenant, vault first: without `phrase` answers the phrase that confirms it."""
        body = call.fields()
        phrase = body.optional("phrase", lambda member: body.text(member, cap=200))
        body.end()
        return json_reply(keeping.remove(call.actor, call.parameters["tenant"], phrase))

    return (
        route("POST", f"{_TENANT}/suspend", OPERATOR, suspend_tenant, body=Body.JSON, again=Again.SINGLE),
        route("POST", f"{_TENANT}/resume", OPERATOR, resume_tenant, body=Body.JSON, again=Again.SETTLED),
        route(
            "POST", f"{_TENANT}/remove", OPERATOR, remove_tenant, body=Body.JSON, again=Again.SINGLE,
            members=(Member(name="phrase", type="string", doc="as the first answer said", required=False),),
        ),
    )  # fmt: skip


def _tokens() -> tuple[Route, ...]:
    def list_tokens(call: Call) -> Reply:
        """List operators' tokens, without what they are."""
        return json_reply(token_list(call.service.context))

    def create_token(call: Call) -> Reply:
        """Make a token for an operator; the answer shows it once."""

        def work(transaction: Transaction, body: Fields) -> Json:
            name = body.text("name", cap=100, floor=1)
            life = body.optional("life_s", lambda member: body.seconds(member, floor=60, cap=MAX_LIFE_S))
            body.end()
            token = issue_token(transaction, call.actor, role=Role.OPERATOR, name=name, life=life)
            return {"name": name, "token": token}

        return json_reply(call.change(work), status=201)

    def revoke_token(call: Call) -> Reply:
        """Revoke an operator's token."""
        token, actor = call.parameters["token"], call.actor
        return json_reply(call.run(lambda work: withdraw_token(work, actor, token, keeper=Role.OPERATOR)))

    return (
        route("GET", "/operator/tokens", OPERATOR, list_tokens),
        route(
            "POST", "/operator/tokens", OPERATOR, create_token, body=Body.JSON, again=Again.KEYED,
            members=(
                Member(name="name", type="string", doc="whose token it is"),
                Member(name="life_s", type="integer", doc="seconds the token is good for", required=False),
            ),
        ),
        route("DELETE", "/operator/tokens/{token}", OPERATOR, revoke_token, again=Again.KEYED),
        route(
            "POST", "/operator/certificates", OPERATOR, certificates_http.issue, body=Body.JSON, again=Again.SINGLE,
            members=certificates_http.ISSUE_MEMBERS, wanted=Wanted.NOTHING,
        ),
    )  # fmt: skip
