"""T79: user x object x verb, over every route there is. What is another tenant's does not exist (80-bad-inputs 59, 60).

Two tenants have things of every kind. Every route is asked for the other tenant's thing, with every role's token, below
the one prefix and below the other. A new route is in here by being in ``ROUTES``; one that names a new kind of thing
fails until that kind has an example.
"""

from __future__ import annotations

import re
import sqlite3
import statistics
import time
from typing import TYPE_CHECKING, Any

import pytest
from custodian_kit import START, STATEMENT, bearer
from identity_kit import Provider
from roles_kit import SAMPLE
from sqlalchemy import insert
from tenant_kit import HostBench, answer_of

from cloister.custodian.calls import Body
from cloister.custodian.routes import ROUTES
from cloister.custodian.service.access import issue_token
from cloister.custodian.store.tables import DEVICE, ENROLMENT, PROPOSAL, SESSION
from cloister.custodian.tenants.stranger import OPEN, routes_for
from cloister.custodian.tokens import Role
from cloister.lending.terms import LoanId

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.sql.expression import TableClause
    from tenant_kit import Answer, TenantBench

    from cloister.custodian.calls import Route
    from cloister.custodian.service import Transaction

ROLES = [role for role in Role if role is not Role.OPERATOR]
NEVER_WAS = {**SAMPLE, "index": "250", "tile": "000.p/250"}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/loans/{loan}/top-up": {"units": 1},
    "/v1/loans/{loan}/set": {"units": 1},
    "/v1/loans/{loan}/requests": {"units": 1},
    "/v1/loans/{loan}/consumers": {"consumers": [{"id": "spy"}]},
    "/v1/loans/{loan}/amend": {"ttl_s": 30},
}
"""Bodies that would change something, were the thing there; elsewhere an empty object."""


class Ground:
    """Both tenants, what the second one has, and the first one's tokens."""

    def __init__(self, host: HostBench) -> None:
        self.host = host
        still = {"sweep_interval_s": 3600}  # what a custodian writes by itself is not what is looked for
        self.acme, self.zenith = host.tenant("acme", settings=still), host.tenant("zenith", settings=still)
        host.tenant("asleep")
        host.change("asleep", "suspend")
        lent = self.acme.lend()
        self.tokens = {role: lent.token if role is Role.BORROWER else self.acme.token(role.value) for role in ROLES}
        self.things = _things_of(self.zenith)
        assert self.zenith.service.context.size > self.acme.service.context.size
        assert set(self.things) == set(NEVER_WAS)

    def ask(self, name: str, route: Route, things: dict[str, str], headers: dict[str, str]) -> Answer:
        """Send what a route takes to a tenant."""
        path = re.sub(r"\{([a-z]+)\}", lambda found: things[found.group(1)], route.path)
        more: dict[str, Any] = {"headers": headers}
        if route.body is Body.JSON:
            more["json"] = BODIES.get(route.path, {})
        elif route.body is not Body.NONE:
            kind = STATEMENT if route.body is Body.STATEMENT else {"content-type": "text/plain"}
            more |= {"content": b"{}", "headers": {**headers, **kind}}
        if route.stream:
            more["params"] = {"loan": things["loan"]}
        return answer_of(self.host.client.request(route.method, f"/t/{name}{path}", **more))


