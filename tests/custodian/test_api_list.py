"""Bad inputs to the custodian's API by their numbers, 59 to 74: each on every route that it can be sent to.

53 to 58 and 69 are about identities and addresses of others, and stand with them.
Expected is always the same: the status, a problem document, no change of state, no secret.
"""

from __future__ import annotations

import asyncio
import json
import resource
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from api_kit import PLENTY, House
from custodian_kit import Bench, Toy, bearer
from roles_kit import LOGS, everything, route_name

from cloister.custodian.calls import Body
from cloister.custodian.routes import ROUTES
from cloister.custodian.tokens import Role
from cloister.serving.rates import RateLimit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloister.custodian.calls import Member, Route

JSON_ROUTES = [route for route in ROUTES if route.body is Body.JSON]
OWN = [route for route in ROUTES if "{loan}" in route.path and Role.BORROWER in (route.roles or ())]
MEMBERS = [(route, member) for route in JSON_ROUTES for member in route.members]
VERBS = ("GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Yield the custodian that all of it is sent to."""
    with Bench(tmp_path_factory.mktemp("list"), settings=PLENTY) as bench:
        yield House(bench)


def name(item: object) -> str:
    """Return what a case is called."""
    return route_name(item) if hasattr(item, "handler") else getattr(item, "name", repr(item)[:20])  # type: ignore[arg-type]


def demand_malformed(house: House, route: Route, content: bytes) -> None:
    """Send it, and see that nothing came of it but a 400."""
    before = everything(house.bench, but=LOGS)
    answer = house.send(route, content)
    expected = (404, "not_found") if "{field}" in route.path else (400, "malformed")  # no entry here has such a field
    assert (answer.status_code, answer.json()["code"]) == expected, answer.text
    assert everything(house.bench, but=LOGS) == before


# 59


@pytest.mark.parametrize("route", OWN, ids=name)
def test_59_what_is_anothers_is_not_there(house: House, route: Route) -> None:
    """404 and not 403, byte for byte what is said of nothing at all: nobody learns what there is."""
    answers = []
    for loan in (house.other.id, "loan-aaaaaaaaaaaaaaaa", "loan-x"):
        path = house.path(route).replace(str(house.lent.id), str(loan))
        headers = dict(house.lent.token)
        if route.body is Body.JSON:
            answers.append(house.bench.client.request(route.method, path, json={}, headers=headers))
        elif route.body is Body.STATEMENT:
            headers["content-type"] = "application/vnd.dsse.envelope.v1+json"
            answers.append(house.bench.client.request(route.method, path, content=b"{}", headers=headers))
        else:
            answers.append(house.bench.client.request(route.method, path, headers=headers))
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1


# 60


@pytest.mark.parametrize("route", [route for route in ROUTES if not route.deep], ids=name)
def test_60_a_path_is_spelled_in_one_way(house: House, route: Route) -> None:
    path = house.path(route)
    head, _, last = path.rpartition("/")
    spelled = (
        f"{path}/", f"/{path}", path.upper(), f"{head}//{last}", f"{head}/%2e%2e/{last}/", f"{head}/./{last}/x",
        f"{path}%00", f"{path};a=b", f"{path}%2f", f"/v1/%252e%252e{path}",
    )  # fmt: skip
    known = {(item.method, item.path) for item in ROUTES}
    for other in spelled:
        answer = house.bench.client.request(route.method, other, headers=house.headers(route), follow_redirects=False)
        if (route.method, route.path) in known and answer.status_code in {400, 401, 403}:
            continue  # another route's parameter took it as a name, and found that it is none
        assert answer.status_code in {404, 405}, (other, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", sorted({route.path for route in ROUTES if not route.deep}))
def test_60_a_verb_that_is_not_in_the_table_is_not_allowed(house: House, path: str) -> None:
    route = next(route for route in ROUTES if route.path == path)
    allowed = {route.method for route in ROUTES if route.path == path}
    for verb in VERBS:
        if verb in allowed:
            continue
        answer = house.bench.client.request(verb, house.path(route), headers=house.headers(route))
        others = {item.method for item in ROUTES if item.deep or item.path.count("/") == path.count("/")}
        assert answer.status_code == 405 or (answer.status_code in {400, 403, 404} and verb in others), (
            verb,
            answer.text,
        )
    overridden = house.bench.client.request(
        "GET", "/healthz", headers={"X-HTTP-Method-Override": "DELETE", "X-HTTP-Method": "DELETE"}
    )
    assert overridden.json() == {"status": "ok"}


# 61, 62, 63


@pytest.mark.parametrize("route", JSON_ROUTES, ids=name)
def test_61_62_a_body_is_strict_json(house: House, route: Route) -> None:
    member = route.members[0].name if route.members else "a"
    one = json.dumps(member).encode()
    for content in (
        b"{%b:1,%b:1}" % (one, one), b"[" * 10_000, b"{%b:%b}" % (one, b"[" * 40 + b"]" * 40), b"{%b:NaN}" % one,
        b"{%b:Infinity}" % one, b"{%b:-Infinity}" % one, b"{%b:-0}" % one, b"{%b:1e400}" % one,
        b'{%b:"\\ud800"}' % one, b"\xef\xbb\xbf{}", "{}".encode("utf-16"), b"{%b:%b}" % (one, b"9" * 1_000_000),
        b"null", b"[]", b'""', b"{", b"{}{}", b"{'a':1}", b"\xff", b"{} \x00",
    ):  # fmt: skip
        demand_malformed(house, route, content)


@pytest.mark.parametrize("route", JSON_ROUTES, ids=name)
def test_63_a_member_that_nobody_knows_is_refused(house: House, route: Route) -> None:
    """Also beside members that are right: what is not read is not believed to have been."""
    for more in ({"admin": True}, {"__proto__": {}}, {"": 1}, {"role\u200b": "admin"}):
        demand_malformed(house, route, json.dumps(more).encode())


# 64, 65, 66


def _wrong(member: Member) -> list[Any]:
    """Return values of another type than a member's."""
    match member.type:
        case "integer":
            return ["5", True, 1.5, None, [], {}, -1, 2**53, 2**64, 1e300]
        case "boolean":
            return ["true", 1, 0, None, [], {}]
        case "string":
            return [5, True, 1.5, [], {}]
        case "object":
            return ["{}", 5, True, []]
        case _:
            return ["[]", 5, True, {}]


@pytest.mark.parametrize(("route", "member"), MEMBERS, ids=name)
def test_64_65_a_member_of_another_type_is_refused(house: House, route: Route, member: Member) -> None:
    """Integers are never ``true``, ``"5"`` or ``1.5``, and a quota is never -1, 2**53 or 2**64."""
    for value in _wrong(member):
        answer = house.send(route, json.dumps({member.name: value}).encode())
        assert (answer.status_code, answer.json()["code"]) == (400, "malformed"), (value, answer.text)


@pytest.mark.parametrize("path", ["top-up", "requests"])
@pytest.mark.parametrize("units", [-1, 0, 2**53, 2**64, 1.5, "1", True, None])
def test_65_units_that_are_none(house: House, path: str, units: Any) -> None:
    token = house.lent.token if path == "requests" else None
    before = house.lent.balance()
    assert house.bench.post(f"/v1/loans/{house.lent.id}/{path}", {"units": units}, token=token).status_code == 400
    assert house.lent.balance() == before


HOSTILE = ("x" * 1_000_000, "a\r\nb", "a\x00b", "a\x1b[31mb", "a\u2028b", "\u202eevil", "a\u0085b")
DATA = ("'; DROP TABLE loan; --", "🎩", "<script>alert(1)</script>", "${jndi:ldap://x}", "{{7*7}}", "../../etc/passwd")


@pytest.mark.parametrize(
    ("route", "member"), [pair for pair in MEMBERS if pair[1].type == "string"], ids=name
)  # fmt: skip
def test_66_a_name_is_data_or_refused(house: House, route: Route, member: Member) -> None:
    """What steers a line or a terminal is refused in every text; what only looks like code stays a text."""
    for value in HOSTILE:
        demand_malformed(house, route, json.dumps({member.name: value}).encode())
    for value in DATA:
        answer = house.send(route, json.dumps({member.name: value}).encode())
        assert answer.status_code < 500
    assert house.bench.get("/v1/loans").status_code == 200


# 67, 68


def test_67_a_thousand_creates_at_once_under_one_key_are_one(place: Path) -> None:
    with Bench(place, settings={"connections": 4096}) as bench:
        body = bench.loan_body()
        headers = {**bench.admin, "idempotency-key": "one"}

        async def all_at_once() -> list[httpx.Response]:
            transport = httpx.ASGITransport(app=bench.client.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://testserver", timeout=60) as client:
                return await asyncio.gather(
                    *(client.post("/v1/loans", json=body, headers=headers) for _ in range(1000))
                )

        answers = asyncio.run(all_at_once())
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.content for answer in answers}) == 1
        assert len(bench.get("/v1/loans").json()["loans"]) == 1


def test_68_another_request_under_a_used_key_is_refused(bench: Bench) -> None:
    """Another body, another path; and another's key is another key."""
    first = bench.post("/v1/loans", bench.loan_body(), **{"idempotency-key": "k"})
    other = bench.post("/v1/loans", bench.loan_body(allowance=11), **{"idempotency-key": "k"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    path = f"/v1/loans/{first.json()['loan']}/top-up"
    assert bench.post(path, {"units": 1}, **{"idempotency-key": "k"}).status_code == 422
    lender = bench.token("lender")
    theirs = bench.post("/v1/loans", bench.loan_body(), token=lender, **{"idempotency-key": "k"})
    assert theirs.json()["loan"] != first.json()["loan"]
    for key in ("", "x" * 201, "a b", "a\tb"):
        assert bench.post("/v1/loans", bench.loan_body(), **{"idempotency-key": key}).status_code == 400


def test_68_a_request_while_the_first_one_runs_waits_for_its_answer(bench: Bench) -> None:
    """Where the list says 409: one answer for both needs no second try, and nobody is in conflict with himself."""
    answers: list[httpx.Response] = []

    def create() -> None:
        answers.append(bench.post("/v1/loans", bench.loan_body(), **{"idempotency-key": "k"}))

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1


# 70, 71


def test_70_a_forged_cursor_shows_nothing_that_is_not_ones_own(house: House) -> None:
    """A cursor is a number and opens nothing: whoever asks is asked for again with each page."""
    bench, loan = house.bench, house.lent.id
    for after in (-1, 0, 3, 10**6):
        page = bench.get(f"/v1/loans/{loan}/audit?after={after}", token=house.lent.token).json()
        assert all(loan in (entry["subject"], entry["details"].get("loan")) for entry in page["entries"])
    for after in ("-2", "1.5", "x", "9" * 30, "1%00", "%2e", "1&after=2", ""):
        answer = bench.get(f"/v1/loans/{loan}/audit?after={after}", token=house.lent.token)
        assert answer.status_code == 400
    assert bench.get(f"/v1/loans/{house.other.id}/audit", token=house.lent.token).status_code == 404
    assert bench.get("/v1/audit?after=99999999").json()["entries"] == []


@pytest.mark.parametrize("header", ["If-Match", "If-Unmodified-Since"])
def test_71_a_condition_that_cannot_hold_is_not_passed_over(house: House, header: str) -> None:
    """Nothing here has an entity tag (RFC 9110 section 13.1.1): who makes a change depend on one must not get it."""
    before = everything(house.bench, but=LOGS)
    for value in ('"stale"', "*", "Wed, 21 Oct 2015 07:28:00 GMT"):
        answer = house.bench.post(f"/v1/loans/{house.lent.id}/top-up", {"units": 1}, **{header: value})
        assert (answer.status_code, answer.json()["code"]) == (412, "precondition_failed")
    assert everything(house.bench, but=LOGS) == before
    assert house.bench.client.get("/v1/loans", headers={**house.alice, header: '"stale"'}).status_code == 200


# 72


def test_72_a_block_and_a_grant_at_the_same_time_are_in_the_order_of_their_commits(bench: Bench) -> None:
    for _ in range(10):
        lent = bench.lend(allowance=1000, max_ceiling=100)
        toy = lent.boot()
        toy.renew()
        toy.serve(1)
        statement = toy.request()
        toy.report()
        start = threading.Barrier(2)

        def renew(toy: Toy = toy, statement: bytes = statement, start: threading.Barrier = start) -> None:
            start.wait()
            toy.send(statement)

        thread = threading.Thread(target=renew)
        thread.start()
        start.wait()
        assert bench.post("/v1/blocks", {"kind": "loan", "subject": lent.id, "reason": ""}).status_code == 201
        thread.join()
        kinds = [
            entry["kind"] for entry in bench.audit()
            if lent.id in (entry["subject"], entry["details"].get("loan"))
        ]  # fmt: skip
        assert "lease_granted" not in kinds[kinds.index("blocked") :]


# 73, 74


def test_73_a_hundred_thousand_strangers_are_bounded_and_told_to_wait(bench: Bench) -> None:
    lent = bench.lend()
    codes = [lent.challenge(token=bearer("clst_" + "A" * 43)).status_code for _ in range(100)]
    assert set(codes[60:]) == {429}
    with bench.service.context.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM nonce").scalar_one() == 0
    limit = RateLimit(per_minute=60, subject="failed logins")
    for number in range(100_000):
        limit.spend(f"10.{number >> 16}.{(number >> 8) & 255}.{number & 255}", bench.clock())
    assert len(limit) <= 4096


@contextmanager
def _full_disk() -> Iterator[None]:
    """Let no file grow: every write that needs room fails, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_74_on_a_full_disk_reads_work_and_no_key_is_released(bench: Bench) -> None:
    lent = bench.lend()
    toy = Toy(lent)
    statement = toy.attest_statement(toy.take_challenge())
    with _full_disk():
        refused = lent.attest(statement)
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        assert int(refused.headers["retry-after"]) > 0
        assert bench.get("/v1/loans").status_code == 200
        assert bench.get(f"/v1/loans/{lent.id}").json()["instances"] == []
        assert bench.client.get("/healthz").status_code == 200
        assert bench.client.get("/readyz").status_code == 503
    bench.client.close()
    bench.service.abandon()  # as a process that is ended: nothing more is written
    bench.open()
    assert "key_released" not in bench.kinds()
    assert lent.boot().grant is not None
