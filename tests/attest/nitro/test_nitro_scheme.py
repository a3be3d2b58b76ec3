"""Nitro evidence against a pinned root: each check has an attack that it stops."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloister.attest.binding import ChannelBinding
from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence, Nonce
from cloister.attest.roots import vendor_certificate
from cloister.attest.schemes.nitro import NITRO, NitroScheme, production_nitro_scheme
from cloister.attest.verifier import Verifier
from cloister.errors import Malformed, Rejected, UsageError
from cloister.testing.vendors.aws import Chain, Document, NitroVendor, Tier, sample_pcrs

if TYPE_CHECKING:
    from cloister.attest.cbor import Cbor
    from cloister.attest.rats import VerifiedClaims

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
VENDOR = NitroVendor.generate()
SCHEME = VENDOR.scheme()
PLAIN = Document(timestamp=NOW - timedelta(seconds=30), user_data=bytes(range(64)))
CHAIN = Chain()
BINDING = ChannelBinding(nonce=Nonce(bytes(32)), keyset=b"keys")


def verify(document: Document = PLAIN, *, vendor: NitroVendor = VENDOR, now: datetime = NOW) -> VerifiedClaims:
    return SCHEME.verify(vendor.evidence(document), {}, now)


def refusal(document: Document = PLAIN, *, vendor: NitroVendor = VENDOR, now: datetime = NOW) -> set[str]:
    with pytest.raises(Rejected) as caught:
        verify(document, vendor=vendor, now=now)
    return {reason.code for reason in caught.value.reasons}


def test_a_genuine_document_is_proven() -> None:
    result = verify(replace(PLAIN, nonce=b"n", public_key=b"k"))
    assert result.report_data == bytes(range(64))
    assert result.claims["pcr.0"] == sample_pcrs()[0].hex()
    assert result.claims["debug"] is False
    assert result.claims["age"] == 30
    assert result.claims["nonce"] == b"n".hex()
    assert "public_key_sha256" in result.claims
    assert SCHEME.needs(VENDOR.evidence(PLAIN)) == ()
    assert VENDOR.endorsements == {}


def test_a_document_without_user_data_carries_nothing() -> None:
    assert verify(replace(PLAIN, user_data=None)).report_data == b""


def test_a_clock_a_little_ahead_makes_an_age_of_zero_and_one_far_ahead_makes_none() -> None:
    assert verify(replace(PLAIN, timestamp=NOW + timedelta(minutes=4))).claims["age"] == 0
    assert "age" not in verify(replace(PLAIN, timestamp=NOW + timedelta(minutes=6))).claims


def test_debug_mode_is_proven_and_left_to_the_policy() -> None:
    assert verify(replace(PLAIN, pcrs={0: bytes(48)})).claims["debug"] is True


def test_a_root_of_the_same_name_is_not_the_pinned_one() -> None:
    assert refusal(vendor=NitroVendor.generate()) == {"untrusted_root"}


CHAINS = {
    "region not yet valid": ("region", {"not_before": NOW + timedelta(days=1)}, "cert_not_yet_valid"),
    "region expired": ("region", {"not_after": NOW - timedelta(days=1)}, "cert_expired"),
    "zone expired": ("zone", {"not_after": NOW - timedelta(seconds=1)}, "cert_expired"),
    "instance expired": ("instance", {"not_after": NOW - timedelta(seconds=1)}, "cert_expired"),
    "leaf not yet valid": ("leaf", {"not_before": NOW + timedelta(seconds=1)}, "cert_not_yet_valid"),
    "leaf expired": ("leaf", {"not_after": NOW - timedelta(seconds=1)}, "cert_expired"),
    "region is no authority": ("region", {"ca": False}, "chain_invalid"),
    "instance is no authority": ("instance", {"ca": False}, "chain_invalid"),
    "zone without basic constraints": ("zone", {"ca": None}, "chain_invalid"),
    "region of too short a path": ("region", {"path_length": 1}, "chain_invalid"),
    "zone of too short a path": ("zone", {"path_length": 0}, "chain_invalid"),
    "region may not sign certificates": (
        "region",
        {"signs_certificates": False, "digital_signature": True},
        "chain_invalid",
    ),
    "instance without key usage": ("instance", {"usage": False}, "chain_invalid"),
    "leaf may not sign": ("leaf", {"digital_signature": False, "signs_certificates": True}, "chain_invalid"),
    "leaf without key usage": ("leaf", {"usage": False}, "chain_invalid"),
    "leaf is an authority": ("leaf", {"ca": True}, "chain_invalid"),
    "leaf names another issuer": ("leaf", {"issuer_name": "somebody"}, "untrusted_root"),
    "zone names another issuer": ("zone", {"issuer_name": "somebody"}, "untrusted_root"),
    "leaf with a critical extension nobody knows": ("leaf", {"critical_extra": True}, "chain_invalid"),
    "zone with a critical extension nobody knows": ("zone", {"critical_extra": True}, "chain_invalid"),
}


@pytest.mark.parametrize(("tier", "changes", "code"), CHAINS.values(), ids=CHAINS)
def test_a_chain_that_does_not_hold_is_refused(tier: str, changes: dict[str, object], code: str) -> None:
    changed: Tier = replace(getattr(CHAIN, tier), **changes)
    assert refusal(vendor=VENDOR.with_chain(replace(CHAIN, **{tier: changed}))) == {code}


def test_a_leaf_without_basic_constraints_is_no_authority_either() -> None:
    vendor = VENDOR.with_chain(replace(CHAIN, leaf=replace(CHAIN.leaf, ca=None)))
    assert verify(vendor=vendor).claims["debug"] is False


def test_a_root_that_expired_vouches_for_nothing() -> None:
    vendor = NitroVendor.generate(replace(CHAIN, root=replace(CHAIN.root, not_after=NOW - timedelta(days=1))))
    with pytest.raises(Rejected) as caught:
        vendor.scheme().verify(vendor.evidence(PLAIN), {}, NOW)
    assert caught.value.code == "cert_expired"


def test_a_leaf_on_another_curve_is_refused() -> None:
    vendor = VENDOR.with_chain(replace(CHAIN, leaf=replace(CHAIN.leaf, curve=ec.SECP256R1())))
    assert refusal(vendor=vendor) == {"signature_invalid"}


ROOT, REGION, ZONE, INSTANCE = VENDOR.bundle
STRANGER = NitroVendor.generate()
BUNDLES: dict[str, tuple[list[Cbor], str]] = {
    "a stranger's root in front": ([*STRANGER.bundle[:1], REGION, ZONE, INSTANCE], "untrusted_root"),
    "no root in front": ([REGION, ZONE, INSTANCE], "untrusted_root"),
    "root last": ([REGION, ZONE, INSTANCE, ROOT], "untrusted_root"),
    "two swapped": ([ROOT, ZONE, REGION, INSTANCE], "chain_invalid"),
    "a stray": ([ROOT, *STRANGER.bundle[1:2], REGION, ZONE, INSTANCE], "chain_invalid"),
    "one twice": ([ROOT, REGION, REGION, ZONE, INSTANCE], "chain_invalid"),
    "one left out": ([ROOT, REGION, INSTANCE], "untrusted_root"),
    "the root alone": ([ROOT], "untrusted_root"),
}


@pytest.mark.parametrize(("bundle", "code"), BUNDLES.values(), ids=BUNDLES)
def test_a_bundle_is_the_chain_in_its_order_and_nothing_else(bundle: list[Cbor], code: str) -> None:
    assert refusal(replace(PLAIN, fields={"cabundle": bundle})) == {code}


def test_a_leaf_with_a_key_of_another_kind_is_refused() -> None:
    vendor = VENDOR.with_chain(replace(CHAIN, leaf=replace(CHAIN.leaf, rsa=True)))
    assert refusal(vendor=vendor) == {"algorithm_not_allowed"}


def test_an_algorithm_other_than_es384_is_refused() -> None:
    assert refusal(replace(PLAIN, protected={1: -7})) == {"algorithm_not_allowed"}


def test_a_signature_of_another_enclave_of_the_same_root_is_refused() -> None:
    other = VENDOR.with_chain(CHAIN)
    document = other.sign(VENDOR.payload(PLAIN), PLAIN)
    with pytest.raises(Rejected) as caught:
        SCHEME.verify(Evidence(tee=NITRO, payload=dump_parts({"document": document})), {}, NOW)
    assert caught.value.code == "signature_invalid"


def test_a_stale_chain_and_a_forged_signature_are_both_named() -> None:
    vendor = VENDOR.with_chain(replace(CHAIN, leaf=replace(CHAIN.leaf, not_after=NOW - timedelta(days=1))))
    document = VENDOR.sign(vendor.payload(PLAIN), PLAIN)
    with pytest.raises(Rejected) as caught:
        SCHEME.verify(Evidence(tee=NITRO, payload=dump_parts({"document": document})), {}, NOW)
    assert {reason.code for reason in caught.value.reasons} == {"cert_expired", "signature_invalid"}


def test_bytes_after_the_document_are_malformed() -> None:
    with pytest.raises(Malformed):
        verify(replace(PLAIN, trailing=b"\x00"))


def test_a_scheme_without_roots_is_a_mistake() -> None:
    with pytest.raises(UsageError):
        NitroScheme([])


def test_the_production_scheme_pins_the_root_of_aws() -> None:
    with pytest.raises(Rejected) as caught:
        production_nitro_scheme().verify(VENDOR.evidence(PLAIN), {}, NOW)
    assert caught.value.reasons[0].want == vendor_certificate("aws-nitro-root-g1").shown


def test_the_attester_passes_the_verifier_under_its_own_policy() -> None:
    evidence = VENDOR.attester(lambda: NOW).collect(BINDING.report_data())
    result = Verifier([SCHEME]).verify(evidence, BINDING, VENDOR.policy(), NOW)
    assert result.claims["age"] == 0


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"pcrs": {0: bytes(48), 1: bytes(48), 2: bytes(48)}}, "debug_enabled"),
        ({"pcrs": {**sample_pcrs(), 0: b"x" * 48}}, "pcr_mismatch"),
        ({"pcrs": {0: sample_pcrs()[0], 1: sample_pcrs()[1]}}, "claim_missing"),
        ({"timestamp": NOW - timedelta(hours=1)}, "age_mismatch"),
        ({"timestamp": NOW + timedelta(hours=1)}, "claim_missing"),
        ({"user_data": bytes(64)}, "report_data_mismatch"),
        ({"user_data": None}, "report_data_mismatch"),
        ({"user_data": BINDING.report_data()[:63]}, "report_data_mismatch"),
    ],
)
def test_what_the_policy_does_not_want_is_refused(members: dict[str, object], code: str) -> None:
    evidence = VENDOR.attester(lambda: NOW, **members).collect(BINDING.report_data())
    with pytest.raises(Rejected) as caught:
        Verifier([SCHEME]).verify(evidence, BINDING, VENDOR.policy(), NOW)
    assert code in {reason.code for reason in caught.value.reasons}
