"""What comes of a change that is sent again: every route says it, and it is so (docs/adr/0060-sent-again.md)."""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING

import httpx
import pytest
from api_kit import PLENTY, House
from custodian_kit import Bench
from identity_kit import Provider
from permit_kit import Ceremony
from roles_kit import LOGS, everything, route_name
from tenant_kit import HostBench

from cloister.custodian import handlers
from cloister.custodian.calls import NOBODY, Again, Body, Call
from cloister.custodian.openapi import openapi_document
from cloister.custodian.routes import ADMIN, ROUTES
from cloister.custodian.routes.route import route
from cloister.custodian.tenants.operator_http import operator_routes
from cloister.errors import UsageError
from cloister.wire import lp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cloister.custodian.calls import Route

EVERY = (*ROUTES, *operator_routes(None))  # type: ignore[arg-type]  # routes are values: nothing is called
CHANGES = [route for route in ROUTES if route.method != "GET"]
KEY = {"idempotency-key": "one"}


# the tables


@pytest.mark.parametrize("item", EVERY, ids=route_name)
def test_what_changes_says_what_comes_of_it_again_and_what_reads_does_not(item: Route) -> None:
    assert (item.again is None) == (item.method == "GET")
    assert not item.once or item.roles is not None, "a key is an actor's: a stranger has none"
    assert item.duty is None or item.once, "what waits for a second person is asked for again"
    assert item.method != "DELETE" or item.once, "the command line sends a key with each"


@pytest.mark.parametrize(("method", "again"), [("POST", None), ("DELETE", None), ("GET", Again.KEYED)])
def test_a_route_without_the_decision_cannot_be_declared(method: str, again: Again | None) -> None:
    with pytest.raises(UsageError, match="again="):
        route(method, "/v1/something", ADMIN, handlers.list_loans, again=again)


def test_the_openapi_document_has_the_header_where_it_is_honoured_and_the_word_everywhere() -> None:
    document = openapi_document(EVERY)
    assert isinstance(document, dict)
    for item in EVERY:
        operation = document["paths"][item.path][item.method.lower()]  # type: ignore[call-overload,index]
        named = [parameter["name"] for parameter in operation["parameters"]]
        assert named.count("Idempotency-Key") == item.once
        assert operation.get("description") == (None if item.again is None else item.again.value)


