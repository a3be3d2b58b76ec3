"""SGX and TDX evidence: what a healthy platform proves, and each way in which evidence is not what it says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from cloister.attest.binding import ChannelBinding
from cloister.attest.chain import Certificate
from cloister.attest.intel.chain import PCK_NAME, TCB_SIGNING_NAME
from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence, Nonce, TrustTier, Verdict
from cloister.attest.rules import NotChecked
from cloister.attest.schemes.sgx import SGX, SgxScheme, production_sgx_scheme
from cloister.attest.schemes.tdx import TDX, TdxScheme, production_tdx_scheme
from cloister.attest.verifier import Verifier
from cloister.errors import Malformed, Rejected, UsageError
from cloister.testing.vendors.intel import SyntheticIntel
from cloister.testing.vendors.intel.bodies import EnclaveBody, TdBody
from cloister.testing.vendors.intel.documents import component_level, dump_document, tcb_level
from cloister.testing.vendors.intel.pki import Authority, PlatformSpec

if TYPE_CHECKING:
    from cloister.attest.rats import VerifiedClaims
    from cloister.testing.vendors.intel.quotes import QuoteSpec
    from cloister.testing.vendors.intel.vendor import CollateralSpec

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
VENDOR = SyntheticIntel.generate()
STRANGER = SyntheticIntel.generate()
ENCLAVE, TD = EnclaveBody(), TdBody()
BINDING = ChannelBinding(nonce=Nonce(bytes(32)), keyset=b"keyset")


def verify(
    quote: QuoteSpec | bytes,
    collateral: CollateralSpec | None = None,
    *,
    tdx: bool = False,
    now: datetime = NOW,
    vendor: SyntheticIntel = VENDOR,
) -> VerifiedClaims:
    raw = quote if isinstance(quote, bytes) else quote.dump()
    evidence = Evidence(tee=TDX if tdx else SGX, payload=dump_parts({"quote": raw}))
    published = (collateral or vendor.published(tdx=tdx)).dump()
    scheme = vendor.tdx_scheme() if tdx else vendor.sgx_scheme()
    return scheme.verify(evidence, dict.fromkeys(scheme.needs(evidence), published), now)


def codes(refusal: pytest.ExceptionInfo[Rejected]) -> set[str]:
    return {reason.code for reason in refusal.value.reasons}


@pytest.mark.parametrize("kind", [1, 2, 3, 4])
def test_healthy_platform_is_believed_and_the_second_verifier_agrees(kind: int) -> None:
    attester = VENDOR.sgx_attester() if kind == 1 else VENDOR.tdx_attester(TdBody(kind=kind))
    scheme = VENDOR.sgx_scheme() if kind == 1 else VENDOR.tdx_scheme()
    evidence = attester.collect(BINDING.report_data())
    assert scheme.needs(evidence) == tuple(attester.endorsements)
    result = Verifier([scheme]).verify(evidence, BINDING, attester.policy(), NOW, attester.endorsements)
    assert result.tier is TrustTier.AFFIRMING
    assert result.claims["tcb_status"] == "UpToDate"
    assert result.claims["tcb.eval_number"] == 19
    assert result.claims["tcb.platform_age"] == (NOW - datetime(2025, 5, 14, tzinfo=UTC)).days
    assert any(check.subject == "second verifier" and check.verdict is Verdict.PASSED for check in result.checks)


def test_policy_refuses_another_measurement_by_its_name() -> None:
    attester, other = VENDOR.tdx_attester(), VENDOR.tdx_attester(TdBody(mrtd=bytes(48)))
    evidence = other.collect(BINDING.report_data())
    with pytest.raises(Rejected) as refusal:
        Verifier([VENDOR.tdx_scheme()]).verify(evidence, BINDING, attester.policy(), NOW, attester.endorsements)
    assert codes(refusal) == {"measurement_mismatch"}


def test_policy_refuses_report_data_of_another_nonce() -> None:
    attester = VENDOR.sgx_attester()
    with pytest.raises(Rejected) as refusal:
        Verifier([VENDOR.sgx_scheme()]).verify(
            attester.collect(bytes(64)), BINDING, attester.policy(), NOW, attester.endorsements
        )
    assert codes(refusal) == {"report_data_mismatch"}


@pytest.mark.parametrize(
    ("body", "claim"),
    [
        (TdBody(td_attributes=1 << 28 | 1), "debug"),
        (TdBody(td_attributes=0), "td_attributes.sept_ve_disable"),
        (TdBody(td_attributes=1 << 28 | 1 << 29), "td_attributes.migratable"),
        (TdBody(td_attributes=1 << 28 | 1 << 4), "td_attributes.profiling"),
        (TdBody(td_attributes=1 << 28 | 1 << 17), "td_attributes.servtd_ext"),
        (TdBody(td_attributes=1 << 28 | 1 << 40), "td_attributes.reserved"),
        (TdBody(kind=3, mrservicetd=b"\1" * 48), "service_td"),
        (EnclaveBody(attributes=b"\7" + bytes(15)), "debug"),
    ],
)
def test_attributes_are_claims_and_refused_by_the_policy(body: TdBody | EnclaveBody, claim: str) -> None:
    """The second verifier refuses such evidence too, for this alone; a policy that allows it gets a warning."""
    tdx = isinstance(body, TdBody)
    verified = verify(VENDOR.quote(body), tdx=tdx)
    assert verified.claims[claim] is (claim != "td_attributes.sept_ve_disable")
    skipped = [check for check in verified.checks if check.verdict is Verdict.NOT_CHECKED]
    assert [check.subject for check in skipped] == ["second verifier"]
    attester = VENDOR.tdx_attester(body) if isinstance(body, TdBody) else VENDOR.sgx_attester(body)
    scheme = VENDOR.tdx_scheme() if tdx else VENDOR.sgx_scheme()
    with pytest.raises(Rejected) as refusal:
        Verifier([scheme]).verify(
            attester.collect(BINDING.report_data()), BINDING, attester.policy(), NOW, attester.endorsements
        )
    wanted = {"debug": "debug_enabled", "service_td": "service_td_not_allowed"}
    assert codes(refusal) == {wanted.get(claim, "td_attributes_invalid")}


@pytest.mark.parametrize(("xfam", "valid"), [(0x3, True), (0x0E_DBE7, True), (0x1, False), (0x10_0003, False)])
def test_xfam_has_what_every_td_has_and_nothing_unknown(xfam: int, valid: bool) -> None:  # noqa: FBT001
    assert verify(VENDOR.quote(TdBody(xfam=xfam)), tdx=True).claims["xfam.valid"] is valid


def test_padding_behind_the_quote_is_allowed_and_changes_nothing() -> None:
    quote = VENDOR.quote(TD)
    assert verify(replace(quote, padding=b"\xab" * 3000), tdx=True).claims == verify(quote, tdx=True).claims


# The quote.


def test_stranger_s_root_is_no_root() -> None:
    with pytest.raises(Rejected) as refusal:
        verify(STRANGER.quote(ENCLAVE))
    assert "untrusted_root" in codes(refusal)


def test_report_changed_after_signing_is_refused() -> None:
    raw = bytearray(VENDOR.quote(ENCLAVE).dump())
    raw[48 + 64] ^= 1  # MRENCLAVE
    with pytest.raises(Rejected) as refusal:
        verify(bytes(raw))
    assert codes(refusal) == {"signature_invalid"}


def test_attestation_key_that_the_quoting_enclave_does_not_vouch_for_is_refused() -> None:
    with pytest.raises(Rejected) as refusal:
        verify(replace(VENDOR.quote(ENCLAVE), binding=bytes(64)))
    assert codes(refusal) == {"key_binding_mismatch"}


def test_attestation_key_that_is_no_point_of_the_curve_is_refused() -> None:
    raw = bytearray(VENDOR.quote(ENCLAVE).dump())
    at = 48 + 384 + 4 + 64
    raw[at : at + 64] = b"\xff" * 64
    with pytest.raises(Rejected) as refusal:
        verify(bytes(raw))
    assert codes(refusal) == {"signature_invalid", "key_binding_mismatch"}


def test_quoting_enclave_signed_by_another_platform_is_refused() -> None:
    quote = VENDOR.quote(ENCLAVE)
    other = VENDOR.issuer.issue(PCK_NAME, platform=VENDOR.platform)
    raw = replace(quote, chain=(Authority(certificate=VENDOR.pck.certificate, key=other.key), *quote.chain[1:]))
    with pytest.raises(Rejected) as refusal:
        verify(raw)
    assert codes(refusal) == {"signature_invalid"}


def test_quoting_enclave_of_another_vendor_is_refused() -> None:
    with pytest.raises(Rejected) as refusal:
        verify(replace(VENDOR.quote(ENCLAVE), qe_vendor=bytes(16)))
    assert codes(refusal) == {"unsupported_format"}


@pytest.mark.parametrize(
    "change",
    [
        {"mrsigner": bytes(32)},
        {"isvprodid": 9},
        {"miscselect": b"\1\0\0\0"},
        {"attributes": b"\x11" + b"\1" + bytes(14)},
    ],
)
def test_quoting_enclave_that_is_not_the_published_one_is_refused(change: dict[str, object]) -> None:
    quote = VENDOR.quote(ENCLAVE)
    with pytest.raises(Rejected) as refusal:
        verify(replace(quote, qe=replace(quote.qe, **change)))  # type: ignore[arg-type]  # fields by name
    assert codes(refusal) == {"collateral_mismatch"}


def test_quoting_enclave_in_debug_mode_is_refused() -> None:
    quote = VENDOR.quote(ENCLAVE)
    with pytest.raises(Rejected) as refusal:
        verify(replace(quote, qe=replace(quote.qe, attributes=b"\x13" + bytes(15))))
    assert "debug_enabled" in codes(refusal)


def test_sgx_quote_in_a_newer_format_needs_a_second_verifier_that_reads_it() -> None:
    with pytest.raises(Rejected) as refusal:
        verify(replace(VENDOR.quote(ENCLAVE), version=4))
    assert codes(refusal) == {"verifiers_disagree"}
    scheme = VENDOR.sgx_scheme(without_collateral=NotChecked("a test"))
    for version in (4, 5):
        raw = replace(VENDOR.quote(ENCLAVE), version=version).dump()
        verified = scheme.verify(Evidence(tee=SGX, payload=dump_parts({"quote": raw})), {}, NOW)
        assert verified.claims["quote_version"] == version


# The chain.


@pytest.mark.parametrize(
    ("leaf", "code"),
    [
        (VENDOR.issuer.issue(PCK_NAME, platform=VENDOR.platform, not_after=NOW - DAY), "cert_expired"),
        (VENDOR.issuer.issue(PCK_NAME, platform=VENDOR.platform, not_before=NOW + DAY), "cert_not_yet_valid"),
        (VENDOR.issuer.issue(PCK_NAME, platform=VENDOR.platform, may_sign=False), "chain_invalid"),
        (VENDOR.issuer.issue("Some Other Certificate", platform=VENDOR.platform), "chain_invalid"),
        (VENDOR.issuer.issue(PCK_NAME, platform=VENDOR.platform, issuer="Somebody"), "untrusted_root"),
        (VENDOR.root.issue(PCK_NAME, platform=VENDOR.platform), "chain_invalid"),
        (STRANGER.issuer.issue(PCK_NAME, platform=VENDOR.platform), "untrusted_root"),
        (VENDOR.tcb_signer.issue(PCK_NAME, platform=VENDOR.platform), "untrusted_root"),
    ],
    ids=[
        "expired",
        "not yet",
        "may not sign",
        "wrong name",
        "wrong issuer name",
        "by the root",
        "stranger",
        "no authority",
    ],
)
def test_pck_certificate_that_nobody_may_trust_is_refused(leaf: Authority, code: str) -> None:
    with pytest.raises(Rejected) as refusal:
        verify(replace(VENDOR.quote(ENCLAVE), chain=(leaf, VENDOR.issuer, VENDOR.root)))
    assert code in codes(refusal)


def test_order_of_the_certificates_behind_the_leaf_does_not_matter_but_the_leaf_is_first() -> None:
    quote = VENDOR.quote(ENCLAVE)
    verify(replace(quote, chain=(VENDOR.pck, VENDOR.root, VENDOR.issuer)))
    with pytest.raises(Malformed, match="sgx extension"):
        verify(replace(quote, chain=(VENDOR.issuer, VENDOR.pck, VENDOR.root)))


def test_fifty_certificates_are_too_many() -> None:
    with pytest.raises(Malformed):
        verify(replace(VENDOR.quote(ENCLAVE), chain=(VENDOR.pck, *[VENDOR.issuer] * 9)))


# The collateral.


def changed(**members: object) -> CollateralSpec:
    return replace(VENDOR.published(tdx=False), **members)  # type: ignore[arg-type]  # members by name


def test_revoked_platform_is_refused() -> None:
    with pytest.raises(Rejected) as refusal:
        verify(VENDOR.quote(ENCLAVE), changed(pck_crl=VENDOR.crl(VENDOR.issuer, [VENDOR.pck])))
    assert codes(refusal) == {"revoked"}


@pytest.mark.parametrize("revoked", [VENDOR.issuer, VENDOR.tcb_signer, VENDOR.root], ids=["ca", "tcb signing", "root"])
def test_revoked_authority_is_refused(revoked: Authority) -> None:
    with pytest.raises(Rejected) as refusal:
        verify(VENDOR.quote(ENCLAVE), changed(root_crl=VENDOR.crl(VENDOR.root, [revoked])))
    assert codes(refusal) == {"revoked"}


@pytest.mark.parametrize("member", ["root_crl", "pck_crl"])
@pytest.mark.parametrize(
    ("issued", "until", "code"),
    [(NOW - 9 * DAY, NOW - DAY, "collateral_expired"), (NOW + DAY, NOW + 9 * DAY, "collateral_not_yet_valid")],
)
def test_revocation_list_out_of_its_window_is_refused(
    member: str, issued: datetime, until: datetime, code: str
) -> None:
    authority = VENDOR.root if member == "root_crl" else VENDOR.issuer
    listed = VENDOR.crl(authority, issued=issued, until=until)
    with pytest.raises(Rejected) as refusal:
        verify(VENDOR.quote(ENCLAVE), changed(**{member: listed}))
    assert codes(refusal) == {code}


def test_revocation_list_of_another_authority_tells_nothing() -> None:
    with pytest.raises(Rejected) as refusal:
        verify(VENDOR.quote(ENCLAVE), changed(pck_crl=VENDOR.crl(VENDOR.authorities["Processor"])))
    assert codes(refusal) == {"revocation_unknown"}


@pytest.mark.parametrize("member", ["root_ca_crl", "pck_crl"])
def test_a_list_that_is_not_there_tells_nothing(member: str) -> None:
    with pytest.raises(Rejected) as refusal:
        verify(VENDOR.quote(ENCLAVE), changed(tampered={member: ""}))
    assert codes(refusal) == {"revocation_unknown"}


def test_revocation_list_forged_under_the_right_name_is_refused() -> None:
    with pytest.raises(Rejected) as refusal:
        verify(VENDOR.quote(ENCLAVE), changed(root_crl=STRANGER.crl(STRANGER.root)))
    assert codes(refusal) == {"collateral_signature_invalid"}


@pytest.mark.parametrize(
    ("member", "old", "new"),
    [("tcb_info", 'Number":19', 'Number":20'), ("tcb_info", "{", " {"), ("qe_identity", 'isvsvn":4', 'isvsvn":3')],
)
def test_text_changed_after_signing_is_refused(member: str, old: str, new: str) -> None:
    spec = VENDOR.published(tdx=False)
    text = dump_document(getattr(spec, member)).decode()
    assert old in text
    with pytest.raises(Rejected) as refusal:
        verify(VENDOR.quote(ENCLAVE), replace(spec, tampered={member: text.replace(old, new, 1)}))
    assert codes(refusal) == {"collateral_signature_invalid"}


@pytest.mark.parametrize("member", ["tcb_signer", "qe_signer"])
@pytest.mark.parametrize(
    ("signer", "code"),
    [
        (STRANGER.tcb_signer, "untrusted_root"),
        (VENDOR.root.issue("Somebody"), "chain_invalid"),
        (VENDOR.root.issue(TCB_SIGNING_NAME, may_sign=False), "chain_invalid"),
        (VENDOR.root.issue(TCB_SIGNING_NAME, not_after=NOW - DAY), "cert_expired"),
        (VENDOR.root.issue(TCB_SIGNING_NAME, not_before=NOW + DAY), "cert_not_yet_valid"),
        (VENDOR.pck, "chain_invalid"),
    ],
    ids=["stranger", "wrong name", "may not sign", "expired", "not yet", "the pck itself"],
)
def test_text_signed_by_the_wrong_key_is_refused(member: str, signer: Authority, code: str) -> None:
    with pytest.raises(Rejected) as refusal:
        verify(VENDOR.quote(ENCLAVE), changed(**{member: signer}))
    assert code in codes(refusal)


@pytest.mark.parametrize("member", ["tcb_info", "qe_identity"])
@pytest.mark.parametrize(
    ("dates", "code"),
    [
        ({"issueDate": "2026-06-01T00:00:01Z"}, "collateral_not_yet_valid"),
        ({"nextUpdate": "2026-05-31T23:59:59Z"}, "collateral_expired"),
    ],
)
def test_text_out_of_its_window_is_refused_to_the_second(member: str, dates: dict[str, object], code: str) -> None:
    spec = VENDOR.published(tdx=False)
    getattr(spec, member).update(dates)
    with pytest.raises(Rejected) as refusal:
        verify(VENDOR.quote(ENCLAVE), spec)
    assert codes(refusal) == {code}


def test_windows_include_their_ends() -> None:
    spec = VENDOR.published(tdx=False)
    spec.tcb_info.update({"issueDate": "2026-06-01T00:00:00Z", "nextUpdate": "2026-06-01T00:00:00Z"})
    verify(VENDOR.quote(ENCLAVE), spec)


@pytest.mark.parametrize(
    ("member", "change"),
    [
        ("tcb_info", {"id": "TDX", "tcbLevels": []}),
        ("tcb_info", {"fmspc": "0000deadbeef"}),
        ("tcb_info", {"pceId": "0100"}),
        ("qe_identity", {"id": "TD_QE"}),
        ("qe_identity", {"version": 3}),
    ],
)
def test_collateral_about_another_platform_or_tee_is_refused(member: str, change: dict[str, object]) -> None:
    spec = VENDOR.published(tdx=False)
    getattr(spec, member).update(change)
    with pytest.raises(Rejected) as refusal:
        verify(VENDOR.quote(ENCLAVE), spec)
    assert codes(refusal) == {"collateral_mismatch"}


@pytest.mark.parametrize("member", ["tcb_info", "qe_identity"])
def test_older_formats_of_the_texts_are_refused_by_name(member: str) -> None:
    spec = VENDOR.published(tdx=False)
    getattr(spec, member)["version"] = 1
    with pytest.raises(Rejected) as refusal:
        verify(VENDOR.quote(ENCLAVE), spec)
    assert codes(refusal) == {"unsupported_format"}


def test_missing_collateral_is_no_yes() -> None:
    evidence = VENDOR.sgx_attester().collect(bytes(64))
    with pytest.raises(Rejected) as refusal:
        VENDOR.sgx_scheme().verify(evidence, {}, NOW)
    assert codes(refusal) == {"revocation_unknown"}


def test_leaving_collateral_out_is_said_and_shows_in_the_tier() -> None:
    attester = VENDOR.sgx_attester()
    scheme = VENDOR.sgx_scheme(without_collateral=NotChecked("none was ever published"))
    evidence = attester.collect(BINDING.report_data())
    assert scheme.needs(evidence) == ()
    assert scheme.required == {"debug", "mrenclave", "qe_mrsigner"}
    verified = scheme.verify(evidence, {}, NOW)
    assert "tcb_status" not in verified.claims
    assert [check.note for check in verified.checks if check.verdict is Verdict.NOT_CHECKED] == [
        "none was ever published"
    ]


# TCB.


def test_stale_platform_says_so_with_its_advisories() -> None:
    spec = VENDOR.published(tdx=True)
    levels = spec.tcb_info["tcbLevels"]
    assert isinstance(levels, list)
    del levels[0]
    claims = verify(VENDOR.quote(TD), spec, tdx=True).claims
    assert claims["tcb_status"] == "OutOfDate"
    assert claims["advisory_ids"] == ("INTEL-SA-00960", "INTEL-SA-00982")


@pytest.mark.parametrize("what", ["platform", "qe", "module", "module that runs now"])
def test_tcb_below_every_level_is_refused(what: str) -> None:
    spec, body = VENDOR.published(tdx=True), TD
    if what == "platform":
        spec.tcb_info["tcbLevels"] = [tcb_level([255] * 16, 11, tdx=[0] * 16)]
    elif what == "qe":
        spec.qe_identity["tcbLevels"] = [component_level(99, "UpToDate")]
    elif what == "module":
        body = TdBody(tee_tcb_svn=b"\1\1\2" + bytes(13))
    else:
        body = TdBody(kind=3, tee_tcb_svn2=b"\1\1\2" + bytes(13))
    with pytest.raises(Rejected) as refusal:
        verify(VENDOR.quote(body), spec, tdx=True)
    assert codes(refusal) == {"no_matching_tcb_level"}


@pytest.mark.parametrize("what", ["platform", "qe", "module"])
def test_revoked_tcb_is_refused_whatever_a_policy_says(what: str) -> None:
    spec = VENDOR.published(tdx=True)
    if what == "platform":
        spec.tcb_info["tcbLevels"] = [tcb_level([0] * 16, 0, "Revoked", tdx=[0] * 16)]
    elif what == "qe":
        spec.qe_identity["tcbLevels"] = [component_level(0, "Revoked")]
    else:
        identities = spec.tcb_info["tdxModuleIdentities"]
        assert isinstance(identities, list)
        identities[1]["tcbLevels"] = [component_level(0, "Revoked")]
    with pytest.raises(Rejected) as refusal:
        verify(VENDOR.quote(TD), spec, tdx=True)
    assert codes(refusal) == {"tcb_status_not_allowed"}


@pytest.mark.parametrize(
    "body",
    [
        TdBody(mrsignerseam=b"\1" * 48),
        TdBody(seam_attributes=b"\1" + bytes(7)),
        TdBody(tee_tcb_svn=b"\5\7\2" + bytes(13)),
    ],
    ids=["signer", "attributes", "unpublished"],
)
def test_tdx_module_that_is_not_the_published_one_is_refused(body: TdBody) -> None:
    with pytest.raises(Rejected) as refusal:
        verify(VENDOR.quote(body), tdx=True)
    assert "collateral_mismatch" in codes(refusal)


def test_seam_attributes_outside_the_mask_are_refused() -> None:
    spec = VENDOR.published(tdx=True)
    identities = spec.tcb_info["tdxModuleIdentities"]
    assert isinstance(identities, list)
    identities[1]["attributesMask"] = "00" * 8
    with pytest.raises(Rejected) as refusal:
        verify(VENDOR.quote(TdBody(seam_attributes=b"\1" + bytes(7))), spec, tdx=True)
    assert codes(refusal) == {"collateral_mismatch"}


def test_second_verifier_s_refusal_refuses() -> None:
    """It demands 32 bytes of authentication data, which no document does: what one of the two refuses is refused."""
    with pytest.raises(Rejected) as refusal:
        verify(replace(VENDOR.quote(ENCLAVE), qe_auth=b"short"))
    assert codes(refusal) == {"verifiers_disagree"}


# The parts and the event log.


def test_event_log_arrives_at_the_quoted_rtmrs_or_is_refused() -> None:
    attester, other = VENDOR.tdx_attester(), VENDOR.tdx_attester(TdBody())
    evidence = attester.collect(bytes(64))
    swapped = evidence.payload.replace(b"kernel", b"kernes")  # data: its digest is what counts
    VENDOR.tdx_scheme().verify(Evidence(tee=TDX, payload=swapped), other.endorsements, NOW)
    quote = VENDOR.quote(TD).dump()
    log = evidence.payload[evidence.payload.index(b"ccel") + 8 :][:4096]
    with pytest.raises(Rejected) as refusal:
        VENDOR.tdx_scheme().verify(
            Evidence(tee=TDX, payload=dump_parts({"quote": quote, "ccel": log})), other.endorsements, NOW
        )
    assert codes(refusal) == {"pcr_mismatch"}


def test_quote_of_the_other_tee_is_refused() -> None:
    for tdx, body in ((True, ENCLAVE), (False, TD)):
        with pytest.raises(Rejected) as refusal:
            verify(VENDOR.quote(body), tdx=tdx)
        assert codes(refusal) == {"unsupported_format"}


def test_unknown_and_missing_parts_are_malformed() -> None:
    for parts in ({"report": b""}, {"quote": b"", "extra": b""}):
        with pytest.raises(Malformed):
            VENDOR.sgx_scheme().verify(Evidence(tee=SGX, payload=dump_parts(parts)), {}, NOW)


def test_a_scheme_without_roots_is_no_scheme() -> None:
    for scheme in (SgxScheme, TdxScheme):
        with pytest.raises(UsageError):
            scheme([])


def test_production_pins_intel_s_root_which_never_signed_synthetic_evidence() -> None:
    for scheme, attester in (
        (production_sgx_scheme(), VENDOR.sgx_attester()),
        (production_tdx_scheme(), VENDOR.tdx_attester()),
    ):
        with pytest.raises(Rejected) as refusal:
            scheme.verify(attester.collect(bytes(64)), attester.endorsements, NOW)
        assert "untrusted_root" in codes(refusal)


def test_processor_authority_has_collateral_of_its_own_name() -> None:
    vendor = SyntheticIntel.generate(PlatformSpec(issuer="Processor", flags=None, sgx_type=0))
    attester = vendor.sgx_attester()
    evidence = attester.collect(bytes(64))
    assert vendor.sgx_scheme().needs(evidence) == (f"intel/sgx/{vendor.platform.fmspc.hex()}/processor",)
    assert "pck.smt" not in vendor.sgx_scheme().verify(evidence, attester.endorsements, NOW).claims


def test_what_is_remembered_is_no_verdict() -> None:
    attester, scheme = VENDOR.sgx_attester(), VENDOR.sgx_scheme()
    evidence = attester.collect(bytes(64))
    scheme.verify(evidence, attester.endorsements, NOW)
    with pytest.raises(Rejected) as refusal:
        scheme.verify(evidence, attester.endorsements, VENDOR.until + DAY)
    assert codes(refusal) == {"collateral_expired"}


def test_certificates_of_the_vendor_are_real_ones() -> None:
    assert isinstance(VENDOR.roots[0], Certificate)
