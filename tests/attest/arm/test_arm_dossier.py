"""PSA and CCA tokens from files: keys beside them, and what the index's policy asks of them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloister.attest.dossier import cca, judge, psa
from cloister.errors import Malformed, Rejected, Unavailable
from cloister.testing.vendors.arm import CLASSIC, IMPLEMENTATION_ID, RIM, CcaPlatform, CcaToken, PsaDevice, PsaToken
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW = datetime(2026, 5, 1, tzinfo=UTC)
DEVICE, SYMMETRIC, PLATFORM = PsaDevice.generate(), PsaDevice.symmetric(), CcaPlatform.generate()
TOKEN = PsaToken(nonce=b"\x06" * 32)
CCA_TOKEN = CcaToken(challenge=b"\x07" * 64)


def pem(key: object) -> bytes:
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def anchors(platform: CcaPlatform = PLATFORM, **changes: str) -> bytes:
    numbers = platform.key.public_key().public_numbers()
    x, y = (dump_b64u(value.to_bytes(48, "big")) for value in (numbers.x, numbers.y))
    pkey = {"kty": "EC", "crv": "P-384", "x": x, "y": y, **changes}
    return json.dumps(
        [{"pkey": pkey, "implementation-id": IMPLEMENTATION_ID.hex(), "instance-id": platform.instance_id.hex()}]
    ).encode()


def psa_files(token: PsaToken = TOKEN, device: PsaDevice = DEVICE) -> dict[str, bytes]:
    key = device.key if isinstance(device.key, bytes) else pem(device.key)
    return {"token": device.token(token), "key": key}


def cca_files(token: CcaToken = CCA_TOKEN, anchor: bytes | None = None) -> dict[str, bytes]:
    return {"token": PLATFORM.token(token), "trust_anchor": anchors() if anchor is None else anchor}


def reasons_of_psa(files: Mapping[str, bytes], policy: Mapping[str, Any]) -> list[str]:
    return [reason.code for reason in judge(psa.open_case(files, policy), NOW).reasons]


def reasons_of_cca(files: Mapping[str, bytes], policy: Mapping[str, Any]) -> list[str]:
    return [reason.code for reason in judge(cca.open_case(files, policy), NOW).reasons]


@pytest.mark.parametrize("device", [DEVICE, SYMMETRIC], ids=["pem", "secret"])
def test_a_psa_token_is_accepted_with_its_devices_key(device: PsaDevice) -> None:
    case = psa.open_case(psa_files(device=device), {})
    assert judge(case, NOW).reasons == ()
    assert case.claims == {
        "client_id": -1,
        "implementation_id": IMPLEMENTATION_ID.hex(),
        "instance_id": device.instance_id.hex(),
        "lifecycle": 0x3000,
        "n_sw": 1,
        "nonce": "06" * 32,
        "profile": "tag:psacertified.org,2023:psa#tfm",
    }


def test_a_psa_token_with_another_key_is_refused_and_still_described() -> None:
    files = {**psa_files(), "key": pem(PsaDevice.generate().key)}
    judgement = judge(psa.open_case(files, {}), NOW)
    assert [reason.code for reason in judgement.reasons] == ["signature_invalid"]
    assert judgement.claims["nonce"] == "06" * 32


PSA_POLICIES: list[tuple[dict[str, Any], list[str]]] = [
    ({"nonce": "06" * 32}, []),
    ({"challenge": ["00", "06" * 32]}, []),
    ({"nonce": "06" * 31}, ["nonce_mismatch"]),
    ({"report_data": "06" * 33}, ["nonce_mismatch"]),
    ({"lifecycle": 0x3000, "secured": True, "client_id": [1, 2]}, ["client_id_mismatch"]),
    ({"lifecycle_secured": False}, ["secured_mismatch"]),
    ({"implementation_id": "00" * 32}, ["implementation_id_mismatch"]),
    ({"software": ["03" * 32]}, []),
    ({"software": ["00" * 32]}, ["software_mismatch"]),
]


@pytest.mark.parametrize(("policy", "reasons"), PSA_POLICIES)
def test_what_a_policy_asks_of_a_psa_token_is_compared(policy: dict[str, Any], reasons: list[str]) -> None:
    assert reasons_of_psa(psa_files(), policy) == reasons


def test_a_debugged_device_is_refused_unless_the_policy_says_otherwise() -> None:
    files = psa_files(replace(TOKEN, lifecycle=0x4000))
    assert reasons_of_psa(files, {}) == ["debug_enabled"]
    assert reasons_of_psa(files, {"debug": True}) == []
    assert reasons_of_cca(cca_files(replace(CCA_TOKEN, lifecycle=0x5000)), {}) == ["debug_enabled"]


def test_a_psa_token_of_no_profile_or_no_instance_is_not_opened() -> None:
    with pytest.raises(Rejected):
        psa.open_case(psa_files(replace(TOKEN, profile="tag:x")), {})
    for changes in ({256: 5}, {256: b"\x02" + bytes(32)}):
        with pytest.raises(Malformed):
            psa.open_case(psa_files(replace(TOKEN, changes=changes)), {})


def test_claims_are_told_even_where_they_are_out_of_form() -> None:
    claims = psa.open_case(psa_files(replace(TOKEN, changes={2399: b"x", 2395: [1]})), {}).claims
    assert (claims["n_sw"], claims["lifecycle"]) == (0, None)
    broken = replace(CCA_TOKEN, platform={2395: b"x", 2399: 1}, realm={44239: 1, 44235: 2})
    claims = cca.open_case(cca_files(broken), {}).claims
    assert (claims["lifecycle"], claims["lifecycle_secured"], claims["n_sw"], claims["rems"]) == (None, False, 0, [])
    assert claims["rpv"] is None


def test_a_cca_token_is_accepted_with_its_platforms_key() -> None:
    case = cca.open_case(cca_files(), {})
    assert judge(case, NOW).reasons == ()
    assert case.claims == {
        "challenge": "07" * 64,
        "impl": IMPLEMENTATION_ID.hex(),
        "inst": PLATFORM.instance_id.hex(),
        "lifecycle": "0x3000",
        "lifecycle_secured": True,
        "n_sw": 2,
        "profile": "tag:arm.com,2023:cca_platform#1.0.0",
        "rems": ["20" * 8, "21" * 8, "22" * 8, "23" * 8],
        "rim": RIM.hex(),
        "rprofile": "tag:arm.com,2023:realm#1.0.0",
        "rpv": "00" * 16,
    }
    assert cca.open_case(cca_files(replace(CCA_TOKEN, profile=CLASSIC)), {}).claims["rprofile"] == "None"


CCA_POLICIES: list[tuple[dict[str, Any], list[str]]] = [
    ({"challenge": "07" * 64}, []),
    ({"challenge": "07" * 63}, ["nonce_mismatch"]),
    ({"rim": RIM.hex()}, []),
    ({"rim": "00" * 32}, ["measurement_mismatch"]),
    ({"measurement": [RIM.hex(), "00"]}, []),
    ({"rems": ["20" * 32, "21" * 32]}, []),
    ({"rems": ["20" * 32, "20" * 32]}, ["measurement_mismatch"]),
    ({"profile": "x"}, ["profile_mismatch"]),
    ({"secured": True, "impl": IMPLEMENTATION_ID.hex()}, []),
]


@pytest.mark.parametrize(("policy", "reasons"), CCA_POLICIES)
def test_what_a_policy_asks_of_a_cca_token_is_compared(policy: dict[str, Any], reasons: list[str]) -> None:
    assert reasons_of_cca(cca_files(), policy) == reasons


def test_a_cca_token_without_its_platforms_anchor_is_refused() -> None:
    for anchor in (anchors(CcaPlatform.generate()), anchors(y=dump_b64u(bytes(48))), b"", b"[]"):
        assert reasons_of_cca(cca_files(anchor=anchor), {})[0] == "platform_signature_invalid"


@pytest.mark.parametrize(
    "policy",
    [{"weather": "fine"}, {"rems": "00"}, {"rems": ["00"] * 5}, {"nonce": 5}, {"secured": {}}, {"lifecycle": -1}],
)
def test_what_nobody_understands_is_not_passed_over(policy: dict[str, Any]) -> None:
    with pytest.raises(Unavailable):
        cca.open_case(cca_files(), policy)
    with pytest.raises(Unavailable):
        psa.open_case(psa_files(), policy)


def test_files_are_the_ones_that_somebody_looks_at() -> None:
    for files in ({}, {"token": b""}, {**psa_files(), "root": b""}):
        with pytest.raises(Unavailable):
            psa.open_case(files, {})
        with pytest.raises(Unavailable):
            cca.open_case(files, {})
