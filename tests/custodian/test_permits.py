"""Splitting the vault takes two persons (T89): what one of them alone tries, and what is done with a permit twice."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from permit_kit import BODY, DIVISION, Ceremony

from cloister.crypto.sign import Label, SigningKey, Statement, VerifyKey
from cloister.custodian.setup import open_vault, recover_custodian
from cloister.custodian.vaults.encrypted_file import open_by_shares
from cloister.custodian.vaults.permit import Permit, verify_permit
from cloister.custodian.vaults.shares import Division
from cloister.errors import CloisterError, Malformed, Rejected, Unavailable, UsageError
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.custodian.vaults.shares import Share
    from postgres_kit import PostgresServer

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "permit" / "permits.json").read_text())
CUSTODIAN = VerifyKey(bytes.fromhex(VECTORS["custodian"]))


@pytest.fixture
def ceremony(place: Path) -> Iterator[Ceremony]:
    """Yield a custodian where two persons decide about shares."""
    with Ceremony(place) as made:
        yield made


@pytest.mark.parametrize("case", VECTORS["payloads"], ids=lambda case: case["name"])
def test_a_payload_is_read_as_its_vector_says(case: dict[str, str]) -> None:
    data = case["text"].encode()
    if case["expect"] == "valid":
        assert Permit.parse(data).dump() == data
        return
    with pytest.raises(Malformed):
        Permit.parse(data)


def _shown(statement: bytes, wanted: dict[str, Any]) -> Permit:
    return verify_permit(
        statement,
        custodian=CUSTODIAN,
        vault=wanted["vault"],
        epoch=wanted["epoch"],
        division=Division(need=wanted["need"], of=wanted["of"], holders=tuple(wanted["holders"])),
        now=datetime.fromisoformat(wanted["now"]),
    )


@pytest.mark.parametrize("case", VECTORS["statements"], ids=lambda case: case["name"])
def test_a_permit_is_good_for_what_its_vector_says(case: dict[str, Any]) -> None:
    statement = case["statement"].encode()
    match case["expect"]:
        case "valid":
            assert _shown(statement, case["wanted"]).division.need == 2
        case "Malformed":
            with pytest.raises(Malformed):
                _shown(statement, case["wanted"])
        case codes:
            with pytest.raises(Rejected) as refused:
                _shown(statement, case["wanted"])
            assert [reason.code for reason in refused.value.reasons] == codes.split()


def test_no_altered_permit_is_good() -> None:
    case = VECTORS["statements"][0]
    for damaged in mutated(case["statement"].encode(), seed=7):
        if damaged != case["statement"].encode():
            with pytest.raises((Malformed, Rejected)):
                _shown(damaged, case["wanted"])


def test_two_persons_decide_and_the_vault_is_split_once(ceremony: Ceremony) -> None:
    """The whole of it: asked for, approved, used; each is in the log, and the shares say which entry is theirs."""
    asked = ceremony.ask()
    assert asked.status_code == 202
    proposal = asked.json()
    assert (proposal["operation"], proposal["state"], "result" in proposal) == ("key_export", "open", False)
    assert proposal["basis"] == {"epoch": 1, "vault": ceremony.bench.service.vault_file}
    done = ceremony.approve(proposal).json()
    permit = str(done["result"]["permit"]).encode()
    ceremony.stop()
    shares = ceremony.split(permit)
    assert [share.holder for share in shares] == ["alice", "bob", "carol"]
    open_by_shares(ceremony.bench.home / "vault.json", shares[1:])
    ceremony.start()
    entries = ceremony.said("proposal_made", "proposal_approved", "permit_issued", "proposal_executed", "permit_used")
    assert [entry["kind"] for entry in entries] == [
        "proposal_made", "proposal_approved", "permit_issued", "proposal_executed", "permit_used",
    ]  # fmt: skip
    assert {entry["subject"] for entry in entries} == {proposal["proposal"]}
    assert {entry["details"]["digest"] for entry in entries} == {proposal["digest"]}
    used = entries[-1]["details"]
    assert used == {
        "digest": proposal["digest"], "holders": 3, "need": 2, "of": 3, "split": shares[0].split.hex(),
        "vault": ceremony.bench.service.vault_file,
    }  # fmt: skip
    log = ceremony.bench.get("/v1/audit?limit=1000").text
    assert "carol" not in log, "the log names nobody"


def test_one_person_alone_makes_no_shares(ceremony: Ceremony) -> None:
    """With all that opens the vault in hand, and while the custodian runs and while it does not."""
    for _ in range(2):
        with pytest.raises(Rejected) as refused:
            ceremony.split(None)
        assert refused.value.code == "permit_wanted"
        ceremony.stop()


def test_who_asked_cannot_approve_it_nor_be_somebody_else_with_a_second_token(ceremony: Ceremony) -> None:
    proposal = ceremony.ask().json()
    made = ceremony.bench.post("/v1/tokens", {"role": "admin", "name": "x", "person": "alice"}, token=ceremony.alice)
    second = {"authorization": f"Bearer {made.json()['token']}"}
    for token in (ceremony.alice, second):
        answer = ceremony.approve(proposal, token)
        assert (answer.status_code, answer.json()["code"]) == (403, "same_person")
    answer = ceremony.approve(proposal, ceremony.lena)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), "a lender could not have asked for it"
    assert ceremony.ask(token=ceremony.lena).status_code == 403


@pytest.mark.parametrize(
    "change",
    [
        {"need": 1}, {"need": 4}, {"of": 2}, {"of": 256}, {"holders": []}, {"holders": ["alice", "bob"]},
        {"holders": ["alice", "alice", "bob"]}, {"holders": ["alice", "bob", "Carol"]}, {"more": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_division_by_which_one_holder_has_the_key_is_not_even_asked_for(
    ceremony: Ceremony, change: dict[str, Any]
) -> None:
    assert ceremony.ask({**BODY, **change}).status_code == 400


def test_a_permit_is_used_once_and_not_after_a_restart_either(ceremony: Ceremony) -> None:
    permit = ceremony.permit()
    ceremony.stop()
    assert len(ceremony.split(permit)) == 3
    _refused(ceremony, permit, "permit_used")
    ceremony.start()
    ceremony.stop()
    _refused(ceremony, permit, "permit_used")
    ceremony.start()
    assert len(ceremony.said("permit_used")) == 1


def _refused(ceremony: Ceremony, permit: bytes, code: str, division: Division = DIVISION) -> Rejected:
    with pytest.raises(Rejected) as refused:
        ceremony.split(permit, division)
    assert refused.value.code == code
    return refused.value


def test_of_two_who_use_it_at_once_one_gets_shares(ceremony: Ceremony) -> None:
    permit = ceremony.permit()
    ceremony.stop()
    got: list[tuple[Share, ...]] = []
    lost: list[CloisterError] = []

    def use() -> None:
        barrier.wait()
        try:
            got.append(ceremony.split(permit))
        except CloisterError as exc:
            lost.append(exc)

    barrier = threading.Barrier(4)
    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    assert len(lost) == 3
    assert {item.code if isinstance(item, Rejected) else type(item) for item in lost} <= {"permit_used", Unavailable}
    ceremony.start()
    (used,) = ceremony.said("permit_used")
    assert used["details"]["split"] == got[0][0].split.hex()


def test_a_permit_is_good_for_nothing_after_its_end(ceremony: Ceremony) -> None:
    permit = ceremony.permit()
    ceremony.bench.clock.advance(ceremony.bench.service.config.permit_ttl_s)
    ceremony.stop()
    _refused(ceremony, permit, "permit_expired")


def test_a_clock_that_was_set_back_does_not_make_an_old_permit_good(ceremony: Ceremony) -> None:
    permit = ceremony.permit()
    ceremony.bench.clock.advance(ceremony.bench.service.config.permit_ttl_s)
    ceremony.bench.post("/v1/blocks", {"kind": "loan", "subject": ceremony.bench.lend().id, "reason": "later"})
    ceremony.stop()
    ceremony.bench.clock.advance(-ceremony.bench.service.config.permit_ttl_s)
    with pytest.raises((Rejected, Unavailable)):
        ceremony.split(permit)
    ceremony.bench.clock.advance(ceremony.bench.service.config.permit_ttl_s)
    ceremony.start()
    assert not ceremony.said("permit_used")


@pytest.mark.parametrize(
    ("division", "names"),
    [
        (Division(need=3, of=3, holders=DIVISION.holders), {"need"}),
        (Division(need=2, of=4, holders=(*DIVISION.holders, "dave")), {"of", "holders"}),
        (Division(need=2, of=3, holders=("alice", "bob", "mallory")), {"holders"}),
        (Division(need=2, of=3), {"holders"}),
    ],
    ids=["another k", "another n", "another holder", "no holders"],
)
def test_a_permit_is_for_these_numbers_and_holders(ceremony: Ceremony, division: Division, names: set[str]) -> None:
    """And it is not spent where it was shown for others."""
    permit = ceremony.permit()
    ceremony.stop()
    refused = _refused(ceremony, permit, "permit_mismatch", division)
    assert {reason.subject for reason in refused.reasons} == names
    assert len(ceremony.split(permit)) == 3


def test_a_permit_is_for_the_vault_file_that_was_looked_at(ceremony: Ceremony) -> None:
    """The vault was locked anew after the approval, by shares that were made before."""
    ceremony.stop()
    ceremony.rule()
    ceremony.start()
    ceremony.stop()
    shares = ceremony.split(None)
    ceremony.rule("key_export")
    ceremony.start()
    permit = ceremony.permit()
    ceremony.stop()
    ceremony.combine(shares, ceremony.bench.unlock)
    refused = _refused(ceremony, permit, "permit_mismatch")
    assert [reason.subject for reason in refused.reasons] == ["vault"]


def test_a_permit_of_another_custodian_s_is_nobody_s(ceremony: Ceremony) -> None:
    permit = ceremony.permit()
    ceremony.stop()
    other = SigningKey.generate()
    payload = Statement.parse(permit, label=Label.PERMIT).payload
    _refused(ceremony, Statement.sign(other, Label.PERMIT, payload).dump(), "unknown_key")
    theirs = replace(Permit.parse(payload), custodian=other.verify_key).dump()
    own = open_vault(ceremony.bench.home, ceremony.bench.unlock).signing_key
    _refused(ceremony, Statement.sign(own, Label.PERMIT, theirs).dump(), "permit_mismatch")


def test_a_permit_that_nobody_approved_is_known_by_the_database(ceremony: Ceremony) -> None:
    """Signed with the custodian's own key, which who opens the vault has: still nothing was approved by that name."""
    permit = Permit.parse(Statement.parse(ceremony.permit(), label=Label.PERMIT).payload)
    ceremony.stop()
    own = open_vault(ceremony.bench.home, ceremony.bench.unlock).signing_key
    for change in ({"proposal": "prop-" + "0" * 16}, {"digest": bytes(32)}):
        forged = replace(permit, **change)  # type: ignore[arg-type]
        _refused(ceremony, Statement.sign(own, Label.PERMIT, forged.dump()).dump(), "permit_unknown")


