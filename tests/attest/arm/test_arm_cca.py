"""CCA tokens: two signatures, and the binding that makes one of two."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloister.attest.arm.anchors import Anchor
from cloister.attest.binding import ChannelBinding
from cloister.attest.cbor import dump_cbor
from cloister.attest.cose import dump_cose_key
from cloister.attest.rats import Nonce, TrustTier
from cloister.attest.rules import NotChecked
from cloister.attest.schemes.cca import CcaScheme
from cloister.attest.verifier import Verifier
from cloister.errors import Malformed, Rejected, UsageError
from cloister.testing.vendors.arm import (
    CLASSIC,
    IMPLEMENTATION_ID,
    RIM,
    RMM_2,
    SILICON,
    CcaPlatform,
    CcaProfile,
    CcaToken,
    Envelope,
    component,
    sign_message,
)

if TYPE_CHECKING:
    from cloister.attest.cbor import Cbor
    from cloister.attest.rats import VerifiedClaims

NOW = datetime(2026, 5, 1, tzinfo=UTC)
PLATFORM = CcaPlatform.generate()
PLAIN = CcaToken(challenge=bytes(range(64)))
OTHER_KEY = ec.generate_private_key(ec.SECP384R1())
BINDING = ChannelBinding(nonce=Nonce(bytes(32)), keyset=b"keys")
MIDDLE = CcaProfile(platform="tag:arm.com,2024:cca_platform#1.1.0", realm="tag:arm.com,2024:realm#1.1.0")


def verify(token: CcaToken = PLAIN, *, scheme: CcaScheme | None = None) -> VerifiedClaims:
    return (scheme or PLATFORM.scheme()).verify(PLATFORM.evidence(token), {}, NOW)


def refusal(token: CcaToken, *, scheme: CcaScheme | None = None) -> list[str]:
    with pytest.raises(Rejected) as caught:
        verify(token, scheme=scheme)
    return [reason.code for reason in caught.value.reasons]


@pytest.mark.parametrize("profile", [CLASSIC, SILICON, MIDDLE, RMM_2], ids=lambda item: item.platform)
@pytest.mark.parametrize("wrapped", [False, True], ids=["collection", "wrapper"])
def test_a_token_of_every_profile_is_proven(profile: CcaProfile, wrapped: bool) -> None:  # noqa: FBT001 - an axis
    result = verify(replace(PLAIN, profile=profile, wrapped=wrapped))
    assert result.report_data == PLAIN.challenge
    assert result.claims["rim"] == RIM.hex()
    assert result.claims["rem.3"] == "23" * 32
    assert result.claims["secured"] is True
    assert result.claims["profile"] == profile.platform
    assert result.claims.get("realm_profile") == profile.realm
    assert result.claims["measurement.rse_bl2"] == "03" * 32
    assert result.claims["unread"] == ()
    assert PLATFORM.scheme().needs(PLATFORM.evidence(PLAIN)) == ()
    assert PLATFORM.endorsements == {}


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_a_platform_may_sign_on_any_of_three_curves(curve: ec.EllipticCurve) -> None:
    platform = CcaPlatform.generate(curve)
    assert platform.scheme().verify(platform.evidence(PLAIN), {}, NOW).report_data == PLAIN.challenge


@pytest.mark.parametrize("name", ["sha-256", "sha-384", "sha-512"])
def test_the_realm_key_may_be_hashed_by_any_of_three(name: str) -> None:
    assert verify(replace(PLAIN, key_hash=name)).report_data == PLAIN.challenge


def test_what_newer_profiles_say_becomes_claims() -> None:
    instance = b"\x01" + bytes(32)
    token = replace(
        PLAIN, profile=RMM_2, platform={2403: b"\x01", 2404: [], 2406: b"x"}, realm={256: instance, 44246: 0}
    )
    claims = verify(token).claims
    assert claims["mec_policy"] == "private"
    assert claims["manufacturing"] == "01"
    assert claims["unread"] == ("platform 2404", "platform 2406", "realm 44246")


def test_a_platform_nobody_knows_is_refused() -> None:
    assert refusal(PLAIN, scheme=CcaPlatform.generate().scheme()) == ["platform_signature_invalid", "untrusted_root"]
    other_kind = CcaScheme([replace(PLATFORM.anchor, implementation_id=bytes(32))])
    assert "untrusted_root" in refusal(PLAIN, scheme=other_kind)


def test_a_key_for_all_of_a_kind_vouches_for_each() -> None:
    scheme = CcaScheme([Anchor(key=PLATFORM.anchor.key, implementation_id=IMPLEMENTATION_ID)])
    assert verify(scheme=scheme).report_data == PLAIN.challenge


def test_a_platform_token_of_another_key_is_refused() -> None:
    assert refusal(replace(PLAIN, platform_key=OTHER_KEY)) == ["platform_signature_invalid"]


def test_a_realm_token_of_another_key_is_refused() -> None:
    assert refusal(replace(PLAIN, realm_key=OTHER_KEY)) == ["signature_invalid"]


def test_two_right_signatures_without_a_binding_are_refused() -> None:
    assert refusal(replace(PLAIN, binding=bytes(32))) == ["key_binding_mismatch"]


def test_a_realm_with_a_key_of_its_own_choice_is_not_bound() -> None:
    changes: dict[int | str, Cbor] = {44237: dump_cose_key(OTHER_KEY.public_key())}
    token = replace(PLAIN, realm=changes, realm_key=OTHER_KEY, binding=bytes(32))
    assert refusal(token) == ["key_binding_mismatch"]


def test_a_realm_token_of_one_platform_under_another_is_refused() -> None:
    stranger = CcaPlatform(PLATFORM.key, OTHER_KEY)
    bound_to_ours = replace(PLAIN, binding=b"\x05" * 32)
    with pytest.raises(Rejected) as caught:
        PLATFORM.scheme().verify(stranger.evidence(bound_to_ours), {}, NOW)
    assert caught.value.code == "key_binding_mismatch"


def test_every_signature_and_the_binding_are_looked_at() -> None:
    token = replace(PLAIN, platform_key=OTHER_KEY, realm_key=OTHER_KEY, binding=bytes(48))
    assert refusal(token) == ["platform_signature_invalid", "signature_invalid", "key_binding_mismatch"]


def test_the_binding_is_over_the_hash_that_the_realm_names() -> None:
    assert refusal(replace(PLAIN, realm={44240: "sha-512"})) == ["key_binding_mismatch"]
    assert refusal(replace(PLAIN, realm={44240: "sha-1"})) == ["algorithm_not_allowed"]


@pytest.mark.parametrize("algorithm", [-7, -36, -37, 5])
def test_an_algorithm_that_does_not_go_with_the_key_is_refused(algorithm: int) -> None:
    envelope = Envelope(algorithm=algorithm)
    allowed = algorithm in {-7, -36}
    assert refusal(replace(PLAIN, platform_envelope=envelope)) == [
        "platform_signature_invalid" if allowed else "algorithm_not_allowed"
    ]
    assert refusal(replace(PLAIN, realm_envelope=envelope)) == [
        "signature_invalid" if allowed else "algorithm_not_allowed"
    ]


KEYS: dict[str, tuple[CcaProfile, Cbor]] = {
    "a raw point where a cose key is due": (SILICON, b"\x04" + bytes(96)),
    "a cose key where a raw point is due": (CLASSIC, dump_cose_key(OTHER_KEY.public_key())),
    "a compressed point": (CLASSIC, b"\x02" + bytes(96)),
    "a point off its curve": (CLASSIC, b"\x04" + bytes(96)),
    "no cbor": (SILICON, b"\xff"),
}


@pytest.mark.parametrize(("profile", "key"), KEYS.values(), ids=KEYS)
def test_a_realm_key_that_is_none_signed_nothing(profile: CcaProfile, key: Cbor) -> None:
    assert "signature_invalid" in refusal(replace(PLAIN, profile=profile, realm={44237: key}))


@pytest.mark.parametrize("key", [10, 256, 265, 2395, 2396, 2399, 2401, 2402])
def test_a_mandatory_claim_of_the_platform_is_missed(key: int) -> None:
    with pytest.raises(Malformed):
        verify(replace(PLAIN, platform_left_out=(key,)))


@pytest.mark.parametrize("key", [10, 44235, 44236, 44237, 44238, 44239, 44240])
def test_a_mandatory_claim_of_the_realm_is_missed(key: int) -> None:
    with pytest.raises(Malformed):
        verify(replace(PLAIN, realm_left_out=(key,)))


def test_claims_that_came_with_rmm_2_are_missed_there_alone() -> None:
    for left_out in ({"platform_left_out": (2394,)}, {"realm_left_out": (44243,)}):
        with pytest.raises(Malformed):
            verify(replace(PLAIN, profile=RMM_2, **left_out))


PLATFORM_BAD: dict[str, dict[int | str, Cbor]] = {
    "a challenge of 33 bytes": {10: bytes(33)},
    "an instance id of another type": {256: b"\x00" + bytes(32)},
    "an implementation id of 31 bytes": {2396: bytes(31)},
    "a config that is text": {2401: "cfcf"},
    "a config of 1025 bytes": {2401: bytes(1025)},
    "a lifecycle between states": {2395: 0x3100},
    "no components": {2399: []},
    "a component without a signer": {2399: [{2: bytes(32)}]},
    "a component with an unknown attribute": {2399: [{**component(), 9: 0}]},
    "no hash algorithm": {2402: ""},
    "a profile that is a number": {265: 1},
}
REALM_BAD: dict[str, dict[int | str, Cbor]] = {
    "a challenge of 63 bytes": {10: bytes(63)},
    "a challenge of 32 bytes": {10: bytes(32)},
    "two challenges": {10: [bytes(64), bytes(64)]},
    "a personalization of 63 bytes": {44235: bytes(63)},
    "an initial measurement of 20 bytes": {44238: bytes(20)},
    "three extensible measurements": {44239: [RIM] * 3},
    "five extensible measurements": {44239: [RIM] * 5},
    "an extensible measurement that is text": {44239: [RIM, RIM, RIM, "x"]},
    "a key that is text": {44237: "key"},
    "a hash algorithm that is a number": {44236: 1},
    "a policy nobody knows": {44243: "public"},
    "a policy true": {44243: True},
    "an instance id of another type": {256: b"\x02" + bytes(32)},
}


@pytest.mark.parametrize("changes", PLATFORM_BAD.values(), ids=PLATFORM_BAD)
def test_a_claim_of_the_platform_out_of_form_is_malformed(changes: dict[int | str, Cbor]) -> None:
    with pytest.raises(Malformed):
        verify(replace(PLAIN, platform=changes))


@pytest.mark.parametrize("changes", REALM_BAD.values(), ids=REALM_BAD)
def test_a_claim_of_the_realm_out_of_form_is_malformed(changes: dict[int | str, Cbor]) -> None:
    with pytest.raises(Malformed):
        verify(replace(PLAIN, realm=changes))


@pytest.mark.parametrize(
    ("platform", "realm"),
    [
        ("tag:arm.com,2030:cca_platform#9", "tag:arm.com,2023:realm#1.0.0"),
        ("http://arm.com/psa/2.0.0", "tag:arm.com,2023:realm#1.0.0"),
        ("tag:arm.com,2024:cca_platform#2.0.0;direct", "tag:arm.com,2024:realm#2.0.0"),
        ("tag:arm.com,2023:cca_platform#1.0.0", "tag:arm.com,2024:realm#2.0.0"),
        ("tag:arm.com,2023:cca_platform#1.0.0", "tag:arm.com,2030:realm#9"),
        ("http://arm.com/CCA-SSD/1.0.0", "tag:arm.com,2023:realm#1.0.0"),
    ],
)
def test_profiles_nobody_reads_or_that_do_not_go_together_are_refused(platform: str, realm: str) -> None:
    token = replace(PLAIN, platform={265: platform}, realm={265: realm})
    assert refusal(token) == ["unsupported_format"]


def test_measurements_are_as_long_as_their_hash_unless_somebody_says_why_not() -> None:
    for realm in ({44238: bytes(64)}, {44236: "sha-512"}, {44236: "sha-1"}, {44239: [RIM, RIM, RIM, bytes(48)]}):
        assert refusal(replace(PLAIN, realm=realm)) == ["measurement_mismatch"]
    lenient = CcaScheme([PLATFORM.anchor], hash_sizes=NotChecked("a sample"))
    evidence = PLATFORM.evidence(CcaToken(challenge=BINDING.report_data(), realm={44236: "sha-512"}))
    result = Verifier([lenient]).verify(evidence, BINDING, PLATFORM.policy(), NOW)
    assert result.tier is TrustTier.WARNING


ENVELOPES: dict[str, CcaToken] = {
    "another tag": replace(PLAIN, tag=61),
    "a wrapper's tag on a collection": replace(PLAIN, tag=907),
    "a collection's tag on a wrapper": replace(PLAIN, wrapped=True, tag=399),
    "something extra": replace(PLAIN, extra={1: b"x"}),
    "an untagged platform token": replace(PLAIN, platform_envelope=Envelope(tagged=False)),
    "a realm token tagged as a MAC": replace(PLAIN, realm_envelope=Envelope(tag=17)),
    "a realm that is a map": replace(PLAIN, extra={44241: {}}),
    "an empty platform": replace(PLAIN, extra={44234: b""}),
    "another content format": replace(PLAIN, wrapped=True, extra={44234: [264, b"x"]}),
}


@pytest.mark.parametrize("token", ENVELOPES.values(), ids=ENVELOPES)
def test_a_collection_out_of_form_is_malformed(token: CcaToken) -> None:
    with pytest.raises(Malformed):
        verify(token)


@pytest.mark.parametrize("key", [44234, 44241])
def test_claims_that_are_no_map_are_malformed(key: int) -> None:
    with pytest.raises(Malformed):
        verify(replace(PLAIN, extra={key: sign_message(dump_cbor([1]), PLATFORM.key)}))


def test_a_scheme_without_anchors_is_a_mistake() -> None:
    with pytest.raises(UsageError):
        CcaScheme([])


def test_the_attester_passes_the_verifier_under_its_own_policy() -> None:
    evidence = PLATFORM.attester().collect(BINDING.report_data())
    result = Verifier([PLATFORM.scheme()]).verify(evidence, BINDING, PLATFORM.policy(), NOW)
    assert result.tier is TrustTier.AFFIRMING


@pytest.mark.parametrize(
    ("token", "code"),
    [
        (replace(PLAIN, lifecycle=0x5000), "debug_enabled"),
        (replace(PLAIN, lifecycle=0x2000), "secured_mismatch"),
        (replace(PLAIN, realm={44238: bytes(32)}), "rim_mismatch"),
        (replace(PLAIN, platform={2399: [component("RMM", bytes(32))]}), "software_mismatch"),
    ],
)
def test_what_the_policy_does_not_want_is_refused(token: CcaToken, code: str) -> None:
    evidence = PLATFORM.attester(token).collect(BINDING.report_data())
    with pytest.raises(Rejected) as caught:
        Verifier([PLATFORM.scheme()]).verify(evidence, BINDING, PLATFORM.policy(), NOW)
    assert [reason.code for reason in caught.value.reasons] == [
        code,
        *(["secured_mismatch"] if code == "debug_enabled" else []),
    ]


def test_a_challenge_of_somebody_elses_is_refused() -> None:
    with pytest.raises(Rejected) as caught:
        Verifier([PLATFORM.scheme()]).verify(PLATFORM.evidence(PLAIN), BINDING, PLATFORM.policy(), NOW)
    assert caught.value.code == "report_data_mismatch"
