"""KMIP messages as their vectors say, and answers that are none: Malformed, whatever the bytes."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from cloister.custodian.vaults import kmip_messages as messages
from cloister.custodian.vaults.kmip_messages import Operation, parse_answer
from cloister.custodian.vaults.ttlv import MAX_MESSAGE_BYTES, Item, Kind, dump, parse, size_of
from cloister.errors import Malformed
from mutations import mutated

PLACE = Path(__file__).parents[1] / "vectors" / "vault" / "kmip.json"
VECTORS: dict[str, Any] = json.loads(PLACE.read_text())
KEY, CONTEXT = VECTORS["key"], VECTORS["context"]
DATA, NONCE, TAG = (bytes.fromhex(VECTORS[name]) for name in ("data", "nonce", "tag"))
GOOD = [case for case in VECTORS["cases"] if isinstance(case["expect"], dict)]


def _read(operation: str, data: bytes) -> dict[str, Any]:
    """Return what an answer says, in the words of the vectors."""
    answer = parse_answer(data, operation=Operation[operation], key=KEY)
    if answer.payload is None:
        return {"reason": answer.reason}
    match Operation[operation]:
        case Operation.ENCRYPT:
            return {"sealed": messages.sealed_of(answer.payload, size=len(DATA), nonce=NONCE).hex()}
        case Operation.DECRYPT:
            return {"data": messages.data_of(answer.payload).hex()}
        case _:
            return {"attributes": messages.attributes_of(answer.payload)}


def test_our_requests_are_the_bytes_of_the_vectors() -> None:
    names = ("Cryptographic Algorithm", "Cryptographic Length")
    assert VECTORS["requests"] == {
        "encrypt": messages.encrypt_request(KEY, DATA, nonce=NONCE, context=CONTEXT).hex(),
        "decrypt": messages.decrypt_request(KEY, DATA + TAG, nonce=NONCE, context=CONTEXT).hex(),
        "get_attributes": messages.get_attributes_request(KEY, *names).hex(),
    }


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_an_answer_comes_to_what_its_vector_says(case: dict[str, Any]) -> None:
    if case["expect"] == "Malformed":
        with pytest.raises(Malformed):
            _read(case["operation"], bytes.fromhex(case["hex"]))
    else:
        assert _read(case["operation"], bytes.fromhex(case["hex"])) == case["expect"]


def test_ten_thousand_damaged_answers_are_malformed_or_a_value() -> None:
    refused = 0
    for number, case in enumerate(GOOD):
        for damaged in mutated(bytes.fromhex(case["hex"]), count=10_000 // len(GOOD) + 1, seed=number):
            try:
                said = _read(case["operation"], damaged)
            except Malformed:
                refused += 1
                continue
            assert set(said) <= {"reason", "sealed", "data", "attributes"}
    assert refused > 1000


def test_a_second_encoder_writes_the_same_vectors() -> None:
    generator = runpy.run_path(str(PLACE.with_name("generate_kmip.py")))
    assert generator["requests"]() == VECTORS["requests"]
    made = {name: data.hex() for name, (_, data, _) in generator["good"]().items()}
    made |= {name: data.hex() for name, data in {**generator["wrong_decrypted"](), **generator["misshapen"]()}.items()}
    made |= {name: data.hex() for name, (_, data) in generator["wrong_others"]().items()}
    assert made == {case["name"]: case["hex"] for case in VECTORS["cases"]}


def test_what_is_read_is_written_the_same() -> None:
    for case in GOOD:
        data = bytes.fromhex(case["hex"])
        assert dump(parse(data)) == data


@pytest.mark.parametrize(
    "header",
    [
        "",
        "42007b01",
        "42007b0100010000",
        "42007b01ffffffff",
        "42007b0100000004",
        "4200780100000008",
        "42007b0800000008",
    ],
)
def test_a_size_is_bounded_before_anything_is_read(header: str) -> None:
    with pytest.raises(Malformed):
        size_of(bytes.fromhex(header), tag=messages.RESPONSE_MESSAGE)
    largest = bytes.fromhex("42007b01") + (MAX_MESSAGE_BYTES - 8).to_bytes(4, "big")
    assert size_of(largest, tag=messages.RESPONSE_MESSAGE) == MAX_MESSAGE_BYTES - 8


def test_no_item_and_no_answer_prints_a_key() -> None:
    key = b"CANARY-" * 4
    item = Item(0x42007C, Kind.STRUCTURE, (Item(0x4200C2, Kind.BYTE_STRING, key),))
    for shown in (repr(item), str(item), repr(item.take(0x4200C2)), repr(messages.Answer(payload=item))):
        assert "CANARY" not in shown
    for ask in (item.text, lambda: item.number(Kind.INTEGER), lambda: item.take(0x4200C2).text()):
        with pytest.raises(Malformed) as refused:
            ask()
        assert "CANARY" not in refused.value.message


def test_a_message_over_the_cap_is_not_parsed() -> None:
    with pytest.raises(Malformed, match="at most"):
        parse(dump(Item(0x42007B, Kind.STRUCTURE, (Item(0x4200C2, Kind.BYTE_STRING, bytes(MAX_MESSAGE_BYTES)),))))