def test_second_thoughts_are_one_person_s(ceremony: Ceremony) -> None:
    """Who approved it takes it back before it is used: a stop waits for nobody."""
    permit = ceremony.permit()
    proposal = Permit.parse(Statement.parse(permit, label=Label.PERMIT).payload).proposal
    assert ceremony.revoke(proposal, ceremony.lena).status_code == 403
    assert ceremony.revoke("prop-" + "0" * 16).status_code == 404
    assert ceremony.revoke(proposal).json() == {"proposal": proposal, "revoked": True}
    assert ceremony.revoke(proposal).status_code == 409
    ceremony.stop()
    _refused(ceremony, permit, "permit_revoked")
    ceremony.start()
    (entry,) = ceremony.said("permit_revoked")
    assert entry["subject"] == proposal


def test_a_used_permit_is_not_taken_back(ceremony: Ceremony) -> None:
    permit = ceremony.permit()
    proposal = Permit.parse(Statement.parse(permit, label=Label.PERMIT).payload).proposal
    ceremony.stop()
    ceremony.split(permit)
    ceremony.start()
    answer = ceremony.revoke(proposal)
    assert (answer.status_code, answer.json()["code"]) == (409, "already_decided")


def test_a_proposal_that_was_withdrawn_or_denied_gives_no_permit(ceremony: Ceremony) -> None:
    for verb, token in (("withdraw", ceremony.alice), ("deny", ceremony.bob)):
        proposal = ceremony.ask().json()
        assert ceremony.bench.post(f"/v1/proposals/{proposal['proposal']}/{verb}", {}, token=token).status_code == 200
        answer = ceremony.approve(proposal)
        assert (answer.status_code, answer.json()["code"]) == (409, "already_decided")
        assert ceremony.revoke(proposal["proposal"]).status_code == 404
    assert not ceremony.said("permit_issued")


