"""Two persons (T89), and what changes between the first one's word and the second's (T90)."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

import pytest
from custodian_kit import SOFTWARE, Bench, bearer
from identity_kit import Provider

from cloister.custodian.config_file import load_config
from cloister.custodian.dashboard.words import OPERATIONS
from cloister.custodian.duty import IN_PRODUCTION, Operation
from cloister.custodian.routes import ROUTES
from cloister.custodian.store.migrations import MIGRATIONS
from cloister.custodian.tokens import hash_token
from cloister.errors import UsageError
from cloister.testing.simulated import simulated_policy
from cloister.wire import dump_json, lp, parse_b64u

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

ALL = tuple(item.value for item in Operation)
SAID = {"two_person": ALL, "failures_per_minute": 10_000}


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.drill)])
def house(place: Path, request: pytest.FixtureRequest) -> Iterator[House]:
    """Yield a custodian where every operation needs two persons, and who is there."""
    postgres = request.getfixturevalue("postgres") if request.param == "postgresql" else None
    with Bench(place, settings=SAID, postgres=postgres) as bench:
        yield House(bench)
    if postgres is not None:
        postgres.drop(bench.service.config.database)


class House:
    """Alice and Bob, who are admins; Lena, who lends; a token of nobody's; a loan."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.alice = self._person("admin", "alice")
        self.lena = self._person("lender", "lena")
        self.bob = self._person("admin", "bob")  # from here on a second person has to approve
        self.lent = bench.lend()

    def _person(self, role: str, person: str) -> dict[str, str]:
        body = {"role": role, "name": person, "person": person, "sha256": _own(person)}
        assert self.bench.post("/v1/tokens", body).status_code == 201
        return bearer(_secret(person))

    def blocked(self, reason: str = "a leak") -> str:
        """Block the loan; return the path that lifts it."""
        body = {"kind": "loan", "subject": self.lent.id, "reason": reason}
        assert self.bench.post("/v1/blocks", body).status_code == 201
        return f"/v1/blocks/loan/{self.lent.id}"

    def unblock(self, token: dict[str, str], **headers: str) -> httpx.Response:
        """Ask for the block to be lifted."""
        return self.bench.client.delete(f"/v1/blocks/loan/{self.lent.id}", headers={**token, **headers})

    def decide(
        self, proposal: dict[str, Any], verb: str, token: dict[str, str], body: Any = None, **headers: str
    ) -> httpx.Response:
        """Approve, deny or withdraw."""
        wanted = {"digest": proposal["digest"]} if verb == "approve" and body is None else body
        return self.bench.post(f"/v1/proposals/{proposal['proposal']}/{verb}", wanted, token=token, **headers)

    def is_blocked(self) -> bool:
        """Tell whether the loan is blocked."""
        return bool(self.bench.get("/v1/blocks").json()["blocks"])

    def shown(self, proposal: dict[str, Any]) -> dict[str, Any]:
        """Return a proposal as it stands."""
        found: dict[str, Any] = self.bench.get(f"/v1/proposals/{proposal['proposal']}").json()
        return found

    def log(self) -> list[str]:
        """Return what the log says of proposals."""
        return [kind for kind in self.bench.kinds() if kind.startswith("proposal_")]


def _secret(person: str) -> str:
    return "clst_" + hashlib.sha256(person.encode()).hexdigest()[:43]


def _own(person: str) -> str:
    return hash_token(_secret(person)).hex()


