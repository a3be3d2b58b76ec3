"""PSA tokens: every profile, every claim, and whose key signed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloister.attest.arm.anchors import Anchor
from cloister.attest.binding import ChannelBinding
from cloister.attest.cbor import dump_cbor
from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence, Nonce
from cloister.attest.schemes.psa import PSA, PsaScheme
from cloister.attest.verifier import Verifier
from cloister.errors import Malformed, Rejected, UsageError
from cloister.testing.vendors.arm import IMPLEMENTATION_ID, Envelope, PsaDevice, PsaToken, component, sign_message

if TYPE_CHECKING:
    from cloister.attest.cbor import Cbor
    from cloister.attest.rats import VerifiedClaims

NOW = datetime(2026, 5, 1, tzinfo=UTC)
DEVICE = PsaDevice.generate()
SYMMETRIC = PsaDevice.symmetric()
PLAIN = PsaToken(nonce=bytes(range(64)))
PROFILE_2 = replace(PLAIN, profile="http://arm.com/psa/2.0.0")
PROFILE_1 = replace(PLAIN, profile="PSA_IOT_PROFILE_1")
BINDING = ChannelBinding(nonce=Nonce(bytes(32)), keyset=b"keys")


def verify(token: PsaToken = PLAIN, *, device: PsaDevice = DEVICE, scheme: PsaScheme | None = None) -> VerifiedClaims:
    return (scheme or device.scheme()).verify(device.evidence(token), {}, NOW)


def refusal(token: PsaToken, *, device: PsaDevice = DEVICE, scheme: PsaScheme | None = None) -> set[str]:
    with pytest.raises(Rejected) as caught:
        verify(token, device=device, scheme=scheme)
    return {reason.code for reason in caught.value.reasons}


@pytest.mark.parametrize(
    "profile",
    [
        "tag:psacertified.org,2023:psa#tfm",
        "http://arm.com/psa/2.0.0",
        "PSA_IOT_PROFILE_1",
        "tag:psacertified.org,2019:psa#legacy",
    ],
)
@pytest.mark.parametrize("device", [DEVICE, SYMMETRIC], ids=["sign1", "mac0"])
def test_a_token_of_every_profile_is_proven(profile: str, device: PsaDevice) -> None:
    result = verify(replace(PLAIN, profile=profile), device=device)
    assert result.report_data == PLAIN.nonce
    assert result.claims["profile"] == profile
    assert result.claims["secured"] is True
    assert result.claims["debug"] is False
    assert result.claims["key_named"] is True
    assert result.claims["unread"] == ()
    assert "boot_seed" in result.claims
    assert "certification" in result.claims
    assert device.scheme().needs(device.evidence(PLAIN)) == ()
    assert device.endorsements == {}


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_every_algorithm_of_the_profile_is_proven(curve: ec.EllipticCurve) -> None:
    assert verify(device=PsaDevice.generate(curve)).claims["secured"] is True


@pytest.mark.parametrize("algorithm", [6, 7])
def test_longer_tags_are_proven(algorithm: int) -> None:
    token = replace(PLAIN, envelope=Envelope(algorithm=algorithm))
    assert verify(token, device=SYMMETRIC).claims["secured"] is True


def test_a_truncated_tag_is_not_allowed() -> None:
    token = replace(PLAIN, envelope=Envelope(algorithm=4))
    assert refusal(token, device=SYMMETRIC) == {"algorithm_not_allowed"}


def test_a_token_of_the_first_profile_may_leave_its_profile_out() -> None:
    assert verify(replace(PROFILE_1, left_out=(-75000,))).claims["profile"] == "PSA_IOT_PROFILE_1"


def test_components_become_claims_by_name() -> None:
    claims = verify().claims
    assert claims["measurement.prot"] == "03" * 32
    assert claims["signer.prot"] == "04" * 32
    assert claims["version.prot"] == "1.0"
    assert claims["software"] == ("03" * 32,)


def test_components_without_a_name_of_their_own_go_by_their_place() -> None:
    items: list[Cbor] = [
        component(None),
        component("A", b"\x07" * 48),
        component("A"),
        component("a component"),
        component("b", b"\x08" * 64),
    ]
    claims = verify(replace(PLAIN, changes={2399: items})).claims
    assert {name for name in claims if name.startswith("measurement.")} == {
        f"measurement.{n}" for n in ("n0", "n1", "n2", "n3", "b")
    }
    assert claims["software"] == ("03" * 32, "07" * 48, "08" * 64)


def test_a_token_that_measured_nothing_claims_no_software() -> None:
    token = replace(PROFILE_1, left_out=(-75006,), changes={-75007: 1})
    assert "software" not in verify(token).claims


def test_an_instance_id_that_is_not_made_of_its_key_is_said_so() -> None:
    instance_id = b"\x01" + b"\x02" * 32
    public = DEVICE.anchor.key
    scheme = PsaScheme([Anchor(key=public, instance_id=instance_id)])
    assert verify(replace(PLAIN, changes={256: instance_id}), scheme=scheme).claims["key_named"] is False


def test_unknown_claims_are_named_and_do_no_harm() -> None:
    assert verify(replace(PLAIN, changes={-1: "x", "y": 1})).claims["unread"] == ("'y'", "-1")


def test_a_device_nobody_knows_is_refused() -> None:
    assert refusal(PLAIN, scheme=PsaDevice.generate().scheme()) == {"untrusted_root"}
    other_kind = PsaScheme([replace(DEVICE.anchor, implementation_id=bytes(32))])
    assert refusal(PLAIN, scheme=other_kind) == {"untrusted_root"}


def test_a_key_for_all_of_a_kind_vouches_for_each() -> None:
    scheme = PsaScheme([Anchor(key=DEVICE.anchor.key, implementation_id=IMPLEMENTATION_ID)])
    assert verify(scheme=scheme).claims["secured"] is True


def test_another_devices_signature_is_refused() -> None:
    assert refusal(replace(PLAIN, key=ec.generate_private_key(ec.SECP256R1()))) == {"signature_invalid"}
    assert refusal(replace(PLAIN, key=bytes(32))) == {"signature_invalid"}
    assert refusal(replace(PLAIN, key=bytes(32)), device=SYMMETRIC) == {"signature_invalid"}
    assert refusal(replace(PLAIN, key=ec.generate_private_key(ec.SECP256R1())), device=SYMMETRIC) == {
        "signature_invalid"
    }


def test_the_signature_is_looked_at_before_any_claim() -> None:
    broken = replace(PLAIN, key=ec.generate_private_key(ec.SECP256R1()), changes={10: b"short"})
    assert refusal(broken) == {"signature_invalid"}


@pytest.mark.parametrize("profile", ["http://arm.com/CCA-SSD/1.0.0", "tag:psacertified.org,2025:psa#tfm", 5, b"x", [1]])
def test_a_profile_nobody_reads_is_refused(profile: Cbor) -> None:
    assert refusal(replace(PLAIN, changes={265: profile})) == {"unsupported_format"}


def test_a_profile_under_the_other_profiles_key_is_refused() -> None:
    assert refusal(replace(PLAIN, changes={265: "PSA_IOT_PROFILE_1"})) == {"unsupported_format"}
    assert refusal(replace(PROFILE_1, changes={-75000: "http://arm.com/psa/2.0.0"})) == {"unsupported_format"}


@pytest.mark.parametrize("key", [10, 256, 2394, 2395, 2396, 2399])
def test_a_mandatory_claim_is_missed(key: int) -> None:
    with pytest.raises(Malformed):
        verify(replace(PLAIN, left_out=(key,)))


@pytest.mark.parametrize("key", [-75001, -75002, -75003, -75004, -75006, -75008, -75009])
def test_a_mandatory_claim_of_the_first_profile_is_missed(key: int) -> None:
    with pytest.raises(Malformed):
        verify(replace(PROFILE_1, left_out=(key,)))


@pytest.mark.parametrize("key", [268, 2398, 2400])
def test_an_optional_claim_is_not_missed(key: int) -> None:
    assert verify(replace(PLAIN, left_out=(key,))).claims["secured"] is True


BAD: dict[str, dict[int | str, Cbor]] = {
    "a nonce of 31 bytes": {10: bytes(31)},
    "a nonce of 40 bytes": {10: bytes(40)},
    "a nonce of 65 bytes": {10: bytes(65)},
    "two nonces": {10: [bytes(32), bytes(32)]},
    "an instance id of 32 bytes": {256: b"\x01" + bytes(31)},
    "an instance id of another type": {256: b"\x02" + bytes(32)},
    "an implementation id of 33 bytes": {2396: bytes(33)},
    "a client id of 33 bits": {2394: 2**31},
    "a client id true": {2394: True},
    "a lifecycle of 17 bits": {2395: 0x10000},
    "a lifecycle between states": {2395: 0x3100},
    "a negative lifecycle": {2395: -1},
    "a boot seed of 7 bytes": {268: bytes(7)},
    "a boot seed of 33 bytes": {268: bytes(33)},
    "a reference of another form": {2398: "1234567890123"},
    "a reference with a tail": {2398: "1234567890123-12345\n"},
    "an empty indicator": {2400: ""},
    "an indicator that steers a terminal": {2400: "https://\x1b[2J"},
    "no components": {2399: []},
    "components that are one": {2399: component()},
    "33 components": {2399: [component()] * 33},
    "a component without a measurement": {2399: [{5: bytes(32)}]},
    "a component without a signer": {2399: [{2: bytes(32)}]},
    "a measurement of 31 bytes": {2399: [component(measurement=bytes(31))]},
    "a signer of 20 bytes": {2399: [component(signer=bytes(20))]},
    "a component with an unknown attribute": {2399: [{**component(), 99: 0}]},
    "a component that is no map": {2399: [b"x"]},
}


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD)
def test_a_claim_out_of_form_is_malformed(changes: dict[int | str, Cbor]) -> None:
    with pytest.raises(Malformed):
        verify(replace(PLAIN, changes=changes))


@pytest.mark.parametrize(
    "changes", [{-75004: bytes(31)}, {-75005: "123"}, {-75007: 1}, {-75007: 0}, {-75008: bytes(20)}]
)
def test_a_claim_of_the_first_profile_out_of_form_is_malformed(changes: dict[int | str, Cbor]) -> None:
    with pytest.raises(Malformed):
        verify(replace(PROFILE_1, changes=changes))


def test_the_first_profile_may_name_a_certificate_with_its_version() -> None:
    token = replace(PROFILE_1, changes={-75005: "1234567890123-12345"})
    assert verify(token).claims["certification"] == "1234567890123-12345"


def test_the_second_profile_keeps_its_boot_seed_where_the_rfc_does_not() -> None:
    assert verify(replace(PROFILE_2, changes={2397: b"\x09" * 8})).claims["boot_seed"] == "09" * 8
    assert verify(replace(PLAIN, changes={2397: b"\x09" * 8})).claims["unread"] == ("2397",)


@pytest.mark.parametrize(
    ("lifecycle", "secured", "debug"),
    [
        (0x0000, False, False),
        (0x30FF, True, False),
        (0x4001, False, True),
        (0x5000, False, True),
        (0x6000, False, False),
    ],
)
def test_a_lifecycle_is_told_and_left_to_the_policy(lifecycle: int, secured: bool, debug: bool) -> None:  # noqa: FBT001 - what is expected
    claims = verify(replace(PLAIN, lifecycle=lifecycle)).claims
    assert (claims["lifecycle"], claims["secured"], claims["debug"]) == (lifecycle, secured, debug)


def test_a_token_without_its_tag_is_malformed() -> None:
    with pytest.raises(Malformed):
        verify(replace(PLAIN, envelope=Envelope(tagged=False)))


def test_a_payload_that_is_no_map_is_malformed() -> None:
    token = sign_message(dump_cbor([1]), DEVICE.key)
    with pytest.raises(Malformed):
        DEVICE.scheme().verify(Evidence(tee=PSA, payload=dump_parts({"token": token})), {}, NOW)


def test_a_scheme_without_anchors_is_a_mistake() -> None:
    with pytest.raises(UsageError):
        PsaScheme([])


@pytest.mark.parametrize("device", [DEVICE, SYMMETRIC], ids=["sign1", "mac0"])
def test_the_attester_passes_the_verifier_under_its_own_policy(device: PsaDevice) -> None:
    evidence = device.attester().collect(BINDING.report_data())
    assert Verifier([device.scheme()]).verify(evidence, BINDING, device.policy(), NOW).claims["secured"] is True


@pytest.mark.parametrize(
    ("token", "code"),
    [
        (PsaToken(nonce=BINDING.report_data(), lifecycle=0x4000), "debug_enabled"),
        (PsaToken(nonce=BINDING.report_data(), lifecycle=0x1000), "secured_mismatch"),
        (
            PsaToken(nonce=BINDING.report_data(), changes={2399: [component(measurement=bytes(32))]}),
            "software_mismatch",
        ),
        (PsaToken(nonce=BINDING.report_data()[:32]), "report_data_mismatch"),
        (PsaToken(nonce=BINDING.report_data()[:48]), "report_data_mismatch"),
    ],
)
def test_what_the_policy_does_not_want_is_refused(token: PsaToken, code: str) -> None:
    with pytest.raises(Rejected) as caught:
        Verifier([DEVICE.scheme()]).verify(DEVICE.evidence(token), BINDING, DEVICE.policy(), NOW)
    assert code in {reason.code for reason in caught.value.reasons}
