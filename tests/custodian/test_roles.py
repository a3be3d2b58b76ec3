"""Every role on every route (T78): docs/reference/roles.md is the rule, and a route without a row fails here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from custodian_kit import Bench, bearer
from roles_kit import GUARDED, LOGS, SAMPLE, call_route, everything, route_name

from cloister.custodian.routes import ROUTES
from cloister.custodian.service.access import issue_token
from cloister.custodian.tokens import Role

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.custodian.calls import Route

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "roles.md").read_text(encoding="utf-8")
COLUMNS = ("admin", "lender", "auditor", "viewer", "borrower")


def _rules() -> dict[str, frozenset[str]]:
    """Return who may do what, as the page says it."""
    rows = re.findall(r"^\| `((?:GET|POST|PUT|DELETE) /[^`]*)` \|(.*)\|$", PAGE, re.MULTILINE)
    assert len({name for name, _ in rows}) == len(rows)
    return {
        name: frozenset(
            column for column, cell in zip(COLUMNS, cells.split("|"), strict=True) if cell.strip() in {"yes", "own"}
        )
        for name, cells in rows
    }


RULES = _rules()
PUBLIC = set(re.findall(r"^- `([A-Z]+ /[^`]*)`$", PAGE, re.MULTILINE))
CELLS = [(route, role) for route in GUARDED for role in Role]


def test_a_new_route_without_a_rule_fails_and_so_does_a_rule_without_a_route() -> None:
    """Complete by construction: write down who may before anybody can."""
    assert {route_name(route) for route in GUARDED} == set(RULES)
    assert {route_name(route) for route in ROUTES if route.roles is None} == PUBLIC
    assert {role.value for role in Role} == {*COLUMNS, "operator"}


def test_every_parameter_of_a_path_has_a_sample_to_be_tried_with() -> None:
    assert {name for route in ROUTES for name in re.findall(r"\{([a-z]+)\}", route.path)} == set(SAMPLE)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bench, dict[Role, dict[str, str]], str]]:
    """Yield a custodian, a token of each role, and the borrower's own loan."""
    settings = {"failures_per_minute": 100_000, "challenges_per_minute": 100_000}
    with Bench(tmp_path_factory.mktemp("roles"), settings=settings) as bench:
        lent = bench.lend()
        staff = {role: bench.token(role.value) for role in Role if role not in {Role.BORROWER, Role.OPERATOR}}
        yield bench, {**staff, Role.BORROWER: lent.token, Role.OPERATOR: _operator(bench)}, lent.id


def _operator(bench: Bench) -> dict[str, str]:
    """Return a token of the role that only hosts give, made past every rule of ours: it opens no route here."""
    context = bench.service.context
    return bearer(context.transact(lambda work: issue_token(work, "test", role=Role.OPERATOR, name="none of ours")))


@pytest.mark.parametrize(("route", "role"), CELLS, ids=lambda item: route_name(item) if item in GUARDED else item.value)
def test_route_by_role(house: Any, route: Route, role: Role) -> None:
    """Who may is never 401 or 403; who may not is always 403, and nothing but the log has changed."""
    bench, headers, loan = house
    parameters = SAMPLE if role is not Role.BORROWER else {**SAMPLE, "loan": loan}
    before, size = everything(bench, but=LOGS), bench.service.context.size
    answer = call_route(bench, route, headers[role], parameters)
    if role.value in RULES[route_name(route)]:
        assert answer.status_code not in {401, 403}, answer.text
        assert answer.status_code < 500 or answer.json()["code"] == "unavailable"
        return
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert everything(bench, but=LOGS) == before
    assert bench.service.context.size == size + 1  # the refusal


@pytest.mark.parametrize("route", GUARDED, ids=route_name)
def test_no_route_but_the_public_ones_answers_a_stranger(house: Any, route: Route) -> None:
    """List 53: without a token, with one that nobody has, with another scheme; and nothing has changed."""
    bench, _, _ = house
    before = everything(bench)
    for headers in ({}, bearer("clst_" + "A" * 43), {"Authorization": "Basic YTpi"}):
        answer = call_route(bench, route, headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert everything(bench) == before


def test_a_viewer_changes_nothing_not_even_the_log(house: Any) -> None:
    bench, headers, loan = house
    able = [route for route in GUARDED if Role.VIEWER in (route.roles or ())]
    mine = [route for route in able if not route.path.startswith("/v1/sessions")]  # what it may do for itself
    assert {route.method for route in mine} == {"GET"}
    before = everything(bench)
    for route in mine:
        assert call_route(bench, route, headers[Role.VIEWER], {**SAMPLE, "loan": loan}).status_code in {200, 404}
    assert everything(bench) == before


def test_a_viewer_reads_no_entry_of_the_audit_log(bench: Bench) -> None:
    """Neither as a page, nor as a tile, a stream or the proof of one entry."""
    lent, viewer = bench.lend(), bench.token("viewer")
    for path in (
        "/v1/audit", "/v1/audit/0/proof", "/v1/events", f"/v1/loans/{lent.id}/audit", "/log/tile/entries/000.p/1",
        f"/v1/loans/{lent.id}/usage", "/v1/tokens",
    ):  # fmt: skip
        answer = bench.get(path, token=viewer)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    for path in ("/v1/loans", f"/v1/loans/{lent.id}", "/v1/models", "/v1/blocks", "/v1/audit/checkpoint"):
        answer = bench.get(path, token=viewer)
        assert answer.status_code == 200
        assert "first admin" not in answer.text


def test_only_an_admin_makes_a_viewer(bench: Bench) -> None:
    for role in ("lender", "auditor", "viewer"):
        token = bench.token(role)
        assert bench.post("/v1/tokens", {"role": "viewer", "name": "x"}, token=token).status_code == 403
