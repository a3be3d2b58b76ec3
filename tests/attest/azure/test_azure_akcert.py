"""Azure's certificates for attestation keys: padding, purpose, chain, window."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from cloister.attest.azure.akcert import parse_nv_certificate, verify_azure_ak_certificate
from cloister.errors import Malformed, Rejected
from cloister.testing.vendors.azure import SyntheticAzure
from cloister.testing.vendors.gce import NOT_AFTER, NOT_BEFORE, Issue, certificate
from cloister.testing.vendors.vtpm import rsa_key
from mutations import mutated

NOW = datetime(2026, 6, 1, tzinfo=UTC)
AZURE = SyntheticAzure.generate()
LEAF = certificate(rsa_key(0), AZURE.issue())
DAY = timedelta(days=1)


def code(issue: Issue, now: datetime = NOW) -> str:
    leaf = certificate(rsa_key(0), issue)
    with pytest.raises(Rejected) as refused:
        verify_azure_ak_certificate(leaf, [AZURE.intermediate], [AZURE.root], now)
    return refused.value.code


@pytest.mark.parametrize("padding", [0, 1, 3000])
def test_certificate_ends_where_der_says_and_zeros_follow(padding: int) -> None:
    assert parse_nv_certificate(LEAF.der + bytes(padding)).der == LEAF.der


@pytest.mark.parametrize("tail", [b"\x00\x01", b"\xff", b"\x30"])
def test_other_bytes_behind_the_certificate_are_malformed(tail: bytes) -> None:
    with pytest.raises(Malformed):
        parse_nv_certificate(LEAF.der + tail)


@pytest.mark.parametrize(
    "blob", [b"", b"\x30", b"\x30\x00", b"\x31\x82\x01\x00", b"\x30\x84\xff\xff\xff\xff", bytes(100)]
)
def test_blob_that_is_no_certificate_is_malformed(blob: bytes) -> None:
    with pytest.raises(Malformed):
        parse_nv_certificate(blob)


def test_too_long_a_blob_is_malformed() -> None:
    with pytest.raises(Malformed):
        parse_nv_certificate(LEAF.der.ljust(8193, b"\x00"))


def test_blob_truncated_at_any_byte_is_malformed() -> None:
    for size in range(len(LEAF.der)):
        with pytest.raises(Malformed):
            parse_nv_certificate(LEAF.der[:size])


def test_chain_through_the_intermediate_is_verified() -> None:
    path = verify_azure_ak_certificate(LEAF, [AZURE.intermediate], [AZURE.root], NOW)
    assert [item.der for item in path] == [LEAF.der, AZURE.intermediate.der, AZURE.root.der]


@pytest.mark.parametrize(("now", "want"), [(NOT_BEFORE - DAY, "cert_not_yet_valid"), (NOT_AFTER + DAY, "cert_expired")])
def test_certificate_outside_its_window_is_refused(now: datetime, want: str) -> None:
    assert code(AZURE.issue(), now) == want


FAULTS = {
    "no extended usage": {"usages": ()},
    "endorsement key usage": {"usages": ("2.23.133.8.1",)},
    "key that encrypts": {"signing": False},
    "key that issues": {"cert_sign": True},
    "an authority": {"authority": True},
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_certificate_of_another_purpose_is_refused(fault: dict[str, object]) -> None:
    assert code(replace(AZURE.issue(), **fault)) == "chain_invalid"  # type: ignore[arg-type]  # members by name


@pytest.mark.parametrize("fault", [{"signer": rsa_key(6)}, {"issuer": AZURE.root_name}])
def test_certificate_of_another_issuer_is_refused(fault: dict[str, object]) -> None:
    assert code(replace(AZURE.issue(), **fault)) == "untrusted_root"  # type: ignore[arg-type]  # members by name


def test_without_the_intermediate_there_is_no_chain() -> None:
    with pytest.raises(Rejected) as refused:
        verify_azure_ak_certificate(LEAF, [], [AZURE.root], NOW)
    assert refused.value.code == "untrusted_root"


def test_intermediate_may_issue_no_authority() -> None:
    sub = replace(AZURE.issue(), authority=True, subject=AZURE.root_name)
    between = certificate(rsa_key(6), sub)
    leaf = certificate(rsa_key(0), replace(AZURE.issue(), issuer=AZURE.root_name, signer=rsa_key(6)))
    with pytest.raises(Rejected) as refused:
        verify_azure_ak_certificate(leaf, [between, AZURE.intermediate], [AZURE.root], NOW)
    assert refused.value.code == "chain_invalid"


def test_each_bit_of_the_certificate_matters() -> None:
    for at in range(0, len(LEAF.der), 7):
        flipped = LEAF.der[:at] + bytes((LEAF.der[at] ^ 1,)) + LEAF.der[at + 1 :]
        with pytest.raises((Malformed, Rejected)):
            verify_azure_ak_certificate(parse_nv_certificate(flipped), [AZURE.intermediate], [AZURE.root], NOW)


def test_only_malformed_comes_out() -> None:
    for damaged in mutated(LEAF.der + bytes(64)):
        try:
            parse_nv_certificate(damaged)
        except Malformed:
            continue
