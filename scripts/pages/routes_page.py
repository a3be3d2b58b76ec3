"""Writes docs/reference/routes.md from the tables of routes that servers, documents of OpenAPI and access checks read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.custodian.routes import ROUTES as CUSTODIAN
from cloister.custodian.tenants.operator_http import operator_routes
from cloister.verifier.routes import ROUTES as VERIFIER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cloister.custodian.calls import Member, Route
    from cloister.verifier.routes import Route as VerifierRoute

NAME = "routes.md"
_HEAD = """# Every route

Made from the source by `make reference`. Each of these servers answers `GET /openapi.json` with the same as an OpenAPI 3.1 document. What the routes do in
detail: [custodian API](custodian-api.md), [tenants](tenants.md), [attestation service](attestation-service.md), [enclave API](enclave-api.md),
[relay](relay.md). Refusals are problem documents: [errors](errors.md). A route marked `*` takes an `Idempotency-Key`;
other changes refuse one.
"""


def page() -> str:
    """Return the page."""
    operator = operator_routes(None)  # type: ignore[arg-type]  # routes are values: nothing is called
    parts = [
        _HEAD,
        "\n## Custodian\n\n",
        *_table(CUSTODIAN),
        "\n## Operator of a host of tenants\n\n",
        *_table(operator),
    ]
    parts += ["\n## Attestation service\n\nBelow `/attest` of a custodian that has one.\n\n", *_verifier(VERIFIER)]
    return "".join(parts)


def _table(routes: Iterable[Route]) -> Iterator[str]:
    yield "| Route | Roles | What it does | Takes |\n|---|---|---|---|\n"
    for route in routes:
        roles = "anybody" if route.roles is None else ", ".join(sorted(role.value for role in route.roles))
        takes = ", ".join([*map(_member, route.members), *(f"?{_member(item)}" for item in route.query)])
        body = takes or ("" if route.body.value in {"none", "json"} else f"a {route.body.value}")
        yield f"| `{route.method} {route.path}`{'*' if route.once else ''} | {roles} | {route.summary} | {body} |\n"


def _member(member: Member) -> str:
    return f"`{member.name}`" if member.required else f"`{member.name}`?"


def _verifier(routes: Iterable[VerifierRoute]) -> Iterator[str]:
    yield "| Route | Token | What it does | Answers |\n|---|---|---|---|\n"
    for route in routes:
        known = "wanted" if route.known else "none"
        yield f"| `{route.method} {route.path}` | {known} | {route.summary} | {', '.join(route.answers)} |\n"
