"""The vectors of docs/spec/lease.md, receipt.md, usage.md and audit-log.md: most of them bad."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloister.crypto.sign import Label, SigningKey, Statement
from cloister.errors import Malformed, Rejected, UsageError
from cloister.lending.audit import AuditEntry, Checkpoint, verify_checkpoint, verify_log
from cloister.lending.dispute import Claim, settle, verify_statement
from cloister.lending.lease import LeaseHolder
from cloister.lending.lease_state import Pending
from cloister.lending.messages import (
    Close,
    Grant,
    Lease,
    LeaseRequest,
    Receipt,
    Refusal,
    UsageAck,
    UsageReport,
    UsageStatement,
)
from cloister.lending.receipt import (
    commit,
    content_of,
    fork_evidence,
    head_after,
    next_head,
    record_of,
    verify_chain,
    verify_commitment,
    verify_receipt,
)
from cloister.lending.terms import LoanId, ModelDigest, ModelTerms, Terms, instance_id
from cloister.lending.usage_report import verify_report

VECTORS = Path(__file__).parent.parent / "vectors"
PARSE = {
    "lease-request": LeaseRequest.parse,
    "lease": Lease.parse,
    "refusal": Refusal.parse,
    "close": Close.parse,
    "receipt": Receipt.parse,
    "usage-report": UsageReport.parse,
    "usage-ack": UsageAck.parse,
    "usage-statement": UsageStatement.parse,
    "entry": AuditEntry.parse,
    "checkpoint": Checkpoint.parse,
}


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((VECTORS / name).read_text())
    assert content["format"] == 1
    return content


MESSAGES = [
    case
    for name in ("lease/messages.json", "receipt/messages.json", "usage/messages.json", "audit/parse.json")
    for case in read(name)["cases"]
]
ANSWERS = read("lease/answers.json")
RECEIPTS = read("receipt/receipts.json")
BATCHES = read("receipt/batches.json")
DISPUTES = read("usage/disputes.json")
LOGS = read("audit/logs.json")


@pytest.mark.parametrize("case", MESSAGES, ids=lambda case: case["name"])
def test_message(case: dict[str, str]) -> None:
    data = case["text"].encode()
    parse = PARSE[case["format"]]
    if case["expect"] == "valid":
        assert parse(data).dump() == data
        return
    with pytest.raises(Malformed):
        parse(data)


def test_most_vectors_are_bad() -> None:
    bad = [case for case in MESSAGES if case["expect"] != "valid"]
    assert len(bad) > 20 * (len(MESSAGES) - len(bad))


@pytest.mark.parametrize("case", ANSWERS["cases"], ids=lambda case: case["name"])
def test_answer_to_a_pending_request(case: dict[str, str]) -> None:
    key = SigningKey(bytes.fromhex(ANSWERS["instance_seed"]))
    custodian = SigningKey(bytes.fromhex(ANSWERS["custodian_seed"])).verify_key
    model = ModelTerms(name="digits", digest=ModelDigest("ab" * 32))
    grant = Grant(
        instance=instance_id(key.verify_key.raw),
        request_digest=bytes(32),
        epoch=ANSWERS["epoch"],
        terms=Terms(loan=LoanId("loan-" + "a" * 16), borrower="b", models=(model,), consumers=None),
        policy_digest="cd" * 32,
        result="",
        publisher=custodian,
        keys=(),
        block_version=ANSWERS["block_version"],
    )
    holder = LeaseHolder(key=key, grant=grant, custodian=custodian)
    now = Receipt.parse(
        json.loads((VECTORS / "receipt/messages.json").read_text())["cases"][0]["text"].encode()
    ).issued_at
    holder.request(now, bytes(16))
    holder._pending = Pending(statement=b"", digest=bytes.fromhex(ANSWERS["req_digest"]), served=0)
    before = holder.snapshot()
    statement = case["statement"].encode()
    if case["expect"] in ("Lease", "Refusal"):
        assert type(holder.receive(statement, now)).__name__ == case["expect"]
        return
    with pytest.raises(Malformed if case["expect"] == "Malformed" else Rejected) as caught:
        holder.receive(statement, now)
    if isinstance(caught.value, Rejected):
        assert caught.value.code == case["expect"]
    assert holder.snapshot() == before


@pytest.mark.parametrize("case", RECEIPTS["commitments"])
def test_commitment(case: dict[str, str]) -> None:
    salt, data, want = (bytes.fromhex(case[name]) for name in ("salt", "data", "commitment"))
    assert commit(salt, data) == want
    verify_commitment(want, salt, data, what="request")
    for bad in ((salt, data + b"x"), (bytes(31) + b"\x01", data), (salt[:31], data)):
        with pytest.raises(Rejected, match="commitment_mismatch"):
            verify_commitment(want, *bad, what="request")


def test_a_commitment_takes_a_whole_salt() -> None:
    with pytest.raises(UsageError):
        commit(bytes(31), b"answer")


@pytest.mark.parametrize("case", RECEIPTS["heads"])
def test_chain_head(case: dict[str, Any]) -> None:
    receipt = Receipt.parse(case["receipt"].encode())
    record = record_of(receipt)
    assert content_of(receipt.request, receipt.response).hex() == case["content"]
    assert record.dump().decode() == case["record"]
    assert next_head(bytes.fromhex(case["previous"]), record).hex() == head_after(receipt).hex() == case["head"]


@pytest.mark.parametrize("case", RECEIPTS["statements"] + BATCHES["statements"], ids=lambda case: case["name"])
def test_receipt_statement(case: dict[str, str]) -> None:
    key = SigningKey(bytes.fromhex(RECEIPTS["instance_seed"])).verify_key
    statement = case["statement"].encode()
    if case["expect"] == "valid":
        assert verify_receipt(statement, key).units == 3
        return
    with pytest.raises(Malformed if case["expect"] == "Malformed" else Rejected) as caught:
        verify_receipt(statement, key)
    if isinstance(caught.value, Rejected):
        assert caught.value.code == case["expect"]


def test_receipts_of_the_vectors_are_a_chain_and_no_fork() -> None:
    key = SigningKey(bytes.fromhex(RECEIPTS["instance_seed"])).verify_key
    first, second = (
        verify_receipt(case["statement"].encode(), key) for case in RECEIPTS["statements"] if case["expect"] == "valid"
    )
    head = verify_chain([first, second])
    assert head == head_after(second)
    assert fork_evidence(first, second) is None
    for broken in ([second], [first, first], [second, first]):
        with pytest.raises(Rejected, match="chain_broken"):
            verify_chain(broken)


@pytest.mark.parametrize("case", DISPUTES["cases"], ids=lambda case: case["name"])
def test_dispute(case: dict[str, Any]) -> None:
    custodian, instance, other = (
        SigningKey(bytes.fromhex(DISPUTES[f"{name}_seed"])).verify_key for name in ("custodian", "instance", "other")
    )
    keys = {key.key_id: key for key in (instance, other)}
    statement = verify_statement(case["statement"].encode(), custodian)
    reports = [verify_report(text.encode(), instance) for text in case["reports"]]
    claims = []
    for number, kept in enumerate(case["receipts"]):
        key = keys[Statement.parse(kept["statement"].encode(), label=Label.RECEIPT).key_id]
        status = None if kept["status"] is None else kept["status"].encode()
        claims.append(Claim(name=str(number), receipt=verify_receipt(kept["statement"].encode(), key), status=status))
    outcome = settle(statement, reports, claims)
    assert sorted([item.code, item.guilt.value] for item in outcome.findings) == case["findings"]
    assert (outcome.settled, outcome.matched) == (case["settled"], case["matched"])


@pytest.mark.parametrize("case", LOGS["cases"], ids=lambda case: case["name"])
def test_log(case: dict[str, Any]) -> None:
    custodian = SigningKey(bytes.fromhex(LOGS["custodian_seed"])).verify_key
    checkpoint = verify_checkpoint(case["checkpoint"].encode(), custodian)
    lines = [line.encode() for line in case["lines"]]
    if case["expect"] == "valid":
        assert verify_log(lines, checkpoint).checked == checkpoint.size
        assert checkpoint.root.hex() == LOGS["root"]
        return
    with pytest.raises(Rejected) as caught:
        verify_log(lines, checkpoint)
    assert caught.value.code == case["expect"]
    assert caught.value.reasons[0].subject.split()[-1] == str(case["index"])
