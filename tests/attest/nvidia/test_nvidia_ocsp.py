"""Revocation answers: about this certificate, by whom its issuer made speak, in their window, and good."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp

from cloister.attest.nvidia.ocsp import MAX_ANSWERS, parse_answers, verify_good
from cloister.attest.rules import NotChecked
from cloister.errors import Malformed, Rejected
from cloister.testing.vendors.nvidia import NvidiaVendor
from cloister.testing.vendors.nvidia.issuing import answer

VENDOR, OTHER = NvidiaVendor.generate(), NvidiaVendor.generate()
ISSUER, SUBJECT = VENDOR.provisioner, VENDOR.rom()
BEFORE, NOW, AFTER = (datetime(2026, month, 1, tzinfo=UTC) for month in (5, 6, 7))
STORED = NotChecked("stored")
HOLD = NotChecked("a fleet under repair")


def judge(data: bytes, *, nonce: bytes | NotChecked = STORED, hold: NotChecked | None = None) -> str:
    found = parse_answers(data)
    return verify_good(SUBJECT.certificate, ISSUER.certificate, found, NOW, nonce=nonce, hold=hold)


def code_of(data: bytes, **options: Any) -> str:
    with pytest.raises(Rejected) as refused:
        judge(data, **options)
    return refused.value.code


def about(**options: Any) -> bytes:
    return answer(SUBJECT.certificate, ISSUER, **options)


def test_the_issuer_says_that_a_certificate_is_good() -> None:
    assert judge(about()) == "good"


def test_a_responder_that_the_issuer_certified_may_say_so() -> None:
    assert judge(about(responder=ISSUER.responder())) == "good"


@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.SHA256(), hashes.SHA512()])  # noqa: S303 - a name
def test_an_answer_may_name_the_certificate_by_any_usual_hash(algorithm: hashes.HashAlgorithm) -> None:
    assert judge(about(algorithm=algorithm)) == "good"


def test_answers_stand_one_after_another() -> None:
    first = answer(VENDOR.provisioner.certificate, VENDOR.identity)
    assert judge(first + about()) == "good"


def test_a_revoked_certificate_is_revoked() -> None:
    assert code_of(about(status=ocsp.OCSPCertStatus.REVOKED)) == "revoked"
    gone = about(status=ocsp.OCSPCertStatus.REVOKED, reason=x509.ReasonFlags.key_compromise)
    assert code_of(gone, hold=HOLD) == "revoked"


def test_a_certificate_on_hold_is_revoked_unless_somebody_says_why_not() -> None:
    held = about(status=ocsp.OCSPCertStatus.REVOKED, reason=x509.ReasonFlags.certificate_hold)
    assert code_of(held) == "revoked"
    assert judge(held, hold=HOLD) == "hold"


def test_the_first_answer_about_a_certificate_decides() -> None:
    assert code_of(about(status=ocsp.OCSPCertStatus.REVOKED) + about()) == "revoked"


def test_a_certificate_nobody_knows_is_unknown() -> None:
    assert code_of(about(status=ocsp.OCSPCertStatus.UNKNOWN)) == "revocation_unknown"


def test_no_answer_is_no_answer() -> None:
    assert code_of(b"") == "revocation_unknown"
    assert code_of(answer(VENDOR.rom(serial=7).certificate, ISSUER)) == "revocation_unknown"


def test_an_answer_about_the_same_number_of_another_issuer_is_none() -> None:
    assert code_of(about(named=OTHER.provisioner)) == "revocation_unknown"


def test_an_answer_that_begins_later_or_ended_is_refused() -> None:
    assert judge(about(this_update=BEFORE, next_update=AFTER)) == "good"
    assert code_of(about(this_update=AFTER)) == "collateral_not_yet_valid"
    assert code_of(about(this_update=BEFORE, next_update=BEFORE)) == "collateral_expired"


def test_an_answer_without_an_end_proves_nothing() -> None:
    assert code_of(about(next_update=None)) == "revocation_unknown"


def test_an_answer_signed_by_another_key_is_refused() -> None:
    assert code_of(about(signer=OTHER.provisioner)) == "collateral_signature_invalid"


def test_a_responder_of_another_issuer_is_refused() -> None:
    assert code_of(about(responder=VENDOR.identity.responder())) == "untrusted_root"


def test_a_responder_that_was_certified_for_something_else_is_refused() -> None:
    assert code_of(about(responder=ISSUER.responder(for_ocsp=False))) == "chain_invalid"


def test_a_certificate_of_the_issuer_is_no_responder_by_itself() -> None:
    assert code_of(about(responder=SUBJECT)) == "chain_invalid"


def test_a_responder_whose_certificate_ended_is_refused() -> None:
    ended = ISSUER.responder(window=(datetime(2025, 1, 1, tzinfo=UTC), BEFORE))
    assert code_of(about(responder=ended)) == "cert_expired"


def test_a_responder_whose_certificate_is_not_there_is_refused() -> None:
    assert code_of(about(responder=ISSUER.responder(), attached=False)) == "revocation_unknown"


def test_the_nonce_of_a_fresh_answer_is_the_one_that_was_asked_with() -> None:
    assert judge(about(nonce=b"n" * 16), nonce=b"n" * 16) == "good"
    assert code_of(about(nonce=b"n" * 16), nonce=b"m" * 16) == "nonce_mismatch"
    assert code_of(about(), nonce=b"m" * 16) == "nonce_mismatch"


def test_a_service_that_does_not_answer_is_no_answer() -> None:
    for status in (ocsp.OCSPResponseStatus.TRY_LATER, ocsp.OCSPResponseStatus.UNAUTHORIZED):
        built = ocsp.OCSPResponseBuilder.build_unsuccessful(status)
        with pytest.raises(Rejected) as refused:
            parse_answers(built.public_bytes(serialization.Encoding.DER))
        assert refused.value.code == "revocation_unknown"


def test_a_critical_extension_nobody_knows_is_refused() -> None:
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=SUBJECT.certificate.x509,
        issuer=ISSUER.certificate.x509,
        algorithm=hashes.SHA256(),
        cert_status=ocsp.OCSPCertStatus.GOOD,
        this_update=BEFORE,
        next_update=AFTER,
        revocation_time=None,
        revocation_reason=None,
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.NAME, ISSUER.certificate.x509)
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    for critical in (False, True):
        response = builder.add_extension(odd, critical=critical).sign(ISSUER.key, hashes.SHA256())
        data = response.public_bytes(serialization.Encoding.DER)
        assert (code_of(data) if critical else judge(data)) == ("revocation_unknown" if critical else "good")


def test_a_weak_signature_is_refused() -> None:
    root = NvidiaVendor.generate()
    weak = root.provisioner.issue("rsa", extensions=[], curve=ec.SECP256R1())
    assert weak.certificate.x509.public_key().key_size == 256
    data = about()
    sha384, sha1 = bytes.fromhex("2a8648ce3d040303"), bytes.fromhex("2a8648ce3d040301")
    with pytest.raises((Malformed, Rejected)):
        judge(data.replace(sha384, sha1))


def test_every_byte_with_a_bit_flipped_is_refused() -> None:
    data = about()
    for at in range(len(data)):
        flipped = data[:at] + bytes((data[at] ^ 1 << at % 8,)) + data[at + 1 :]
        with pytest.raises((Malformed, Rejected)):
            judge(flipped)


def test_an_answer_cut_anywhere_is_malformed() -> None:
    data = about()
    for size in range(1, len(data)):
        with pytest.raises(Malformed):
            parse_answers(data[:size])


@pytest.mark.parametrize(
    "data", [b"\x30", b"\x30\x83\x01\x00\x00", b"\x30\x00", b"\x05\x00", b"\x30\x82\xff\xff" + bytes(65535)]
)
def test_what_is_no_answer_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_answers(data)


def test_answers_without_end_are_malformed() -> None:
    with pytest.raises(Malformed):
        parse_answers(about() * (MAX_ANSWERS + 1))
