"""A custodian where one of everything is there, and somebody who may for each route: for tests that ask all of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from custodian_kit import STATEMENT
from mtls_kit import csr_text, new_key
from roles_kit import SAMPLE
from starlette.testclient import TestClient

from cloister.custodian.calls import Body, Wanted
from cloister.custodian.tokens import Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx
    from custodian_kit import Bench

    from cloister.custodian.calls import Route

PLENTY = {
    "challenges_per_minute": 100_000, "failures_per_minute": 100_000, "forks_per_minute": 100_000,
    "nonces_per_loan": 10_000, "two_person": ("unblock",),
}  # fmt: skip
"""Settings with which nothing is refused for being the next one."""
_MEDIA = {Body.JSON: "application/json", Body.STATEMENT: STATEMENT["content-type"], Body.TEXT: "text/plain"}


class House:
    """Loans, an enclave, a block, a request, a proposal, a session; the first admin, Alice, and a borrower."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.lent = bench.lend(consumers=[{"id": "ward-a"}])
        toy = self.lent.boot()
        toy.renew()
        self.other = bench.lend()
        bench.post("/v1/blocks", {"kind": "loan", "subject": self.other.id, "reason": ""})
        asked = bench.post(f"/v1/loans/{self.lent.id}/requests", {"units": 1}, token=self.lent.token).json()
        made = bench.post("/v1/tokens", {"role": "admin", "name": "x", "person": "alice"}).json()
        self.alice = {"Authorization": f"Bearer {made['token']}"}
        proposal = bench.client.delete(f"/v1/blocks/loan/{self.other.id}", headers=self.alice).json()
        session = bench.post("/v1/sessions").json()
        self.known = {
            "loan": str(self.lent.id), "instance": str(toy.id), "digest": bench.digest, "request": asked["id"],
            "kind": "loan", "subject": str(self.other.id), "proposal": proposal["proposal"],
            "session": session["session"], "index": "0",
        }  # fmt: skip
        key = new_key()
        hosts = {"csr": csr_text(key), "kind": "relay", "name": "relay-1", "renewable": True}
        shown = bench.post("/v1/certificates", hosts).json()["certificate"]
        self.relay = TestClient(_showing(bench.client.app, shown), base_url=bench.client.base_url)
        bench.client.app.state.streams.stopping = True  # type: ignore[attr-defined]  # a stream ends when it has begun

    def headers(self, route: Route) -> Mapping[str, str]:
        """Return the token of somebody who may."""
        if route.roles is None:
            return {}
        return self.alice if Role.ADMIN in route.roles else self.lent.token

    def path(self, route: Route) -> str:
        """Return a route's path with names of what is there."""
        return re.sub(r"\{([a-z]+)\}", lambda found: {**SAMPLE, **self.known}[found.group(1)], route.path)

    def send(self, route: Route, content: bytes, **headers: str) -> httpx.Response:
        """Send these bytes to a route, as somebody who may."""
        media = {"content-type": _MEDIA[route.body]}
        sent: dict[str, Any] = {**media, **self.headers(route), **headers}
        client = self.relay if route.wanted is Wanted.HOST else self.bench.client
        return client.request(route.method, self.path(route), content=content, headers=sent)


def _showing(app: Any, pem: str) -> Any:
    """Return an application whose callers all show one certificate."""

    async def shown(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "extensions": {"tls": {"client_cert_chain": (pem,)}}}, receive, send)

    return shown
