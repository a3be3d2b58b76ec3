"""Receipts that were signed together: each stands alone, and none can be moved, added or passed off."""

from __future__ import annotations

import json
import random

import pytest

from cloister.crypto.sign import Label, SigningKey, Statement, pae
from cloister.errors import Malformed, Rejected, UsageError
from cloister.lending.merkle import MerkleTree, leaf_hash
from cloister.lending.receipt_batch import MAX_BATCH, open_receipt, sign_receipts
from cloister.wire import dump_b64u

KEY = SigningKey(bytes(range(32)))


def payloads(count: int) -> list[bytes]:
    return [b'{"n":%d}' % at for at in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 9, 31, 64, 100])
def test_each_receipt_of_a_batch_opens_by_itself(count: int) -> None:
    signed = sign_receipts(KEY, payloads(count))
    assert [open_receipt(one, KEY.verify_key) for one in signed] == payloads(count)


@pytest.mark.parametrize("count", [2, 3, 5, 6, 7, 12, 33])
def test_the_tree_is_the_one_of_the_transparency_log(count: int) -> None:
    tree = MerkleTree(leaf_hash(pae(Label.RECEIPT, payload)) for payload in payloads(count))
    for index, one in enumerate(sign_receipts(KEY, payloads(count))):
        told = json.loads(one)["tree"]
        assert told["root"] == dump_b64u(tree.root())
        assert told["path"] == [dump_b64u(part) for part in tree.inclusion(index)]


def test_a_receipt_that_is_alone_is_a_plain_statement() -> None:
    (one,) = sign_receipts(KEY, payloads(1))
    assert one == Statement.sign(KEY, Label.RECEIPT, payloads(1)[0]).dump()


def test_the_largest_batch_and_none_larger() -> None:
    signed = sign_receipts(KEY, payloads(MAX_BATCH))
    assert open_receipt(signed[-1], KEY.verify_key) == payloads(MAX_BATCH)[-1]
    for count in (0, MAX_BATCH + 1):
        with pytest.raises(UsageError):
            sign_receipts(KEY, payloads(count))


def test_a_payload_is_never_taken_from_another_place_or_batch() -> None:
    first, second = sign_receipts(KEY, payloads(6)), sign_receipts(KEY, [b"x" + item for item in payloads(6)])
    for mine, others in ((first, second), (second, first)):
        for one in mine:
            for other in (*others, *mine):
                mixed = json.loads(one) | {"payload": json.loads(other)["payload"]}
                if mixed == json.loads(one):
                    continue
                with pytest.raises(Rejected, match="not_included"):
                    open_receipt(json.dumps(mixed, sort_keys=True, separators=(",", ":")).encode(), KEY.verify_key)


def test_ten_thousand_damaged_receipts_are_malformed_or_rejected() -> None:
    rng = random.Random(5)
    signed = sign_receipts(KEY, payloads(9))
    for _ in range(10_000):
        data = bytearray(rng.choice(signed))
        at = rng.randrange(len(data))
        match rng.randrange(3):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                del data[at]
            case _:
                data.insert(at, rng.randrange(256))
        if bytes(data) in signed:
            continue
        with pytest.raises((Malformed, Rejected)):
            open_receipt(bytes(data), KEY.verify_key)