def test_an_asker_whose_token_was_revoked_meanwhile_gets_no_permit(ceremony: Ceremony) -> None:
    proposal = ceremony.ask().json()
    listed = ceremony.bench.get("/v1/tokens").json()["tokens"]
    alice = next(item["id"] for item in listed if item["person"] == "alice")
    assert ceremony.bench.client.delete(f"/v1/tokens/{alice}", headers=ceremony.bob).status_code == 200
    assert ceremony.approve(proposal).json()["code"] == "proposer_gone"


def test_no_permit_is_ever_of_one_person(ceremony: Ceremony) -> None:
    """The rule is off: nobody gets one, to be kept until it is on; nor by an approval that comes when it is off."""
    proposal = ceremony.ask().json()
    ceremony.stop()
    ceremony.rule("unblock")
    ceremony.start()
    answer = ceremony.ask()
    assert (answer.status_code, answer.json()["code"]) == (409, "permit_not_needed")
    answer = ceremony.approve(proposal)
    assert (answer.status_code, answer.json()["code"]) == (409, "permit_not_needed")
    assert not ceremony.said("permit_issued")


def test_a_permit_that_is_shown_while_the_rule_is_off_counts_in_full(ceremony: Ceremony) -> None:
    permit = ceremony.permit()
    ceremony.stop()
    ceremony.rule("unblock")
    ceremony.start()
    ceremony.stop()
    _refused(ceremony, permit, "permit_mismatch", replace(DIVISION, need=3))
    ceremony.split(permit)
    _refused(ceremony, permit, "permit_used")
    assert len(ceremony.split(None)) == 3


