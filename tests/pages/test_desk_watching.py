"""The pages of enclaves, audit log, policy, consumers, access, devices and settings: who sees and does what."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import TYPE_CHECKING

import pytest
from custodian_kit import Bench, Lent
from desk_kit import Person, bare, person_token
from sqlalchemy import update

from cloister.attest.ear import parse_ear
from cloister.crypto.sign import KeyId
from cloister.custodian.store.devices import DeviceRow, insert_device
from cloister.custodian.store.tables import INSTANCE
from cloister.lending.tlog.checkpoint import log_key
from cloister.lending.tlog.proof import LogProof, verify_log_proof
from cloister.wire import parse_b64u

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TWO = {"two_person": ("policy",)}


class Small:
    """A custodian with one loan, two consumers and one enclave that served a little."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.alice = person_token(bench, "alice")
        self.bob = person_token(bench, "bob")
        self.lent = bench.lend(allowance=5000, consumers=[{"id": "ward-a", "allowance": 500}, {"id": "ward-b"}])
        toy = self.lent.boot()
        toy.renew()
        token: str = self.lent.made["consumer_tokens"]["ward-a"]
        toy.serve(20, token=token.encode())
        toy.renew()


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Small]:
    with Bench(tmp_path) as bench:
        yield Small(bench)


@pytest.fixture
def alice(busy: Small) -> Person:
    return Person(busy.bench, busy.alice)


def somebody(busy: Small, role: str) -> Person:
    return Person(busy.bench, bare(busy.bench.token(role)))


def first_enclave(busy: Small) -> str:
    name: str = busy.bench.get("/v1/instances").json()["instances"][0]["id"]
    return name


# enclaves


def test_an_enclaves_page_names_every_check_with_got_and_want_and_why_not(busy: Small, alice: Person) -> None:
    name = first_enclave(busy)
    token = busy.bench.get(f"/v1/instances/{name}").json()["result"]
    ear = parse_ear(parse_b64u(token.split(".")[1], what="result", cap=1 << 20), KeyId("own"))
    shown = unescape(alice.page(f"/enclaves/{name}"))
    for check in ear.checks:
        assert check.subject in shown
        assert check.got in shown
        assert check.want in shown
        assert check.note in shown
    assert len(ear.checks) > 5


def test_a_simulated_tee_is_called_what_it_is(busy: Small, alice: Person) -> None:
    assert "it protects nothing" in alice.page(f"/enclaves/{first_enclave(busy)}")
    assert "protects nothing" in alice.page("/enclaves")


def test_blocking_an_enclave_says_the_bound_and_is_the_apis_block(busy: Small, alice: Person) -> None:
    name = first_enclave(busy)
    assert re.search(r"within [\d,]+ s or [\d,]+ units", alice.page(f"/enclaves/{name}"))
    fields = {"kind": "instance", "subject": name, "reason": "odd", "back": f"/enclaves/{name}"}
    assert alice.post("/block", fields).status_code == 303
    assert "This enclave is blocked." in alice.page(f"/enclaves/{name}")
    assert busy.bench.kinds()[-1] == "blocked"


@pytest.mark.parametrize("token", ["", "a.b", "a.!.c", "e30.e30.e30"])
def test_an_enclave_whose_result_cannot_be_read_can_still_be_stopped(busy: Small, alice: Person, token: str) -> None:
    name = first_enclave(busy)
    change = update(INSTANCE).where(INSTANCE.c.id == name).values(result=token)
    busy.bench.service.context.transact(lambda transaction: transaction.connection.execute(change))
    page = alice.page(f"/enclaves/{name}")
    assert "of a form that this version does not read" in page
    assert "Block the enclave" in page


def test_a_viewer_looks_at_enclaves_and_stops_none(busy: Small) -> None:
    viewer, name = somebody(busy, "viewer"), first_enclave(busy)
    assert "Block…" not in viewer.page(f"/enclaves/{name}")
    fields = {"kind": "instance", "subject": name, "back": f"/enclaves/{name}"}
    assert viewer.post("/block", fields).status_code == 403


@pytest.mark.parametrize("name", ["0" * 64, "x", "%2e%2e"])
def test_an_enclave_that_is_not_there_is_not_found(alice: Person, name: str) -> None:
    assert alice.get(f"/enclaves/{name}").status_code == 404


# audit log


def test_the_log_is_shown_newest_first_and_paged_without_a_gap(busy: Small, alice: Person) -> None:
    size = len(busy.bench.audit())
    seen: list[int] = []
    path = "/audit"
    while True:
        page = alice.page(path)
        seen += [int(number) for number in re.findall(r'<th scope="row" class="num"><a href="[^"]*/audit/(\d+)"', page)]
        older = re.search(r'rel="next" href="[^"]*(/audit\?before=\d+)"', page)
        if older is None:
            break
        path = older[1]
    assert seen[0] >= size - 1
    assert seen == list(range(seen[0], -1, -1))


