"""The pages about tenants say what the code does: every setting of a host, every route of the operator's API."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from cloister.custodian.tenants.config import LISTENERS, HostConfig
from cloister.custodian.tenants.operator_http import operator_routes
from test_docs import _range, _spelled

if TYPE_CHECKING:
    from cloister.custodian.calls import Route
    from cloister.custodian.tenants.keeping import Keeping

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "reference" / "tenants.md").read_text(encoding="utf-8")
SPEC = (DOCS / "spec" / "operator-api.md").read_text(encoding="utf-8")
ROUTES = operator_routes(cast("Keeping", None))


def test_every_setting_of_a_host_is_documented_with_its_default_and_no_other() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| `([^`]*)` \| ([^|]*) \| ([^|]*) \|", PAGE, re.MULTILINE)
    documented = {name: (default, limits.strip(), doc.strip()) for name, default, limits, doc in rows}
    assert documented == {
        item.name: (_spelled(item.default), _range(item.metadata, item.default), item.metadata["doc"])
        for item in fields(HostConfig)
    }


def test_the_page_names_what_of_a_tenants_settings_is_the_hosts() -> None:
    sentence = PAGE.split("count for nothing: ", 1)[1].split(".", 1)[0]
    assert set(re.findall(r"`([a-z_]+)`", sentence)) == LISTENERS


def test_every_route_of_the_operators_api_is_documented_and_no_other() -> None:
    documented = re.findall(r"^### `([A-Z]+) (/\S*)`$", SPEC, re.MULTILINE)
    assert documented == [(route.method, route.path) for route in ROUTES]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_a_routes_section_says_who_may_and_what_it_takes(route: Route) -> None:
    section = SPEC.split(f"### `{route.method} {route.path}`\n", 1)[1].split("\n##", 1)[0]
    assert route.summary in section
    wanted = "anybody" if route.roles is None else ", ".join(sorted(role.value for role in route.roles))
    assert f"Roles: {wanted}." in section
    assert ("Idempotency-Key" in section) == route.once
    for member in (*route.members, *route.query):
        assert f"| `{member.name}`" in section