def test_one_person_alone_lifts_no_block(house: House) -> None:
    """T89: 202 and nothing has changed; then a second person's word does it."""
    house.blocked()
    asked = house.unblock(house.alice)
    assert asked.status_code == 202
    proposal = asked.json()
    assert (proposal["state"], proposal["operation"], proposal["person"]) == ("open", "unblock", "alice")
    assert proposal["basis"]["reason"] == "a leak"
    assert house.is_blocked()
    done = house.decide(proposal, "approve", house.bob)
    assert (done.status_code, done.json()["state"]) == (200, "executed")
    assert done.json()["result"] == {"block_version": 2}
    assert not house.is_blocked()
    assert house.log() == ["proposal_made", "proposal_approved", "proposal_executed"]
    entries = {entry["kind"]: entry for entry in house.bench.audit()}
    assert entries["proposal_made"]["actor"] == entries["unblocked"]["actor"] == proposal["by"]
    assert entries["proposal_approved"]["actor"] not in {proposal["by"], "custodian"}
    assert entries["proposal_approved"]["details"] == {"digest": proposal["digest"], "operation": "unblock"}


def test_a_lender_may_be_the_second_person_where_a_lender_may_ask(house: House) -> None:
    house.blocked()
    assert house.decide(house.unblock(house.alice).json(), "approve", house.lena).status_code == 200


def test_who_proposed_cannot_approve_nor_with_another_token(house: House) -> None:
    """A second token of the same person is the same person; it may withdraw, and deny nothing."""
    house.blocked()
    proposal = house.unblock(house.alice).json()
    made = house.bench.post("/v1/tokens", {"role": "admin", "name": "x", "person": "alice"}, token=house.alice)
    second = bearer(made.json()["token"])
    for token in (house.alice, second):
        for verb in ("approve", "deny"):
            answer = house.decide(proposal, verb, token, None if verb == "approve" else {})
            assert (answer.status_code, answer.json()["code"]) == (403, "same_person")
    assert house.is_blocked()
    assert house.bench.kinds()[-1] == "access_denied"
    assert house.decide(proposal, "withdraw", second, {}).json()["state"] == "withdrawn"
    answer = house.decide(proposal, "approve", house.bob)
    assert (answer.status_code, answer.json()["code"]) == (409, "already_decided")


def test_nobody_in_particular_is_no_person(house: House) -> None:
    """A token that names nobody could be anybody's: it neither proposes nor approves."""
    house.blocked()
    nobody = house.bench.token("admin")
    answer = house.unblock(nobody)
    assert (answer.status_code, answer.json()["code"]) == (403, "person_wanted")
    answer = house.decide(house.unblock(house.alice).json(), "approve", nobody)
    assert (answer.status_code, answer.json()["code"]) == (403, "person_wanted")
    assert house.is_blocked()


def test_an_admin_cannot_make_a_second_person_to_agree_with(house: House) -> None:
    """The way around the rule: a token for a colleague of one's own invention."""
    body = {"role": "admin", "name": "x", "person": "mallory", "sha256": _own("mallory")}
    asked = house.bench.post("/v1/tokens", body, token=house.alice)
    assert (asked.status_code, asked.json()["operation"]) == (202, "person")
    assert house.bench.get("/v1/loans", token=bearer(_secret("mallory"))).status_code == 401
    for role in ("lender", "admin"):
        mine = house.bench.post("/v1/tokens", {"role": role, "name": "x", "person": "carol"}, token=house.alice)
        assert (mine.status_code, mine.json()["code"]) == (422, "token_digest_wanted"), "nobody sees another's token"
    for body in (
        {"role": "auditor", "name": "x", "person": "carol"},
        {"role": "admin", "name": "x", "person": "alice"},
    ):
        assert house.bench.post("/v1/tokens", body, token=house.alice).status_code == 201
    spelled = {"role": "admin", "name": "x", "person": "Alice", "sha256": _own("Alice")}
    assert house.bench.post("/v1/tokens", spelled, token=house.alice).status_code == 400


def test_revoking_the_other_admin_does_not_end_the_rule(house: House) -> None:
    """However few are left: what needed two persons goes on to need two."""
    house.blocked()
    for item in house.bench.get("/v1/tokens").json()["tokens"]:
        if item["person"] in {"bob", "lena"}:
            assert house.bench.client.delete(f"/v1/tokens/{item['id']}", headers=house.alice).status_code == 200
    assert house.unblock(house.alice).status_code == 202
    body = {"role": "admin", "name": "x", "person": "carol", "sha256": _own("carol")}
    assert house.bench.post("/v1/tokens", body, token=house.alice).status_code == 202


