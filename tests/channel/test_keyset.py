"""The keyset and the evidence document: exact bytes, strict members, bounded sizes."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta

import pytest

from cloister.channel.keyset import (
    MAX_DOCUMENT_BYTES,
    NO_NONCE,
    EngineInfo,
    EvidenceDocument,
    Keyset,
    KeysetModel,
    verify_window,
)
from cloister.channel.ohttp import GatewayKeys
from cloister.crypto.sign import SigningKey
from cloister.errors import Malformed, Rejected
from cloister.wire import dump_b64u
from mutations import mutated

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
KEYS = GatewayKeys.generate()
KEYSET = Keyset(
    instance="aa" * 32,
    service="digits at example",
    nbf=NOW,
    exp=NOW + HOUR,
    ohttp_keys=KEYS.dump(),
    receipt_keys=(SigningKey(bytes(32)).verify_key,),
    models=(KeysetModel(name="digits", digest="bb" * 32, loan_digest="cc" * 32),),
    engine=EngineInfo(kind="onnx", digest="dd" * 32),
    policy_digest="ee" * 32,
    custodian=SigningKey(bytes([1]) * 32).verify_key,
    loan="loan-abcdefghij234567",
    tls_spki_sha256=(b"\x05" * 32,),
)
DOCUMENT = EvidenceDocument(
    nonce=NO_NONCE,
    tee="simulated",
    evidence=b"evidence",
    keyset=KEYSET.dump(),
    devices=b"",
    collateral={"tcb-info": b"{}", "crl": b"\x00"},
)


def test_a_keyset_comes_back_as_it_went() -> None:
    parsed = Keyset.parse(KEYSET.dump())
    assert parsed == KEYSET
    assert parsed.dump() == KEYSET.dump()
    assert parsed.configs == KEYS.configs


def test_a_document_comes_back_with_the_exact_bytes_of_its_keyset() -> None:
    parsed = EvidenceDocument.parse(DOCUMENT.dump())
    assert parsed == DOCUMENT
    assert parsed.keyset == KEYSET.dump()


def test_a_keyset_in_another_spelling_is_malformed() -> None:
    # the bytes are what evidence binds: two spellings would be two digests of one value
    loose = json.dumps(json.loads(KEYSET.dump())).encode()
    with pytest.raises(Malformed, match="canonical"):
        Keyset.parse(loose)


def _with(name: str, value: object) -> bytes:
    members = json.loads(KEYSET.dump())
    members[name] = value
    return json.dumps(members, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("v", 2),
        ("v", True),
        ("v", "1"),
        ("purpose", "release"),
        ("instance", "AA" * 32),
        ("instance", "aa" * 31),
        ("service", "x\n"),
        ("service", "x" * 257),
        ("nbf", "2026-11-21"),
        ("exp", "2026-11-21T12:00:00Z"),
        ("exp", "2026-11-21T11:00:00Z"),
        ("ohttp_keys", ""),
        ("ohttp_keys", "AAAA"),
        ("ohttp_keys", dump_b64u(b"\x00\x03\x01\x00\x10")),
        ("ohttp_keys", None),
        ("receipt_keys", []),
        ("receipt_keys", ["AA"]),
        ("receipt_keys", [1]),
        ("receipt_keys", ["A" * 43] * 9),
        ("models", {}),
        ("models", [{"name": "digits"}]),
        ("models", [{"name": "a/b", "digest": "bb" * 32, "loan_digest": "cc" * 32}]),
        ("models", [{"name": "d", "digest": "bb" * 32, "loan_digest": "cc" * 32}] * 2),
        ("models", [{"name": "d", "digest": "bb" * 32, "loan_digest": "cc" * 32, "x": 1}]),
        ("engine", "onnx"),
        ("engine", {"kind": "onnx"}),
        ("engine", {"kind": "onnx", "digest": "dd" * 32, "x": 1}),
        ("policy_digest", ""),
        ("custodian", "AAAA"),
        ("loan", ""),
        ("loan", "../x"),
        ("tls_spki_sha256", ["00"]),
        ("tls_spki_sha256", "00"),
        ("extra", 1),
    ],
)
def test_members_that_are_not_as_specified_are_malformed(name: str, value: object) -> None:
    with pytest.raises(Malformed):
        Keyset.parse(_with(name, value))


@pytest.mark.parametrize("name", sorted(json.loads(KEYSET.dump())))
def test_a_keyset_without_a_member_is_malformed(name: str) -> None:
    members = json.loads(KEYSET.dump())
    del members[name]
    with pytest.raises(Malformed):
        Keyset.parse(json.dumps(members, sort_keys=True, separators=(",", ":")).encode())


@pytest.mark.parametrize("name", sorted(json.loads(DOCUMENT.dump())))
def test_a_document_without_a_member_is_malformed(name: str) -> None:
    members = json.loads(DOCUMENT.dump())
    del members[name]
    with pytest.raises(Malformed):
        EvidenceDocument.parse(json.dumps(members).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"nonce": bytes(31)},
        {"tee": "SGX"},
        {"tee": ""},
        {"evidence": bytes(512 * 1024 + 1)},
        {"keyset": bytes(128 * 1024 + 1)},
        {"devices": bytes(512 * 1024 + 1)},
        {"collateral": {"../x": b""}},
        {"collateral": {"crl": bytes(256 * 1024 + 1)}},
        {"collateral": {f"crl-{number}": b"" for number in range(17)}},
    ],
)
def test_documents_with_parts_out_of_bounds_are_malformed(change: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        EvidenceDocument.parse(dataclasses.replace(DOCUMENT, **change).dump())


def test_a_document_over_the_cap_is_malformed_before_it_is_parsed() -> None:
    with pytest.raises(Malformed, match="want at most"):
        EvidenceDocument.parse(b"[" * (MAX_DOCUMENT_BYTES + 1))


def test_an_endorsement_twice_is_malformed() -> None:
    members = json.loads(DOCUMENT.dump())
    members["collateral"] = [{"name": "crl", "data": "AA"}, {"name": "crl", "data": "AQ"}]
    with pytest.raises(Malformed, match="twice"):
        EvidenceDocument.parse(json.dumps(members).encode())


@pytest.mark.parametrize(
    ("moment", "code"),
    [
        (NOW - MINUTE - timedelta(seconds=1), "keyset_not_yet_valid"),
        (NOW - MINUTE, None),
        (NOW + HOUR, None),
        (NOW + HOUR + MINUTE, None),
        (NOW + HOUR + MINUTE + timedelta(seconds=1), "keyset_expired"),
    ],
)
def test_a_keyset_is_good_in_its_window_only(moment: datetime, code: str | None) -> None:
    if code is None:
        verify_window(KEYSET, moment, leeway=MINUTE)
        return
    with pytest.raises(Rejected) as caught:
        verify_window(KEYSET, moment, leeway=MINUTE)
    assert caught.value.code == code


@pytest.mark.parametrize("value", [KEYSET, DOCUMENT], ids=["keyset", "document"])
def test_mutated_bytes_are_malformed_or_a_value(value: Keyset | EvidenceDocument) -> None:
    refused = 0
    for data in mutated(value.dump()):
        try:
            type(value).parse(data)
        except Malformed:
            refused += 1
    assert refused > 5_000
