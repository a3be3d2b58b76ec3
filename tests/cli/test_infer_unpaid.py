"""An answer without the ticket it takes: refused, and its receipt kept where one was asked for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cloister.cli.infer import _Kept
from cloister.client.receipts import VerifiedReceipt
from cloister.client.tickets import TicketNotProven
from cloister.crypto.sign import SigningKey, Statement
from cloister.errors import Reason
from cloister.lending.messages import Receipt
from cloister.lending.receipt import GENESIS, commit
from cloister.lending.terms import LoanId, ModelDigest, instance_id

if TYPE_CHECKING:
    from pathlib import Path

KEY = SigningKey(bytes(range(32)))


def receipt_of(now: datetime) -> VerifiedReceipt:
    receipt = Receipt(
        instance=instance_id(KEY.verify_key.raw), index=1, loan=LoanId("loan-" + "a" * 16),
        model=ModelDigest("ab" * 32), consumer=None, metered=False, units=1,
        request=commit(bytes(32), b"q"), response=commit(bytes(32), b"a"),
        previous=GENESIS, policy_digest="cd" * 32, issued_at=now,
    )  # fmt: skip
    return VerifiedReceipt(
        receipt=receipt, statement=Statement.sign(KEY, Receipt.LABEL, receipt.dump()).dump(), key=KEY.verify_key,
        request_salt=bytes(32), response_salt=bytes(32),
    )  # fmt: skip


def test_the_receipt_of_an_unpaid_answer_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    refused = TicketNotProven(Reason(code="ticket_missing", subject="response"))
    kept = _Kept(receipt=tmp_path / "one.receipt", content=False, out=None, force=False)
    kept.write_unpaid(refused)
    assert not (tmp_path / "one.receipt").exists()  # nobody answered
    refused.receipt = receipt_of(datetime(2026, 1, 1, tzinfo=UTC))
    kept.write_unpaid(refused)
    assert (tmp_path / "one.receipt").stat().st_mode & 0o777 == 0o600
    data = (tmp_path / "one.receipt").read_bytes().removesuffix(b"\n")
    assert VerifiedReceipt.parse(data).receipt == refused.receipt.receipt
