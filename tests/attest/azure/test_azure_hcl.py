"""The paravisor's report and its runtime claims: exact, bounded, hashed as bytes."""

from __future__ import annotations

import hashlib
import json

import pytest

from cloister.attest.azure.hcl import HardwareKind, HclReport, RuntimeClaims
from cloister.errors import Malformed, Rejected
from cloister.testing.vendors.azure import HclValues, hcl_report, jwk
from cloister.testing.vendors.vtpm import rsa_key
from mutations import mutated

AK = jwk(rsa_key(0).public_key())
EK = jwk(rsa_key(5).public_key(), "HCLEkPub", "encrypt")
CLAIMS = {"keys": [AK, EK], "vm-configuration": {"secure-boot": True, "vmUniqueId": "A"}, "user-data": "0A" * 64}
SAID = json.dumps(CLAIMS).encode()
HARDWARE = bytes(range(256)) * 4


def report(values: HclValues | None = None, claims: bytes = SAID, kind: HardwareKind = HardwareKind.TDX) -> bytes:
    return hcl_report(HARDWARE, kind, claims, values)


@pytest.mark.parametrize("version", [1, 2])
def test_report_gives_back_hardware_and_exact_claims(version: int) -> None:
    hcl = HclReport.parse(report(HclValues(version=version)))
    assert (hcl.version, hcl.kind, hcl.hardware, hcl.claims) == (version, HardwareKind.TDX, HARDWARE, SAID)
    assert hcl.carried == HARDWARE[128:192]


def test_claims_are_hashed_as_bytes_not_as_json() -> None:
    spaced = json.dumps(CLAIMS, indent=1).encode()
    first, second = HclReport.parse(report()), HclReport.parse(report(claims=spaced))
    assert RuntimeClaims.parse(first.claims) == RuntimeClaims.parse(second.claims)
    assert first.report_data == hashlib.sha256(SAID).digest() + bytes(32)
    assert second.report_data == hashlib.sha256(spaced).digest() + bytes(32)


def test_second_version_of_runtime_data_has_four_bytes_more() -> None:
    assert HclReport.parse(report(HclValues(data_version=2))).claims == SAID


def test_snp_report_fills_the_whole_field() -> None:
    hcl = HclReport.parse(report(kind=HardwareKind.SNP))
    assert len(hcl.hardware) == 1184
    assert hcl.carried == HARDWARE[0x50:0x90]


def test_report_without_padding_is_taken() -> None:
    assert HclReport.parse(report(HclValues(padding=b""))).claims == SAID


FAULTS = {
    "magic": HclValues(magic=b"HCLB"),
    "version 0": HclValues(version=0),
    "version 3": HclValues(version=3),
    "size 0": HclValues(size=0),
    "size too large": HclValues(size=2600),
    "size -1": HclValues(size=-1),
    "key release request": HclValues(request=1),
    "status": HclValues(status=1),
    "reserved": HclValues(reserved=bytes(11) + b"\x01"),
    "data size": HclValues(data_size=20),
    "data size with padding": HclValues(data_size=2600 - 1216),
    "data version 3": HclValues(data_version=3),
    "claims size 0": HclValues(claims_size=0),
    "claims size -1": HclValues(claims_size=-1),
    "padding": HclValues(padding=bytes(9) + b"\x01"),
}


@pytest.mark.parametrize("values", FAULTS.values(), ids=FAULTS)
def test_field_out_of_form_is_malformed(values: HclValues) -> None:
    with pytest.raises(Malformed):
        HclReport.parse(report(values))


@pytest.mark.parametrize("values", [HclValues(report_type=1), HclValues(report_type=3), HclValues(hash_type=2)])
def test_other_tee_or_hash_is_an_unsupported_format(values: HclValues) -> None:
    with pytest.raises(Rejected) as refused:
        HclReport.parse(report(values))
    assert refused.value.code == "unsupported_format"


def test_report_is_refused_truncated_at_each_byte_of_its_contents() -> None:
    whole = report(HclValues(padding=b""))
    for size in range(len(whole)):
        with pytest.raises(Malformed):
            HclReport.parse(whole[:size])


def test_bytes_behind_the_tdreport_are_malformed() -> None:
    with pytest.raises(Malformed, match="tdreport"):
        HclReport.parse(hcl_report(HARDWARE + b"\x01", HardwareKind.TDX, SAID))


def test_too_long_a_report_is_malformed() -> None:
    with pytest.raises(Malformed):
        HclReport.parse(report().ljust(8193, b"\x00"))


def test_attestation_key_is_the_one_named_for_it() -> None:
    runtime = RuntimeClaims.parse(SAID)
    assert runtime.ak == rsa_key(0).public_key()
    assert runtime.configuration == CLAIMS["vm-configuration"]
    assert runtime.user_data == "0A" * 64


def test_claims_without_user_data_have_none() -> None:
    assert (
        RuntimeClaims.parse(json.dumps({k: v for k, v in CLAIMS.items() if k != "user-data"}).encode()).user_data == ""
    )


BAD_CLAIMS = {
    "no key": {"keys": [EK]},
    "two attestation keys": {"keys": [AK, AK]},
    "too many keys": {"keys": [EK] * 9},
    "key type": {"keys": [AK | {"kty": "EC"}]},
    "key that encrypts": {"keys": [AK | {"key_ops": ["encrypt"]}]},
    "key that signs and encrypts": {"keys": [AK | {"key_ops": ["sign", "encrypt"]}]},
    "short modulus": {"keys": [AK | {"n": "AQAB"}]},
    "even exponent": {"keys": [AK | {"e": "AA"}]},
    "unknown member of a key": {"keys": [AK | {"d": "AQ"}]},
    "padded modulus": {"keys": [AK | {"n": AK["n"] + "="}]},
    "keys no array": {"keys": AK},
    "configuration no object": {"vm-configuration": []},
    "user data no hex": {"user-data": "zz"},
    "user data too long": {"user-data": "00" * 65},
    "unknown member": {"more": 1},
}


@pytest.mark.parametrize("members", BAD_CLAIMS.values(), ids=BAD_CLAIMS)
def test_claims_out_of_form_are_malformed(members: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        RuntimeClaims.parse(json.dumps(CLAIMS | members).encode())


def test_double_member_is_malformed() -> None:
    with pytest.raises(Malformed):
        RuntimeClaims.parse(SAID[:-1] + b', "user-data": ""}')


def test_only_malformed_or_rejected_comes_out_of_a_report() -> None:
    for damaged in mutated(report()):
        try:
            HclReport.parse(damaged)
        except (Malformed, Rejected):
            continue


def test_only_malformed_comes_out_of_the_claims() -> None:
    for damaged in mutated(SAID):
        try:
            RuntimeClaims.parse(damaged)
        except Malformed:
            continue
