"""Enrolment: a certificate only for an attestation key that lives beside a certified endorsement key."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID, ObjectIdentifier

from cloister.attest.chain import Certificate
from cloister.attest.tpm.akcert import AkCertificate, issue_ak_certificate, verify_ak_certificate
from cloister.attest.tpm.credential import Credential, make_credential
from cloister.attest.tpm.ek import TpmModel, device_of, trim_der, verify_ek
from cloister.attest.tpm.enrolment import (
    ENROLMENT_TTL,
    EnrolChallenge,
    EnrolProof,
    EnrolRequest,
    EnrolResult,
    PendingEnrolment,
    begin_enrolment,
    finish_enrolment,
)
from cloister.attest.tpm.quote import ATTESTATION_KEY
from cloister.attest.tpm.structures import Attribute, Public
from cloister.errors import Malformed, Rejected, UsageError
from tpm_kit import (
    EK_ATTRIBUTES,
    EK_EXTENSIONS,
    MODEL,
    NOW,
    RSA_KEYS,
    Authority,
    Issuer,
    Maker,
    PrivateKey,
    SoftTpm,
    ak_public,
    ca_extensions,
    ek_public,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

MAKER, AUTHORITY = Maker(), Authority()
EKS = {
    "rsa": RSA_KEYS[0],
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "p384": ec.generate_private_key(ec.SECP384R1()),
}
TPM = SoftTpm()


def request(tpm: SoftTpm, **other: Any) -> EnrolRequest:
    fields = {
        "ek_public": tpm.ek.dump(),
        "ak_public": tpm.ak.dump(),
        "ek_certificates": MAKER.certificates(tpm),
    }
    return EnrolRequest(**(fields | other))


def begin(
    tpm: SoftTpm, *, roots: tuple[bytes, ...] = (MAKER.root_der,), pinned: Collection[str] = (), **other: Any
) -> tuple[EnrolChallenge, PendingEnrolment]:
    return begin_enrolment(request(tpm, **other), roots, NOW, os.urandom, pinned=pinned)


@pytest.mark.parametrize("ek_key", EKS.values(), ids=EKS)
@pytest.mark.parametrize("ak_key", [RSA_KEYS[1], ec.generate_private_key(ec.SECP256R1())], ids=["ak rsa", "ak p256"])
def test_a_device_that_opens_its_challenge_gets_a_certificate(ek_key: PrivateKey, ak_key: PrivateKey) -> None:
    tpm = SoftTpm(ek_key=ek_key, ak_key=ak_key)
    shown = EnrolRequest.parse(request(tpm).dump())
    challenge, pending = begin_enrolment(shown, [MAKER.root_der], NOW, os.urandom)
    secret = tpm.activate(EnrolChallenge.parse(challenge.dump()).credential)
    assert secret is not None
    kept = PendingEnrolment.parse(pending.dump())
    assert secret not in pending.dump()
    proof = EnrolProof.parse(EnrolProof(secret=secret).dump())
    der = finish_enrolment(kept, proof.secret, AUTHORITY.key, AUTHORITY.certificate, NOW)
    result = EnrolResult.parse(EnrolResult(certificates=(der, AUTHORITY.certificate)).dump())
    chain = [Certificate.parse(item) for item in result.certificates]
    vouched = verify_ak_certificate(chain, tpm.ak, [Certificate.parse(AUTHORITY.certificate)], NOW)
    assert (vouched.device, vouched.name, vouched.model) == (device_of(tpm.ek), tpm.ak.name, MODEL)


def test_another_tpm_cannot_open_the_challenge() -> None:
    for key in EKS.values():
        other = SoftTpm(ek_key=key)
        challenge, _ = begin(TPM if key is not EKS["p256"] else SoftTpm(ek_key=EKS["rsa"]))
        assert other.activate(challenge.credential, ak_name=TPM.ak.name) is None


def test_a_tpm_without_the_attestation_key_cannot_open_the_challenge() -> None:
    """The attack: a genuine endorsement key, and an attestation key made in software."""
    challenge, _ = begin(TPM, ak_public=ak_public(ec.generate_private_key(ec.SECP256R1())).dump())
    assert TPM.activate(challenge.credential) is None


def test_every_flipped_byte_of_a_challenge_closes_it() -> None:
    challenge, _ = begin(TPM)
    good = challenge.credential
    for name in ("id_object", "encrypted_secret"):
        value = getattr(good, name)
        for at in range(len(value)):
            if at in {"id_object": (0, 1), "encrypted_secret": (0, 1, 34, 35)}[name]:
                continue  # lengths, which the Python TPM does not look at
            flipped = value[:at] + bytes((value[at] ^ 1,)) + value[at + 1 :]
            assert TPM.activate(replace(good, **{name: flipped})) is None


def test_a_wrong_secret_gets_no_certificate() -> None:
    _, pending = begin(TPM)
    for secret in (bytes(32), b"", os.urandom(32)):
        with pytest.raises(Rejected) as refused:
            finish_enrolment(pending, secret, AUTHORITY.key, AUTHORITY.certificate, NOW)
        assert refused.value.code == "enrolment_secret_wrong"


def test_a_late_secret_gets_no_certificate() -> None:
    challenge, pending = begin(TPM)
    secret = TPM.activate(challenge.credential) or b""
    late = NOW + ENROLMENT_TTL + timedelta(seconds=1)
    with pytest.raises(Rejected) as refused:
        finish_enrolment(pending, secret, AUTHORITY.key, AUTHORITY.certificate, late)
    assert refused.value.code == "enrolment_expired"


@pytest.mark.parametrize(
    "attributes",
    [
        ATTESTATION_KEY & ~Attribute.RESTRICTED,
        ATTESTATION_KEY & ~Attribute.FIXED_TPM,
        ATTESTATION_KEY | Attribute.DECRYPT,
    ],
)
def test_a_key_that_signs_anything_is_not_enrolled(attributes: Attribute) -> None:
    with pytest.raises(Rejected) as refused:
        begin(TPM, ak_public=ak_public(TPM.ak_key, attributes).dump())
    assert refused.value.code == "ak_attributes_invalid"


@pytest.mark.parametrize(
    "other",
    [
        {"attributes": EK_ATTRIBUTES & ~Attribute.FIXED_TPM},
        {"attributes": EK_ATTRIBUTES & ~Attribute.RESTRICTED},
        {"attributes": EK_ATTRIBUTES | Attribute.SIGN},
        {"attributes": EK_ATTRIBUTES & ~Attribute.ADMIN_WITH_POLICY},
        {"symmetric": None},
    ],
)
def test_a_key_that_is_no_endorsement_key_is_refused(other: dict) -> None:
    with pytest.raises(Rejected) as refused:
        begin(TPM, ek_public=ek_public(TPM.ek_key, **other).dump())
    assert refused.value.code == "ek_attributes_invalid"


STRANGER, SECOND = Maker(), SoftTpm()
NO_USAGE = tuple(item for item in EK_EXTENSIONS if not isinstance(item[0], x509.ExtendedKeyUsage))
OTHER_USAGE = (*NO_USAGE, (x509.ExtendedKeyUsage([ObjectIdentifier("2.23.133.8.3")]), False))
IS_CA = (*ca_extensions(), *(item for item in EK_EXTENSIONS[2:]))
KEY = TPM.ek_key.public_key()
CERTIFICATES = {
    "none": ((), "untrusted_root"),
    "another maker's": (STRANGER.certificates(TPM), "untrusted_root"),
    "another maker's with the same names": (Maker().certificates(TPM), "untrusted_root"),
    "another device's": (MAKER.certificates(SECOND), "key_binding_mismatch"),
    "without the purpose": ((MAKER.issuing.issue("EK", KEY, NO_USAGE), MAKER.issuing_der), "chain_invalid"),
    "with another purpose": ((MAKER.issuing.issue("EK", KEY, OTHER_USAGE), MAKER.issuing_der), "chain_invalid"),
    "an authority's": ((MAKER.issuing.issue("EK", KEY, IS_CA), MAKER.issuing_der), "chain_invalid"),
    "self-made": ((Issuer("EK", TPM.ek_key).issue("EK", KEY),), "untrusted_root"),
    "the maker's own first": ((MAKER.issuing_der, MAKER.issuing.issue("EK", KEY)), "chain_invalid"),
}


@pytest.mark.parametrize(("certificates", "code"), CERTIFICATES.values(), ids=CERTIFICATES)
def test_endorsement_keys_nobody_vouches_for_are_refused(certificates: tuple[bytes, ...], code: str) -> None:
    with pytest.raises(Rejected) as refused:
        begin(TPM, ek_certificates=certificates)
    assert refused.value.code == code


def test_without_roots_nobody_enrols() -> None:
    with pytest.raises(Rejected) as refused:
        begin(TPM, roots=())
    assert refused.value.code == "untrusted_root"


def test_a_pinned_endorsement_key_needs_no_certificate() -> None:
    challenge, pending = begin(TPM, roots=(), pinned={device_of(TPM.ek)}, ek_certificates=())
    assert TPM.activate(challenge.credential)
    assert pending.model == TpmModel()
    with pytest.raises(Rejected):
        begin(SECOND, roots=(), pinned={device_of(TPM.ek)}, ek_certificates=())


def test_a_pinned_device_does_not_choose_its_own_maker() -> None:
    """Its certificate was verified by nobody, so what it says of the make must not get under our signature."""
    _, pending = begin(TPM, roots=(), pinned={device_of(TPM.ek)}, ek_certificates=MAKER.certificates(TPM))
    assert pending.model == TpmModel()


def test_a_model_out_of_form_is_malformed() -> None:
    names = x509.Name([x509.NameAttribute(ObjectIdentifier("2.23.133.2.1"), "id:\n<script>")])
    bad = x509.SubjectAlternativeName([x509.DirectoryName(names)])
    leaf = MAKER.issuing.issue("EK", KEY, (*EK_EXTENSIONS[:3], (bad, True)))
    with pytest.raises(Malformed, match="out of form"):
        verify_ek(
            TPM.ek,
            [Certificate.parse(leaf), Certificate.parse(MAKER.issuing_der)],
            [Certificate.parse(MAKER.root_der)],
            NOW,
        )


def test_padding_behind_a_certificate_in_nv_memory_is_dropped() -> None:
    assert trim_der(MAKER.root_der + bytes(100)) == MAKER.root_der
    assert trim_der(b"\x30\x03\x01\x01\x00") == b"\x30\x03\x01\x01\x00"
    assert trim_der(b"") == b""


@pytest.mark.parametrize("secret", [b"", bytes(33)])
def test_a_secret_of_a_wrong_size_is_our_own_mistake(secret: bytes) -> None:
    with pytest.raises(UsageError):
        make_credential(TPM.ek, TPM.ak.name, secret, rng=os.urandom)


def test_a_credential_for_a_key_that_is_no_storage_key_is_refused() -> None:
    with pytest.raises(Rejected, match="ek_attributes_invalid"):
        make_credential(TPM.ak, TPM.ak.name, bytes(32), rng=os.urandom)


def test_the_same_secret_makes_another_credential_each_time() -> None:
    made = [make_credential(TPM.ek, TPM.ak.name, bytes(32), rng=os.urandom) for _ in range(2)]
    assert made[0] != made[1]
    assert isinstance(made[0], Credential)


CHAIN = (AUTHORITY.certify(TPM), AUTHORITY.certificate)


def vouch(
    *certificates: bytes, ak: Public = TPM.ak, authority: bytes = AUTHORITY.certificate, now: datetime = NOW
) -> AkCertificate:
    chain = [Certificate.parse(item) for item in certificates]
    return verify_ak_certificate(chain, ak, [Certificate.parse(authority)], now)


def test_a_certificate_of_an_unknown_authority_is_refused() -> None:
    for stranger in (Authority(), Authority("Enrolment"), Authority("Other")):
        with pytest.raises(Rejected) as refused:
            vouch(stranger.certify(TPM), stranger.certificate)
        assert refused.value.code == "untrusted_root"


def test_a_retired_authority_vouches_for_nobody() -> None:
    old = Authority(now=NOW - timedelta(days=3700))
    with pytest.raises(Rejected) as refused:
        vouch(old.certify(TPM), authority=old.certificate)
    assert refused.value.code == "cert_expired"


def test_a_certificate_ends_after_ninety_days() -> None:
    vouch(*CHAIN, now=NOW + timedelta(days=89))
    with pytest.raises(Rejected) as refused:
        vouch(*CHAIN, now=NOW + timedelta(days=91))
    assert refused.value.code == "cert_expired"


def test_a_certificate_says_nothing_of_a_model_nobody_vouched_for() -> None:
    leaf = issue_ak_certificate(
        TPM.ak, device_of(TPM.ek), TpmModel(), ca_key=AUTHORITY.key, ca_cert=AUTHORITY.certificate, now=NOW
    )
    assert vouch(leaf).model == TpmModel()


def test_a_certificate_for_another_key_is_refused() -> None:
    with pytest.raises(Rejected) as refused:
        vouch(*CHAIN, ak=SECOND.ak)
    assert refused.value.code == "key_binding_mismatch"


def test_the_same_key_with_other_attributes_is_another_key() -> None:
    """The attack: the key pair of an enrolled name, shown as a restricted key."""
    dressed = ak_public(TPM.ak_key, ATTESTATION_KEY)
    assert dressed.public_key() == TPM.ak.public_key()
    with pytest.raises(Rejected) as refused:
        vouch(*CHAIN, ak=dressed)
    assert refused.value.code == "key_binding_mismatch"


def test_a_certificate_of_another_purpose_is_refused() -> None:
    issuer = Issuer("Enrolment", AUTHORITY.key)
    with pytest.raises(Rejected) as refused:
        vouch(issuer.issue("device", TPM.ak_key.public_key(), EK_EXTENSIONS[:3]), authority=AUTHORITY.certificate)
    assert refused.value.code == "chain_invalid"


@pytest.mark.parametrize("common", ["device", "0" * 63, "AA" * 32])
def test_a_certificate_without_our_names_is_malformed(common: str) -> None:
    usage = (x509.ExtendedKeyUsage([ObjectIdentifier("2.23.133.8.3")]), False)
    leaf = Issuer("Enrolment", AUTHORITY.key).issue(common, TPM.ak_key.public_key(), (*EK_EXTENSIONS[:2], usage))
    with pytest.raises(Malformed, match=NameOID.COMMON_NAME.dotted_string):
        vouch(leaf)


@pytest.mark.parametrize(
    ("parse", "data"),
    [
        (EnrolRequest.parse, b'{"ak_public":"","ek_certificates":["","","","","",""],"ek_public":"","v":1}'),
        (EnrolRequest.parse, b'{"ak_public":"","ek_certificates":[],"ek_public":"","v":2}'),
        (EnrolRequest.parse, b'{"ak_public":"","ek_certificates":[],"ek_public":"","extra":0,"v":1}'),
        (EnrolProof.parse, b'{"secret":"AAAA","v":1}'),
        (EnrolResult.parse, b'{"certificates":[],"v":1}'),
        (EnrolChallenge.parse, b'{"encrypted_secret":"","enrolment":"../..","id_object":"","v":1}'),
    ],
)
def test_messages_out_of_form_are_malformed(parse: Callable[[bytes], object], data: bytes) -> None:
    with pytest.raises(Malformed):
        parse(data)
