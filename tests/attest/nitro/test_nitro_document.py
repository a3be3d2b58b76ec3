"""Nitro documents: what the module may say, in which form."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import cbor2
import pytest

from cloister.attest.nitro.document import NitroDocument, parse_message
from cloister.errors import Malformed, Rejected
from cloister.testing.vendors.aws import Document, NitroVendor

if TYPE_CHECKING:
    from cloister.attest.cbor import Cbor

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
VENDOR = NitroVendor.generate()
PLAIN = Document(timestamp=NOW)


def parsed(document: Document) -> NitroDocument:
    return NitroDocument.parse(parse_message(VENDOR.document(document)).payload)


def test_a_document_says_what_was_put_in() -> None:
    document = parsed(replace(PLAIN, user_data=bytes(64), nonce=b"", public_key=b"k"))
    assert (document.user_data, document.nonce, document.public_key) == (bytes(64), b"", b"k")
    assert document.timestamp == NOW
    assert len(document.pcrs) == 16
    assert len(document.cabundle) == 4
    assert not document.debug


@pytest.mark.parametrize("tagged", [True, False])
@pytest.mark.parametrize("indefinite", [True, False])
def test_the_tag_is_optional_and_lengths_may_be_indefinite(tagged: bool, indefinite: bool) -> None:  # noqa: FBT001 - two axes
    assert parsed(replace(PLAIN, tagged=tagged, indefinite=indefinite)) == parsed(PLAIN)


@pytest.mark.parametrize("name", ["public_key", "user_data", "nonce"])
def test_an_optional_field_may_be_absent_or_null(name: str) -> None:
    assert getattr(parsed(replace(PLAIN, left_out=(name,))), name) is None
    assert getattr(parsed(replace(PLAIN, fields={name: None})), name) is None


@pytest.mark.parametrize("name", ["module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"])
def test_a_mandatory_field_may_be_neither_absent_nor_null(name: str) -> None:
    for document in (replace(PLAIN, left_out=(name,)), replace(PLAIN, fields={name: None})):
        with pytest.raises(Malformed):
            parsed(document)


BAD: dict[str, dict[int | str, Cbor]] = {
    "an empty module id": {"module_id": ""},
    "a module id that steers a terminal": {"module_id": "i-0\x1b[2J"},
    "a module id in bytes": {"module_id": b"i-0"},
    "another digest": {"digest": "SHA256"},
    "timestamp zero": {"timestamp": 0},
    "a negative timestamp": {"timestamp": -1},
    "a timestamp after the year 9999": {"timestamp": 2**63},
    "timestamp true": {"timestamp": True},
    "no registers": {"pcrs": {}},
    "registers in an array": {"pcrs": [bytes(48)]},
    "33 registers": {"pcrs": {index: bytes(48) for index in range(33)}},
    "register 32": {"pcrs": {32: bytes(48)}},
    "register -1": {"pcrs": {-1: bytes(48)}},
    "a register with a name": {"pcrs": {"0": bytes(48)}},
    "a register of 47 bytes": {"pcrs": {0: bytes(47)}},
    "a register in hex": {"pcrs": {0: "00" * 48}},
    "an empty certificate": {"certificate": b""},
    "a certificate of 1025 bytes": {"certificate": bytes(1025)},
    "an empty bundle": {"cabundle": []},
    "a bundle of nine": {"cabundle": [b"c"] * 9},
    "an empty certificate in the bundle": {"cabundle": [b""]},
    "a bundle that is no array": {"cabundle": b"c"},
    "an empty public key": {"public_key": b""},
    "a public key of 1025 bytes": {"public_key": bytes(1025)},
    "user data of 513 bytes": {"user_data": bytes(513)},
    "user data as text": {"user_data": "hello"},
    "a nonce of 513 bytes": {"nonce": bytes(513)},
    "an unknown field": {"debug": False},
}


@pytest.mark.parametrize("fields", BAD.values(), ids=BAD)
def test_a_field_out_of_its_limits_is_malformed(fields: dict[int | str, Cbor]) -> None:
    with pytest.raises(Malformed):
        parsed(replace(PLAIN, fields=fields))


@pytest.mark.parametrize("size", [32, 48, 64])
def test_registers_have_the_sizes_of_sha2(size: int) -> None:
    assert parsed(replace(PLAIN, fields={"pcrs": {31: b"1" * size}})).pcrs == {31: b"1" * size}


def test_a_register_0_of_zeros_or_none_at_all_is_debug_mode() -> None:
    assert parsed(replace(PLAIN, pcrs={0: bytes(48), 3: b"3" * 48})).debug
    assert parsed(replace(PLAIN, pcrs={3: b"3" * 48})).debug


def test_the_document_of_a_nitro_tpm_is_of_another_kind() -> None:
    document = replace(PLAIN, left_out=("pcrs",), fields={"nitrotpm_pcrs": {4: bytes(48)}})
    with pytest.raises(Rejected) as caught:
        parsed(document)
    assert caught.value.code == "unsupported_format"


MESSAGES = {
    "a tag of its MAC cousin": lambda good: cbor2.dumps(cbor2.CBORTag(17, cbor2.loads(good))),
    "two tags": lambda good: b"\xd2" + b"\xd2" + good,
    "three parts": lambda good: cbor2.dumps(cbor2.loads(good)[:3]),
    "five parts": lambda good: cbor2.dumps([*cbor2.loads(good), b""]),
    "a map": lambda good: cbor2.dumps({0: good}),
    "bytes after the end": lambda good: good + b"\x00",
    "nothing": lambda _: b"",
    "a payload detached": lambda good: cbor2.dumps([*cbor2.loads(good)[:2], None, cbor2.loads(good)[3]]),
    "an empty payload": lambda good: cbor2.dumps([*cbor2.loads(good)[:2], b"", cbor2.loads(good)[3]]),
    "a payload of 16 KiB and one": lambda good: cbor2.dumps(
        [*cbor2.loads(good)[:2], bytes(2**14 + 1), cbor2.loads(good)[3]]
    ),
    "something unprotected": lambda good: cbor2.dumps([cbor2.loads(good)[0], {33: b""}, *cbor2.loads(good)[2:]]),
}


@pytest.mark.parametrize("damage", MESSAGES.values(), ids=MESSAGES)
def test_an_envelope_out_of_form_is_malformed(damage: object) -> None:
    assert callable(damage)
    with pytest.raises(Malformed):
        parse_message(damage(VENDOR.document(PLAIN)))


def test_an_age_is_counted_from_the_timestamp() -> None:
    early = parsed(replace(PLAIN, timestamp=NOW - timedelta(seconds=90)))
    assert NOW - early.timestamp == timedelta(seconds=90)
