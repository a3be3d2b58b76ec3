"""The table of a production build: real TEEs only, and no root that nobody gave (T9)."""

from __future__ import annotations

import pytest

from cloister.attest.appraise import appraise
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import VerifiedClaims
from cloister.attest.rules import NotChecked
from cloister.attest.schemes import production_schemes
from cloister.attest.schemes.tpm import TPM_TEE, TpmScheme
from cloister.errors import Malformed


def test_without_an_authority_there_is_no_scheme_at_all() -> None:
    assert production_schemes(()) == ()


@pytest.mark.parametrize(
    "junk", [b"", b"not a certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_an_authority_that_is_no_certificate_is_malformed(junk: bytes) -> None:
    with pytest.raises(Malformed):
        production_schemes([junk])


def test_t18_a_tpm_policy_must_speak_about_device_software_and_the_whole_boot_chain() -> None:
    policy = Policy(version=1, tees={TPM_TEE: TeePolicy({"ak": NotChecked("one rule only")})})
    claims = VerifiedClaims(tee=TPM_TEE, claims={"ak": "aa"}, report_data=b"", checks=())
    missing = {
        check.subject for check in appraise(claims, policy, TpmScheme.required) if check.code == "policy_incomplete"
    }
    assert missing == {"device", "software", *(f"pcr.{index}" for index in range(8))}
