"""Tokens explained to a person, and nothing but Malformed for what is no token."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cloister.attest.describe.token import TokenDescriber
from cloister.attest.rats import TeeKind
from cloister.errors import Malformed
from cloister.testing.vendors.tokens import TokenVendor
from evidence_index import entries, files_of
from mutations import mutated

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
DESCRIBER = TokenDescriber()
KINDS = ("maa", "ita", "confidential-space", "nras", "ear")


@pytest.mark.parametrize("kind", KINDS)
def test_every_claim_of_a_token_is_explained(kind: str) -> None:
    vendor = TokenVendor.generate(TeeKind(kind))
    token = vendor.token(bytes(vendor.kind.profile.report_data_bytes), NOW)
    assert DESCRIBER.recognises(token)
    description = DESCRIBER.describe(token + b"\n")
    fields = {field.name: field for field in description.fields}
    assert vendor.kind.profile.title in description.title
    assert fields["header.alg"].value == vendor.kind.algorithm
    assert fields["exp"].value == "2026-11-28T13:00:00+00:00"
    assert fields["iss"].value == vendor.issuer
    assert "trusts" in fields["iss"].meaning
    assert all(field.meaning and field.value.isprintable() for field in description.fields)


def test_the_tokens_of_devices_are_explained_too() -> None:
    token = TokenVendor.generate(TeeKind("nras")).token(bytes(32), NOW)
    fields = {field.name: field for field in DESCRIBER.describe(token).fields}
    assert fields["GPU-1.measres"].value == "success"
    assert "golden" in fields["GPU-1.measres"].meaning
    assert fields["submods.GPU-0"].value.startswith('["DIGEST"')


def test_a_key_that_the_token_brings_is_pointed_out() -> None:
    vendor = TokenVendor.generate(TeeKind("ear"))
    token = vendor.sign(
        b'{"big":9007199254740993,"jwk":{"kty":"EC"},"steers":"\\u202e"}', header={"jwk": {"kty": "EC"}, "x": 1}
    )
    fields = {field.name: field for field in DESCRIBER.describe(token).fields}
    assert "no trust" in fields["header.jwk"].meaning
    assert "no trust" in fields["jwk.kty"].meaning
    assert fields["steers"].value == "'\\u202e'"
    assert fields["header.x"].meaning
    assert fields["big"].value == "9007199254740993"


@pytest.mark.parametrize("data", [b"", b"\x00" * 64, b"eyJ", b"[]", b"a.b.c", b'{"a": "eyJ.."}'])
def test_other_bytes_are_not_taken_for_a_token(data: bytes) -> None:
    assert not DESCRIBER.recognises(data)
    with pytest.raises(Malformed):
        DESCRIBER.describe(data)


def test_only_malformed_comes_out_of_the_description_of_a_token() -> None:
    token = TokenVendor.generate(TeeKind("ear")).token(bytes(64), NOW)
    for damaged in mutated(token, count=3_000):
        try:
            DESCRIBER.describe(damaged)
        except Malformed:
            continue


@pytest.mark.parametrize("entry", entries("token"))
def test_a_recorded_token_is_explained(entry: dict[str, dict[str, str]]) -> None:
    token = files_of(entry)["token"]
    assert DESCRIBER.recognises(token)
    assert len(DESCRIBER.describe(token).fields) > 3
