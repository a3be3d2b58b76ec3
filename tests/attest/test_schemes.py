"""The table of a production build: real TEEs only, and no root that nobody gave (T9)."""

from __future__ import annotations

import subprocess
import sys

import pytest
from cryptography import x509

from cloister.attest.appraise import appraise
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import VerifiedClaims
from cloister.attest.roots import pinned
from cloister.attest.rules import NotChecked
from cloister.attest.schemes import KINDS, NO_SITE, Site, production_schemes, required_claims
from cloister.attest.schemes.tpm import TPM_TEE, TpmScheme
from cloister.errors import Malformed


def test_the_table_has_pinned_vendors_and_nobody_whom_a_site_has_to_name() -> None:
    pinned = {scheme.tee for scheme in production_schemes()}
    assert pinned == KINDS - {"cca", "confidential-space", "maa", "psa", "tpm"}
    assert "simulated" not in KINDS


def test_a_site_adds_the_kinds_it_names_somebody_for() -> None:
    site = Site(maa_hosts=("sharedweu.weu.attest.azure.net",), audiences=("https://custodian.example",))
    assert {scheme.tee for scheme in production_schemes(site, {"maa", "confidential-space", "tpm", "nonsense"})} == {
        "maa",
        "confidential-space",
    }


def test_each_scheme_is_of_the_kind_that_was_asked_for_and_its_field_carries_a_binding() -> None:
    for kind in KINDS:
        for scheme in production_schemes(NO_SITE, {kind}):
            assert scheme.tee == kind
            assert scheme.report_data_bytes >= 32
            assert scheme.required


def test_t18_every_kind_demands_rules_and_every_scheme_demands_the_same() -> None:
    required = required_claims()
    assert set(required) == KINDS
    assert all(required.values())
    assert all(required[scheme.tee] == scheme.required for scheme in production_schemes())


def test_a_consumer_of_one_tee_loads_one_verifier() -> None:
    script = (
        "import sys; from cloister.attest.schemes import NO_SITE, production_schemes; "
        "production_schemes(NO_SITE, {'nitro'}); "
        "print(sorted({'lxml', 'signxml', 'dcap_qvl', 'sevsnpmeasure'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)  # noqa: S603 - ourselves
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", sorted(pinned()))
def test_a_pinned_certificate_is_what_its_fingerprint_says_and_can_issue(name: str) -> None:
    pin = pinned()[name]
    assert pin.role in {"root", "intermediate"}
    assert pin.source.startswith(("https://", "http://www.microsoft.com/"))
    assert (pin.certificate.x509.subject == pin.certificate.x509.issuer) == (pin.role == "root")
    basic = pin.certificate.x509.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert basic.ca


@pytest.mark.parametrize(
    "junk", [b"", b"not a certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_an_authority_that_is_no_certificate_is_malformed(junk: bytes) -> None:
    with pytest.raises(Malformed):
        production_schemes(Site(tpm_authorities=(junk,)))


def test_t18_a_tpm_policy_must_speak_about_device_software_and_the_whole_boot_chain() -> None:
    policy = Policy(version=1, tees={TPM_TEE: TeePolicy({"ak": NotChecked("one rule only")})})
    claims = VerifiedClaims(tee=TPM_TEE, claims={"ak": "aa"}, report_data=b"", checks=())
    missing = {
        check.subject for check in appraise(claims, policy, TpmScheme.required) if check.code == "policy_incomplete"
    }
    assert missing == {"device", "software", *(f"pcr.{index}" for index in range(8))}
