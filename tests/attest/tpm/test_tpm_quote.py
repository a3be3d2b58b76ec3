"""Quotes: who signed, what, over which PCRs; each flip is refused for its own reason."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from cloister.attest.tpm.algorithms import Alg
from cloister.attest.tpm.policy import endorsement_policy, extend, pcr_policy, software_pcr_value
from cloister.attest.tpm.quote import ATTESTATION_KEY, verify_attestation_key, verify_pcrs, verify_signature
from cloister.attest.tpm.structures import Attribute, EcdsaSignature, PcrSelection, Quote, RsaSignature
from cloister.errors import Malformed, Rejected
from tpm_kit import RSA_KEYS, SOFTWARE, SoftTpm, ak_public

NONCE = bytes(range(32))
TPM = SoftTpm()
ATTEST = TPM.quote(NONCE).dump()
SIGNATURE = TPM.sign(ATTEST)


def code(refused: pytest.ExceptionInfo[Rejected]) -> str:
    return refused.value.code


@pytest.mark.parametrize("tpm", [TPM, SoftTpm(ak_key=RSA_KEYS[0])], ids=["ecdsa", "rsassa"])
def test_a_quote_of_an_attestation_key_holds(tpm: SoftTpm) -> None:
    attest = tpm.quote(NONCE).dump()
    quote = verify_signature(attest, tpm.sign(attest), tpm.ak)
    verify_attestation_key(tpm.ak)
    verify_pcrs(quote, Alg.SHA256, tpm.pcrs)
    assert quote.extra_data == NONCE


@pytest.mark.parametrize("salt", [32, padding.PSS.MAX_LENGTH])
def test_rsapss_holds_with_either_salt_length(salt: int) -> None:
    ak = ak_public(RSA_KEYS[0], scheme=(Alg.RSAPSS, Alg.SHA256))
    value = RSA_KEYS[0].sign(ATTEST, padding.PSS(padding.MGF1(hashes.SHA256()), salt), hashes.SHA256())
    verify_signature(ATTEST, RsaSignature(scheme=Alg.RSAPSS, hash_alg=Alg.SHA256, value=value), ak)


def test_every_flipped_byte_of_a_quote_breaks_the_signature() -> None:
    for at in range(len(ATTEST)):
        flipped = ATTEST[:at] + bytes((ATTEST[at] ^ 1,)) + ATTEST[at + 1 :]
        with pytest.raises(Rejected) as refused:
            verify_signature(flipped, SIGNATURE, TPM.ak)
        assert code(refused) == "signature_invalid"


def test_every_flipped_byte_of_a_signature_breaks_it() -> None:
    assert isinstance(SIGNATURE, EcdsaSignature)
    for name in ("r", "s"):
        value = getattr(SIGNATURE, name)
        for at in range(len(value)):
            flipped = value[:at] + bytes((value[at] ^ 1,)) + value[at + 1 :]
            with pytest.raises(Rejected) as refused:
                verify_signature(ATTEST, replace(SIGNATURE, **{name: flipped}), TPM.ak)
            assert code(refused) == "signature_invalid"


@pytest.mark.parametrize("value", [b"", bytes(32), b"\xff" * 32])
def test_numbers_that_sign_everything_sign_nothing(value: bytes) -> None:
    with pytest.raises(Rejected) as refused:
        verify_signature(ATTEST, EcdsaSignature(hash_alg=Alg.SHA256, r=value, s=value), TPM.ak)
    assert code(refused) == "signature_invalid"


def test_signature_of_another_key_is_refused() -> None:
    with pytest.raises(Rejected) as refused:
        verify_signature(ATTEST, SIGNATURE, SoftTpm().ak)
    assert code(refused) == "signature_invalid"


def test_a_signature_in_another_scheme_than_the_keys_is_refused() -> None:
    other = SoftTpm(ak_key=RSA_KEYS[0])
    for signature, ak in (
        (SIGNATURE, other.ak),
        (other.sign(ATTEST), TPM.ak),
        (replace(SIGNATURE, hash_alg=Alg.SHA384), TPM.ak),
        (SIGNATURE, ak_public(TPM.ak_key, scheme=None)),
        (replace(SIGNATURE, hash_alg=Alg.SHA1), ak_public(TPM.ak_key, scheme=(Alg.ECDSA, Alg.SHA1))),
    ):
        with pytest.raises(Rejected) as refused:
            verify_signature(ATTEST, signature, ak)
        assert code(refused) == "algorithm_not_allowed"


def test_scheme_and_key_of_two_kinds_do_not_verify() -> None:
    confused = ak_public(RSA_KEYS[0], scheme=(Alg.ECDSA, Alg.SHA256))
    with pytest.raises(Rejected) as refused:
        verify_signature(ATTEST, SIGNATURE, confused)
    assert code(refused) == "signature_invalid"


def test_a_signed_certify_is_no_quote() -> None:
    certify = ATTEST[:4] + b"\x80\x17" + ATTEST[6:]
    with pytest.raises(Malformed, match="want a quote"):
        verify_signature(certify, TPM.sign(certify), TPM.ak)


def test_words_the_tpm_did_not_write_are_no_quote() -> None:
    forged = b"\xff\x54\x43\x46" + ATTEST[4:]
    with pytest.raises(Malformed, match="ff544347"):
        verify_signature(forged, TPM.sign(forged), TPM.ak)


@pytest.mark.parametrize(
    "attributes",
    [
        ATTESTATION_KEY & ~Attribute.RESTRICTED,
        ATTESTATION_KEY & ~Attribute.FIXED_TPM,
        ATTESTATION_KEY & ~Attribute.FIXED_PARENT,
        ATTESTATION_KEY & ~Attribute.SENSITIVE_DATA_ORIGIN,
        ATTESTATION_KEY & ~Attribute.SIGN,
        ATTESTATION_KEY | Attribute.DECRYPT,
        ATTESTATION_KEY | Attribute.ENCRYPTED_DUPLICATION,
        ATTESTATION_KEY | Attribute.X509_SIGN,
        Attribute(0),
    ],
    ids=lambda value: f"{int(value):#x}",
)
def test_a_key_that_is_no_attestation_key_is_refused(attributes: Attribute) -> None:
    with pytest.raises(Rejected) as refused:
        verify_attestation_key(ak_public(TPM.ak_key, attributes))
    assert code(refused) == "ak_attributes_invalid"


@pytest.mark.parametrize("scheme", [None, (Alg.ECDSA, Alg.SHA1)])
def test_an_attestation_key_without_a_strong_scheme_is_refused(scheme: tuple[Alg, Alg] | None) -> None:
    with pytest.raises(Rejected) as refused:
        verify_attestation_key(ak_public(TPM.ak_key, scheme=scheme))
    assert code(refused) == "algorithm_not_allowed"


def pcr_code(quote: Quote, pcrs: dict[int, bytes]) -> str:
    with pytest.raises(Rejected) as refused:
        verify_pcrs(quote, Alg.SHA256, pcrs)
    return refused.value.code


def test_pcrs_other_than_quoted_are_refused() -> None:
    quote = TPM.quote(NONCE)
    for index in TPM.pcrs:
        flipped = TPM.pcrs | {index: bytes((TPM.pcrs[index][0] ^ 1,)) + TPM.pcrs[index][1:]}
        assert pcr_code(quote, flipped) == "pcr_mismatch"
    fewer = {index: value for index, value in TPM.pcrs.items() if index}
    assert pcr_code(quote, fewer) == "pcr_mismatch"
    assert pcr_code(quote, TPM.pcrs | {9: bytes(32)}) == "pcr_mismatch"
    assert pcr_code(quote, {}) == "pcr_mismatch"
    moved = fewer | {8: TPM.pcrs[0]}
    assert pcr_code(quote, moved) == "pcr_mismatch"


def test_a_quote_over_another_bank_is_refused() -> None:
    pcrs = tuple(sorted(TPM.pcrs))
    sha1, sha256 = PcrSelection(bank=Alg.SHA1, pcrs=pcrs), PcrSelection(bank=Alg.SHA256, pcrs=pcrs)
    for selections in ((sha1,), (sha1, sha256), (sha256, sha256), ()):
        assert pcr_code(TPM.quote(NONCE, selections=selections), TPM.pcrs) == "algorithm_not_allowed"
    empty = PcrSelection(bank=Alg.SHA1, pcrs=())  # some TPMs return the banks that were not asked for, empty
    verify_pcrs(TPM.quote(NONCE, selections=(empty, sha256)), Alg.SHA256, TPM.pcrs)


def test_pcr_values_of_a_wrong_size_are_malformed() -> None:
    with pytest.raises(Malformed, match="32 bytes"):
        verify_pcrs(TPM.quote(NONCE), Alg.SHA256, TPM.pcrs | {0: bytes(20)})


def test_the_digest_is_in_the_hash_of_the_signature() -> None:
    values = b"".join(TPM.pcrs[i] for i in sorted(TPM.pcrs))
    quote = TPM.quote(NONCE, pcr_digest=hashlib.sha384(values).digest())
    verify_pcrs(quote, Alg.SHA384, TPM.pcrs)
    assert pcr_code(quote, TPM.pcrs) == "pcr_mismatch"


def test_policies_computed_by_hand() -> None:
    # EK Credential Profile 2.5 section B.6.2 prints PolicyA.
    assert endorsement_policy().hex() == "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa"
    start = hashlib.sha256(bytes(32) + SOFTWARE).digest()
    assert software_pcr_value(SOFTWARE) == start == extend(bytes(32), SOFTWARE)
    selection = bytes.fromhex("0000017f 00000001 000b 03 000080")
    want = hashlib.sha256(bytes(32) + selection + hashlib.sha256(start).digest()).digest()
    assert pcr_policy({23: start}) == want


def test_p384_keys_sign_too() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    r, s = decode_dss_signature(key.sign(ATTEST, ec.ECDSA(hashes.SHA384())))
    signature = EcdsaSignature(hash_alg=Alg.SHA384, r=r.to_bytes(48, "big"), s=s.to_bytes(48, "big"))
    verify_signature(ATTEST, signature, ak_public(key, scheme=(Alg.ECDSA, Alg.SHA384)))
