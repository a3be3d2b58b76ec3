"""Pseudonyms, committed fields, holds, pruning: what the audit log hides, shows to whom, and forgets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from custodian_kit import Bench, bearer

from cloister.crypto.sign import VerifyKey
from cloister.custodian.service.audit_log import Batch
from cloister.custodian.service.pruning import due_list
from cloister.custodian.service.start import load_log
from cloister.custodian.store.veils import find_subject
from cloister.errors import Rejected
from cloister.lending.audit import AuditEntry, verify_checkpoint, verify_log
from cloister.lending.commitment import FieldProof, Opening, verify_field_proof
from cloister.lending.events import Event
from cloister.lending.pruning import PrunedEntry, is_pruned
from cloister.lending.tlog.checkpoint import log_key
from cloister.lending.tlog.proof import LogProof, verify_log_proof
from cloister.wire import dump_json, parse_b64u

if TYPE_CHECKING:
    from httpx import Response

DAY = 86_400
PATIENT_FILE = "patient 0417 asked for it"


def lines_of(bench: Bench) -> list[bytes]:
    """Return the exact lines, as an auditor gets them."""
    return [dump_json(entry) for entry in bench.get("/v1/audit?limit=1000").json()["entries"]]


def verified(bench: Bench) -> list[bytes]:
    """Return the lines once they are one whole log under a fresh checkpoint."""
    lines = lines_of(bench)
    key = VerifyKey(parse_b64u(bench.get("/v1/custodian").json()["key"], what="key"))
    checkpoint = verify_checkpoint(bench.get("/v1/audit/checkpoint").content, key)
    assert verify_log(lines, checkpoint).checked == len(lines)
    return lines


def of_kind(lines: list[bytes], kind: str) -> list[AuditEntry]:
    entries = [AuditEntry.parse(line) for line in lines if not is_pruned(line)]
    return [entry for entry in entries if entry.kind.value == kind]


def log_of(bench: Bench) -> Any:
    return log_key(bench.service.key)


def ward(bench: Bench) -> str:
    """Lend to a consumer, top up and block it; return its pseudonym."""
    lent = bench.lend(consumers=[{"id": "ward-a"}])
    loan = lent.made["loan"]
    assert bench.post(f"/v1/loans/{loan}/consumers", {"consumers": [{"id": "ward-b", "allowance": 5}]}).is_success
    body = {"kind": "consumer", "subject": "ward-b", "loan": loan, "reason": PATIENT_FILE}
    assert bench.post("/v1/blocks", body).is_success
    return resolved(bench, "ward-b")["pseudonym"]  # type: ignore[no-any-return]


def resolved(bench: Bench, subject: str, token: dict[str, str] | None = None) -> dict[str, Any]:
    answer = bench.post("/v1/audit/resolve", {"subject": subject}, token=token)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


def forget(bench: Bench, subject: str) -> Response:
    return bench.post("/v1/audit/forget", {"subject": subject})


def test_no_entry_names_a_consumer_or_shows_free_text(bench: Bench) -> None:
    pseudonym = ward(bench)
    text = b"\n".join(verified(bench))
    assert b"ward-b" not in text
    assert PATIENT_FILE.encode() not in text
    assert pseudonym.encode() in text
    (blocked,) = of_kind(lines_of(bench), "blocked")
    assert blocked.subject == pseudonym
    assert set(blocked.committed) == {"reason"}
    (added,) = of_kind(lines_of(bench), "consumer_added")
    assert added.details["consumer"] == pseudonym
    assert f"consumer:{pseudonym}" in {
        entry.details.get("meter") for entry in of_kind(lines_of(bench), "allowance_added")
    }


def test_one_person_has_one_pseudonym_and_two_custodians_have_two(bench: Bench) -> None:
    first = ward(bench)
    assert resolved(bench, "ward-b") == {"name": "ward-b", "pseudonym": first}
    assert resolved(bench, first) == {"name": "ward-b", "pseudonym": first}
    bench.restart()
    assert resolved(bench, "ward-b")["pseudonym"] == first


def test_an_address_of_a_stranger_is_no_address_in_the_log(bench: Bench) -> None:
    limit = bench.service.config.failures_per_minute
    for _ in range(limit + 1):
        bench.client.get("/v1/loans", headers=bearer("clst_" + "x" * 43))
    bench.clock.advance(61)
    (denied,) = of_kind(lines_of(bench), "access_denied")
    assert denied.subject.startswith("ip:p:")


def test_who_resolves_or_opens_is_logged_and_only_overseers_may(bench: Bench) -> None:
    pseudonym = ward(bench)
    for role, status in (("lender", 403), ("viewer", 403), ("auditor", 200), ("admin", 200)):
        token = bench.token(role)
        assert bench.post("/v1/audit/resolve", {"subject": pseudonym}, token=token).status_code == status
    asked = of_kind(lines_of(bench), "pseudonym_resolved")
    assert [entry.actor.partition(":")[0] for entry in asked] == ["admin", "auditor", "admin"]
    for role in ("lender", "viewer", "auditor"):
        assert bench.post("/v1/audit/forget", {"subject": pseudonym}, token=bench.token(role)).status_code == 403


def test_a_forgotten_person_is_nobody_and_the_log_is_whole(bench: Bench) -> None:
    pseudonym = ward(bench)
    before = verified(bench)
    answer = forget(bench, "ward-b").json()
    assert answer == {"forgotten": True, "pseudonym": pseudonym, "salts": 1}
    after = verified(bench)
    assert after[: len(before)] == before
    assert resolved(bench, pseudonym) == {"name": None, "pseudonym": pseudonym}
    assert bench.post("/v1/audit/resolve", {"subject": "ward-b"}).status_code == 404
    assert forget(bench, pseudonym).json()["forgotten"] is False
    (told,) = of_kind(after, "subject_forgotten")
    assert told.subject == pseudonym
    bench.restart()
    verified(bench)


def test_a_person_that_comes_back_is_another(bench: Bench) -> None:
    first = ward(bench)
    forget(bench, "ward-b")
    loan = bench.get("/v1/loans").json()["loans"][0]["loan"]
    bench.client.request("DELETE", f"/v1/blocks/consumer/ward-b?loan={loan}", headers=bench.admin)
    assert resolved(bench, "ward-b")["pseudonym"] != first


def test_t19_the_destroyed_key_is_in_no_file_of_the_home(bench: Bench) -> None:
    """Deleted rows are overwritten, and the write-ahead log does not keep them."""
    if bench.service.context.store.shared:
        pytest.skip("no database in the home")
    pseudonym = ward(bench)
    with bench.service.context.reading() as connection:
        row = find_subject(connection, pseudonym)
        salts = [bytes(item) for item in connection.exec_driver_sql("SELECT sealed FROM audit_opening").scalars()]
    assert row is not None
    assert row.sealed is not None
    kept = [path for path in bench.home.rglob("custodian.db*") if row.sealed in path.read_bytes()]
    assert kept
    forget(bench, pseudonym)
    with bench.service.context.reading() as connection:
        left = {bytes(item) for item in connection.exec_driver_sql("SELECT sealed FROM audit_opening").scalars()}
    for path in bench.home.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert row.sealed not in data, path
            assert not [salt for salt in salts if salt not in left and salt in data], path


def opened(bench: Bench, index: int, field: str = "reason") -> Response:
    return bench.post(f"/v1/audit/{index}/fields/{field}", {})


def test_a_committed_field_is_opened_without_the_others(bench: Bench) -> None:
    ward(bench)
    (blocked,) = of_kind(lines_of(bench), "blocked")
    (created,) = of_kind(lines_of(bench), "loan_created")
    proof = FieldProof.parse(opened(bench, blocked.index).content)
    entry, checkpoint = verify_field_proof(proof, log_of(bench), witnesses=(), quorum=0)
    assert (entry.index, proof.opening.value) == (blocked.index, PATIENT_FILE)
    assert checkpoint.size > blocked.index
    borrower = FieldProof.parse(opened(bench, created.index, "borrower").content)
    assert b"reason" not in borrower.dump()
    assert [item.details["field"] for item in of_kind(verified(bench), "field_opened")] == ["reason", "borrower"]


def test_an_opening_for_another_value_salt_field_or_entry_is_refused(bench: Bench) -> None:
    ward(bench)
    (blocked,) = of_kind(lines_of(bench), "blocked")
    (created,) = of_kind(lines_of(bench), "loan_created")
    proof = FieldProof.parse(opened(bench, blocked.index).content)
    other = FieldProof.parse(opened(bench, created.index, "borrower").content)
    salt = proof.opening.salt
    lies = (
        Opening(name="reason", value="no", salt=salt),
        Opening(name="reason", value=PATIENT_FILE, salt=salt[:-1] + bytes([salt[-1] ^ 1])),
        Opening(name="borrower", value=PATIENT_FILE, salt=salt),
        other.opening,
    )
    for lie in lies:
        with pytest.raises(Rejected) as refused:
            verify_field_proof(FieldProof(opening=lie, entry=proof.entry), log_of(bench), witnesses=(), quorum=0)
        assert refused.value.code == "not_committed"
    with pytest.raises(Rejected):
        verify_field_proof(FieldProof(opening=proof.opening, entry=other.entry), log_of(bench), witnesses=(), quorum=0)


def test_every_byte_of_a_field_proof_counts(bench: Bench) -> None:
    ward(bench)
    (blocked,) = of_kind(lines_of(bench), "blocked")
    whole = opened(bench, blocked.index).content
    want = verify_field_proof(FieldProof.parse(whole), log_of(bench), witnesses=(), quorum=0)
    for at in range(len(whole)):
        bent = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        try:
            got = verify_field_proof(FieldProof.parse(bent), log_of(bench), witnesses=(), quorum=0)
        except Exception as exc:  # noqa: BLE001 - only ours may come out
            assert type(exc).__module__ == "cloister.errors", (at, exc)  # noqa: PT017 - or it is as before
            continue
        assert (got[0], got[1].root) == (want[0], want[1].root), at
        assert FieldProof.parse(bent).opening == FieldProof.parse(whole).opening, at


def test_what_was_forgotten_opens_no_more(bench: Bench) -> None:
    ward(bench)
    (blocked,) = of_kind(lines_of(bench), "blocked")
    before = opened(bench, blocked.index).content
    forget(bench, "ward-b")
    refused = opened(bench, blocked.index)
    assert (refused.status_code, refused.json()["code"]) == (410, "forgotten")
    assert opened(bench, 0).status_code == 404
    assert opened(bench, 10_000).status_code == 404
    verify_field_proof(FieldProof.parse(before), log_of(bench), witnesses=(), quorum=0)


def held(bench: Bench, scope: str) -> str:
    answer = bench.post("/v1/audit/holds", {"scope": scope, "reason": "case 12"})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["hold"])


@pytest.mark.parametrize("scope", ["all", "subject:ward-b", "loan", "class:billing"])
def test_a_hold_wins_over_forgetting(bench: Bench, scope: str) -> None:
    ward(bench)
    loan = bench.get("/v1/loans").json()["loans"][0]["loan"]
    hold = held(bench, f"loan:{loan}" if scope == "loan" else scope)
    refused = forget(bench, "ward-b")
    assert (refused.status_code, refused.json()["code"]) == (409, "held")
    assert resolved(bench, "ward-b")["name"] == "ward-b"
    lifted = bench.client.delete(f"/v1/audit/holds/{hold}", headers=bench.admin)
    assert lifted.json() == {"hold": hold, "lifted": True}
    assert bench.client.delete(f"/v1/audit/holds/{hold}", headers=bench.admin).status_code == 404
    assert forget(bench, "ward-b").json()["forgotten"]
    kinds = [entry.kind.value for entry in map(AuditEntry.parse, verified(bench))]
    assert kinds.count("hold_placed") == kinds.count("hold_lifted") == 1


@pytest.mark.parametrize(
    "scope", ["", "ALL", "class:", "class:gold", "loan:x", "loan:' OR 1=1", "subject", "everything"]
)
def test_a_scope_that_is_none_is_refused(bench: Bench, scope: str) -> None:
    assert bench.post("/v1/audit/holds", {"scope": scope, "reason": "x"}).status_code == 400
    assert bench.post("/v1/audit/holds", {"scope": "subject:nobody", "reason": "x"}).status_code == 404


def prune(bench: Bench) -> dict[str, Any]:
    answer = bench.post("/v1/audit/prune", {})
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


def test_pruning_keeps_the_tree_and_every_proof(bench: Bench) -> None:
    ward(bench)
    before = verified(bench)
    (blocked,) = of_kind(before, "blocked")
    started = of_kind(before, "custodian_started")[0]
    proof = LogProof.parse(bench.get(f"/v1/audit/{started.index}/proof").content)
    bench.clock.advance(401 * DAY)
    assert prune(bench)["pruned"].keys() == {"operational"}
    after = verified(bench)
    gone = [PrunedEntry.parse(line) for line in after if is_pruned(line)]
    assert started.index in {item.index for item in gone}
    assert {AuditEntry.parse(before[item.index]).leaf for item in gone} == {item.leaf for item in gone}
    assert all(line == after[index] for index, line in enumerate(before) if not is_pruned(after[index]))
    # what was proven before stays proven, with and without the body
    assert proof.extra == before[started.index]
    verify_log_proof(proof, before[started.index], log_of(bench), witnesses=(), quorum=0)
    left = LogProof.parse(bench.get(f"/v1/audit/{started.index}/proof").content)
    assert left.extra is not None
    assert is_pruned(left.extra)
    verify_log_proof(left, left.extra, log_of(bench), witnesses=(), quorum=0)
    verify_log_proof(left, before[started.index], log_of(bench), witnesses=(), quorum=0)
    bench.restart()
    bench.lend()
    verified(bench)
    assert resolved(bench, "ward-b")["name"] == "ward-b"
    bench.clock.advance(3000 * DAY)
    assert prune(bench)["pruned"].keys() >= {"operational", "security"}
    assert opened(bench, blocked.index).status_code == 404
    verified(bench)


def test_entries_that_account_for_the_log_are_never_pruned(bench: Bench) -> None:
    ward(bench)
    hold = held(bench, "class:access")
    bench.client.delete(f"/v1/audit/holds/{hold}", headers=bench.admin)
    forget(bench, "ward-b")
    for _ in range(3):
        bench.clock.advance(1300 * DAY)
        prune(bench)
    kinds = {entry.kind.value for line in verified(bench) if not is_pruned(line) for entry in [AuditEntry.parse(line)]}
    assert kinds >= {"custodian_initialised", "log_pruned", "hold_placed", "hold_lifted", "subject_forgotten"}
    with bench.service.context.reading() as connection:
        assert load_log(connection).tree.root() == bench.service.context.tree.root()


def test_a_hold_wins_over_a_period(bench: Bench) -> None:
    ward(bench)
    held(bench, "class:operational")
    bench.clock.advance(401 * DAY)
    shown = {item["class"]: item for item in bench.get("/v1/audit/retention").json()["classes"]}
    assert shown["operational"]["due"] == 0
    assert shown["operational"]["held"] > 0
    assert shown["record"]["days"] == 0
    assert prune(bench)["pruned"] == {}
    assert not [line for line in verified(bench) if is_pruned(line)]


def test_what_is_due_is_counted_among_as_many_of_the_oldest_as_are_asked_for(bench: Bench) -> None:
    ward(bench)
    bench.clock.advance(3000 * DAY)
    context = bench.service.context

    def over(most: int | None) -> int:
        found: Any = due_list(context, most=most)
        return sum(int(item["due"]) for item in found["classes"])

    every = over(None)
    assert every > 1
    assert over(0) == 0
    assert 0 < over(3) <= 3
    assert over(1000) == every
    assert due_list(context) == bench.get("/v1/audit/retention").json()


def test_t83_the_database_lets_no_body_go_without_its_hash(bench: Bench) -> None:
    ward(bench)
    for statement in (
        "DELETE FROM audit WHERE idx = 3", "UPDATE audit SET at = at + 1 WHERE idx = 3", "DELETE FROM audit",
    ):  # fmt: skip
        with (
            pytest.raises(Exception, match=r"SQLITE_CONSTRAINT_TRIGGER|P0001"),
            bench.service.context.store.writing() as connection,
        ):
            connection.exec_driver_sql(statement)
    verified(bench)


def test_what_waits_for_its_place_has_no_names_either(bench: Bench) -> None:
    """Where several custodians write, batches wait in the database: already veiled."""
    ward(bench)
    (blocked,) = of_kind(lines_of(bench), "blocked")
    batch = Batch(at=bench.clock())
    batch.events.append(
        Event(
            kind=blocked.kind, actor=blocked.actor, subject=blocked.subject, details=blocked.details,
            committed=blocked.committed,
        )
    )  # fmt: skip
    assert Batch.parse(batch.dump()) == batch
    old = json.loads(batch.dump())
    del old["events"][0]["committed"]
    assert Batch.parse(dump_json(old)).events[0].committed == {}
