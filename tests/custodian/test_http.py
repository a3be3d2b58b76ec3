"""The HTTP face against hostile input: every answer a problem document, never a 500, never a change of state."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from custodian_kit import STATEMENT, Bench, Toy
from starlette.routing import Mount

from cloister.custodian.events import Streams, follow
from cloister.custodian.openapi import openapi_document
from cloister.custodian.presented import Presented
from cloister.custodian.problems import problem
from cloister.custodian.routes import ROUTES
from cloister.custodian.service.loans import create_loan
from cloister.custodian.tokens import SYSTEM
from cloister.errors import CloisterError, Malformed, Rejected, Unavailable, UsageError
from cloister.lending.audit import AuditEntry, verify_checkpoint, verify_log
from cloister.wire import Fields, dump_json
from mutations import mutated

if TYPE_CHECKING:
    from cloister.custodian.service import Transaction

JSON = {"content-type": "application/json"}


def _loans(bench: Bench, content: bytes, **headers: str) -> Any:
    return bench.client.post("/v1/loans", content=content, headers={**bench.admin, **JSON, **headers})


@pytest.mark.parametrize(
    "content",
    [
        b"", b"null", b"[]", b'"x"', b"{", b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf{}", b'{"a":1,"a":2}',
        b'{"a":NaN}', b'{"a":Infinity}', b'{"a":-0}', b'{"a":1e400}', b'{"a":"\\ud800"}', b"[" * 10_000,
        b'{"a":' * 40 + b"1" + b"}" * 40, b'{"a":' + b"9" * 1_000_000 + b"}", b"{'a':1}", b'{"a":1}\x00',
    ],
    ids=lambda value: repr(value[:16]),
)  # fmt: skip
def test_a_body_that_is_not_strict_json_is_malformed(bench: Bench, content: bytes) -> None:
    """List 61 to 64."""
    answer = _loans(bench, content)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "name",
    ["x" * 1_000_000, "a\r\nb", "a\x00b", "a\x1b[31mb", "a\u2028b", "\u202eevil", "'; DROP TABLE loan; --", "🎩"],
    ids=lambda value: repr(value[:12]),
)
def test_a_hostile_name_is_kept_as_data_or_refused(bench: Bench, name: str) -> None:
    """List 66, T80, T84: in every free text field; what is kept is one JSON string in one log line."""
    answer = bench.post("/v1/loans", bench.loan_body(borrower=name))
    assert answer.status_code in {201, 400}
    lent = bench.lend()
    asked = bench.post(f"/v1/loans/{lent.id}/requests", {"units": 1, "reason": name}, token=lent.token)
    assert asked.status_code in {201, 400}
    blocked = bench.post("/v1/blocks", {"kind": "loan", "subject": lent.id, "reason": name})
    assert blocked.status_code in {201, 400}
    assert bench.post("/v1/tokens", {"role": "auditor", "name": name}).status_code in {201, 400}
    for entry in bench.audit():
        line = dump_json(entry)
        assert b"\n" not in line
        assert b"\r" not in line
        assert "\u2028".encode() not in line
        assert AuditEntry.parse(line)
    assert bench.get("/v1/loans").status_code == 200


def test_a_control_character_never_reaches_the_log(bench: Bench) -> None:
    """T84: CR, LF, ANSI, U+2028 in every field that a caller can fill."""
    lent = bench.lend()
    for char in "\r\n\x1b\x00\x7f\u2028\u2029":
        text = f"before{char}after"
        assert bench.post("/v1/loans", bench.loan_body(borrower=text)).status_code == 400
        assert bench.post("/v1/blocks", {"kind": "loan", "subject": lent.id, "reason": text}).status_code == 400
        assert bench.post("/v1/blocks", {"kind": "loan", "subject": text, "reason": ""}).status_code == 400
        asked = bench.post(f"/v1/loans/{lent.id}/requests", {"units": 1, "reason": text}, token=lent.token)
        assert asked.status_code == 400


def test_a_body_beyond_the_cap_is_refused_before_it_is_read(bench: Bench) -> None:
    """T82: by its declared length, and while it grows where it declares none."""
    answer = _loans(bench, b" " * (1 << 20) + b" ")
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")

    def endless() -> Any:
        for _ in range(40):
            yield b" " * 65_536

    answer = bench.client.post("/v1/loans", content=endless(), headers={**bench.admin, **JSON})
    assert answer.status_code == 413
    lied = bench.client.post("/v1/loans", content=b"{}", headers={**bench.admin, **JSON, "content-length": "9" * 30})
    assert lied.status_code == 413


def test_the_media_type_must_be_the_routes(bench: Bench) -> None:
    lent = bench.lend()
    for media in ("text/plain", "application/xml", "application/json-patch+json", ""):
        assert _loans(bench, b"{}", **{"content-type": media}).status_code == 415
    answer = bench.client.post(f"/v1/loans/{lent.id}/attest", content=b"{}", headers={**lent.token, **JSON})
    assert (answer.status_code, answer.json()["code"]) == (415, "media_type_unsupported")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/loans/", "/V1/LOANS", "/v1//loans", "/v1/loans/%2e%2e/tokens", "/v1/loans/..%2ftokens", "/v1/nothing",
        "/v1/loans/%252e%252e", "/", "/admin", "/v1/models/../../etc/passwd",
    ],
)  # fmt: skip
def test_a_path_that_is_not_in_the_table_does_not_exist(bench: Bench, path: str) -> None:
    """List 60."""
    answer = bench.client.get(path, headers=bench.admin, follow_redirects=False)
    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"


def test_a_method_that_is_not_in_the_table_is_not_allowed(bench: Bench) -> None:
    for method in ("PUT", "PATCH", "DELETE", "TRACE"):
        answer = bench.client.request(method, "/v1/loans", headers=bench.admin)
        assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")


@pytest.mark.parametrize(
    "query",
    [
        "after=-2",
        "after=1.5",
        "after=x",
        "after=9" + "9" * 20,
        "limit=0",
        "limit=1001",
        "after=1&after=2",
        "a=" + "b" * 5000,
    ],
)
def test_a_strange_query_is_malformed(bench: Bench, query: str) -> None:
    assert bench.get(f"/v1/audit?{query}").status_code == 400


def test_a_get_with_a_body_is_malformed(bench: Bench) -> None:
    answer = bench.client.request("GET", "/v1/loans", content=b"{}", headers=bench.admin)
    assert answer.status_code == 400


def test_every_answer_has_the_security_headers(bench: Bench) -> None:
    for path in ("/healthz", "/v1/loans", "/nothing", "/v1/audit?after=x"):
        headers = bench.client.get(path).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "max-age" in headers["strict-transport-security"]
        assert "server" not in headers


def test_damaged_statements_never_become_a_server_error(bench: Bench) -> None:
    lent = bench.lend()
    toy = Toy(lent)
    statement = toy.attest_statement(toy.take_challenge())
    seen = set()
    for damaged in mutated(statement, count=400, seed=7):
        answer = lent.attest(damaged)
        seen.add(answer.status_code)
    assert seen <= {200, 400, 403, 413}
    assert not {entry["subject"] for entry in bench.audit() if entry["kind"] == "key_released"} - {toy.id}


class _Undo(Exception):
    pass


def _create_damaged(transaction: Transaction, body: bytes) -> None:
    for damaged in mutated(body, count=10_000, seed=5):
        with contextlib.suppress(Malformed, Rejected):
            create_loan(transaction, SYSTEM, Fields.parse(damaged, what="request body"), url="", ca_pem="")
    raise _Undo


def test_damaged_json_never_becomes_a_server_error(bench: Bench) -> None:
    """10,000 bodies through the parser of the largest body, a few hundred of them through HTTP."""
    body = dump_json(bench.loan_body(consumers=[{"id": "ward-a", "allowance": 3}]))
    for damaged in mutated(body, count=300, seed=11):
        assert _loans(bench, damaged).status_code in {201, 400, 404, 413, 422}

    with pytest.raises(_Undo):
        bench.service.context.transact(lambda transaction: _create_damaged(transaction, body))
    assert bench.service.context.size == bench.get("/v1/audit").json()["size"]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Malformed("x"), 400, "malformed"),
        (UsageError("x"), 400, "usage"),
        (Rejected.because("unauthenticated", "x"), 401, "unauthenticated"),
        (Rejected.because("allowance_exhausted", "x"), 402, "allowance_exhausted"),
        (Rejected.because("anything_else", "x"), 403, "anything_else"),
        (Rejected.because("wrong_seq", "x"), 409, "wrong_seq"),
        (Rejected.because("too_many_requests", "x"), 429, "too_many_requests"),
        (Unavailable("x", retry_after_s=7), 503, "unavailable"),
        (CloisterError("x"), 500, "internal"),
    ],
)
def test_one_table_from_error_to_status(error: CloisterError, status: int, code: str) -> None:
    got, body, headers = problem(error)
    assert (got, json.loads(body)["code"], json.loads(body)["status"]) == (status, code, status)
    if status in {429, 503}:
        assert int(headers["Retry-After"]) > 0


def test_a_bug_of_ours_is_a_500_that_says_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def reading(self) -> None:
            msg = "secret inside an exception"
            raise RuntimeError(msg)

        def close(self) -> None:
            pass

    store = bench.service.context.store
    bench.service.context.store = Broken()  # type: ignore[assignment]
    with caplog.at_level(logging.DEBUG):
        answer = bench.get("/v1/loans")
    bench.service.context.store = store
    assert answer.status_code == 500
    assert "secret" not in answer.text + caplog.text


def test_the_openapi_document_and_the_table_are_one(bench: Bench) -> None:
    document = bench.client.get("/openapi.json").json()
    assert document == json.loads(dump_json(openapi_document(ROUTES)))
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    routed = {
        (method, route.path.replace(":path}", "}"))
        for route in bench.client.app.routes  # type: ignore[attr-defined]
        if not isinstance(route, Mount)  # the pages, which are beside the API
        for method in route.methods - {"HEAD"}
    }
    assert described == {(route.method, route.path) for route in ROUTES} == routed
    identities = [item["operationId"] for paths in document["paths"].values() for item in paths.values()]
    assert len(set(identities)) == len(identities)


def test_the_log_can_be_read_and_proven_from_outside(bench: Bench) -> None:
    bench.lend().boot().renew()
    lines, after = [], -1
    while page := bench.get(f"/v1/audit?after={after}&limit=3").json()["entries"]:
        lines += [dump_json(entry) for entry in page]
        after = page[-1]["index"]
    checkpoint = verify_checkpoint(bench.get("/v1/audit/checkpoint").content, bench.init.key)
    verified = verify_log(lines, checkpoint)
    assert verified.checked == verified.size == len(lines)


async def _read(bench: Bench, streams: Streams, loan: Any, chunks: int) -> list[bytes]:
    found = []
    demand = partial(bench.service.authenticate, Presented(authorization=bench.admin["Authorization"]))
    stream = follow(bench.service, streams, loan, 0, demand=demand)
    async for chunk in stream:
        found.append(chunk)
        if len(found) == chunks:
            streams.stopping = True
    return found


def test_events_follow_a_loan(bench: Bench) -> None:
    lent = bench.lend()
    streams = Streams(cap=1)
    first, news = asyncio.run(_read(bench, streams, lent.id, 2))
    assert first.startswith(b"event: loan\ndata: {")
    assert b"event: audit\nid: " in news
    assert str(lent.id).encode() in news
    assert b"custodian_started" not in news
    streams.enter()
    with pytest.raises(Rejected):
        streams.enter()


def test_readiness_ends_with_the_database(bench: Bench) -> None:
    assert bench.client.get("/readyz").json()["status"] == "ok"
    assert bench.client.get("/healthz").json() == {"status": "ok"}
    bench.service.context.store._broken = True
    bench.service.watch.health.last = None
    assert bench.client.get("/readyz").status_code == 503
    assert bench.client.get("/healthz").json() == {"status": "degraded"}
    bench.service.context.store._broken = False


def test_a_lease_request_needs_no_token_but_a_signature(bench: Bench) -> None:
    toy = bench.lend().boot()
    answer = bench.client.post(f"/v1/instances/{toy.id}/lease", content=b"{}", headers=STATEMENT)
    assert answer.status_code == 400