# a key where none is honoured


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Yield the custodian that all of it is sent to."""
    with Bench(tmp_path_factory.mktemp("again"), settings=PLENTY) as bench:
        yield House(bench)


def _keyed(house: House, item: Route) -> httpx.Response:
    if item.body is Body.NONE:
        return house.bench.client.request(item.method, house.path(item), headers={**house.headers(item), **KEY})
    return house.send(item, b"[]", **KEY)


@pytest.mark.parametrize("item", [item for item in CHANGES if not item.once], ids=route_name)
def test_a_key_that_is_not_honoured_is_refused_and_nothing_is_done(house: House, item: Route) -> None:
    before = everything(house.bench)
    answer = _keyed(house, item)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_unsupported"), answer.text
    assert everything(house.bench) == before


@pytest.mark.parametrize("item", [item for item in CHANGES if item.once], ids=route_name)
def test_a_key_that_is_honoured_is_not_refused_as_such(house: House, item: Route) -> None:
    assert _keyed(house, item).json().get("code") != "idempotency_unsupported"


def test_two_keys_are_none(house: House) -> None:
    before = everything(house.bench, but=LOGS)
    headers = [*house.alice.items(), ("idempotency-key", "one"), ("idempotency-key", "two")]
    answer = house.bench.client.delete(f"/v1/sessions/{house.known['session']}", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
    assert everything(house.bench, but=LOGS) == before


def test_what_reads_passes_over_a_key(house: House) -> None:
    assert house.bench.client.get("/v1/loans", headers={**house.alice, **KEY}).status_code == 200


# what is deleted


@pytest.fixture
def ceremony(place: Path) -> Iterator[Ceremony]:
    """Yield a custodian with two persons."""
    with Ceremony(place) as made:
        yield made


def _block(ceremony: Ceremony) -> str:
    loan = ceremony.bench.lend(consumers=[{"id": "ward-a"}]).id
    told = {"kind": "consumer", "loan": loan, "reason": "", "subject": "ward-a"}
    assert ceremony.bench.post("/v1/blocks", told).status_code == 201
    return f"/v1/blocks/consumer/ward-a?loan={loan}"


def _hold(ceremony: Ceremony) -> str:
    return f"/v1/audit/holds/{ceremony.bench.post('/v1/audit/holds', {'reason': 'x', 'scope': 'all'}).json()['hold']}"


def _token(ceremony: Ceremony) -> str:
    ceremony.bench.token("viewer")
    made = ceremony.bench.get("/v1/tokens").json()["tokens"]
    return f"/v1/tokens/{next(item['id'] for item in made if item['role'] == 'viewer' and item['good'])}"


def _session(ceremony: Ceremony) -> str:
    return f"/v1/sessions/{ceremony.bench.post('/v1/sessions').json()['session']}"


def _issuer(ceremony: Ceremony) -> str:
    return f"/v1/issuers/{ceremony.bench.post('/v1/issuers', Provider().document()).json()['id']}"


def _permit(ceremony: Ceremony) -> str:
    proposal = ceremony.ask().json()
    assert ceremony.approve(proposal).status_code == 200
    return f"/v1/keys/exports/{proposal['proposal']}"


MADE = {
    "hold_lifted": _hold, "issuer_removed": _issuer, "permit_revoked": _permit, "session_ended": _session,
    "token_revoked": _token, "unblocked": _block,
}  # fmt: skip
"""What there is to delete, by what the log says of it."""
deleted = pytest.mark.parametrize(("kind", "make"), MADE.items(), ids=MADE)


def _delete(ceremony: Ceremony, path: str) -> httpx.Response:
    return ceremony.bench.client.delete(path, headers={**ceremony.alice, **KEY})


def test_everything_that_can_be_deleted_is_here() -> None:
    assert len(MADE) == sum(item.method == "DELETE" for item in ROUTES)


@deleted
def test_a_delete_under_one_key_is_done_once_also_when_the_process_ends_before_it_is_heard(
    ceremony: Ceremony, kind: str, make: Callable[[Ceremony], str]
) -> None:
    path, bench = make(ceremony), ceremony.bench
    first = _delete(ceremony, path)
    assert first.status_code == 200, first.text
    bench.client.close()
    bench.service.abandon()
    bench.open()
    again = _delete(ceremony, path)
    assert (again.status_code, again.content) == (200, first.content)
    assert bench.kinds().count(kind) == 1
    unkeyed = bench.client.delete(path, headers=ceremony.alice)
    assert unkeyed.status_code in {404, 409}, "without the key it is another request"


@deleted
def test_a_used_key_deletes_nothing_else(ceremony: Ceremony, kind: str, make: Callable[[Ceremony], str]) -> None:
    """Of blocks of consumers, two that differ in the query alone."""
    one = make(ceremony)
    assert _delete(ceremony, one).status_code == 200
    other = f"{one}0" if kind == "issuer_removed" else make(ceremony)
    assert one != other
    refused = _delete(ceremony, other)
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_mismatch")
    assert ceremony.bench.kinds().count(kind) == 1


@deleted
def test_deletes_at_once_under_one_key_are_one(ceremony: Ceremony, kind: str, make: Callable[[Ceremony], str]) -> None:
    path, answers = make(ceremony), list[httpx.Response]()
    threads = [threading.Thread(target=lambda: answers.append(_delete(ceremony, path))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 6
    assert len({answer.content for answer in answers}) == 1
    assert ceremony.bench.kinds().count(kind) == 1


def test_an_operators_token_is_revoked_once_under_one_key_and_a_tenant_takes_none(place: Path) -> None:
    with HostBench(place) as host:
        host.call("POST", "/operator/tokens", {"name": "another"})
        made = host.call("GET", "/operator/tokens").json()["tokens"]
        path = f"/operator/tokens/{next(item['id'] for item in made if item['name'] == 'another')}"
        keyed = {**host.operator, **KEY}
        first, again = (host.call("DELETE", path, token=keyed) for _ in range(2))
        assert (first.status_code, again.status_code, again.content) == (200, 200, first.content)
        refused = host.call("POST", "/operator/tenants", {"name": "acme"}, token=keyed)
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_unsupported")
        assert host.call("GET", "/operator/tenants").json() == {"tenants": []}


# what a key is for


def test_the_digest_is_of_method_path_body_and_query_in_any_order(bench: Bench) -> None:
    def digest(method: str = "POST", path: str = "/a", body: bytes = b"{}", **query: str) -> bytes:
        call = Call(service=bench.service, actor=NOBODY, method=method, path=path, body=body, query=query)
        return call.digest

    plain = digest()
    assert plain == hashlib.sha256(lp(b"POST", b"/a", b"{}")).digest(), "keys live through the upgrade"
    asked = digest(a="1", b="2")
    assert asked == digest(b="2", a="1")
    others = {digest("DELETE"), digest(path="/b"), digest(body=b""), digest(a="1"), digest(b="1")}
    assert len({plain, asked, *others}) == 7
