"""Keys of issuers that are fetched: followed when they rotate, asked for rarely, and dropped when they are too old."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from custodian_kit import START, Bench
from identity_kit import Domain, Provider

from cloister.custodian.service.issuer_keys import AGAIN, IssuerKeys
from cloister.errors import Unavailable
from cloister.identity import Issuer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

NOW = int(START.timestamp())


class Web:
    """What lies at which URL, and what was asked for."""

    def __init__(self) -> None:
        self.pages: dict[str, Any] = {}
        self.asked: list[str] = []

    def __call__(self, url: str, cap: int) -> bytes:
        self.asked.append(url)
        page = self.pages.get(url)
        if page is None:
            msg = "status 404"
            raise Unavailable(msg)
        data = page if isinstance(page, bytes) else json.dumps(page).encode()
        assert len(data) <= cap
        return data


class Site:
    """A provider with its pages, and a custodian that knows it by its document alone."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.web, self.provider = bench, Web(), Provider()
        self.uri = f"{self.provider.name}/keys"
        self.web.pages = {
            f"{self.provider.name}/.well-known/openid-configuration": {
                "issuer": self.provider.name, "jwks_uri": self.uri,
            },
            self.uri: self.provider.jwks(),
        }  # fmt: skip
        bench.service.identities.keys = IssuerKeys(self.web)
        assert bench.post("/v1/issuers", self.provider.document(keys=None)).status_code == 201

    def call(self, **options: Any) -> httpx.Response:
        now = int(self.bench.clock().timestamp())
        token = self.provider.token(now=now, **options).decode()
        return self.bench.client.get("/v1/loans", headers={"authorization": f"Bearer {token}"})

    def standing(self) -> dict[str, Any]:
        (shown,) = self.bench.get("/v1/issuers").json()["issuers"]
        found: dict[str, Any] = shown["keys"]
        return found

    def rotate(self, kid: str) -> None:
        fresh = Provider(self.provider.name, kid=kid)
        self.provider.key, self.provider.kid = fresh.key, kid
        self.web.pages[self.uri] = self.provider.jwks()


@pytest.fixture
def site(place: Path) -> Iterator[Site]:
    with Bench(place) as bench:
        yield Site(bench)


def test_keys_are_found_by_the_discovery_document_at_the_first_token(site: Site) -> None:
    assert site.call().status_code == 200
    assert [url.rpartition("/")[2] for url in site.web.asked] == ["openid-configuration", "keys"]
    assert site.call(jti="2").status_code == 200
    assert len(site.web.asked) == 2
    assert site.standing() == {"count": 1, "fetched_at": "2026-11-21T12:00:00Z", "problem": None, "source": "fetched"}


def test_a_rotation_is_followed_at_the_first_token_of_the_new_key(site: Site) -> None:
    assert site.call().status_code == 200
    site.bench.clock.advance(AGAIN.total_seconds())
    site.rotate("key-2")
    assert site.call().status_code == 200


def test_a_key_that_is_taken_out_of_the_set_opens_nothing_after_the_next_fetch(site: Site) -> None:
    old = Provider.token(site.provider, now=NOW, exp=NOW + 7200)
    headers = {"authorization": f"Bearer {old.decode()}"}
    assert site.bench.client.get("/v1/loans", headers=headers).status_code == 200
    site.rotate("key-2")
    site.bench.clock.advance(3599)
    site.bench.service.identities.refresh()
    assert site.bench.client.get("/v1/loans", headers=headers).status_code == 200
    site.bench.clock.advance(1)
    site.bench.service.identities.refresh()
    assert site.bench.client.get("/v1/loans", headers=headers).status_code == 401


def test_keys_that_nobody_knows_make_one_fetch_in_30_seconds_whoever_asks(site: Site) -> None:
    assert site.call().status_code == 200
    site.bench.clock.advance(AGAIN.total_seconds())
    for number in range(20):
        assert site.call(header={"kid": f"made-up-{number}"}).status_code == 401
    assert len(site.web.asked) == 4
    site.bench.clock.advance(AGAIN.total_seconds())
    assert site.call(header={"kid": "made-up"}).status_code == 401
    assert len(site.web.asked) == 6


def test_made_up_keys_do_not_make_anybody_be_forgotten(site: Site) -> None:
    assert site.call().status_code == 200
    known = site.bench.service.identities._callers._proven
    site.bench.clock.advance(AGAIN.total_seconds())
    assert site.call(header={"kid": "made-up"}).status_code == 401
    assert site.bench.service.identities._callers._proven is known


