"""Damaged Nitro evidence: Malformed or Rejected comes out, and what is signed is never accepted otherwise."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest

from cloister.attest.cose import CoseMessage
from cloister.attest.describe.nitro import NitroDescriber
from cloister.attest.nitro.document import NitroDocument, parse_message
from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence
from cloister.attest.schemes.nitro import NITRO
from cloister.errors import Malformed, Rejected
from cloister.testing.vendors.aws import Document, NitroVendor
from mutations import mutated

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
VENDOR = NitroVendor.generate()
SCHEME = VENDOR.scheme()
GOOD = VENDOR.document(Document(timestamp=NOW, user_data=bytes(64), nonce=bytes(32), indefinite=True, tagged=True))
MESSAGE = parse_message(GOOD)


def verify(document: bytes) -> None:
    SCHEME.verify(Evidence(tee=NITRO, payload=dump_parts({"document": document})), {}, NOW)


def whole(data: bytes) -> None:
    NitroDocument.parse(parse_message(data).payload)


def test_only_malformed_comes_out_of_the_parsers() -> None:
    whole(GOOD)
    refused = 0
    for damaged in mutated(GOOD):
        try:
            whole(damaged)
        except (Malformed, Rejected):  # a field may turn into one of another kind of document
            refused += 1
    assert refused


def test_only_malformed_comes_out_of_the_description() -> None:
    for damaged in mutated(GOOD, count=3000, seed=3):
        try:
            NitroDescriber().describe(damaged)
        except Malformed:
            continue


def test_no_damaged_document_is_accepted() -> None:
    verify(GOOD)
    for damaged in mutated(GOOD, count=3000, seed=2):
        if damaged != GOOD:
            with pytest.raises((Malformed, Rejected)):
                verify(damaged)


def test_no_flipped_bit_is_accepted() -> None:
    rng = random.Random(4)
    for at in range(0, len(GOOD), 9):
        damaged = bytearray(GOOD)
        damaged[at] ^= 1 << rng.randrange(8)
        with pytest.raises((Malformed, Rejected)):
            verify(bytes(damaged))


def test_every_bit_of_the_signature_counts() -> None:
    for at in range(8 * len(MESSAGE.proof)):
        proof = bytearray(MESSAGE.proof)
        proof[at // 8] ^= 1 << at % 8
        damaged = GOOD.replace(MESSAGE.proof, bytes(proof))
        if at % 13 == 0:  # each costs five verifications
            with pytest.raises(Rejected) as caught:
                verify(damaged)
            assert caught.value.code == "signature_invalid"


def test_a_document_cut_anywhere_is_malformed() -> None:
    for size in range(len(GOOD)):
        with pytest.raises(Malformed):
            parse_message(GOOD[:size])


@pytest.mark.parametrize("length", [0, 2**16 - 1, 2**32 - 1, 2**63, 2**64 - 1])
def test_a_length_that_lies_is_malformed(length: int) -> None:
    size = len(MESSAGE.payload)
    at = GOOD.index(b"\x59" + size.to_bytes(2, "big"))
    head = b"\x5b" + length.to_bytes(8, "big")
    with pytest.raises(Malformed):
        parse_message(GOOD[:at] + head + GOOD[at + 3 :])


def test_a_message_knows_what_its_signature_covers() -> None:
    assert isinstance(MESSAGE, CoseMessage)
    assert MESSAGE.payload in MESSAGE.covered
    assert MESSAGE.protected in MESSAGE.covered
