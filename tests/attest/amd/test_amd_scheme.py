"""The SNP scheme: what AMD's root vouches for is accepted, and every way around it is refused by its name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cloister.attest.amd.authority import AmdTrust, pinned_trust
from cloister.attest.amd.products import Product
from cloister.attest.amd.report import Cpuid, Firmware, SigningKey
from cloister.attest.amd.vek import EXTENSIONS, LEVELS
from cloister.attest.endorse.names import amd_ca, amd_crl, amd_vcek, amd_vlek_ca
from cloister.attest.rats import Evidence, Verdict
from cloister.attest.rules import NotChecked
from cloister.attest.schemes.snp import SNP, SnpScheme, production_snp_scheme
from cloister.errors import Malformed, Rejected, UsageError
from cloister.testing.vendors.amd import AmdAttester, Chip, Issue, ReportValues, SyntheticAmd

NOW = datetime(2026, 11, 28, tzinfo=UTC)
DAY = timedelta(days=1)
AMD = SyntheticAmd.generate()
CHIP = Chip(AMD)
CLOUD = Chip(AMD, csp="CN=cloud.example")
SCHEME = AMD.scheme()


def refusal(evidence: Evidence, *, vendor: SyntheticAmd = AMD, now: datetime = NOW, **changed: bytes) -> list[str]:
    """Return the codes of the refusal, each once, in order."""
    given = dict(vendor.endorsements) | {amd_crl(vendor.product.key): data for data in changed.values()}
    with pytest.raises(Rejected) as caught:
        vendor.scheme().verify(evidence, given, now)
    return list(dict.fromkeys(reason.code for reason in caught.value.reasons))


@pytest.mark.parametrize("product", Product)
@pytest.mark.parametrize("csp", ["", "CN=cloud.example"], ids=["vcek", "vlek"])
@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_a_genuine_report_of_every_kind_is_accepted(product: Product, csp: str, version: int) -> None:
    vendor = SyntheticAmd.generate(product)
    chip = Chip(vendor, csp=csp)
    values = ReportValues(version=version, report_data=b"\x77" * 64)
    found = vendor.scheme().verify(chip.evidence(values), vendor.endorsements, NOW)
    assert found.report_data == b"\x77" * 64
    assert found.claims["signing_key"] == ("vlek" if csp else "vcek")
    assert found.claims.get("csp") == (csp or None)
    assert found.claims["chip_id"] == chip.chip_id.hex()
    assert all(check.verdict is Verdict.PASSED for check in found.checks)


def test_a_masked_chip_id_leaves_the_one_that_the_certificate_proves() -> None:
    found = SCHEME.verify(CHIP.evidence(ReportValues(chip_id=bytes(64))), AMD.endorsements, NOW)
    assert found.claims["chip_id"] == CHIP.chip_id.hex()
    assert found.claims["chip_id_masked"] is True


# --- chain -----------------------------------------------------------------------------------------------------------


def test_a_root_that_nobody_pinned_is_refused_though_everything_under_it_holds() -> None:
    stranger = SyntheticAmd.generate(Product.GENOA)
    scheme = SnpScheme(AmdTrust(roots={Product.GENOA: AMD.ark}))
    with pytest.raises(Rejected) as caught:
        scheme.verify(Chip(stranger).evidence(), stranger.endorsements, NOW)
    assert {reason.code for reason in caught.value.reasons} == {"untrusted_root", "chain_invalid"}


def test_a_line_of_processors_without_a_pinned_root_is_refused() -> None:
    other = SyntheticAmd.generate(Product.TURIN)
    with pytest.raises(Rejected) as caught:
        SCHEME.verify(Chip(other).evidence(), other.endorsements, NOW)
    assert caught.value.code == "untrusted_root"


def test_the_chain_of_another_line_is_refused() -> None:
    genoa = SyntheticAmd.generate(Product.GENOA)
    scheme = SnpScheme(AmdTrust(roots={Product.MILAN: AMD.ark, Product.GENOA: genoa.ark}))
    swapped = CHIP.evidence(intermediate=genoa.ask.der, root=genoa.ark.der)
    with pytest.raises(Rejected) as caught:
        scheme.verify(swapped, AMD.endorsements, NOW)
    assert {reason.code for reason in caught.value.reasons} == {"chain_invalid"}


def test_a_vlek_under_the_ask_and_a_vcek_under_the_asvk_are_refused() -> None:
    assert refusal(CLOUD.evidence(intermediate=AMD.ask.der)) == ["chain_invalid"]
    assert refusal(CHIP.evidence(intermediate=AMD.asvk.der)) == ["chain_invalid"]
    crossed = Issue(signer=AMD._keys[2], issuer="SEV-VLEK-Milan")
    assert refusal(CHIP.evidence(leaf=CHIP.leaf(crossed).der, intermediate=AMD.asvk.der)) == ["chain_invalid"]


def test_a_chain_without_its_intermediate_is_fetched_or_refused() -> None:
    evidence = CHIP.evidence(intermediate=None, root=None)
    assert SCHEME.verify(evidence, AMD.endorsements, NOW).claims["product"] == "milan"
    only_list = {amd_crl("milan"): AMD.crl()}
    with pytest.raises(Rejected) as caught:
        SCHEME.verify(evidence, only_list, NOW)
    assert caught.value.code == "chain_invalid"


@pytest.mark.parametrize(
    ("issue", "now", "code"),
    [
        (Issue(not_after=NOW - DAY), NOW, "cert_expired"),
        (Issue(not_before=NOW + DAY), NOW, "cert_not_yet_valid"),
        (Issue(common_name="SEV-Milan"), NOW, "chain_invalid"),
        (Issue(issuer="SEV-Genoa"), NOW, "chain_invalid"),
        (Issue(signer=AMD.ark_key), NOW, "chain_invalid"),
        (Issue(salt_bytes=None), NOW, "algorithm_not_allowed"),
        (Issue(salt_bytes=32), NOW, "algorithm_not_allowed"),
        (Issue(digest=hashes.SHA256), NOW, "algorithm_not_allowed"),
        (Issue(digest=hashes.SHA512), NOW, "algorithm_not_allowed"),
    ],
    ids=["expired", "early", "name", "issuer", "signer", "pkcs1", "salt", "sha256", "sha512"],
)
def test_a_chip_certificate_with_a_fault_is_refused(issue: Issue, now: datetime, code: str) -> None:
    assert refusal(CHIP.evidence(leaf=CHIP.leaf(issue).der), now=now) == [code]


@pytest.mark.parametrize(
    ("issue", "code"),
    [
        (Issue(not_after=NOW - DAY), "cert_expired"),
        (Issue(not_before=NOW + DAY), "cert_not_yet_valid"),
        (Issue(authority=False), "chain_invalid"),
        (Issue(cert_sign=False), "chain_invalid"),
        (Issue(common_name="SEV-Genoa"), "chain_invalid"),
        (Issue(issuer="ARK-Genoa"), "chain_invalid"),
        (Issue(signer=AMD._keys[1]), "chain_invalid"),
        (Issue(salt_bytes=None), "algorithm_not_allowed"),
        (Issue(digest=hashes.SHA256), "algorithm_not_allowed"),
    ],
    ids=["expired", "early", "no ca", "usage", "name", "issuer", "signer", "pkcs1", "sha256"],
)
def test_an_intermediate_with_a_fault_is_refused(issue: Issue, code: str) -> None:
    vendor = SyntheticAmd(ask=issue)
    chip = Chip(vendor)
    issued_as = Issue(issuer=issue.common_name or "SEV-Milan")
    evidence = chip.evidence(leaf=chip.leaf(issued_as).der)
    assert refusal(evidence, vendor=vendor) == [code]


def test_a_root_of_yesterday_is_refused() -> None:
    assert refusal(CHIP.evidence(), now=datetime(2050, 1, 1, tzinfo=UTC)) == ["cert_expired"]
    assert refusal(CHIP.evidence(), now=datetime(2023, 1, 1, tzinfo=UTC)) == ["cert_not_yet_valid"]


def test_a_window_is_looked_at_although_the_chain_is_remembered() -> None:
    scheme = AMD.scheme()
    leaf = CHIP.leaf(Issue(not_after=NOW + DAY)).der
    lists = {**AMD.endorsements, amd_crl("milan"): AMD.crl(issue=Issue(not_after=NOW + 9 * DAY))}
    evidence = CHIP.evidence(leaf=leaf)
    scheme.verify(evidence, lists, NOW)
    for now, code in ((NOW + 2 * DAY, "cert_expired"), (datetime(2023, 1, 1, tzinfo=UTC), "cert_not_yet_valid")):
        with pytest.raises(Rejected) as caught:
            scheme.verify(evidence, lists, now)
        assert caught.value.code == code
    whole = CHIP.evidence()
    scheme.verify(whole, lists, NOW)
    with pytest.raises(Rejected) as caught:
        scheme.verify(whole, lists, NOW + 10 * DAY)
    assert caught.value.code == "collateral_expired"


def test_a_chip_key_on_another_curve_is_refused() -> None:
    chip = Chip(AMD, curve=ec.SECP521R1())
    assert refusal(CHIP.evidence(leaf=chip.leaf().der)) == ["algorithm_not_allowed"]


def test_an_authority_with_a_short_key_is_refused() -> None:
    short = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    made = Issue(common_name="SEV-Milan", serial=0x10001, authority=True)
    ask = AMD.issue(short.public_key(), made, SigningKey.NONE)
    leaf = CHIP.leaf(Issue(signer=short))
    assert refusal(CHIP.evidence(intermediate=ask.der, leaf=leaf.der)) == ["algorithm_not_allowed"]


# --- revocation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chip", [CHIP, CLOUD], ids=["ask", "asvk"])
def test_a_revoked_intermediate_is_refused(chip: Chip) -> None:
    serial = AMD.intermediate(chip.kind).x509.serial_number
    assert refusal(chip.evidence(), crl=AMD.crl(serial)) == ["revoked"]


def test_a_revoked_root_is_refused() -> None:
    assert refusal(CHIP.evidence(), crl=AMD.crl(0x10000)) == ["revoked"]


@pytest.mark.parametrize(
    ("crl", "code"),
    [
        (AMD.crl(issue=Issue(not_after=NOW - DAY)), "collateral_expired"),
        (AMD.crl(issue=Issue(not_before=NOW + DAY)), "collateral_not_yet_valid"),
        (AMD.crl(issue=Issue(issuer="ARK-Genoa")), "revocation_unknown"),
        (AMD.crl(issue=Issue(signer=AMD._keys[1])), "collateral_signature_invalid"),
        (AMD.crl(issue=Issue(salt_bytes=None)), "algorithm_not_allowed"),
        (AMD.crl(issue=Issue(digest=hashes.SHA256)), "algorithm_not_allowed"),
        (AMD.crl(extension=x509.DeltaCRLIndicator(1)), "revocation_unknown"),
        (SyntheticAmd.generate(Product.GENOA).crl(), "revocation_unknown"),
    ],
    ids=["expired", "early", "issuer", "signer", "pkcs1", "sha256", "delta", "other line"],
)
def test_a_revocation_list_with_a_fault_is_refused(crl: bytes, code: str) -> None:
    assert refusal(CHIP.evidence(), crl=crl) == [code]


def test_without_a_revocation_list_nothing_is_accepted() -> None:
    authorities = {name: data for name, data in AMD.endorsements.items() if not name.endswith("crl")}
    for evidence in (CHIP.evidence(), CHIP.evidence(crl=AMD.crl())):
        with pytest.raises(Rejected) as caught:
            SCHEME.verify(evidence, authorities, NOW)
        assert caught.value.code == "revocation_unknown"


def test_whoever_does_without_a_list_says_why_and_the_result_shows_it() -> None:
    scheme = AMD.scheme(revocation=NotChecked("air-gapped, lists come by courier"))
    skipped = [
        check for check in scheme.verify(CHIP.evidence(), {}, NOW).checks if check.verdict is Verdict.NOT_CHECKED
    ]
    assert [(check.code, check.note) for check in skipped] == [
        ("revocation_unknown", "air-gapped, lists come by courier")
    ]
    with pytest.raises(Rejected) as caught:
        scheme.verify(CHIP.evidence(crl=AMD.crl(0x10001)), {}, NOW)
    assert caught.value.code == "revoked"


def test_a_list_that_came_along_is_believed_only_where_it_revokes() -> None:
    assert refusal(CHIP.evidence(crl=AMD.crl(0x10001))) == ["revoked"]
    assert refusal(CHIP.evidence(crl=AMD.crl()), crl=AMD.crl(0x10001)) == ["revoked"]


# --- report and certificate ------------------------------------------------------------------------------------------


def test_a_report_signed_by_another_chip_is_refused() -> None:
    other = Chip(AMD, number=2)
    codes = refusal(CHIP.evidence(leaf=other.leaf().der))
    assert codes == ["signature_invalid", "chip_id_mismatch"]


def test_an_unsigned_report_is_refused() -> None:
    unsigned = ReportValues(key_info=7 << 2, patches={0x2A0: bytes(144)})
    assert refusal(CHIP.evidence(unsigned)) == ["signature_invalid", "key_binding_mismatch"]


@pytest.mark.parametrize(
    ("values", "code"),
    [
        (ReportValues(version=1), "unsupported_format"),
        (ReportValues(version=6), "unsupported_format"),
        (ReportValues(version=65535), "unsupported_format"),
        (ReportValues(signature_algorithm=0), "algorithm_not_allowed"),
        (ReportValues(signature_algorithm=2), "algorithm_not_allowed"),
        (ReportValues(key_info=1 << 2), "key_binding_mismatch"),
        (ReportValues(key_info=2 << 2), "key_binding_mismatch"),
        (ReportValues(key_info=7 << 2), "key_binding_mismatch"),
        (ReportValues(cpuid=Cpuid(0x19, 0x11, 0)), "product_mismatch"),
        (ReportValues(cpuid=Cpuid(0x17, 0x31, 0)), "product_mismatch"),
        (ReportValues(reported_tcb={"bl": 3, "snp": 24, "ucode": 219}), "tcb_mismatch"),
        (ReportValues(reported_tcb={"bl": 4, "snp": 24, "ucode": 218}), "tcb_mismatch"),
        (ReportValues(current_tcb={"bl": 4, "snp": 23, "ucode": 219}), "tcb_mismatch"),
        (ReportValues(committed_tcb={"bl": 4, "snp": 24, "ucode": 220}), "tcb_mismatch"),
        (ReportValues(committed=Firmware(1, 59, 0)), "tcb_mismatch"),
        (ReportValues(chip_id=b"\x01" * 64), "chip_id_mismatch"),
        (ReportValues(vmpl=4), "vmpl_mismatch"),
        (ReportValues(vmpl=2**32 - 1), "vmpl_mismatch"),
        (ReportValues(patches={0x4C: b"\x01"}), "unsupported_format"),
        (ReportValues(patches={0x182: b"\x01"}), "tcb_mismatch"),
        (ReportValues(patches={0x330: b"\x01"}), "unsupported_format"),
        (ReportValues(policy=1 << 17 | 1 << 40), "unsupported_format"),
    ],
)
def test_a_signed_report_that_does_not_fit_is_refused_by_its_name(values: ReportValues, code: str) -> None:
    assert refusal(CHIP.evidence(values)) == [code]


def test_what_the_firmware_may_do_is_accepted() -> None:
    older = {"bl": 3, "snp": 20, "ucode": 200}
    for values in (
        ReportValues(current_tcb={"bl": 9, "snp": 30, "ucode": 255}),
        ReportValues(committed_tcb=older, launch_tcb=older, committed=Firmware(1, 55, 9)),
        ReportValues(launch_tcb={"bl": 9, "snp": 30, "ucode": 255}),
        ReportValues(platform_info=2**64 - 1),
        ReportValues(vmpl=3),
    ):
        SCHEME.verify(CHIP.evidence(values), AMD.endorsements, NOW)


def test_a_turin_chip_is_told_by_eight_bytes_and_the_rest_is_zero() -> None:
    vendor = SyntheticAmd.generate(Product.TURIN)
    chip = Chip(vendor)
    vendor.scheme().verify(chip.evidence(), vendor.endorsements, NOW)
    longer = chip.chip_id[:-1] + b"\x01"
    assert refusal(chip.evidence(ReportValues(chip_id=longer)), vendor=vendor) == ["chip_id_mismatch"]
    fmc = ReportValues(reported_tcb={**chip.levels, "fmc": 0})
    assert refusal(chip.evidence(fmc), vendor=vendor) == ["tcb_mismatch"]


def test_all_reasons_are_told_not_the_first() -> None:
    values = ReportValues(chip_id=b"\x01" * 64, vmpl=9, reported_tcb={}, cpuid=Cpuid(0x1A, 2, 0))
    codes = refusal(CHIP.evidence(values, leaf=CHIP.leaf(Issue(not_after=NOW - DAY)).der))
    assert codes == ["cert_expired", "product_mismatch", "tcb_mismatch", "chip_id_mismatch", "vmpl_mismatch"]


# --- AMD's extensions ------------------------------------------------------------------------------------------------


def altered(**changed: bytes | None) -> bytes:
    extensions = CHIP.extensions()
    for name, value in changed.items():
        oid = {**EXTENSIONS, **LEVELS}[name]
        extensions.pop(oid, None)
        if value is not None:
            extensions[oid] = value
    return CHIP.leaf(Issue(extensions=extensions)).der


@pytest.mark.parametrize(
    "changed",
    [
        {"struct_version": None},
        {"product_name": None},
        {"product_name": b"\x16\x06Venice"},
        {"product_name": b"\x0c\x05Milan"},
        {"product_name": b"\x16\x06Milan"},
        {"product_name": b"\x16\x00"},
        {"product_name": b"\x16\x07Milan-\x1b"},
        {"product_name": b"\x16\x06Milan\xff"},
        {"bl": None},
        {"ucode": None},
        {"ucode": b"\x02\x01\xdb"},
        {"ucode": b"\x02\x02\x00\x7f"},
        {"ucode": b"\x02\x02\x01\x00"},
        {"ucode": b"\x04\x01\x01"},
        {"ucode": b""},
        {"hwid": None},
        {"hwid": b"\x01" * 63},
        {"hwid": b"\x01" * 8},
        {"hwid": b""},
        {"csp": b"\x16\x01x"},
    ],
    ids=str,
)
def test_extensions_out_of_form_are_malformed(changed: dict[str, bytes | None]) -> None:
    with pytest.raises(Malformed):
        SCHEME.verify(CHIP.evidence(leaf=altered(**changed)), AMD.endorsements, NOW)


def test_a_hardware_id_may_be_bare_or_in_an_octet_string() -> None:
    leaf = altered(hwid=b"\x04\x40" + CHIP.hwid)
    assert SCHEME.verify(CHIP.evidence(leaf=leaf), AMD.endorsements, NOW).claims["chip_id"] == CHIP.chip_id.hex()


def test_another_tcb_in_the_certificate_is_another_key() -> None:
    assert refusal(CHIP.evidence(leaf=altered(snp=b"\x02\x01\x19"))) == ["tcb_mismatch"]
    assert refusal(CHIP.evidence(leaf=altered(spl5=b"\x02\x01\x01"))) == ["tcb_mismatch"]


# --- what is asked for -----------------------------------------------------------------------------------------------


def test_needs_names_what_did_not_come_along() -> None:
    hwid, tcb = CHIP.hwid.hex(), "04000000000018db"
    assert SCHEME.needs(CHIP.evidence()) == (amd_crl("milan"),)
    assert SCHEME.needs(CHIP.evidence(crl=AMD.crl())) == (amd_crl("milan"),)
    assert SCHEME.needs(CHIP.evidence(intermediate=None)) == (amd_ca("milan"), amd_crl("milan"))
    assert SCHEME.needs(CLOUD.evidence(intermediate=None, root=None)) == (amd_vlek_ca("milan"), amd_crl("milan"))
    bare = CHIP.evidence(leaf=None, intermediate=None, root=None)
    assert SCHEME.needs(bare) == (amd_vcek("milan", hwid, tcb), amd_ca("milan"), amd_crl("milan"))
    assert AMD.scheme(revocation=NotChecked("a test")).needs(CHIP.evidence()) == ()


def test_a_turin_certificate_is_asked_for_by_eight_bytes() -> None:
    vendor = SyntheticAmd.generate(Product.TURIN)
    chip = Chip(vendor)
    bare = chip.evidence(leaf=None)
    name = amd_vcek("turin", chip.hwid.hex(), "0102010400000047")
    assert vendor.scheme().needs(bare) == (name, amd_crl("turin"))
    fetched = {**vendor.endorsements, name: chip.leaf().der}
    assert vendor.scheme().verify(bare, fetched, NOW).claims["tcb.fmc"] == 1


def test_a_certificate_that_was_not_fetched_is_no_yes() -> None:
    with pytest.raises(Rejected) as caught:
        SCHEME.verify(CHIP.evidence(leaf=None), AMD.endorsements, NOW)
    assert caught.value.code == "chain_invalid"


@pytest.mark.parametrize(
    "evidence",
    [
        CLOUD.evidence(leaf=None),
        CHIP.evidence(ReportValues(chip_id=bytes(64)), leaf=None),
        CHIP.evidence(ReportValues(version=2), leaf=None),
        CHIP.evidence(ReportValues(cpuid=Cpuid(0x1B, 0, 0)), leaf=None),
    ],
    ids=["vlek", "masked", "version 2", "unknown processor"],
)
def test_a_certificate_that_cannot_be_asked_for_has_to_come_along(evidence: Evidence) -> None:
    with pytest.raises(Rejected) as caught:
        SCHEME.needs(evidence)
    assert caught.value.code == "chain_invalid"


def test_pinned_intermediates_save_the_download() -> None:
    trust = AmdTrust(roots={Product.MILAN: AMD.ark}, intermediates=(AMD.ask, AMD.asvk))
    scheme = SnpScheme(trust)
    for chip in (CHIP, CLOUD):
        evidence = chip.evidence(intermediate=None, root=None)
        assert scheme.needs(evidence) == (amd_crl("milan"),)
        scheme.verify(evidence, {amd_crl("milan"): AMD.crl()}, NOW)


def test_production_trusts_amd_alone() -> None:
    trust = pinned_trust()
    assert set(trust.roots) == set(Product)
    with pytest.raises(Rejected) as caught:
        production_snp_scheme().verify(CHIP.evidence(), AMD.endorsements, NOW)
    assert "untrusted_root" in {reason.code for reason in caught.value.reasons}
    with pytest.raises(UsageError):
        AmdTrust(roots={})


# --- certificate table -----------------------------------------------------------------------------------------------


def test_the_certificate_table_of_an_extended_report_is_enough() -> None:
    for chip in (CHIP, CLOUD):
        evidence = AmdAttester(chip).collect(bytes(64))
        assert SCHEME.needs(evidence) == (amd_crl("milan"),)
        assert SCHEME.verify(evidence, AMD.endorsements, NOW).tee == SNP


def test_certificates_may_come_as_pem() -> None:
    chain = AMD.ask.pem + AMD.ark.pem
    evidence = CHIP.evidence(leaf=b"\n" + CHIP.leaf().pem, intermediate=chain, root=None)
    SCHEME.verify(evidence, AMD.endorsements, NOW)
    for bad in (b"", b"-----BEGIN CERTIFICATE-----", chain + b"more", chain * 5, chain.replace(b"MII", b"M=I")):
        with pytest.raises(Malformed):
            SCHEME.verify(CHIP.evidence(intermediate=bad), AMD.endorsements, NOW)
    with pytest.raises(Malformed):
        SCHEME.verify(CHIP.evidence(leaf=CHIP.leaf().pem * 2), AMD.endorsements, NOW)


def test_an_unknown_part_is_malformed() -> None:
    with pytest.raises(Malformed):
        SCHEME.verify(CHIP.evidence(quote=b"x"), AMD.endorsements, NOW)
    with pytest.raises(Malformed):
        SCHEME.verify(CHIP.evidence(report=None), AMD.endorsements, NOW)


def test_an_attester_wants_its_field_filled() -> None:
    with pytest.raises(UsageError):
        AmdAttester(CHIP).collect(bytes(32))