def test_an_approval_is_of_the_bytes_that_were_looked_at(house: House) -> None:
    house.blocked()
    proposal = house.unblock(house.alice).json()
    answer = house.decide(proposal, "approve", house.bob, {"digest": "0" * 64})
    assert (answer.status_code, answer.json()["code"]) == (409, "proposal_changed")
    for body in ({}, {"digest": "x"}, {"digest": proposal["digest"], "more": 1}):
        assert house.decide(proposal, "approve", house.bob, body).status_code == 400
    assert house.is_blocked()
    custodian = house.bench.init.key.raw
    parts = (
        b"cloister/proposal/v1", custodian, proposal["proposal"].encode(), b"unblock", dump_json(proposal["request"]),
        parse_b64u(proposal["body"], what="body"), dump_json(proposal["basis"]),
    )  # fmt: skip
    assert hashlib.sha256(lp(*parts)).hexdigest() == proposal["digest"], "docs/spec/proposal.md, section 2"


def test_a_block_that_was_made_anew_is_not_lifted_by_an_older_approval(house: House) -> None:
    """T90: who approved looked at another block."""
    house.blocked("a false alarm")
    proposal = house.unblock(house.alice).json()
    other = house.unblock(house.bob).json()
    house.bench.clock.advance(1)
    assert house.decide(other, "approve", house.alice).status_code == 200
    house.blocked("a real leak")
    answer = house.decide(proposal, "approve", house.bob)
    assert (answer.status_code, answer.json()["code"]) == (409, "proposal_stale")
    assert house.is_blocked()
    assert house.shown(proposal)["state"] == "refused"
    assert house.log()[-2:] == ["proposal_approved", "proposal_refused"]
    assert house.decide(proposal, "approve", house.bob).json()["code"] == "already_decided"


def _policy(version: int) -> dict[str, Any]:
    return {"policy": {**simulated_policy(SOFTWARE).to_json(), "version": version}}


def test_a_policy_of_an_older_version_is_not_put_in_force_by_an_approval(house: House) -> None:
    """T90: two proposals on one state; the first that is approved makes the other stale."""
    path = f"/v1/loans/{house.lent.id}/policy"
    second, third = (house.bench.post(path, _policy(version), token=house.alice) for version in (2, 3))
    assert (second.status_code, third.status_code) == (202, 202)
    assert house.decide(third.json(), "approve", house.bob).json()["result"]["version"] == 3
    answer = house.decide(second.json(), "approve", house.bob)
    assert (answer.status_code, answer.json()["code"]) == (409, "proposal_stale")
    assert house.lent.show()["policy_version"] == 3


def test_what_would_be_refused_now_is_refused_to_who_asks(house: House) -> None:
    """Nonsense never waits for a second person, and leaves nothing behind."""
    path = f"/v1/loans/{house.lent.id}/policy"
    assert house.bench.post(path, _policy(1), token=house.alice).json()["code"] == "policy_version_old"
    assert house.bench.post(path, {"policy": 1}, token=house.alice).status_code == 400
    assert house.unblock(house.alice).status_code == 404
    assert house.bench.get("/v1/proposals").json()["proposals"] == []
    assert house.log() == []


def test_asking_leaves_nothing_but_the_proposal(house: House) -> None:
    """Trying it out is taken back: no policy, no contract, no posting, no entry but the proposal's."""
    before = house.lent.show()
    size = len(house.bench.audit())
    assert house.bench.post(f"/v1/loans/{house.lent.id}/policy", _policy(2), token=house.alice).status_code == 202
    assert house.lent.show() == before
    assert [entry["kind"] for entry in house.bench.audit()[size:]] == ["proposal_made"]
    house.bench.restart()


