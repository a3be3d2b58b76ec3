"""A custodian whose pages can be tried: signed in over the test client, or by a real browser."""

from __future__ import annotations

import hashlib
import re
from html import unescape
from typing import TYPE_CHECKING, Any

from starlette.testclient import TestClient

from cloister.custodian.tokens import hash_token

if TYPE_CHECKING:
    import httpx
    from custodian_kit import Bench

ORIGIN = "https://testserver"
SAME = {"origin": ORIGIN, "sec-fetch-site": "same-origin"}


class Person:
    """Somebody at a browser without scripts: cookies, forms, redirects."""

    def __init__(self, bench: Bench, token: str | None = None, *, base: str = "/ui") -> None:
        self.base = base
        self.client = TestClient(
            bench.client.app, base_url=ORIGIN, follow_redirects=False, raise_server_exceptions=False
        )
        if token is not None:
            answer = self.sign_in(token)
            assert answer.status_code == 303, answer.text

    def sign_in(self, token: str, **headers: str) -> httpx.Response:
        """Send the sign-in form."""
        return self.client.post(f"{self.base}/sign-in", data={"token": token, "next": ""}, headers={**SAME, **headers})

    def get(self, path: str, **headers: str) -> httpx.Response:
        """Open a page."""
        return self.client.get(f"{self.base}{path}", headers=headers)

    def page(self, path: str) -> str:
        """Return a page that is there."""
        answer = self.get(path)
        assert answer.status_code == 200, (path, answer.status_code, answer.text)
        return answer.text

    def form_token(self) -> str:
        """Return what this session's forms carry."""
        found = re.search(r'name="form_token" value="([^"]+)"', self.page("/"))
        assert found
        return unescape(found[1])

    def post(self, path: str, fields: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
        """Send a form as the page would."""
        data = {"form_token": self.form_token(), **(fields or {})}
        return self.client.post(f"{self.base}{path}", data=data, headers={**SAME, **headers})


def bare(header: dict[str, str]) -> str:
    """Return the token in an Authorization header."""
    return header["Authorization"].removeprefix("Bearer ")


def person_token(bench: Bench, person: str) -> str:
    """Return a token of an admin who answers for it by name."""
    token = "clst_" + hashlib.sha256(person.encode()).hexdigest()[:43]
    body = {"role": "admin", "name": f"{person.title()}'s laptop", "person": person, "sha256": hash_token(token).hex()}
    answer = bench.post("/v1/tokens", body)
    assert answer.status_code == 201, answer.text
    return token


class Busy:
    """A custodian with something on every page: loans in use and at their end, a request, a block, a proposal."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.alice = person_token(bench, "alice")
        self.bob = person_token(bench, "bob")
        self.lent = bench.lend(
            borrower="Hospital of the Holy Ghost", allowance=5000, max_ceiling=400, ttl_s=3600,
            consumers=[{"id": "ward-a", "allowance": 2000}, {"id": "ward-b"}],
        )  # fmt: skip
        self.small = bench.lend(borrower="Clinic by the Lake", allowance=300, max_ceiling=100, ttl_s=3600)
        self.stopped = bench.lend(borrower="St Mary's & Sons <Radiology>", allowance=90_000)
        bench.lend(borrower="University of Utrecht", allowance=12_000_000)
        self._use()
        bench.post("/v1/blocks", {"kind": "loan", "subject": self.stopped.id, "reason": "invoice 17 is <unpaid>"})
        bench.post(
            f"/v1/loans/{self.lent.id}/requests", {"units": 2500, "reason": "a second scanner"}, token=self.lent.token
        )
        bench.publish(bench.seal("chest-xray"))
        made = bench.client.request(
            "DELETE", f"/v1/blocks/loan/{self.stopped.id}", headers={"Authorization": f"Bearer {self.alice}"}
        )
        assert made.status_code == 202, made.text
        self.proposal: str = made.json()["proposal"]

    def _use(self) -> None:
        """Let two enclaves serve for two hours, one of them nearly up."""
        toys = [self.lent.boot(), self.small.boot()]
        for toy in toys:
            toy.renew()
        for minute in range(0, 120, 6):
            self.bench.clock.advance(360)
            toys[0].serve(40 + minute, token=self._consumer())
            if minute % 18 == 0:
                toys[1].serve(36)
            for toy in toys:
                toy.renew()

    def _consumer(self) -> bytes:
        token: str = next(iter(self.lent.made["consumer_tokens"].values()))
        return token.encode()
