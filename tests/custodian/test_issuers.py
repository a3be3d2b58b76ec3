"""Issuers of callers' identities: registered, used, changed, removed; what the log says of whom they prove."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from custodian_kit import START, Bench
from identity_kit import Authority, Cluster, Domain, Provider

from cloister.custodian.store.issuers import IssuerRow, list_issuers, put_issuer
from cloister.custodian.tokens import hash_token

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

NOW = int(START.timestamp())


def bearer(token: bytes) -> dict[str, str]:
    return {"authorization": f"Bearer {token.decode()}"}


def person(bench: Bench, name: str) -> dict[str, str]:
    """Admit a person by the digest of a token of their own."""
    token = "clst_" + hashlib.sha256(name.encode()).hexdigest()[:43]
    body = {"role": "admin", "name": name, "person": name, "sha256": hash_token(token).hex()}
    assert bench.post("/v1/tokens", body).status_code == 201
    return bearer(token.encode())


def register(bench: Bench, document: dict[str, Any]) -> str:
    answer = bench.post("/v1/issuers", document)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def rule(role: str, subject: str = "user-7", **grants: str) -> list[dict[str, Any]]:
    return [{"grants": {"role": role, **grants}, "subject": subject}]


def audit(bench: Bench) -> list[dict[str, Any]]:
    return [json.loads(line) if isinstance(line, str) else line for line in _entries(bench)]


def _entries(bench: Bench) -> list[Any]:
    found: list[Any] = bench.get("/v1/audit?limit=1000").json()["entries"]
    return found


def test_a_token_of_a_registered_issuer_has_the_role_of_its_rule(bench: Bench) -> None:
    site = Provider()
    assert bench.client.get("/v1/loans", headers=bearer(site.token(now=NOW))).status_code == 401
    register(bench, site.document(rules=rule("auditor")))
    assert bench.client.get("/v1/audit", headers=bearer(site.token(now=NOW))).status_code == 200
    assert bench.client.get("/v1/tokens", headers=bearer(site.token(now=NOW))).status_code == 403


def test_the_list_shows_documents_and_keys_and_an_admin_alone_sees_it(bench: Bench) -> None:
    site = Provider()
    name = register(bench, site.document())
    (shown,) = bench.get("/v1/issuers").json()["issuers"]
    assert shown["id"] == name
    assert re.fullmatch(r"iss-[0-9a-f]{16}", name)
    assert shown["document"] == site.document() | {"leeway_s": 5, "max_age_s": 3600, "types": ["at+jwt", "jwt"]}
    assert shown["keys"] == {"count": 1, "fetched_at": None, "problem": None, "source": "document"}
    assert bench.client.get("/v1/issuers", headers=bearer(site.token(now=NOW))).status_code == 403


def test_a_document_takes_the_place_of_the_one_of_its_name_at_once(bench: Bench) -> None:
    site = Provider()
    register(bench, site.document(rules=rule("admin")))
    token = bearer(site.token(now=NOW))
    assert bench.client.get("/v1/tokens", headers=token).status_code == 200
    answer = bench.post("/v1/issuers", site.document(rules=rule("lender")))
    assert answer.json()["replaced"] is True
    assert bench.client.get("/v1/tokens", headers=token).status_code == 403
    register(bench, site.document(keys=Provider().jwks()))
    assert bench.client.get("/v1/loans", headers=token).status_code == 401


def test_a_removed_issuer_proves_nobody_from_the_commit_on(bench: Bench) -> None:
    site = Provider()
    name, token = register(bench, site.document()), bearer(site.token(now=NOW))
    assert bench.client.get("/v1/loans", headers=token).status_code == 200
    assert bench.client.delete(f"/v1/issuers/{name}", headers=bench.admin).json() == {"id": name, "removed": True}
    assert bench.client.get("/v1/loans", headers=token).status_code == 401
    assert bench.client.delete(f"/v1/issuers/{name}", headers=bench.admin).status_code == 404


def test_issuers_are_there_after_a_restart(bench: Bench) -> None:
    site = Provider()
    register(bench, site.document())
    bench.restart()
    assert bench.client.get("/v1/loans", headers=bearer(site.token(now=NOW))).status_code == 200


def test_a_borrowers_identity_sees_its_own_loan_and_no_trace_of_another(bench: Bench) -> None:
    site, mine, other = Provider(), bench.lend(), bench.lend()
    register(bench, site.document(rules=rule("borrower", loan=mine.id)))
    token = bearer(site.token(now=NOW))
    assert bench.client.get(f"/v1/loans/{mine.id}/summary", headers=token).status_code == 200
    assert bench.client.get(f"/v1/loans/{other.id}/summary", headers=token).status_code == 404
    assert bench.client.post(f"/v1/loans/{mine.id}/challenge", headers=token).status_code == 200


BAD: dict[str, dict[str, Any]] = {
    "a role that is none": {"rules": rule("root")},
    "a borrower without a loan": {"rules": rule("borrower")},
    "a lender with a loan": {"rules": rule("lender", loan="loan-aaaaaaaaaaaaaaaa")},
    "a loan of no form": {"rules": rule("borrower", loan="x")},
    "a consumer in capitals": {"rules": [{"grants": {"consumer": "Ward"}, "subject": "x"}]},
    "no rules": {"rules": None},
    "algorithm none": {"algorithms": ["none"]},
    "keys that are none": {"keys": {"keys": []}},
    "an unknown member": {"x": 1},
    "69 keys over plain http": {"jwks_uri": "http://169.254.169.254/keys"},
    "69 keys in a file": {"jwks_uri": "file:///etc/passwd"},
    "69 an issuer over plain http": {"issuer": "http://10.0.0.1"},
}


@pytest.mark.parametrize("name", BAD)
def test_a_document_that_makes_no_sense_is_400_and_changes_nothing(bench: Bench, name: str) -> None:
    answer = bench.post("/v1/issuers", Provider().document(**BAD[name]))
    assert answer.status_code == 400, answer.text
    assert bench.get("/v1/issuers").json() == {"issuers": []}


def test_a_rule_for_a_loan_that_is_not_there_is_404(bench: Bench) -> None:
    document = Provider().document(rules=rule("borrower", loan="loan-aaaaaaaaaaaaaaaa"))
    assert bench.post("/v1/issuers", document).status_code == 404


def test_every_kind_is_registered(bench: Bench) -> None:
    for document in (Cluster().document(), Domain().document(), Authority().document()):
        register(bench, document)
    kinds = {item["kind"]: item["keys"]["count"] for item in bench.get("/v1/issuers").json()["issuers"]}
    assert kinds == {"certificates": 1, "kubernetes": 1, "spiffe": 2}


def test_the_log_names_an_identity_by_a_hash_and_never_by_name_or_token(bench: Bench) -> None:
    site = Provider()
    register(bench, site.document(rules=rule("lender", "alice@example.org")))
    token = site.token(now=NOW, sub="alice@example.org", email="alice@example.org")
    block = {"kind": "loan", "subject": bench.lend().id, "reason": "x"}
    assert bench.client.post("/v1/blocks", json=block, headers=bearer(token)).status_code == 201
    text = json.dumps(_entries(bench))
    assert re.search(r"lender:p:[0-9a-f]{32}", text)
    assert "issuer_set" in text
    for secret in ("alice", "example.org", token.decode(), token.decode().split(".")[1]):
        assert secret not in text


def test_an_idempotency_key_is_an_identitys_own(bench: Bench) -> None:
    site = Provider()
    register(bench, site.document(rules=[*rule("lender"), *rule("lender", "user-8")]))
    block = {"kind": "loan", "subject": bench.lend().id, "reason": "x"}

    def send(subject: str) -> httpx.Response:
        headers = {**bearer(site.token(now=NOW, sub=subject)), "idempotency-key": "one"}
        return bench.client.post("/v1/blocks", json=block, headers=headers)

    first = send("user-7")
    assert send("user-7").json() == first.json()
    assert send("user-8").status_code == 201


def test_a_fetched_issuer_that_is_not_reached_is_503_and_says_so_in_the_list(bench: Bench) -> None:
    site = Provider("https://localhost:1")
    register(bench, site.document(keys=None))
    answer = bench.client.get("/v1/loans", headers=bearer(site.token(now=NOW)))
    assert answer.status_code == 503
    (shown,) = bench.get("/v1/issuers").json()["issuers"]
    assert shown["keys"]["count"] == 0
    assert "address_not_allowed" in shown["keys"]["problem"]


def test_more_issuers_than_there_may_be_are_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloister.custodian.service.issuers.MAX_ISSUERS", 2)
    site = Provider()
    for number in range(2):
        register(bench, site.document(issuer=f"https://login{number}.example"))
    refused = bench.post("/v1/issuers", site.document(issuer="https://login3.example"))
    assert refused.json()["code"] == "too_many_issuers"
    register(bench, site.document(issuer="https://login1.example"))


def test_an_issuer_that_names_another_person_takes_two_persons(place: Path) -> None:
    """T89: whoever could register an issuer of their own could agree with themselves."""
    site = Provider()
    named = [{"grants": {"person": "bob", "role": "admin"}, "subject": "user-7"}]
    with Bench(place, settings={"two_person": ("person",)}) as bench:
        alice, _ = (person(bench, name) for name in ("alice", "carol"))
        mine = [{"grants": {"person": "alice", "role": "admin"}, "subject": "user-7"}]
        own = bench.client.post("/v1/issuers", json=site.document(rules=mine), headers=alice)
        assert own.status_code == 201
        held = bench.client.post("/v1/issuers", json=site.document(rules=named), headers=alice)
        assert held.status_code == 202
        assert bench.get("/v1/issuers").json()["issuers"][0]["document"]["rules"] == mine
        by_issuer = bearer(site.token(now=NOW))
        path, body = f"/v1/proposals/{held.json()['proposal']}/approve", {"digest": held.json()["digest"]}
        same = bench.client.post(path, json=body, headers=by_issuer)
        assert same.json()["code"] == "same_person"


def test_what_can_be_stolen_for_minutes_registers_no_issuer_and_makes_no_token(bench: Bench) -> None:
    site = Provider()
    register(bench, site.document(rules=rule("admin")))
    session = bearer(bench.post("/v1/sessions", {}).json()["token"].encode())
    for fleeting in (bearer(site.token(now=NOW)), session):
        for path, body in (("/v1/issuers", site.document()), ("/v1/tokens", {"role": "admin", "name": "mine now"})):
            answer = bench.client.post(path, json=body, headers=fleeting)
            assert (answer.status_code, answer.json()["code"]) == (403, "session_unbound")


def test_a_document_of_another_version_proves_nobody_is_listed_and_can_be_removed(bench: Bench) -> None:
    site = Provider()
    name = register(bench, site.document())
    future = {**site.document(), "issuer": site.name, "of_tomorrow": True}
    row = IssuerRow(id=name, document=json.dumps(future).encode(), set_at=START)
    bench.service.context.transact(lambda work: put_issuer(work.connection, row))
    assert bench.client.get("/v1/loans", headers=bearer(site.token(now=NOW))).status_code == 401
    (shown,) = bench.get("/v1/issuers").json()["issuers"]
    assert (shown["document"], shown["keys"]["problem"]) == (None, "issuer: of_tomorrow: unknown member")
    assert bench.client.delete(f"/v1/issuers/{name}", headers=bench.admin).status_code == 200


def test_no_rule_gives_the_role_of_a_host(bench: Bench) -> None:
    assert bench.post("/v1/issuers", Provider().document(rules=rule("operator"))).status_code == 400


def test_a_thread_that_read_issuers_before_a_removal_does_not_bring_them_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Provider()
    name, token = register(bench, site.document()), bearer(site.token(now=NOW))
    identities = bench.service.identities
    stale = list_issuers_of(bench)
    assert bench.client.delete(f"/v1/issuers/{name}", headers=bench.admin).status_code == 200
    assert bench.client.get("/v1/loans", headers=token).status_code == 401
    with monkeypatch.context() as slow:  # what a slow thread has in its hands
        slow.setattr("cloister.custodian.service.identities.issuers_version", lambda _connection: 1)
        slow.setattr("cloister.custodian.service.identities.list_issuers", lambda _connection: stale)
        identities.refresh()
        assert list(identities._callers.issuers) == []
    assert bench.client.get("/v1/loans", headers=token).status_code == 401


def list_issuers_of(bench: Bench) -> Any:
    with bench.service.context.reading() as connection:
        return list_issuers(connection)