def test_an_authors_token_that_was_revoked_carries_nothing_out(house: House) -> None:
    """T90: what a dismissed insider left behind dies with the token."""
    house.blocked()
    proposal = house.unblock(house.alice).json()
    token = proposal["by"].partition(":")[2]
    assert house.bench.client.delete(f"/v1/tokens/{token}", headers=house.bob).status_code == 200
    answer = house.decide(proposal, "approve", house.bob)
    assert (answer.status_code, answer.json()["code"]) == (409, "proposer_gone")
    assert house.is_blocked()


def test_who_could_not_ask_cannot_approve(house: House) -> None:
    """A lender is no second person for what is an admin's, and shuts none out by it."""
    asked = house.bench.post("/v1/keys/rotate", {"incident": True, "reason": "drill"}, token=house.alice)
    assert asked.status_code == 202
    for verb in ("approve", "deny"):
        answer = house.decide(asked.json(), verb, house.lena, None if verb == "approve" else {})
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert house.bench.get("/v1/keys").json()["key_epoch"] == 1
    assert house.shown(asked.json())["state"] == "open", "nor put an end to it"


def test_a_proposal_expires_and_says_so(house: House) -> None:
    house.blocked()
    proposal = house.unblock(house.alice).json()
    house.bench.clock.advance(house.bench.service.config.proposal_ttl_s)
    answer = house.decide(proposal, "approve", house.bob)
    assert (answer.status_code, answer.json()["code"]) == (409, "proposal_expired")
    house.bench.service.sweep()
    assert house.shown(proposal)["state"] == "expired"
    assert house.log() == ["proposal_made", "proposal_expired"]
    assert house.unblock(house.alice).json()["proposal"] != proposal["proposal"]
    house.bench.clock.advance(91 * 86_400)
    house.bench.service.sweep()
    assert [item["state"] for item in house.bench.get("/v1/proposals").json()["proposals"]] == ["expired"]


def test_a_caught_session_of_the_second_person_approves_nothing(house: House) -> None:
    """What Bob's browser shows to a proxy must not be Bob's word."""
    house.blocked()
    proposal = house.unblock(house.alice).json()
    caught = bearer(house.bench.post("/v1/sessions", token=house.bob).json()["token"])
    answer = house.decide(proposal, "approve", caught)
    assert (answer.status_code, answer.json()["code"]) == (403, "session_unbound")
    assert house.is_blocked()
    assert house.shown(proposal)["state"] == "open"


def test_a_denied_proposal_is_denied(house: House) -> None:
    house.blocked()
    proposal = house.unblock(house.alice).json()
    denied = house.decide(proposal, "deny", house.bob, {"reason": "not yet"})
    assert (denied.json()["state"], denied.json()["reason"]) == ("denied", "not yet")
    for verb in ("approve", "deny", "withdraw"):
        token = house.alice if verb == "withdraw" else house.bob
        answer = house.decide(proposal, verb, token, None if verb == "approve" else {})
        assert answer.json()["code"] == "already_decided"
    assert house.decide(house.unblock(house.alice).json(), "withdraw", house.bob, {}).json()["code"] == "forbidden"


def test_asking_again_is_the_same_proposal_and_approving_again_the_same_answer(house: House) -> None:
    """Idempotency: by the key where there is one, by what is asked where there is none, across a restart."""
    house.blocked()
    first = house.unblock(house.alice).json()
    assert house.unblock(house.alice).json() == first
    path, key = f"/v1/loans/{house.lent.id}/policy", {"idempotency-key": "once"}
    asked = [house.bench.post(path, _policy(2), token=house.alice, **key) for _ in range(2)]
    assert [answer.status_code for answer in asked] == [202, 202]
    assert asked[0].content == asked[1].content
    assert house.bench.post(path, _policy(3), token=house.alice, **key).status_code == 422
    done = house.decide(asked[0].json(), "approve", house.bob, **key)
    house.bench.restart()
    again = house.decide(asked[0].json(), "approve", house.bob, **key)
    assert (done.status_code, done.content) == (again.status_code, again.content)
    assert house.lent.show()["policy_version"] == 2
    assert house.log().count("proposal_executed") == 1


