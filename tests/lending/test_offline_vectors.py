"""The vectors of docs/spec/voucher.md and ticket.md: most of them bad."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cloister.crypto.sign import SigningKey
from cloister.errors import Malformed, Rejected
from cloister.lending.clauses import Clauses, OfflineTerm
from cloister.lending.lease import LeaseHolder
from cloister.lending.lease_state import Pending
from cloister.lending.messages import (
    Consumption,
    Grant,
    Lease,
    Ticket,
    TicketRequest,
    Voucher,
    VoucherRequest,
)
from cloister.lending.terms import LoanId, ModelDigest, ModelTerms, OutageRule, Terms, instance_id

if TYPE_CHECKING:
    from collections.abc import Callable

VECTORS = Path(__file__).parent.parent / "vectors"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PARSE: dict[str, Callable[[bytes], Any]] = {
    "voucher-request": VoucherRequest.parse,
    "voucher": Voucher.parse,
    "consumption": Consumption.parse,
    "ticket-request": TicketRequest.parse,
    "ticket": Ticket.parse,
}


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((VECTORS / name).read_text())
    assert content["format"] == 1
    return content


MESSAGES = [case for name in ("voucher", "ticket") for case in _read(f"{name}/messages.json")["cases"]]
VOUCHERS, TICKETS = _read("voucher/answers.json"), _read("ticket/answers.json")


@pytest.mark.parametrize("case", MESSAGES, ids=lambda case: case["name"])
def test_message(case: dict[str, str]) -> None:
    data = case["text"].encode()
    if case["expect"] == "valid":
        assert PARSE[case["format"]](data).dump() == data
        return
    with pytest.raises(Malformed):
        PARSE[case["format"]](data)


def test_most_vectors_are_bad() -> None:
    bad = [case for case in MESSAGES if case["expect"] != "valid"]
    assert len(bad) > 20 * (len(MESSAGES) - len(bad))


def _holder(known: dict[str, Any]) -> LeaseHolder:
    """Return the holder that the vectors are for, without a lease."""
    key = SigningKey(bytes.fromhex(known["instance_seed"]))
    custodian = SigningKey(bytes.fromhex(known["custodian_seed"])).verify_key
    term = OfflineTerm(lasts=timedelta(days=14), units=500, overdraft=20)
    terms = Terms(
        loan=LoanId("loan-" + "a" * 16),
        borrower="b",
        models=(ModelTerms(name="digits", digest=ModelDigest("ab" * 32), ticketed=True),),
        consumers=None,
        outage=OutageRule.OFFLINE,
        clauses=Clauses(offline=term),
    )
    grant = Grant(
        instance=instance_id(key.verify_key.raw),
        request_digest=bytes(32),
        epoch=known["epoch"],
        terms=terms,
        policy_digest="cd" * 32,
        result="",
        publisher=custodian,
        keys=(),
        block_version=known["block_version"],
    )
    return LeaseHolder(key=key, grant=grant, custodian=custodian)


def _demand(case: dict[str, str], receive: Callable[[bytes, datetime], Any]) -> None:
    statement = case["statement"].encode()
    if case["expect"] in ("Voucher", "Ticket"):
        assert type(receive(statement, NOW)).__name__ == case["expect"]
        return
    with pytest.raises(Malformed if case["expect"] == "Malformed" else Rejected) as caught:
        receive(statement, NOW)
    if isinstance(caught.value, Rejected):
        assert caught.value.code == case["expect"]


@pytest.mark.parametrize("case", VOUCHERS["cases"], ids=lambda case: case["name"])
def test_voucher_for_a_pending_request(case: dict[str, str]) -> None:
    holder = _holder(VOUCHERS)
    holder.offline.request(NOW, bytes(16))
    holder.offline._pending = Pending(statement=b"", digest=bytes(32))
    before = holder.snapshot()
    _demand(case, holder.offline.receive)
    assert (holder.snapshot() == before) == (case["expect"] != "Voucher")


@pytest.mark.parametrize("case", TICKETS["cases"], ids=lambda case: case["name"])
def test_ticket_for_a_pending_request(case: dict[str, str]) -> None:
    holder = _holder(TICKETS)
    lease = Lease(
        instance=holder.instance, epoch=2, seq=1, req_digest=bytes(32), limits={}, balances={},
        ttl=timedelta(seconds=60), models=(ModelDigest("ab" * 32),), consumers=None, policy_digest="cd" * 32,
        block_version=2,
    )  # fmt: skip
    holder._word = lease
    holder._clock.sent(NOW, first=True, ttl=lease.ttl)
    holder._clock.observe(NOW)
    holder._clock.extend(lease.ttl)
    reservation = holder.reserve("digits", None, 3, NOW)
    holder.tickets.request(reservation, bytes(range(32)), NOW)
    asked = holder.tickets._asked
    assert asked is not None
    holder.tickets._asked = replace(asked, pending=Pending(statement=b"", digest=bytes(32)))
    _demand(case, holder.tickets.receive)
    assert (holder.tickets.pending is not None) == (case["expect"] != "Ticket")