def test_a_number_beyond_the_log_shows_its_end_and_no_number_is_refused(alice: Person) -> None:
    assert "session opened" in alice.page("/audit?before=99999999")
    assert alice.get("/audit?before=-1").status_code == 400
    assert alice.get("/audit?before=" + "9" * 400).status_code == 400


def test_the_proof_that_is_saved_convicts_or_clears_without_us(busy: Small, alice: Person) -> None:
    answer = alice.get("/audit/7/proof")
    assert answer.headers["content-disposition"] == 'attachment; filename="entry-7.tlog-proof"'
    proof = LogProof.parse(answer.content)
    assert proof.extra is not None
    verify_log_proof(proof, proof.extra, log_key(busy.bench.service.key), witnesses=(), quorum=0)
    assert json.loads(proof.extra) == busy.bench.audit()[7]
    assert proof.extra.decode() in unescape(alice.page("/audit/7"))


@pytest.mark.parametrize("path", ["/audit/99999999", "/audit/99999999/proof"])
def test_an_entry_that_is_not_there_is_not_found(alice: Person, path: str) -> None:
    assert alice.get(path).status_code == 404


def test_a_pruned_entry_is_shown_as_what_is_left_of_it_and_never_as_hashed(busy: Small) -> None:
    index = next(item["index"] for item in busy.bench.audit() if item["kind"] == "custodian_started")
    busy.bench.clock.advance(401 * 86_400)
    assert busy.bench.post("/v1/audit/prune", {}).status_code == 200
    alice = Person(busy.bench, busy.alice)
    assert "pruned: that an entry stood here can be proven" in alice.page(f"/audit?before={index + 1}")
    page = unescape(alice.page(f"/audit/{index}"))
    line = busy.bench.audit()[index]
    assert line["pruned"] == 1
    assert line["leaf"] in page
    assert "the line is gone: its leaf is the hash that is kept in its place" in page
    assert "the line hashes to its leaf" not in page
    assert "that root is signed by the key of this custodian's log" in page
    proof = LogProof.parse(alice.get(f"/audit/{index}/proof").content)
    assert proof.extra is not None
    verify_log_proof(proof, proof.extra, log_key(busy.bench.service.key), witnesses=(), quorum=0)


def test_a_viewer_reads_no_entry(busy: Small) -> None:
    viewer = somebody(busy, "viewer")
    for path in ("/audit", "/audit/3", "/audit/3/proof"):
        assert viewer.get(path).status_code == 403
    assert "Audit log" not in viewer.page("/")


# policy


def written(lent: Lent, version: int) -> str:
    policy = lent.show()["policy"]
    policy["version"] = version
    policy["tees"]["simulated"]["svn"] = {"at_least": 2}
    return json.dumps(policy)


def test_looking_at_a_policy_changes_nothing_and_shows_what_would(busy: Small, alice: Person) -> None:
    before = busy.lent.show()["policy"]
    page = unescape(alice.post(f"/loans/{busy.lent.id}/policy/look", {"policy": written(busy.lent, 2)}).text)
    assert '{"at_least":1}' in page
    assert '{"at_least":2}' in page
    assert "Replace the policy" in page
    assert busy.lent.show()["policy"] == before


def test_a_policy_that_was_looked_at_is_replaced(busy: Small, alice: Person) -> None:
    answer = alice.post(f"/loans/{busy.lent.id}/policy", {"policy": written(busy.lent, 2)})
    assert answer.status_code == 303
    assert busy.lent.show()["policy"]["tees"]["simulated"]["svn"] == {"at_least": 2}
    assert "It was judged by an older policy." in alice.page(f"/enclaves/{instance_of(busy)}")


def instance_of(busy: Small) -> str:
    name: str = busy.lent.show()["instances"][0]["id"]
    return name


def test_toml_is_taken_too(busy: Small, alice: Person) -> None:
    text = "v = 1\nversion = 2\n[tees.simulated]\nsvn = {at_least = 1}\n"
    page = unescape(alice.post(f"/loans/{busy.lent.id}/policy/look", {"policy": text}).text)
    assert "required and without a rule" in page
    assert "no rule" in page


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"v":1,"version":2,"tees":{}}', "\x00", "<script>", "a" * 70_000])
def test_what_is_no_policy_is_said_to_be_none_and_shown_again(busy: Small, alice: Person, text: str) -> None:
    answer = alice.post(f"/loans/{busy.lent.id}/policy/look", {"policy": text})
    assert "This is no policy." in answer.text
    assert "<script>" not in answer.text.replace('<script type="module"', "")


def test_an_older_policy_is_refused_also_past_the_page(busy: Small, alice: Person) -> None:
    page = alice.post(f"/loans/{busy.lent.id}/policy/look", {"policy": written(busy.lent, 1)}).text
    assert "The version has to grow." in page
    assert "Replace the policy" not in page
    assert alice.post(f"/loans/{busy.lent.id}/policy", {"policy": written(busy.lent, 1)}).status_code == 409


