"""Ten thousand damaged inputs for each parser: Malformed comes out, or Rejected where a verdict is asked for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cloister.attest.chain import Certificate
from cloister.attest.rats import Evidence
from cloister.attest.schemes.tpm import TPM_TEE, TpmScheme
from cloister.attest.tpm.akcert import AkCertificate
from cloister.attest.tpm.enrolment import (
    EnrolChallenge,
    EnrolProof,
    EnrolRequest,
    EnrolResult,
    PendingEnrolment,
    begin_enrolment,
)
from cloister.attest.tpm.eventlog import EventLog, replay, secure_boot
from cloister.attest.tpm.structures import Public, Quote, parse_signature
from cloister.errors import Malformed, Rejected
from mutations import mutated
from tpm_kit import NOW, RSA_KEYS, Authority, Maker, SoftTpm
from tpm_log import LOG

if TYPE_CHECKING:
    from collections.abc import Callable

TPM, MAKER, AUTHORITY = SoftTpm(ak_key=RSA_KEYS[0]), Maker(), Authority()
QUOTE = TPM.quote(bytes(32)).dump()
AK_DER = AUTHORITY.certify(TPM)
REQUEST = EnrolRequest(ek_public=TPM.ek.dump(), ak_public=TPM.ak.dump(), ek_certificates=MAKER.certificates(TPM))
CHALLENGE, PENDING = begin_enrolment(REQUEST, [MAKER.root_der], NOW, os.urandom)


def whole_log(data: bytes) -> None:
    log = EventLog.parse(data)
    replay(log)
    secure_boot(log)


PARSERS = {
    "public rsa": (lambda data: Public.parse(data).public_key(), TPM.ak.dump()),
    "public ecc": (lambda data: Public.parse(data).public_key(), TPM.ek.dump()),
    "quote": (Quote.parse, QUOTE),
    "signature rsa": (parse_signature, TPM.sign(QUOTE).dump()),
    "signature ecc": (parse_signature, SoftTpm().sign(QUOTE).dump()),
    "event log": (whole_log, LOG),
    "ak certificate": (lambda data: AkCertificate.parse(Certificate.parse(data)), AK_DER),
    "enrolment request": (EnrolRequest.parse, REQUEST.dump()),
    "enrolment challenge": (EnrolChallenge.parse, CHALLENGE.dump()),
    "enrolment proof": (EnrolProof.parse, EnrolProof(secret=bytes(32)).dump()),
    "enrolment result": (EnrolResult.parse, EnrolResult(certificates=(AK_DER,)).dump()),
    "pending enrolment": (PendingEnrolment.parse, PENDING.dump()),
}


@pytest.mark.parametrize(("parse", "data"), PARSERS.values(), ids=PARSERS)
def test_only_malformed_comes_out_of_a_parser(parse: Callable[[bytes], object], data: bytes) -> None:
    parse(data)
    refused = 0
    for damaged in mutated(data):
        try:
            parse(damaged)
        except Malformed:
            refused += 1
    assert refused


def test_only_malformed_or_rejected_comes_out_of_the_scheme() -> None:
    scheme = TpmScheme([AUTHORITY.certificate])
    good = TPM.evidence(bytes(32), (AK_DER, AUTHORITY.certificate), event_log=LOG).dump()
    for damaged in mutated(good):
        if damaged != good:
            with pytest.raises((Malformed, Rejected)):
                scheme.verify(Evidence(tee=TPM_TEE, payload=damaged), {}, NOW)


def test_only_malformed_or_rejected_comes_out_of_enrolment() -> None:
    for damaged in mutated(REQUEST.ek_public, seed=2):
        request = EnrolRequest(ek_public=damaged, ak_public=REQUEST.ak_public, ek_certificates=REQUEST.ek_certificates)
        try:
            begin_enrolment(request, [MAKER.root_der], NOW, os.urandom)
        except (Malformed, Rejected):
            continue
