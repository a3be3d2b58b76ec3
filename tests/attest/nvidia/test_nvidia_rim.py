"""Manifests: hostile XML is malformed, one signature over all of it, a signer below the pinned root, golden values."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from lxml import etree
from signxml.algorithms import CanonicalizationMethod, DigestAlgorithm, SignatureMethod

from cloister.attest.nvidia.golden import conflicting_indices, mismatching_indices
from cloister.attest.nvidia.opaque import FieldType
from cloister.attest.nvidia.report import Report
from cloister.attest.nvidia.rim import MAX_RIM_BYTES, Rim
from cloister.attest.nvidia.rimsignature import verify_rim_chain, verify_rim_signature, window
from cloister.errors import Malformed, Rejected
from cloister.testing.vendors.nvidia import NvidiaVendor
from cloister.testing.vendors.nvidia.issuing import usage
from cloister.testing.vendors.nvidia.manifests import build_manifest, sign_manifest

if TYPE_CHECKING:
    from cloister.testing.vendors.nvidia import Issuer

VENDOR = NvidiaVendor.generate()
HOPPER = VENDOR.device()
SIGNER = VENDOR.signer()
ABOVE = (VENDOR.rim_authority.certificate, VENDOR.rim_root.certificate)
ROOTS = (VENDOR.rim_root.certificate,)
NOW = datetime(2026, 6, 1, tzinfo=UTC)
GOLDEN = {index: [bytes((index,)) * 48] for index in (0, 1, 5)}
GOOD = sign_manifest(build_manifest("590.12", "GH100", GOLDEN), SIGNER, ABOVE)
REPORT = Report.parse(HOPPER.report(bytes(32)))
DS = "http://www.w3.org/2000/09/xmldsig#"


def signed(
    golden: dict[int, list[bytes]] | None = None, *, signer: Issuer = SIGNER, floors: dict[int, int] | None = None
) -> bytes:
    return sign_manifest(build_manifest("590.12", "GH100", golden or GOLDEN, floors=floors), signer, ABOVE)


def signature_code(data: bytes) -> str:
    with pytest.raises(Rejected) as refused:
        verify_rim_signature(Rim.parse(data))
    return refused.value.code


def test_a_manifest_says_what_it_is_about_and_who_signed_it() -> None:
    rim = Rim.parse(GOOD)
    assert verify_rim_signature(rim) == rim.manifest
    assert verify_rim_chain(rim, ROOTS, NOW) == (SIGNER.certificate, *ABOVE)
    assert (rim.manifest.version, rim.manifest.product) == ("590.12", "GH100")
    assert [item.index for item in rim.manifest.active] == [0, 1, 5]
    assert len(rim.manifest.references) == 64


@pytest.mark.parametrize(
    ("what", "old", "new"),
    [
        ("a golden value", b"01" * 48, b"02" * 48),
        ("a version", b"590.12", b"590.13"),
        ("a product", b'product="GH100"', b'product="GB100"'),
        ("a tag", b'tagId="', b'tagId="00'),
        ("an index made inactive", b'index="5" active="True"', b'index="5" active="False"'),
        ("a word nobody reads", b'revision="r1"', b'revision="r2"'),
        ("white space", b"<Entity", b" <Entity"),
    ],
)
def test_whatever_is_changed_in_a_signed_manifest_breaks_it(what: str, old: bytes, new: bytes) -> None:  # noqa: ARG001 - names the case
    data = GOOD.replace(old, new, 1)
    assert data != GOOD
    assert signature_code(data) == "rim_signature_invalid"


def test_a_signature_value_of_another_manifest_is_refused() -> None:
    value = re.compile(rb"(<ds:SignatureValue>)[^<]+")
    other = value.search(signed({0: [bytes(48)]}))
    assert other is not None
    assert signature_code(value.sub(other.group(0).replace(b"\\", b""), GOOD)) == "rim_signature_invalid"


@pytest.mark.parametrize(
    ("digest", "method"),
    [
        (DigestAlgorithm.SHA256, SignatureMethod.ECDSA_SHA384),
        (DigestAlgorithm.SHA512, SignatureMethod.ECDSA_SHA384),
        (DigestAlgorithm.SHA384, SignatureMethod.ECDSA_SHA256),
        (DigestAlgorithm.SHA384, SignatureMethod.ECDSA_SHA512),
    ],
)
def test_another_algorithm_is_refused(digest: DigestAlgorithm, method: SignatureMethod) -> None:
    tag = build_manifest("1", "GH100", GOLDEN)
    assert signature_code(sign_manifest(tag, SIGNER, ABOVE, digest=digest, method=method)) == "rim_signature_invalid"


@pytest.mark.parametrize(
    "canonical",
    [
        CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0,
        CanonicalizationMethod.CANONICAL_XML_1_1_WITH_COMMENTS,
    ],
)
def test_another_canonical_form_is_refused(canonical: CanonicalizationMethod) -> None:
    tag = build_manifest("1", "GH100", GOLDEN)
    assert signature_code(sign_manifest(tag, SIGNER, ABOVE, canonical=canonical)) == "rim_signature_invalid"


def test_a_signed_manifest_wrapped_in_another_is_refused() -> None:
    evil, good = build_manifest("590.12", "GH100", {0: [b"\xee" * 48]}), etree.fromstring(GOOD)
    signature = good[-1]
    # the signature moved to another tag; with the good tag hidden where nobody looks; and both side by side
    evil.append(signature)
    assert signature_code(etree.tostring(evil)) == "rim_signature_invalid"
    evil[0].append(etree.fromstring(GOOD))
    with pytest.raises(Malformed):
        Rim.parse(etree.tostring(evil))
    hidden = etree.SubElement(evil[-1], f"{{{DS}}}Object")
    evil[0].remove(evil[0][0])
    hidden.append(etree.fromstring(GOOD))
    with pytest.raises(Malformed):
        Rim.parse(etree.tostring(evil))


def test_a_reference_to_a_part_is_refused() -> None:
    data = GOOD.replace(b'URI=""', b'URI="#x"').replace(b"<Payload", b'<Payload Id="x"')
    assert signature_code(data) == "rim_signature_invalid"
    assert signature_code(GOOD.replace(b'URI=""', b'URI="http://example.com/"')) == "rim_signature_invalid"
    assert signature_code(GOOD.replace(b' URI=""', b"")) == "rim_signature_invalid"


def test_a_signer_of_another_curve_is_refused() -> None:
    weak = VENDOR.rim_authority.issue("weak", extensions=[(usage(signs=True), True)], curve=ec.SECP256R1())
    assert signature_code(signed(signer=weak)) == "algorithm_not_allowed"


def test_two_signatures_are_malformed() -> None:
    root = etree.fromstring(GOOD)
    root.append(etree.fromstring(etree.tostring(root[-1])))
    with pytest.raises(Malformed, match="2 signatures"):
        Rim.parse(etree.tostring(root))


def test_no_signature_is_malformed() -> None:
    with pytest.raises(Malformed, match="0 signatures"):
        Rim.parse(etree.tostring(build_manifest("1", "GH100", GOLDEN)))


def test_a_key_beside_the_certificates_is_refused() -> None:
    data = GOOD.replace(b"<ds:X509Data>", b"<ds:KeyName>x</ds:KeyName><ds:X509Data>")
    assert verify_rim_signature(Rim.parse(data))  # not under the signature, and nobody reads it
    moved = GOOD.replace(b"</ds:KeyInfo>", b"</ds:KeyInfo><ds:Object/>")
    with pytest.raises((Malformed, Rejected)):
        verify_rim_signature(Rim.parse(moved))


def test_the_signer_is_below_the_pinned_root() -> None:
    with pytest.raises(Rejected) as refused:
        verify_rim_chain(Rim.parse(GOOD), (NvidiaVendor.generate().rim_root.certificate,), NOW)
    assert refused.value.code == "untrusted_root"


def test_a_signer_sees_its_end_and_its_beginning() -> None:
    start, end = datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 5, 31, tzinfo=UTC)
    rim = Rim.parse(signed(signer=VENDOR.signer((start, end))))
    assert window(rim.certificates) == (start, end)
    verify_rim_signature(rim)
    for now, code in ((NOW, "rim_cert_expired"), (datetime(2024, 1, 1, tzinfo=UTC), "cert_not_yet_valid")):
        with pytest.raises(Rejected) as refused:
            verify_rim_chain(rim, ROOTS, now)
        assert refused.value.code == code


@pytest.mark.parametrize("signer", [VENDOR.signer(signs=False), VENDOR.rim_authority.authority("an authority")])
def test_who_may_not_sign_signs_no_manifest(signer: Issuer) -> None:
    rim = Rim.parse(signed(signer=signer))
    with pytest.raises(Rejected) as refused:
        verify_rim_chain(rim, ROOTS, NOW)
    assert refused.value.code == "chain_invalid"


LAUGHS = b"".join(b'<!ENTITY l%d "%s">' % (n, b"&l%d;" % (n - 1) * 10 if n else b"lol") for n in range(10))
HOSTILE = {
    "nothing": b"",
    "no xml": b"\x00\x01",
    "a billion laughs": b"<!DOCTYPE s [" + LAUGHS + b"]>" + GOOD.replace(b"590.12", b"&l9;"),
    "a document type": b"<!DOCTYPE SoftwareIdentity>" + GOOD,
    "an external document type": b'<!DOCTYPE s SYSTEM "http://example.com/x.dtd">' + GOOD,
    "an external entity": b'<!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/hostname">]>' + GOOD.replace(b"590.12", b"&x;"),
    "an unknown entity": GOOD.replace(b"590.12", b"&x;"),
    "a comment in a certificate": GOOD.replace(b"</ds:X509Certificate>", b"<!-- --></ds:X509Certificate>", 1),
    "a comment before the root": b"<!-- -->" + GOOD,
    "a comment after the root": GOOD + b"<!-- -->",
    "a processing instruction": b"<?xml-stylesheet href='x'?>" + GOOD,
    "utf-16": GOOD.decode().encode("utf-16"),
    "utf-7 by name": b'<?xml version="1.0" encoding="utf-7"?>' + GOOD,
    "latin-1": b'<?xml version="1.0" encoding="ISO-8859-1"?>' + GOOD,
    "no utf-8": GOOD.replace(b"590.12", b"\xff\xfe"),
    "very deep": b"<a>" * 5000 + b"</a>" * 5000,
    "many elements": GOOD.replace(b"</Payload>", b'<Resource type="x"/>' * 600 + b"</Payload>"),
    "many attributes": GOOD.replace(b'revision="r1"', b" ".join(b'a%d="1"' % n for n in range(100))),
    "too long": GOOD + b" " * MAX_RIM_BYTES,
    "another root": GOOD.replace(b"SoftwareIdentity", b"HardwareIdentity"),
    "another namespace": GOOD.replace(b"19770/-2/2015", b"19770/-2/2009"),
    "a namespace that only looks like it": GOOD.replace(b"http://standards.iso.org", b"http://standards.iso.org."),
    "a second payload": GOOD.replace(b"<Payload", b"<Payload/><Payload"),
    "no meta": re.sub(rb"<Meta [^>]*/>", b"", GOOD),
    "an element nobody knows": GOOD.replace(b"<Payload", b"<Evidence/><Payload"),
    "an element in meta": re.sub(rb"(<Meta [^>]*)/>", rb"\1><x/></Meta>", GOOD),
    "a directory in the payload": GOOD.replace(b"<Resource", b'<Directory name="x"/><Resource', 1),
    "another type of resource": GOOD.replace(b'type="Measurement"', b'type="Measure"', 1),
    "one index twice": GOOD.replace(b'index="1"', b'index="0"'),
    "a negative index": GOOD.replace(b'index="1"', b'index="-1"'),
    "an index with a plus": GOOD.replace(b'index="1"', b'index="+1"'),
    "an arabic index": GOOD.replace(b'index="1"', 'index="\u0661"'.encode()),
    "an index past the end": GOOD.replace(b'index="1"', b'index="4294967295"'),
    "active maybe": GOOD.replace(b'active="True"', b'active="maybe"', 1),
    "one alternative more": GOOD.replace(b'alternatives="1"', b'alternatives="2"', 1),
    "no alternative": GOOD.replace(b'alternatives="1"', b'alternatives="0"', 1),
    "alternatives without end": GOOD.replace(b'alternatives="1"', b'alternatives="4294967295"', 1),
    "active and no golden value": re.sub(
        rb'alternatives="1" ([^>]*)ns2:Hash0="[0-9a-f]*"', rb'alternatives="0" \1', GOOD
    ),
    "another size": GOOD.replace(b'size="48"', b'size="47"', 1),
    "a size past the end": GOOD.replace(b'size="48"', b'size="4294967295"', 1),
    "no hex": GOOD.replace(b"01" * 48, b"0g" * 48),
    "an odd number of digits": GOOD.replace(b"01" * 48, b"01" * 47 + b"0"),
    "no version": GOOD.replace(b'colloquialVersion="590.12" ', b""),
    "an empty version": GOOD.replace(b'"590.12"', b'""'),
    "a version with a line break": GOOD.replace(b"590.12", b"590&#10;12"),
    "a version that is long": GOOD.replace(b"590.12", b"5" * 300),
    "no certificate": re.sub(rb"<ds:X509Certificate>.*</ds:X509Certificate>", b"", GOOD, flags=re.DOTALL),
    "a certificate that is none": re.sub(rb"<ds:X509Certificate>[^<]*", b"<ds:X509Certificate>AAAA", GOOD),
    "a certificate that is no base64": re.sub(rb"<ds:X509Certificate>[^<]*", b"<ds:X509Certificate>****", GOOD),
    "nine certificates": re.sub(rb"(<ds:X509Certificate>[^<]*</ds:X509Certificate>)", rb"\1" * 4, GOOD),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_xml_is_malformed_at_once(data: bytes) -> None:
    assert data != GOOD
    began = time.perf_counter()
    with pytest.raises(Malformed):
        Rim.parse(data)
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize("size", range(0, len(GOOD), 211))
def test_a_manifest_cut_anywhere_is_malformed(size: int) -> None:
    with pytest.raises(Malformed):
        Rim.parse(GOOD[:size])


def test_a_declaration_of_utf_8_is_allowed() -> None:
    assert verify_rim_signature(Rim.parse(b'<?xml version="1.0" encoding="UTF-8"?>\n' + GOOD))


# Golden values


def values(golden: dict[int, list[bytes]], floors: dict[int, int] | None = None) -> Rim:
    return Rim.parse(signed(golden, floors=floors))


def test_index_i_is_block_i_plus_1_and_any_alternative_will_do() -> None:
    right = HOPPER.measurements[13]
    assert mismatching_indices(REPORT, values({12: [bytes(48), right]}).manifest) == ()
    assert mismatching_indices(REPORT, values({11: [right], 13: [right]}).manifest) == (11, 13)


def test_a_value_of_another_size_is_no_match() -> None:
    short = HOPPER.measurements[13][:47]
    assert mismatching_indices(REPORT, values({12: [short]}).manifest) == (12,)


def test_a_measurement_that_the_report_lacks_is_no_match() -> None:
    fewer = {index: value for index, value in HOPPER.measurements.items() if index != 13}
    report = Report.parse(replace(HOPPER, measurements=fewer).report(bytes(32)))
    assert mismatching_indices(report, values({12: [HOPPER.measurements[13]]}).manifest) == (12,)


@pytest.mark.parametrize(("status", "wrong"), [(b"\x55", ()), (b"\xaa", (35,)), (b"\x00", (35,)), (b"", (35,))])
def test_measurement_35_counts_unless_the_decoder_is_fused_off(status: bytes, wrong: tuple[int, ...]) -> None:
    device = replace(HOPPER, fields={**HOPPER.fields, FieldType.NVDEC0_STATUS: status})
    report = Report.parse(device.report(bytes(32)))
    assert mismatching_indices(report, values({35: [bytes(48)]}).manifest) == wrong


@pytest.mark.parametrize(("floor", "wrong"), [(0, ()), (5, ()), (6, (0x1000 + 77,))])
def test_a_floor_is_a_floor(floor: int, wrong: tuple[int, ...]) -> None:
    fields = {**HOPPER.fields, 77: b"\x05\x00"}
    manifest = values({0: [HOPPER.measurements[1]]}, {77: floor}).manifest
    report = Report.parse(replace(HOPPER, fields=fields, versioned=True).report(bytes(32)))
    assert mismatching_indices(report, manifest) == wrong
    # without the value type of a floor, and without the field at all, nothing is above it
    for device in (replace(HOPPER, fields=fields), replace(HOPPER, versioned=True)):
        assert mismatching_indices(Report.parse(device.report(bytes(32))), manifest) == (0x1000 + 77,)


def test_an_index_in_both_manifests_is_a_conflict() -> None:
    one, other = values({1: [bytes(48)], 2: [bytes(48)]}).manifest, values({2: [bytes(48)], 3: [bytes(48)]}).manifest
    assert conflicting_indices(one, other) == (2,)
    assert conflicting_indices(one, values({3: [bytes(48)]}).manifest) == ()
