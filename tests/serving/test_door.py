"""The door of one person's page: who is let in, and what other pages and other users of the machine cannot do."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest

from cloister.errors import Rejected
from cloister.serving.door import COOKIE, DOOR_STATUSES, Door


class Clock:
    """A time that a test moves."""

    now = datetime(2026, 11, 30, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def door(clock: Clock | None = None, *, hosts: tuple[str, ...] = (), open_to_all: bool = False) -> Door:
    return Door(clock=clock or Clock(), rng=os.urandom, hosts=hosts, open_to_all=open_to_all)


def secret_of(link: str) -> str:
    return link.rpartition("/")[2]


def test_a_link_lets_in_one_browser_and_no_second() -> None:
    found = door()
    link = found.new_link()
    assert link.startswith(f"{found.prefix}/enter/")
    cookie = found.enter(secret_of(link))
    assert found.visitor(f"a=b; {COOKIE}={cookie}").form_token
    with pytest.raises(Rejected, match="link_used"):
        found.enter(secret_of(link))


def test_a_new_link_replaces_the_old_one_and_both_browsers_stay_in() -> None:
    found = door()
    first = found.enter(secret_of(found.new_link()))
    old, new = found.new_link(), found.new_link()
    with pytest.raises(Rejected, match="link_used"):
        found.enter(secret_of(old))
    second = found.enter(secret_of(new))
    assert found.visitor(f"{COOKIE}={first}").id != found.visitor(f"{COOKIE}={second}").id


@pytest.mark.parametrize("secret", ["", "x", "\ud800", "A" * 43])
def test_a_guess_is_no_link(secret: str) -> None:
    found = door()
    with pytest.raises(Rejected, match="link_used"):
        found.enter(secret)
    found.new_link()
    with pytest.raises(Rejected, match="link_used"):
        found.enter(secret)


def test_links_end_after_a_quarter_of_an_hour_and_visits_after_half_a_day() -> None:
    clock = Clock()
    found = door(clock)
    link, cookie = found.new_link(), ""
    clock.now += timedelta(minutes=15)
    with pytest.raises(Rejected, match="link_used"):
        found.enter(secret_of(link))
    cookie = found.enter(secret_of(found.new_link()))
    clock.now += timedelta(hours=12)
    with pytest.raises(Rejected, match="signed_out"):
        found.visitor(f"{COOKIE}={cookie}")


@pytest.mark.parametrize("cookie", ["", COOKIE, f"{COOKIE}=", f"{COOKIE}=x", "other=x", ";" * 5000, f"x{COOKIE}=y"])
def test_other_cookies_let_in_nobody(cookie: str) -> None:
    with pytest.raises(Rejected, match="signed_out"):
        door().visitor(cookie)


def test_a_cookie_of_another_server_of_this_machine_does_not_hide_ours() -> None:
    found = door()
    cookie = found.enter(secret_of(found.new_link()))
    assert found.visitor(f"{COOKIE}=planted; {COOKIE}={cookie}").id


def test_visitors_are_bounded_and_the_oldest_goes() -> None:
    found = door()
    first = found.welcome()[0]
    for _ in range(16):
        found.welcome()
    with pytest.raises(Rejected, match="signed_out"):
        found.visitor(f"{COOKIE}={first}")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8490", "LOCALHOST:1", "[::1]:8490", "127.83.0.1:8490"])
def test_names_of_this_machine_are_hosts(host: str) -> None:
    door(hosts=("127.83.0.1",)).demand_host([host])


@pytest.mark.parametrize(
    "hosts",
    [[], ["evil.example"], ["evil.example:8490"], ["127.0.0.1.evil.example"], ["127.0.0.1", "127.0.0.1"], [""],
     ["127.0.0.1:port"], ["evil@127.0.0.1"], ["127.0.0.1:80:80"], ["localhost."]],
)  # fmt: skip
def test_a_name_that_was_made_to_point_here_is_none(hosts: list[str]) -> None:
    with pytest.raises(Rejected, match="host_not_allowed"):
        door().demand_host(hosts)


def test_an_open_page_answers_to_its_name_alone() -> None:
    found = door(hosts=("Ask.Example",), open_to_all=True)
    assert found.prefix == ""
    found.demand_host(["ask.example"])
    with pytest.raises(Rejected, match="host_not_allowed"):
        found.demand_host(["127.0.0.1"])


HERE = "127.0.0.1:8490"
OURS, OTHER = f"http://{HERE}", "http://evil.example"


@pytest.mark.parametrize(
    ("origins", "site"),
    [
        ([OURS], ""),
        ([OURS], "same-origin"),
        ([f"https://{HERE}"], ""),
        (["null"], "same-origin"),
        ([], "same-origin"),
    ],
)
def test_a_browser_says_that_a_form_is_ours(origins: list[str], site: str) -> None:
    door().demand_own(host=HERE, origins=origins, site=site)


@pytest.mark.parametrize(
    ("origins", "site"),
    [
        ([], ""), (["null"], ""), (["null"], "cross-site"), ([OTHER], ""), (["http://127.0.0.1:9999"], ""),
        ([OURS], "cross-site"), ([OURS], "same-site"), ([OURS, OTHER], ""), (["http://[broken"], ""),
        ([f"ftp://{HERE}"], ""), ([f"http://evil@{HERE}"], ""), ([], "none"),
    ],
)  # fmt: skip
def test_a_form_of_another_page_is_refused(origins: list[str], site: str) -> None:
    with pytest.raises(Rejected, match="form_foreign"):
        door().demand_own(host=HERE, origins=origins, site=site)


def test_a_form_of_another_visit_is_refused() -> None:
    found = door()
    (_, one), (_, other) = found.welcome(), found.welcome()
    found.demand_token(one, one.form_token)
    for token in (other.form_token, "", "\ud800"):
        with pytest.raises(Rejected, match="form_foreign"):
            found.demand_token(one, token)


def test_secrets_show_up_in_no_repr() -> None:
    found = door()
    cookie, visitor = found.welcome()
    assert visitor.form_token not in repr(visitor)
    assert cookie not in repr(found.__dict__)
    assert secret_of(found.new_link()) not in repr(found.__dict__)


def test_every_refusal_has_a_status() -> None:
    assert DOOR_STATUSES == {"form_foreign": 403, "host_not_allowed": 403, "link_used": 403, "signed_out": 401}