def test_an_issuer_that_is_down_is_served_by_its_last_keys_for_a_day(site: Site) -> None:
    assert site.call().status_code == 200
    site.web.pages.clear()
    for hours in (1, 12, 11):
        site.bench.clock.advance(hours * 3600)
        site.bench.service.identities.refresh()
        assert site.call().status_code == 200
    assert site.standing()["problem"] == "status 404"
    site.bench.clock.advance(60)
    site.bench.service.identities.refresh()
    assert site.call().status_code == 503
    assert site.standing()["count"] == 0


def test_an_issuer_that_never_answered_is_asked_every_30_seconds(site: Site) -> None:
    site.web.pages.clear()
    for _ in range(10):
        assert site.call().status_code == 503
    assert len(site.web.asked) == 1
    site.bench.clock.advance(AGAIN.total_seconds())
    site.bench.service.identities.refresh()
    assert len(site.web.asked) == 2


BAD: dict[str, Any] = {
    "another issuer": {"issuer": "https://other.example", "jwks_uri": "https://login.example/realms/site/keys"},
    "69 keys elsewhere": {"issuer": Provider().name, "jwks_uri": "https://other.example/keys"},
    "69 keys inside": {"issuer": Provider().name, "jwks_uri": "http://169.254.169.254/keys"},
    "69 keys in a file": {"issuer": Provider().name, "jwks_uri": "file:///etc/passwd"},
    "no json": b"<html>",
}


@pytest.mark.parametrize("name", BAD)
def test_a_discovery_document_that_leads_astray_is_not_followed(site: Site, name: str) -> None:
    well_known = next(iter(site.web.pages))
    site.web.pages[well_known] = BAD[name]
    assert site.call().status_code == 503
    assert site.web.asked == [well_known]
    assert site.standing()["problem"]


def test_an_administrators_jwks_uri_is_asked_and_no_discovery_document(site: Site) -> None:
    elsewhere = "https://keys.example/jwks"
    site.web.pages = {elsewhere: site.provider.jwks()}
    site.bench.post("/v1/issuers", site.provider.document(keys=None, jwks_uri=elsewhere))
    assert site.call().status_code == 200
    assert site.web.asked == [elsewhere]


def test_a_document_with_another_place_forgets_the_keys_of_the_old_one(site: Site) -> None:
    assert site.call().status_code == 200
    site.bench.post("/v1/issuers", site.provider.document(keys=None, jwks_uri="https://keys.example/jwks"))
    assert site.call().status_code == 503


def test_keys_that_are_none_do_not_take_the_place_of_good_ones(site: Site) -> None:
    assert site.call().status_code == 200
    site.web.pages[site.uri] = {"keys": []}
    site.bench.clock.advance(3600)
    site.bench.service.identities.refresh()
    assert site.call().status_code == 200
    assert "none of a kind" in site.standing()["problem"]


def test_a_bundle_endpoint_is_followed(site: Site) -> None:
    domain = Domain()
    site.web.pages["https://bundle.example/"] = domain.bundle()
    site.bench.post("/v1/issuers", domain.document(keys=None, jwks_uri="https://bundle.example/"))
    token = domain.token(now=NOW).decode()
    assert site.bench.client.get("/v1/loans", headers={"authorization": f"Bearer {token}"}).status_code == 200


def test_few_wait_for_keys_and_the_others_are_told_to_come_again() -> None:
    """A slow issuer holds four callers, not every thread of the server."""
    hold, began = threading.Event(), threading.Semaphore(0)

    def slow(_url: str, _cap: int) -> bytes:
        began.release()
        hold.wait(10)
        return json.dumps(provider.jwks()).encode()

    provider = Provider()
    issuer = Issuer.parse(json.dumps(provider.document(keys=None, jwks_uri="https://keys.example/")).encode())
    keys = IssuerKeys(slow)
    threads = [threading.Thread(target=keys.refresh, args=(issuer, START)) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert began.acquire(timeout=10)
    try:
        for _ in range(100):
            if not keys._waiting._value:  # type: ignore[attr-defined]  # there is no other way to see it
                break
            threading.Event().wait(0.02)
        with pytest.raises(Unavailable) as caught:
            keys.refresh(issuer, START + timedelta(seconds=1))
        assert caught.value.retry_after_s == 2
    finally:
        hold.set()
        for thread in threads:
            thread.join()
    assert [key.kid for key in keys.of(issuer, START).tokens.keys] == ["key-1"]
