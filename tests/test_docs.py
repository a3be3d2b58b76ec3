"""The docs say what the code does: every route, role, problem and setting, and nothing that is not there."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cloister.custodian.config import Config
from cloister.custodian.problems import STATUS_BY_CODE
from cloister.custodian.routes import ROUTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.custodian.calls import Route

DOCS = Path(__file__).parent.parent / "docs"


def _page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_every_custodian_route_is_documented_and_no_other() -> None:
    documented = re.findall(r"^### `([A-Z]+) (/\S*)`$", _page("reference/custodian-api.md"), re.MULTILINE)
    assert len(documented) == len(set(documented))
    assert set(documented) == {(route.method, route.path) for route in ROUTES}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_a_routes_section_says_who_may_and_what_it_takes(route: Route) -> None:
    method, path, roles = route.method, route.path, route.roles
    page = _page("reference/custodian-api.md")
    section = page.split(f"### `{method} {path}`\n", 1)[1].split("\n##", 1)[0]
    assert route.summary in section
    wanted = "anybody" if roles is None else ", ".join(sorted(role.value for role in roles))
    assert f"Roles: {wanted}." in section
    assert ("Idempotency-Key" in section) == route.once
    for member in (*route.members, *route.query):
        assert f"| `{member.name}`" in section


def test_every_problem_code_with_a_status_of_its_own_is_documented() -> None:
    rows = re.findall(r"^\| (\d{3}) \|.*\| ([^|]*) \|$", _page("reference/custodian-api.md"), re.MULTILINE)
    documented = {code: int(status) for status, codes in rows for code in re.findall(r"`([a-z_]+)`", codes)}
    assert {code: documented.get(code) for code in STATUS_BY_CODE} == dict(STATUS_BY_CODE)


def test_every_custodian_setting_is_documented_with_its_default_and_no_other() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| `([^`]*)` \| ([^|]*) \|", _page("reference/settings.md"), re.MULTILINE)
    documented = {name: (default, limits.strip()) for name, default, limits in rows}
    expected = {item.name: (_spelled(item.default), _range(item.metadata, item.default)) for item in fields(Config)}
    assert documented == expected


def _spelled(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{item}"' for item in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _range(metadata: Mapping[str, Any], default: object) -> str:
    if isinstance(default, bool) or not isinstance(default, int):
        return ""
    return f"{metadata['floor']} to {metadata['cap']}"


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_no_link_leads_nowhere(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page}: {target}"