def _things_of(tenant: TenantBench) -> dict[str, str]:
    """Make one thing of every kind; return what paths call them."""
    lent, stopped = tenant.lend(allowance=100), tenant.lend()
    toy = lent.boot()
    asked = tenant.client.post(f"/v1/loans/{lent.id}/requests", json={"units": 5}, headers=lent.token)
    assert tenant.post("/v1/blocks", {"kind": "loan", "subject": stopped.id, "reason": ""}).status_code == 201
    tenant.token("auditor")
    issuer = tenant.post("/v1/issuers", Provider(f"https://{lent.id}.example").document()).json()["id"]
    token = next(item["id"] for item in tenant.get("/v1/tokens").json()["tokens"] if item["role"] == "auditor")
    rows: dict[TableClause, dict[str, Any]] = {
        DEVICE: {"id": "2" * 64, "ak_sha256": bytes(32), "certificate": b"c", "enrolled_at": 0},
        ENROLMENT: {"id": "1" * 32, "device": "d", "pending": b"{}", "expires_at": 2**52},
        PROPOSAL: {
            "id": "prop-1111111111111111", "operation": "person", "request": b"{}", "body": b"{}", "basis": b"{}",
            "digest": b"", "actor": token, "role": "admin", "name": "n", "person": "p", "created_at": 0,
            "expires_at": 2**52, "state": "open", "reason": "",
        },
        SESSION: {
            "id": "ses-1111111111111111", "sha256": bytes(32), "actor": token, "role": "admin", "name": "n",
            "created_at": 0, "expires_at": 2**52, "renew_until": 2**52,
        },
    }  # fmt: skip
    for table, row in rows.items():  # what takes long to make is written past every rule of ours
        tenant.service.context.transact(lambda work, at=table, row=row: _insert(work, at, row))  # type: ignore[misc]
    for _ in range(4):
        tenant.token("lender")
    hold = tenant.post("/v1/audit/holds", {"scope": f"loan:{stopped.id}", "reason": "a claim"}).json()["hold"]
    size = tenant.service.context.size
    return {
        "loan": str(lent.id), "instance": toy.id, "digest": tenant.digest, "request": asked.json()["id"],
        "kind": "loan", "subject": str(stopped.id), "token": token, "enrolment": "1" * 32,
        "device": "2" * 64,
        "proposal": "prop-1111111111111111", "session": "ses-1111111111111111", "issuer": issuer,
        "index": str(size - 1), "tile": f"000.p/{size}", "hold": hold, "field": "reason",
    }  # fmt: skip


def _insert(work: Transaction, table: TableClause, row: dict[str, Any]) -> None:
    work.connection.execute(insert(table).values(row))


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Yield two tenants with things, and one that is suspended."""
    with HostBench(tmp_path_factory.mktemp("matrix"), forks_per_minute=100_000) as host:
        yield Ground(host)


def _rows_of(tenant: TenantBench) -> list[str]:
    """Return every row of a tenant's database, but for the one that is written to see whether writing works."""
    with sqlite3.connect(f"file:{tenant.home / 'custodian.db'}?mode=ro", uri=True) as connection:
        return [line for line in connection.iterdump() if not line.startswith('INSERT INTO "probe"')]


def _unnamed(answer: Answer, things: dict[str, str]) -> tuple[int, bytes]:
    """Return status and body without the names that were asked for: an answer may repeat the question."""
    status, _, body = answer
    for thing in sorted(set(things.values()), key=len, reverse=True):
        body = body.replace(thing.encode(), b"_") if len(thing) > 3 else body
    return status, body


def _named(route: Route) -> str:
    return f"{route.method} {route.path}"


STRANGER = bearer("clst_" + "A" * 43)
POSITIONS = ("{index}", "{tile}")
"""What names a place in the log of whoever is asked, and nobody's thing."""
WITH_A_THING = [route for route in ROUTES if "{" in route.path or route.stream]
OF_THE_LOG = [route for route in WITH_A_THING if any(position in route.path for position in POSITIONS)]


@pytest.mark.parametrize("route", [route for route in WITH_A_THING if route not in OF_THE_LOG], ids=_named)
def test_anothers_thing_below_ones_own_prefix_is_as_if_it_never_was(ground: Ground, route: Route) -> None:
    before = _rows_of(ground.zenith)
    for role in ROLES:
        theirs = ground.ask("acme", route, ground.things, ground.tokens[role])
        never = ground.ask("acme", route, NEVER_WAS, ground.tokens[role])
        assert _unnamed(theirs, ground.things) == _unnamed(never, NEVER_WAS), role
        assert route.method == "GET" or theirs[0] not in {200, 201}, role
    assert _rows_of(ground.zenith) == before