def test_a_refusal_that_is_repeated_is_the_same_refusal(house: House) -> None:
    path, key = f"/v1/loans/{house.lent.id}/policy", {"idempotency-key": "once"}
    second, third = (house.bench.post(path, _policy(version), token=house.alice).json() for version in (2, 3))
    assert house.decide(third, "approve", house.bob).status_code == 200
    refused = [house.decide(second, "approve", house.bob, **key) for _ in range(2)]
    assert [(answer.status_code, answer.json()["code"]) for answer in refused] == [(409, "proposal_stale")] * 2


def test_proposals_that_wait_are_bounded(house: House) -> None:
    path = f"/v1/loans/{house.lent.id}/policy"
    codes = [house.bench.post(path, _policy(version), token=house.alice).status_code for version in range(2, 103)]
    assert codes == [202] * 100 + [409]


def test_rotating_without_destroying_never_waits(house: House) -> None:
    """Nor does any stop: one person is enough to make things safer."""
    assert house.bench.post("/v1/keys/rotate", {}, token=house.alice).status_code == 201
    assert house.bench.post("/v1/keys/rotate", {"incident": False}, token=house.alice).status_code == 201
    asked = house.bench.post("/v1/keys/rotate", {"incident": True}, token=house.alice)
    assert asked.status_code == 202
    done = house.decide(asked.json(), "approve", house.bob)
    assert done.json()["result"]["destroyed"] == 2
    scheduled = house.bench.post("/v1/keys/schedule", {"every_s": 0}, token=house.bob)
    assert scheduled.status_code == 202
    assert house.decide(scheduled.json(), "approve", house.alice).status_code == 200
    house.blocked()
    token = next(item["id"] for item in house.bench.get("/v1/tokens").json()["tokens"] if item["person"] == "lena")
    assert house.bench.client.delete(f"/v1/tokens/{token}", headers=house.alice).status_code == 200
    assert house.bench.post(f"/v1/models/{house.bench.digest}/withdraw", token=house.alice).status_code == 200


def test_everybody_on_the_staff_sees_what_waits(house: House) -> None:
    house.blocked()
    proposal = house.unblock(house.alice).json()
    for role in ("auditor", "viewer"):
        token = house.bench.token(role)
        shown = house.bench.get("/v1/proposals", token=token).json()
        assert shown["proposals"] == [proposal]
        assert shown["two_person"] == {"admins": 2, "in_force": sorted(ALL), "operations": sorted(ALL)}
        assert house.bench.get(f"/v1/proposals/{proposal['proposal']}", token=token).json() == proposal
    assert house.bench.get("/v1/proposals/prop-0000000000000000").status_code == 404


def test_the_profile_asks_two_persons_in_production_once_there_are_two(place: Path) -> None:
    """Bootstrapping: the first admin is alone, and from the second one on nobody is."""
    with Bench(place, settings={"profile": "production", "unsigned_contracts": True}) as bench:
        assert bench.get("/v1/proposals").json()["two_person"] == {
            "admins": 0, "in_force": [], "operations": sorted(item.value for item in IN_PRODUCTION),
        }  # fmt: skip
        alone = bearer(_secret("alice"))
        body = {"role": "admin", "name": "x", "person": "alice", "sha256": _own("alice")}
        assert bench.post("/v1/tokens", body).status_code == 201
        assert bench.post("/v1/keys/rotate", {"incident": True}, token=alone).status_code == 201
        seen = bench.post("/v1/tokens", {"role": "admin", "name": "x", "person": "bob"}, token=alone)
        assert seen.json()["code"] == "token_digest_wanted"
        body = {"role": "admin", "name": "x", "person": "bob", "sha256": _own("bob")}
        assert bench.post("/v1/tokens", body, token=alone).status_code == 201
        assert bench.post("/v1/keys/rotate", {"incident": True}, token=alone).status_code == 202
        assert (
            bench.post("/v1/tokens", {**body, "person": "carol", "sha256": _own("carol")}, token=alone).status_code
            == 202
        )


