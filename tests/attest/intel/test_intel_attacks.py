"""Attacks on SGX and TDX evidence by a host that chooses everything but Intel's signatures."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from cloister.attest.binding import ChannelBinding
from cloister.attest.intel.chain import PCK_NAME
from cloister.attest.parts import dump_parts
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import Evidence, Nonce
from cloister.attest.rules import Exact, NotChecked, OneOf, Rule
from cloister.attest.schemes.sgx import SGX
from cloister.attest.schemes.tdx import TDX
from cloister.attest.verifier import Verifier
from cloister.errors import Malformed, Rejected
from cloister.testing.vendors.intel import SyntheticIntel
from cloister.testing.vendors.intel.bodies import EnclaveBody, TdBody
from cloister.testing.vendors.intel.documents import QE_SIGNER
from cloister.testing.vendors.intel.pki import Authority
from odd_x509 import STEERING, TLS_FEATURE, odd_certificate, pem

NOW = datetime(2026, 6, 1, tzinfo=UTC)
VENDOR = SyntheticIntel.generate()
BINDING = ChannelBinding(nonce=Nonce(bytes(32)), keyset=b"keyset")
BODY = EnclaveBody(report_data=BINDING.report_data())


class Odd(Authority):
    """What signs as the platform does, with a certificate that cannot be parsed."""

    @property
    def pem(self) -> str:
        return pem(odd_certificate(TLS_FEATURE)).decode()


@pytest.mark.parametrize("place", range(3))
def test_a_certificate_with_a_tls_feature_that_has_no_name_does_not_bring_the_verifier_down(place: int) -> None:
    chain = [VENDOR.pck, VENDOR.issuer, VENDOR.root]
    chain[place] = Odd(certificate=VENDOR.pck.certificate, key=VENDOR.pck.key)
    quote = replace(VENDOR.quote(TdBody()), chain=chain).dump()
    with pytest.raises(Malformed):
        VENDOR.tdx_scheme().needs(Evidence(tee=TDX, payload=dump_parts({"quote": quote})))


def test_t84_a_chain_named_to_steer_a_terminal_shows_its_names_as_escapes() -> None:
    root = Authority.root(STEERING)
    issuer = root.issue(STEERING, path_length=0)
    pck = issuer.issue(STEERING, platform=VENDOR.platform)
    quote = replace(VENDOR.quote(BODY), chain=(pck, issuer, root)).dump()
    with pytest.raises(Rejected) as refused:
        VENDOR.sgx_scheme(without_collateral=NotChecked("a test")).verify(
            Evidence(tee=SGX, payload=dump_parts({"quote": quote})), {}, NOW
        )
    shown = [text for item in refused.value.reasons for text in (item.subject, item.got, item.want)]
    assert any(r"\x1b[2Jtrusted\u202e\nroot" in text for text in shown)
    assert all(text.isprintable() for text in shown)


@pytest.mark.parametrize(
    ("signer", "codes"),
    [
        (None, {"qe_mrsigner": "policy_incomplete"}),
        (OneOf((QE_SIGNER.hex(),)), {"qe_mrsigner": "qe_mrsigner_mismatch"}),
    ],
    ids=["no rule", "intel's"],
)
def test_a_quoting_enclave_of_the_hosts_own_forges_nothing_where_no_collateral_says_which_is_intels(
    signer: Rule | None, codes: dict[str, str]
) -> None:
    """A platform vouches for any enclave that its host lets quote: whose it is, the identity says, or the policy."""
    honest = VENDOR.quote(BODY)
    forged = replace(honest, qe=replace(honest.qe, mrsigner=b"\x66" * 32)).dump()
    rules: dict[str, Rule] = {"debug": Exact(value=False), "mrenclave": OneOf((BODY.mrenclave.hex(),))}
    policy = Policy(version=1, tees={SGX: TeePolicy(rules | ({} if signer is None else {"qe_mrsigner": signer}))})
    verifier = Verifier([VENDOR.sgx_scheme(without_collateral=NotChecked("none was ever published"))])
    with pytest.raises(Rejected) as refused:
        verifier.verify(Evidence(tee=SGX, payload=dump_parts({"quote": forged})), BINDING, policy, NOW)
    assert {item.subject: item.code for item in refused.value.reasons} == codes
    if signer is not None:
        genuine = Evidence(tee=SGX, payload=dump_parts({"quote": honest.dump()}))
        assert verifier.verify(genuine, BINDING, policy, NOW).claims["qe_mrsigner"] == QE_SIGNER.hex()


def test_a_platform_certificate_of_another_authority_of_the_same_root_is_none() -> None:
    """The key that signs TCB info, the root itself and another platform certify no platform."""
    for issuer, between in (
        (VENDOR.tcb_signer, (VENDOR.tcb_signer,)),
        (VENDOR.root, ()),
        (VENDOR.pck, (VENDOR.pck, VENDOR.issuer)),
    ):
        forged = issuer.issue(PCK_NAME, platform=VENDOR.platform)
        quote = replace(VENDOR.quote(TdBody()), chain=(forged, *between, VENDOR.root)).dump()
        scheme = VENDOR.tdx_scheme()
        given = {VENDOR.endorsement(tdx=True): VENDOR.published(tdx=True).dump()}
        with pytest.raises(Rejected) as refused:
            scheme.verify(Evidence(tee=TDX, payload=dump_parts({"quote": quote})), given, NOW)
        assert refused.value.code in {"chain_invalid", "collateral_mismatch", "revocation_unknown"}
