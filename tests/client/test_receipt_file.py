"""The receipt file against its vectors: most of them bad."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloister.client import TicketNotProven
from cloister.client.receipts import VerifiedReceipt
from cloister.crypto.sign import SigningKey
from cloister.errors import Malformed, Rejected
from mutations import mutated

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "receipt" / "files.json").read_text(encoding="utf-8")
)
CUSTODIAN = SigningKey(bytes.fromhex(VECTORS["custodian_seed"])).verify_key


@pytest.mark.parametrize("case", VECTORS["files"], ids=lambda case: case["name"])
def test_file(case: dict[str, str]) -> None:
    data = case["text"].encode()
    if case["expect"] == "valid":
        assert VerifiedReceipt.parse(VerifiedReceipt.parse(data).dump()) == VerifiedReceipt.parse(data)
        return
    with pytest.raises(Malformed if case["expect"] == "Malformed" else Rejected) as caught:
        VerifiedReceipt.parse(data)
    if isinstance(caught.value, Rejected):
        assert caught.value.code == case["expect"]


@pytest.mark.parametrize("case", VECTORS["tickets"], ids=lambda case: case["name"])
def test_ticket_in_a_file(case: dict[str, str]) -> None:
    kept = VerifiedReceipt.parse(case["text"].encode())
    if case["expect"] == "proven":
        assert kept.prove_ticket(CUSTODIAN).request == kept.receipt.request
        return
    with pytest.raises(TicketNotProven) as caught:
        kept.prove_ticket(CUSTODIAN)
    assert caught.value.code == case["expect"]


def test_damaged_files_are_refused_or_say_the_same() -> None:
    good = VECTORS["files"][1]["text"].encode()
    honest = VerifiedReceipt.parse(good)
    for data in mutated(good, count=3000):
        try:
            kept = VerifiedReceipt.parse(data)
        except (Malformed, Rejected):
            continue
        assert kept.receipt == honest.receipt
        try:
            kept.prove_ticket(CUSTODIAN)
        except TicketNotProven:
            continue
        assert kept.ticket == honest.ticket