def test_a_start_says_in_the_log_what_needs_two_persons(house: House) -> None:
    """Who takes operations out of the settings on the machine is seen by whoever reads the log."""
    config = house.bench.home / "config.toml"
    text = config.read_text()
    house.bench.close()
    config.write_text(re.sub(r"^two_person = .*?\]", "two_person = []", text, flags=re.MULTILINE | re.DOTALL))
    house.bench.open()
    said = [entry["details"]["operations"] for entry in house.bench.audit() if entry["kind"] == "custodian_started"]
    assert said[0] == ",".join(sorted(ALL))
    assert said[-1] == "none"
    assert house.bench.get("/v1/proposals").json()["two_person"]["in_force"] == []


def test_in_development_nobody_waits(bench: Bench) -> None:
    for person in ("alice", "bob"):
        assert bench.post("/v1/tokens", {"role": "admin", "name": "x", "person": person}).status_code == 201
    assert bench.post("/v1/keys/rotate", {"incident": True}).status_code == 201
    assert bench.get("/v1/proposals").json()["two_person"]["operations"] == []


def test_an_operation_that_is_spelled_out_waits_even_for_nobody(place: Path) -> None:
    """Whose admins come from elsewhere has no tokens to count: what is spelled out counts at once."""
    with Bench(place, settings={"two_person": ("rotation",)}) as bench:
        alone = bench.token("admin", person="alice")
        assert bench.post("/v1/keys/rotate", {"incident": True}, token=alone).status_code == 202


@pytest.mark.parametrize("value", ['["all"]', '["policy", "profile"]', '["policy", "everything"]', '"policy"'])
def test_an_operation_that_is_none_is_no_setting(bench: Bench, value: str) -> None:
    with pytest.raises(UsageError):
        load_config(f"[custodian]\ntwo_person = {value}", environment={}, now=bench.clock())


def test_every_operation_has_a_route_and_every_such_route_can_be_proposed() -> None:
    """An operation without a route would be a promise that nothing keeps; recovery is a command's."""
    ruled = [route for route in ROUTES if route.duty is not None]
    assert {route.duty.operation for route in ruled if route.duty} == set(Operation) - {Operation.KEY_RECOVERY}
    assert all(route.method != "GET" and route.roles for route in ruled)


def test_the_dashboard_says_every_operation_in_words() -> None:
    assert set(OPERATIONS) == set(ALL)


def test_a_token_that_its_holder_made_is_shown_to_nobody(bench: Bench) -> None:
    body = {"role": "auditor", "name": "x", "person": "carol", "sha256": _own("carol")}
    made = bench.post("/v1/tokens", body)
    assert made.status_code == 201
    assert "token" not in made.json()
    assert bench.get("/v1/loans", token=bearer(_secret("carol"))).status_code == 200
    assert bench.post("/v1/tokens", body).json()["code"] == "already_exists"


def _admins(site: Provider, *people: str) -> dict[str, Any]:
    """Return a document of an issuer whose rules let these people in as administrators."""
    rules = [{"grants": {"role": "admin", "person": person}, "subject": f"user-{person}"} for person in people]
    return site.document(rules=rules)


def _identity(bench: Bench, site: Provider, person: str) -> dict[str, str]:
    token = site.token(now=int(bench.clock().timestamp()), sub=f"user-{person}")
    return {"Authorization": f"Bearer {token.decode()}"}