def test_a_viewer_reads_a_policy_and_writes_none(busy: Small) -> None:
    viewer = somebody(busy, "viewer")
    assert "Write another" not in viewer.page(f"/loans/{busy.lent.id}/policy")
    for path in ("policy", "policy/look"):
        assert viewer.post(f"/loans/{busy.lent.id}/{path}", {"policy": written(busy.lent, 2)}).status_code == 403


def test_where_two_persons_decide_a_policy_waits_for_the_second(tmp_path: Path) -> None:
    with Bench(tmp_path, settings=TWO) as bench:
        lent, alice = bench.lend(), Person(bench, person_token(bench, "alice"))
        person_token(bench, "bob")
        answer = alice.post(f"/loans/{lent.id}/policy", {"policy": written(lent, 2)})
        assert "/proposals/" in answer.headers["location"]
        assert lent.show()["policy"]["version"] == 1


# consumers, access, devices, settings


def test_consumers_are_listed_by_what_they_used(busy: Small, alice: Person) -> None:
    page = alice.page("/consumers")
    assert "ward-a" in page
    assert f"/loans/{busy.lent.id}" in page
    body = {"kind": "consumer", "subject": "ward-a", "loan": busy.lent.id, "reason": "left"}
    assert busy.bench.post("/v1/blocks", body).status_code == 201
    assert "blocked" in alice.page("/consumers")


def test_a_token_is_revoked_and_its_session_with_it(busy: Small, alice: Person) -> None:
    bob = Person(busy.bench, busy.bob)
    bob.page("/")
    (token,) = [item["id"] for item in busy.bench.get("/v1/tokens").json()["tokens"] if item["person"] == "bob"]
    assert f"revoke-{token}" in alice.page("/access")
    assert alice.post(f"/access/tokens/{token}/revoke").status_code == 303
    assert bob.get("/").status_code == 303
    assert "/sign-in" in bob.get("/").headers["location"]


@pytest.mark.parametrize("role", ["lender", "auditor", "viewer"])
def test_only_admins_see_who_may_what_and_which_settings_there_are(busy: Small, role: str) -> None:
    person = somebody(busy, role)
    assert person.get("/access").status_code == 403
    assert "Every setting" not in person.page("/settings")
    assert "Rotate now" not in person.page("/settings")
    assert person.post("/settings/rotate").status_code == 403


def test_what_is_over_and_held_is_told_to_overseers_alone(busy: Small) -> None:
    busy.bench.clock.advance(401 * 86_400)
    shown = {item["class"]: item["due"] for item in busy.bench.get("/v1/audit/retention").json()["classes"]}
    assert shown["operational"] > 0
    page = somebody(busy, "auditor").page("/settings")
    assert re.search(rf'operational</th><td class="num">400</td><td class="num">{shown["operational"]}<', page)
    for role in ("lender", "viewer"):
        assert "How long entries are kept" not in somebody(busy, role).page("/settings")


def test_a_password_in_a_setting_is_not_shown(tmp_path: Path) -> None:
    with Bench(tmp_path, settings={"acme_directory": ""}) as bench:
        person = Person(bench, bare(bench.admin))
        object.__setattr__(bench.service.config, "database", "postgresql://joe:hunter2@db/cloister")
        page = person.page("/settings")
        assert "hunter2" not in page
        assert "postgresql://joe:…@db/cloister" in page


def test_keys_are_rotated_and_scheduled_once_for_each_form(busy: Small, alice: Person) -> None:
    fields = {"once": "abc", "reason": "spring"}
    assert alice.post("/settings/rotate", fields).status_code == 303
    assert alice.post("/settings/rotate", fields).status_code == 303
    assert busy.bench.get("/v1/keys").json()["key_epoch"] == 2
    assert alice.post("/settings/schedule", {"days": "90"}).status_code == 303
    assert busy.bench.get("/v1/keys").json()["every_s"] == 90 * 86_400
    assert "90 d" in alice.page("/settings")
    assert alice.post("/settings/schedule", {"days": "ninety"}).status_code == 400


def test_a_device_is_named_retired_and_let_in_again(busy: Small, alice: Person) -> None:
    context, name = busy.bench.service.context, "ab" * 32
    row = DeviceRow(
        id=name, ak_sha256=b"k" * 32, certificate=b"", enrolled_at=context.now(), label="", maker="id:53544D20",
        retired_at=None, reason="",
    )  # fmt: skip
    context.transact(lambda transaction: insert_device(transaction.connection, row))
    assert name[:12] in alice.page("/devices")
    assert alice.post(f"/devices/{name}/label", {"label": "<b>rack 7</b>"}).status_code == 303
    assert "&lt;b&gt;rack 7&lt;/b&gt;" in alice.page("/devices")
    assert alice.post(f"/devices/{name}/retire", {"reason": "sold"}).status_code == 303
    assert "This device is retired." in alice.page(f"/devices/{name}")
    assert somebody(busy, "viewer").post(f"/devices/{name}/readmit").status_code == 403
    assert alice.post(f"/devices/{name}/readmit").status_code == 303
    assert "This device is retired." not in alice.page(f"/devices/{name}")
