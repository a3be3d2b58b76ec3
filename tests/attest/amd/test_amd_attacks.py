"""Attacks on SNP evidence by a host that chooses everything but AMD's signatures."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cloister.attest.amd.certtable import dump_table
from cloister.attest.endorse.names import amd_crl
from cloister.errors import Malformed, Rejected
from cloister.testing.vendors.amd import Chip, Issue, SyntheticAmd
from odd_x509 import STEERING, TLS_FEATURE, X400_NAME, odd_certificate, odd_list, pem

NOW = datetime(2026, 11, 28, tzinfo=UTC)
AMD = SyntheticAmd.generate()
CHIP = Chip(AMD)
ODD = odd_certificate(TLS_FEATURE)


@pytest.mark.parametrize(
    "parts",
    [{"leaf": ODD}, {"intermediate": ODD}, {"intermediate": pem(ODD)}, {"root": ODD}],
    ids=["leaf", "intermediate", "pem", "root"],
)
def test_a_certificate_with_a_tls_feature_that_has_no_name_does_not_bring_the_verifier_down(
    parts: dict[str, bytes],
) -> None:
    with pytest.raises(Malformed):
        AMD.scheme().verify(CHIP.evidence(None, **parts), AMD.endorsements, NOW)


def test_a_list_whose_issuer_has_an_address_of_x400_does_not_bring_the_verifier_down() -> None:
    odd = odd_list(X400_NAME)
    for evidence in (CHIP.evidence(crl=odd), CHIP.evidence(certs=dump_table({"crl": odd}))):
        with pytest.raises(Malformed):
            AMD.scheme().verify(evidence, AMD.endorsements, NOW)


@pytest.mark.parametrize("role", ["intermediate", "root", "crl"])
def test_t84_a_certificate_named_to_steer_a_terminal_shows_its_name_as_escapes(role: str) -> None:
    named = odd_list(name=STEERING) if role == "crl" else odd_certificate(name=STEERING)
    with pytest.raises(Rejected) as refused:
        AMD.scheme().verify(CHIP.evidence(None, **{role: named}), AMD.endorsements, NOW)
    shown = [text for item in refused.value.reasons for text in (item.subject, item.got, item.want)]
    assert any(r"\x1b[2Jtrusted\u202e\nroot" in text for text in shown)
    assert all(text.isprintable() for text in shown)


def test_a_list_of_a_root_that_may_not_sign_lists_revokes_nothing_and_clears_nobody() -> None:
    vendor = SyntheticAmd(ark=Issue(crl_sign=False))
    with pytest.raises(Rejected) as refused:
        vendor.scheme().verify(Chip(vendor).evidence(), {amd_crl("milan"): vendor.crl()}, NOW)
    assert [(item.code, item.want) for item in refused.value.reasons] == [("revocation_unknown", "cRLSign")]
