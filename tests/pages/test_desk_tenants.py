"""Dashboards of several tenants in one process: each its own, and a stranger learns of none (T79)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from desk_kit import SAME, Person
from tenant_kit import HostBench

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tenant_kit import TenantBench

ORIGIN = {"origin": "https://localhost:8443", "sec-fetch-site": "same-origin"}


@pytest.fixture
def host(place: Path) -> Iterator[HostBench]:
    with HostBench(place) as opened:
        yield opened


class Member(Person):
    """Somebody at the pages of one tenant, over the host."""

    def __init__(self, bench: TenantBench) -> None:
        self.base = f"/t/{bench.name}/ui"
        self.client = bench.host.client
        answer = self.client.post(
            f"{self.base}/sign-in", data={"token": bench.init.admin_token}, headers=ORIGIN, follow_redirects=False
        )
        assert answer.status_code == 303, answer.text
        assert answer.headers["location"] == f"{self.base}/"


def test_each_tenant_has_pages_below_its_own_name_and_one_browser_keeps_them_apart(host: HostBench) -> None:
    alpha, beta = host.tenant("alpha"), host.tenant("beta")
    of_alpha, of_beta = Member(alpha), Member(beta)  # one client: the cookies of both lie in one browser
    loan = alpha.lend(borrower="Alpha's hospital")
    assert "Alpha&#39;s hospital" in of_alpha.page("/loans")
    assert "Alpha" not in of_beta.page("/loans")
    assert of_beta.get(f"/loans/{loan.id}").status_code == 404
    assert 'href="/t/alpha/ui/loans"' in of_alpha.page("/")
    assert sorted(name for name in host.client.cookies if name.startswith("__Host-")) == [
        "__Host-cloister-t-alpha", "__Host-cloister-t-beta",
    ]  # fmt: skip


def test_a_session_of_one_tenant_is_nobodys_at_another(host: HostBench) -> None:
    alpha, _beta = host.tenant("alpha"), host.tenant("beta")
    Member(alpha)
    session = host.client.cookies["__Host-cloister-t-alpha"]
    host.client.cookies.set("__Host-cloister-t-beta", session)
    answer = host.client.get("/t/beta/ui/loans", follow_redirects=False)
    assert answer.headers["location"] == "/t/beta/ui/sign-in?next=/loans"
    refused = host.client.post(
        "/t/beta/ui/sign-in", data={"token": alpha.init.admin_token}, headers=ORIGIN, follow_redirects=False
    )
    assert refused.status_code == 403


def test_a_tenant_that_is_not_there_looks_no_other_than_one_that_is(host: HostBench) -> None:
    host.tenant("alpha")
    for method, path, data in (
        ("GET", "/ui/sign-in", None),
        ("GET", "/ui/loans", None),
        ("GET", "/ui/live", None),
        ("GET", "/ui/nothing", None),
        ("POST", "/ui/sign-in", {"token": "clst_" + "x" * 43}),
    ):
        seen = []
        for name in ("alpha", "aleph"):
            answer = host.client.request(
                method, f"/t/{name}{path}", data=data, headers=ORIGIN if data else {}, follow_redirects=False
            )
            headers = [(key, value.replace(name, "NAME")) for key, value in answer.headers.items()]
            seen.append((answer.status_code, headers, answer.text.replace(name, "NAME")))
        assert seen[0] == seen[1], path


def test_tenants_whose_names_differ_in_dashes_alone_share_no_cookie(host: HostBench) -> None:
    one, other = host.tenant("a-b"), host.tenant("a--b")
    of_one, of_other = Member(one), Member(other)
    assert of_one.get("/loans").status_code == of_other.get("/loans").status_code == 200
    of_other.client.cookies.delete("__Host-cloister-t-a--b")
    assert of_one.get("/loans").status_code == 200


def test_the_operator_has_no_pages(host: HostBench) -> None:
    assert host.client.get("/ui/sign-in").status_code == 404
    assert host.client.post("/ui/sign-in", data={"token": host.init.admin_token}, headers=SAME).status_code == 404
