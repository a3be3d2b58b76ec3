"""Whoever owns the machine chooses what comes along with a genuine report."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography.x509 import ocsp

from cloister.attest.nvidia.collateral import ocsp_name
from cloister.attest.nvidia.evidence import dump_nvidia_evidence
from cloister.attest.nvidia.opaque import FieldType
from cloister.attest.rats import Evidence
from cloister.attest.rules import NotChecked
from cloister.attest.schemes.nvidia import NVIDIA_GPU, Relaxed
from cloister.errors import Malformed, Rejected
from cloister.testing.vendors.nvidia import Issuer, NvidiaVendor
from cloister.testing.vendors.nvidia.issuing import answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.chain import Certificate
    from cloister.attest.rats import VerifiedClaims

VENDOR = NvidiaVendor.generate()
NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
GPU = VENDOR.device()
SIGNER = VENDOR.signer()
RIMS = {"driver_rim": VENDOR.driver_rim(GPU, signer=SIGNER), "vbios_rim": VENDOR.vbios_rim(GPU, signer=SIGNER)}
ANSWERS = VENDOR.answers(GPU) | VENDOR.rim_answers(SIGNER.certificate)
WHY = NotChecked("not the point of this test")
RELAXED = Relaxed(revocation=WHY)


def verify(
    chain: tuple[Certificate, ...] = GPU.chain,
    endorsements: Mapping[str, bytes] = ANSWERS,
    relaxed: Relaxed | None = None,
    **along: bytes,
) -> VerifiedClaims:
    pem = b"".join(item.pem for item in chain)
    payload = dump_nvidia_evidence(GPU.report(bytes(32)), pem, **RIMS, **along)
    return VENDOR.scheme(relaxed=relaxed or Relaxed()).verify(
        Evidence(tee=NVIDIA_GPU, payload=payload), endorsements, NOW
    )


def codes(endorsements: Mapping[str, bytes], relaxed: Relaxed | None = None, **along: bytes) -> set[str]:
    with pytest.raises(Rejected) as refused:
        verify(GPU.chain, endorsements, relaxed, **along)
    return {reason.code for reason in refused.value.reasons}


def test_a_certificate_put_between_does_not_give_a_chip_another_identity() -> None:
    """A denied chip under the number of another, or one chip as eight: the number comes from the path that holds."""
    own = verify().claims
    other = VENDOR.rom(serial=0xDEADBEEFCAFEBABE).certificate
    selfmade = Issuer.root("GH100 A01 GSP BROM").certificate
    for stranger in (other, selfmade):
        claims = verify((GPU.chain[0], stranger, *GPU.chain[1:])).claims
        assert (claims["device"], claims["pdi"]) == (own["device"], own["pdi"])


def test_an_answer_that_the_owner_chose_stands_in_nobodys_place() -> None:
    """Good on the day it was given, and its window still open: since then the chip was revoked."""
    rom = GPU.issuer.certificate
    good = answer(rom, VENDOR.provisioner, this_update=NOW - DAY, next_update=NOW + DAY)
    gone = answer(rom, VENDOR.provisioner, status=ocsp.OCSPCertStatus.REVOKED, this_update=NOW)
    name = ocsp_name(rom)
    assert codes(ANSWERS | {name: gone}, ocsp=good) == {"revoked"}
    assert codes(ANSWERS | {name: gone}, RELAXED, ocsp=good) == {"revoked"}
    missing = {other: data for other, data in ANSWERS.items() if other != name}
    assert codes(missing, ocsp=good) == {"revocation_unknown"}
    assert verify(GPU.chain, missing, RELAXED, ocsp=good).claims["device"]


def test_answers_are_asked_for_though_some_came_along() -> None:
    payload = dump_nvidia_evidence(GPU.report(bytes(32)), GPU.chain_pem, **RIMS, ocsp=b"".join(ANSWERS.values()))
    assert set(VENDOR.scheme().needs(Evidence(tee=NVIDIA_GPU, payload=payload))) == set(ANSWERS)


def test_a_version_of_thousands_of_digits_is_a_refusal_like_any_other() -> None:
    device = replace(GPU, fields={**GPU.fields, FieldType.OPAQUE_DATA_VERSION: b"\xff" * 4096})
    payload = dump_nvidia_evidence(device.report(bytes(32)), device.chain_pem)
    with pytest.raises(Rejected) as refused:
        VENDOR.scheme().needs(Evidence(tee=NVIDIA_GPU, payload=payload))
    assert refused.value.code == "unsupported_format"


def test_a_number_of_thousands_of_digits_is_no_certificate() -> None:
    """Who shows a number in decimal would fail over it."""
    leaf = GPU.leaf.certificate.der
    number = GPU.leaf.certificate.x509.serial_number
    ours = number.to_bytes((number.bit_length() + 8) // 8)
    theirs = b"\x7f" * 2048
    inner = leaf[8:].replace(b"\x02" + bytes((len(ours),)) + ours, b"\x02\x82\x08\x00" + theirs, 1)
    grown = len(inner) - len(leaf) + 8
    head = b"".join(bytes((0x30, 0x82)) + (int.from_bytes(leaf[at : at + 2]) + grown).to_bytes(2) for at in (2, 6))
    report = GPU.report(bytes(32))
    payload = dump_nvidia_evidence(report, head + inner + GPU.chain[1].der)
    with pytest.raises(Malformed, match="20 bytes"):
        VENDOR.scheme().needs(Evidence(tee=NVIDIA_GPU, payload=payload))