def test_who_takes_the_rule_out_of_the_settings_is_in_the_log_before_there_are_shares(ceremony: Ceremony) -> None:
    """The command goes by the last start's rule too: another one counts once a custodian has started by it."""
    ceremony.stop()
    ceremony.rule("unblock")
    with pytest.raises(Rejected) as refused:
        ceremony.split(None)
    assert refused.value.code == "permit_wanted"
    ceremony.start()
    assert ceremony.said("custodian_started")[-1]["details"]["operations"] == "unblock"
    assert len(ceremony.split(None)) == 3, "then it needs no stop either"


def test_a_crash_after_a_permit_was_spent_leaves_no_shares_and_no_second_try(ceremony: Ceremony) -> None:
    """The process ends between the commit and the first file: what it had made is lost with it."""
    permit = ceremony.permit()
    ceremony.stop()
    ceremony.split(permit)  # and nothing was written
    _refused(ceremony, permit, "permit_used")
    ceremony.start()
    assert len(ceremony.said("permit_used")) == 1


def test_an_older_database_that_does_not_know_of_the_use_is_not_believed(ceremony: Ceremony) -> None:
    permit = ceremony.permit()
    ceremony.stop()
    database = ceremony.bench.home / "custodian.db"
    shutil.copy(database, database.with_suffix(".old"))
    ceremony.split(permit)
    for suffix in ("-wal", "-shm"):
        Path(f"{database}{suffix}").unlink(missing_ok=True)
    shutil.copy(database.with_suffix(".old"), database)
    _refused(ceremony, permit, "database_older")
    recover_custodian(ceremony.bench.home, ceremony.bench.unlock, clock=ceremony.bench.clock)
    refused = _refused(ceremony, permit, "permit_mismatch")
    assert [reason.subject for reason in refused.reasons] == ["epoch"]
    ceremony.bench.clock.advance(7200)


def test_while_a_custodian_runs_on_the_file_nothing_is_spent(ceremony: Ceremony) -> None:
    permit = ceremony.permit()
    with pytest.raises(Unavailable):
        ceremony.split(permit)
    ceremony.stop()
    assert len(ceremony.split(permit)) == 3


@pytest.mark.drill
def test_over_a_shared_database_a_permit_is_used_once_too(place: Path, postgres: PostgresServer) -> None:
    with Ceremony(place, postgres=postgres) as ceremony:
        permit = ceremony.permit()
        with pytest.raises(Rejected) as refused:
            ceremony.split(None)
        assert refused.value.code == "permit_wanted"
        ceremony.stop()
        assert len(ceremony.split(permit)) == 3
        _refused(ceremony, permit, "permit_used")
        ceremony.start()
        assert len(ceremony.said("permit_used")) == 1
        database = ceremony.bench.service.config.database
    postgres.drop(database)


def test_a_home_without_its_database_makes_no_shares_without_a_permit(ceremony: Ceremony) -> None:
    """Whether two persons decide is in it: who takes it away does not decide alone."""
    ceremony.stop()
    database = ceremony.bench.home / "custodian.db"
    database.rename(database.with_suffix(".away"))
    with pytest.raises(UsageError):
        ceremony.split(None)
    database.with_suffix(".away").rename(database)