@pytest.mark.parametrize("route", OF_THE_LOG, ids=_named)
def test_a_place_in_the_log_is_one_of_ones_own_log(ground: Ground, route: Route) -> None:
    for things in ({**NEVER_WAS, "index": "1", "tile": "000.p/2"}, ground.things):
        for role in ROLES:
            _, _, body = ground.ask("acme", route, things, ground.tokens[role])
            for foreign in (ground.things["loan"], ground.zenith.digest, ground.zenith.init.key.raw.hex()):
                assert foreign.encode() not in body


@pytest.mark.parametrize("route", ROUTES, ids=_named)
def test_ones_own_token_below_anothers_prefix_is_a_strangers(ground: Ground, route: Route) -> None:
    before = _rows_of(ground.zenith)
    for things in (ground.things, NEVER_WAS):
        stranger = ground.ask("zenith", route, things, STRANGER)
        for role in ROLES:
            assert ground.ask("zenith", route, things, ground.tokens[role]) == stranger, role
        assert ground.ask("zenith", route, things, ground.host.operator) == stranger
        assert route.roles is None or (stranger[0] == 401 and b"unauthenticated" in stranger[2])
    assert _rows_of(ground.zenith) == before


@pytest.mark.parametrize("route", ROUTES, ids=_named)
def test_a_tenant_that_is_there_is_no_other_to_a_stranger_than_one_that_is_not(ground: Ground, route: Route) -> None:
    for headers in ({}, STRANGER, ground.tokens[Role.ADMIN], {"Authorization": "Basic YTpi"}):
        there = ground.ask("zenith", route, NEVER_WAS, headers)
        for name in ("asleep", "nobody-at-all", "ZENITH", "zenith%20", "zenith%2F", "%252e%252e", "a" * 300):
            assert ground.ask(name, route, NEVER_WAS, headers) == there, name


def test_what_a_stranger_may_ask_of_a_hidden_tenant_is_this_and_no_more() -> None:
    public = {(route.method, route.path) for route in routes_for(discoverable=False) if route.roles is None}
    assert {item for item in public if "{instance}" not in item[1]} == OPEN
    assert all(path.startswith("/v1/instances/{instance}/") for _, path in public - OPEN)


@pytest.mark.parametrize("route", [route for route in ROUTES if route.roles is not None], ids=_named)
def test_a_tenants_own_roles_are_as_they_are_without_tenants(ground: Ground, route: Route) -> None:
    for role in ROLES:
        status, _, body = ground.ask("acme", route, NEVER_WAS, ground.tokens[role])
        assert (status == 403 and b'"forbidden"' in body) == (role not in (route.roles or ())), role


def test_anothers_things_in_bodies_and_queries_are_as_if_they_never_were(ground: Ground) -> None:
    before = _rows_of(ground.zenith)

    def asks(things: dict[str, str]) -> list[tuple[int, str]]:
        loan_body = ground.acme.loan_body(models=[{"digest": things["digest"], "name": "digits"}])
        sent: list[tuple[str, str, Any]] = [
            ("POST", "/v1/loans", loan_body),
            ("POST", "/v1/tokens", {"role": "borrower", "name": "x", "loan": things["loan"]}),
            ("POST", "/v1/blocks", {"kind": "loan", "subject": things["loan"], "reason": ""}),
            ("POST", "/v1/blocks", {"kind": "model", "subject": things["digest"], "reason": ""}),
            ("POST", "/v1/blocks", {"kind": "instance", "subject": things["instance"], "reason": ""}),
            ("POST", "/v1/blocks", {"kind": "consumer", "subject": "c", "loan": things["loan"], "reason": ""}),
            ("DELETE", f"/v1/blocks/consumer/c?loan={things['loan']}", None),
            ("GET", f"/v1/events?loan={things['loan']}", None),
            ("POST", "/v1/forks", {"instance": things["instance"], "receipts": []}),
        ]
        answers = [
            ground.acme.client.request(method, path, json=body, headers=ground.acme.admin)
            for method, path, body in sent
        ]
        return [(answer.status_code, answer.json()["code"]) for answer in answers]

    assert asks(ground.things) == asks(NEVER_WAS)
    assert _rows_of(ground.zenith) == before