def test_persons_of_an_issuer_are_persons_and_removing_it_does_not_end_the_rule(place: Path) -> None:
    with Bench(place, settings={"profile": "production", "unsigned_contracts": True}) as bench:
        site = Provider()
        made = bench.post("/v1/issuers", _admins(site, "alice", "bob"))
        assert made.status_code == 201, made.text
        alice, bob = _identity(bench, site, "alice"), _identity(bench, site, "bob")
        assert bench.get("/v1/proposals", token=alice).json()["two_person"]["admins"] == 2
        asked = bench.post("/v1/keys/rotate", {"incident": True}, token=alice)
        assert (asked.status_code, asked.json()["person"]) == (202, "alice")
        path = f"/v1/proposals/{asked.json()['proposal']}/approve"
        own = bench.post(path, {"digest": asked.json()["digest"]}, token=alice)
        assert own.json()["code"] == "same_person"
        assert bench.post(path, {"digest": asked.json()["digest"]}, token=bob).status_code == 200
        assert bench.client.delete(f"/v1/issuers/{made.json()['id']}", headers=alice).status_code == 200
        named = sorted(item.value for item in IN_PRODUCTION)
        assert bench.get("/v1/proposals").json()["two_person"] == {"admins": 2, "in_force": named, "operations": named}


def test_an_issuer_of_ones_own_makes_nobody_up(house: House) -> None:
    """The other way to a second person: an issuer whose keys one holds oneself."""
    answer = house.bench.post("/v1/issuers", _admins(Provider(), "bob"), token=house.alice)
    assert (answer.status_code, answer.json()["operation"]) == (202, "person")


def test_what_an_identity_left_behind_ends_with_a_change_of_issuers(house: House) -> None:
    """T90: its proposals are stale, for nobody could ask whether it still stands."""
    house.blocked()
    site = Provider()
    asked = house.bench.post("/v1/issuers", _admins(site, "carol"), token=house.alice).json()
    assert house.decide(asked, "approve", house.bob).status_code == 200
    carol = _identity(house.bench, site, "carol")
    proposal = house.unblock(carol).json()
    name = house.shown(asked)["result"]["id"]
    removed = house.bench.client.delete(f"/v1/issuers/{name}", headers=house.alice)
    assert (removed.status_code, removed.json()["operation"]) == (202, "issuer")
    assert house.decide(removed.json(), "approve", house.bob).status_code == 200
    answer = house.decide(proposal, "approve", house.bob)
    assert (answer.status_code, answer.json()["code"]) == (409, "proposal_stale")
    assert house.is_blocked()


def test_a_database_from_before_counts_the_persons_that_it_has(house: House) -> None:
    """The step that brings the table of persons fills it: the rule does not end with an upgrade."""
    with house.bench.service.context.reading() as connection:
        found = [row.name for row in connection.exec_driver_sql("SELECT name FROM person ORDER BY name")]
    assert found == ["alice", "bob"]
    fill = next(step for steps in MIGRATIONS for step in steps if step.startswith("INSERT INTO person"))
    with house.bench.service.context.store.writing() as connection:
        connection.exec_driver_sql("DELETE FROM person")
        connection.exec_driver_sql(fill)
        assert connection.exec_driver_sql("SELECT count(*) FROM person").scalar_one() == 2


def test_a_decided_erasure_names_nobody_any_more(house: House) -> None:
    """What asked for somebody to be forgotten must not be what remembers."""
    lent = house.bench.lend(consumers=[])
    added = {"consumers": [{"id": "dr-who"}]}
    assert house.bench.post(f"/v1/loans/{lent.id}/consumers", added, token=house.alice).status_code == 201
    asked = house.bench.post("/v1/audit/forget", {"subject": "dr-who"}, token=house.alice)
    assert asked.status_code == 202, asked.text
    assert house.shown(asked.json())["body"]
    assert house.decide(asked.json(), "deny", house.bob, {}).status_code == 200
    assert house.shown(asked.json())["body"] == ""
