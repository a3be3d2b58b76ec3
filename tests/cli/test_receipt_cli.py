"""``cloister receipt`` on files alone: what holds, what is altered, what proves a fork."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from cloister.client.receipts import VerifiedReceipt
from cloister.crypto.sign import SigningKey, Statement
from cloister.lending.messages import Receipt, Ticket
from cloister.lending.receipt import GENESIS, commit, head_after
from cloister.lending.terms import LoanId, ModelDigest, instance_id

if TYPE_CHECKING:
    from pathlib import Path

    from cli_kit import Shell

KEY = SigningKey(bytes(range(32)))
SALT = bytes(32)
FIRST = Receipt(
    instance=instance_id(KEY.verify_key.raw),
    index=1,
    loan=LoanId("loan-" + "a" * 16),
    model=ModelDigest("ab" * 32),
    consumer=None,
    metered=False,
    units=1,
    request=commit(SALT, b"question"),
    response=commit(SALT, b"answer"),
    previous=GENESIS,
    policy_digest="cd" * 32,
    issued_at=datetime(2026, 7, 1, tzinfo=UTC),
)
SECOND = replace(FIRST, index=2, previous=head_after(FIRST))
OTHER = replace(FIRST, response=commit(SALT, b"another answer"))


CUSTODIAN = SigningKey(bytes(range(32, 64)))
TICKET = Ticket(
    instance=FIRST.instance,
    epoch=1,
    index=5,
    req_digest=bytes(32),
    request=FIRST.request,
    model=FIRST.model,
    units=1,
    ttl=timedelta(seconds=30),
    block_version=0,
)


def keep(folder: Path, name: str, receipt: Receipt, ticket: Ticket | None = None) -> str:
    """Write a receipt file as a consumer keeps it."""
    statement = Statement.sign(KEY, Receipt.LABEL, receipt.dump()).dump()
    VerifiedReceipt(
        receipt=receipt,
        statement=statement,
        key=KEY.verify_key,
        request_salt=SALT,
        response_salt=SALT,
        ticket=None if ticket is None else Statement.sign(CUSTODIAN, Ticket.LABEL, ticket.dump()).dump(),
    ).save(folder / name)
    return name


def test_receipts_that_hold_are_shown_with_what_is_not_proven(shell: Shell) -> None:
    files = [keep(shell.folder, name, item) for name, item in (("a", FIRST), ("b", SECOND))]
    said = shell("receipt", "verify", *files)
    assert said.code == 0, said
    assert "1 neighbours follow each other" in said.out
    assert "not proven" in said.out
    assert shell.ok("receipt", "show", "a")["index"] == 1


@pytest.mark.parametrize(("content", "code", "word"), [(b"answer", 0, "proven"), (b"lie", 4, "commitment_mismatch")])
def test_content_beside_a_receipt_opens_its_commitments(shell: Shell, content: bytes, code: int, word: str) -> None:
    keep(shell.folder, "a", FIRST)
    (shell.folder / "a.request").write_bytes(b"question")
    (shell.folder / "a.response").write_bytes(content)
    said = shell("receipt", "verify", "a", "--json")
    assert said.code == code
    assert word in said.out


def test_an_altered_receipt_is_refused_and_the_others_still_judged(shell: Shell) -> None:
    keep(shell.folder, "a", FIRST)
    keep(shell.folder, "b", SECOND)
    data = bytearray((shell.folder / "a").read_bytes())
    at = data.index(b"statement") + 40
    data[at] = ord("A") if data[at] != ord("A") else ord("B")
    (shell.folder / "a").write_bytes(data)
    said = shell("receipt", "verify", "a", "b", "--json")
    assert said.code == 4
    assert ["error" in item for item in said.json["receipts"]] == [True, False]


def test_a_broken_chain_and_a_fork_among_receipts_are_found(shell: Shell) -> None:
    keep(shell.folder, "a", FIRST)
    keep(shell.folder, "other", OTHER)
    keep(shell.folder, "b", SECOND)
    forked = shell("receipt", "verify", "a", "other", "--json")
    assert (forked.code, [fault["code"] for fault in forked.json["faults"]]) == (4, ["receipt_fork"])
    broken = shell("receipt", "verify", "other", "b", "--json")
    assert (broken.code, [fault["code"] for fault in broken.json["faults"]]) == (4, ["chain_broken"])


def test_two_receipts_of_one_index_prove_a_fork_and_others_prove_none(shell: Shell) -> None:
    keep(shell.folder, "a", FIRST)
    keep(shell.folder, "other", OTHER)
    keep(shell.folder, "b", SECOND)
    assert shell.ok("receipt", "fork", "a", "other")["fork"]
    for files in (("a", "b"), ("a", "a")):
        refused = shell("receipt", "fork", *files, "--json")
        assert (refused.code, refused.json["error"]["code"]) == (4, "no_fork")
    assert shell("receipt", "fork", "a").code == 2
    assert shell("receipt", "fork", "a", "other", "--submit").code == 2


def test_a_kept_ticket_is_proven_by_the_custodians_key_and_by_no_other(shell: Shell) -> None:
    keep(shell.folder, "a", FIRST, TICKET)
    keep(shell.folder, "b", SECOND)
    assert shell.ok("receipt", "show", "a")["ticket"] == "not checked"
    said = shell.ok("receipt", "verify", "a", "b")
    assert [item["ticket"] for item in said["receipts"]] == ["not checked", "none"]
    proven = shell.ok("receipt", "verify", "a", "b", "--key", CUSTODIAN.verify_key.dump())
    assert [item["ticket"] for item in proven["receipts"]] == ["proven", "none"]
    assert "ticket proven" in shell("receipt", "verify", "a", "--key", CUSTODIAN.verify_key.dump()).out
    stranger = shell("receipt", "verify", "a", "b", "--key", KEY.verify_key.dump(), "--json")
    assert (stranger.code, stranger.json["receipts"][0]["error"]["code"]) == (4, "unknown_key")
    assert stranger.json["links"] == 1
    assert shell("receipt", "verify", "a", "--key", "AAAA").code == 2


def test_a_ticket_of_another_answer_and_one_in_two_receipts_are_found(shell: Shell) -> None:
    keep(shell.folder, "a", FIRST, TICKET)
    keep(shell.folder, "b", SECOND, TICKET)
    keep(shell.folder, "c", FIRST, replace(TICKET, units=2))
    key = CUSTODIAN.verify_key.dump()
    reused = shell("receipt", "verify", "a", "b", "--key", key, "--json")
    assert (reused.code, [fault["code"] for fault in reused.json["faults"]]) == (4, ["ticket_reused"])
    assert "one ticket was given for two answers" in shell("receipt", "verify", "a", "b", "--key", key).out
    wrong = shell("receipt", "verify", "c", "--key", key, "--json")
    assert (wrong.code, wrong.json["receipts"][0]["error"]["code"]) == (4, "ticket_mismatch")