@pytest.mark.parametrize(
    "path",
    [
        b"/t/acme/../zenith/v1/loans", b"/t/acme/%2e%2e/zenith/v1/loans", b"/t/acme/%252e%252e/zenith/v1/loans",
        b"/t/acme//t/zenith/v1/loans", b"/t/acme/t/zenith/v1/loans", b"//t/zenith/v1/loans", b"/t//zenith/v1/loans",
        b"/T/zenith/v1/loans", b"/t/Zenith/v1/loans", b"/t/zenith/v1/loans/", b"/t/zenith//v1/loans",
        b"/t/zenith/./v1/loans", b"/t/%7aenith/v1/loans", b"/%74/zenith/v1/loans", b"/t%2fzenith/v1/loans",
        b"/t/acme%2f..%2fzenith/v1/loans", b"/t/zenith%00/v1/loans", b"/t/acme/..;/zenith/v1/loans",
        b"/t/acme\\..\\zenith/v1/loans", b"/t/zenith", b"/t/zenith/", b"/t/", b"/t", b"/v1/loans",
        b"/t/acme/%2e%2e/%2e%2e/operator/tenants", b"https://localhost/t/zenith/v1/loans", b"*",
    ],
)  # fmt: skip
def test_no_spelling_of_a_path_leads_from_one_tenant_to_another(ground: Ground, path: bytes) -> None:
    """The second tenant's things are seen by nobody who holds the first one's token, and nothing is made tidy."""
    before = ground.zenith.service.context.size
    for headers in (ground.acme.admin, {}):
        status, _, body = ground.host.raw(path, headers)
        assert status in {401, 404}, body
        assert ground.things["loan"].encode() not in body
    if not path.startswith(b"/t/zenith/"):
        assert ground.host.raw(path, ground.zenith.admin)[0] in {401, 404}
    assert ground.zenith.service.context.size == before


def test_a_borrower_of_one_tenant_is_nobody_to_a_loan_of_the_same_id(ground: Ground) -> None:
    """The id is no key: the same id in another database is another loan, and its holder another's."""
    loan = ground.things["loan"]
    context = ground.acme.service.context

    forged = bearer(
        context.transact(lambda work: issue_token(work, "t", role=Role.BORROWER, name="b", loan=LoanId(loan)))
    )
    assert ground.host.client.get(f"/t/acme/v1/loans/{loan}/summary", headers=forged).status_code == 404
    assert ground.host.client.get(f"/t/zenith/v1/loans/{loan}/summary", headers=forged).status_code == 401


def test_a_refusal_takes_as_long_whether_there_is_such_a_tenant_or_not(ground: Ground) -> None:
    """Not measured to the microsecond: both look into a database, and neither is answered out of a table of names."""
    took: dict[str, list[float]] = {"zenith": [], "nobody-at-all": []}
    for _ in range(150):
        for name, times in took.items():
            before = time.perf_counter()
            ground.host.client.get(f"/t/{name}/v1/loans", headers=STRANGER)
            times.append(time.perf_counter() - before)
    there, absent = (statistics.median(times) for times in took.values())
    assert 0.5 < there / absent < 2


def test_whose_tokens_a_hidden_tenant_trusts_is_told_to_no_stranger(ground: Ground) -> None:
    site, now = Provider(), int(START.timestamp())
    rules = [{"grants": {"role": "auditor"}, "subject": "user-7"}]
    assert ground.zenith.post("/v1/issuers", site.document(rules=rules)).status_code == 201
    good = site.token(now=now)
    forged = good[:-8] + b"AAAAAAAA"
    for token in (forged, site.token(now=now - 10_000_000), site.token(now=now, sub="another"), b"a.b.c"):
        headers = {"Authorization": f"Bearer {token.decode()}"}
        there, absent = (
            answer_of(ground.host.client.get(f"/t/{name}/v1/loans", headers=headers)) for name in ("zenith", "nobody")
        )
        assert there == absent
        assert there[0] == 401
    headers = {"Authorization": f"Bearer {good.decode()}"}
    assert ground.host.client.get("/t/zenith/v1/loans", headers=headers).status_code == 200
    assert ground.host.client.get("/t/acme/v1/loans", headers=headers).status_code == 401
