"""Damaged SNP evidence: Malformed comes out of parsers, Malformed or Rejected of the scheme, a yes of neither."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from seeds_amd import TARGETS

from cloister.attest.amd.certificates import parse_certificates
from cloister.attest.amd.evidence import SnpEvidence
from cloister.attest.amd.report import Report
from cloister.attest.amd.vek import Vek
from cloister.attest.describe.amd import SnpCertificateDescriber, SnpReportDescriber
from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence
from cloister.attest.schemes.snp import SNP
from cloister.errors import Malformed, Rejected
from cloister.testing.vendors.amd import Chip, SyntheticAmd
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2026, 11, 28, tzinfo=UTC)
AMD = SyntheticAmd.generate()
CHIP = Chip(AMD)
PARTS = CHIP.parts()
WHOLE = Evidence(tee=SNP, payload=dump_parts(PARTS))
SCHEME = AMD.scheme()
SLOW = {"snp launch": 300, "snp evidence": 4_000}


def demand_no(evidence: Evidence) -> None:
    with pytest.raises((Malformed, Rejected)):
        SCHEME.verify(evidence, AMD.endorsements, NOW)


@pytest.mark.parametrize(("name", "target"), TARGETS.items(), ids=TARGETS)
def test_only_malformed_comes_out_of_a_parser(
    name: str, target: tuple[Callable[[bytes], object], Callable[[], list[bytes]]]
) -> None:
    parse, seeds = target
    for seed in seeds():
        parse(seed)
        refused = 0
        for damaged in mutated(seed, count=SLOW.get(name, 10_000) // len(seeds())):
            try:
                parse(damaged)
            except Malformed:
                refused += 1
        assert refused or name == "snp report"


@pytest.mark.parametrize("role", PARTS)
def test_every_byte_of_every_part_counts(role: str) -> None:
    genuine = PARTS[role]
    for place in range(0, len(genuine), 1 if role == "report" else 3):
        damaged = bytearray(genuine)
        damaged[place] ^= 1 << place % 8
        demand_no(Evidence(tee=SNP, payload=dump_parts({**PARTS, role: bytes(damaged)})))


def test_every_byte_of_a_revocation_list_counts() -> None:
    crl = AMD.crl()
    for place in range(0, len(crl), 3):
        damaged = bytearray(crl)
        damaged[place] ^= 1 << place % 8
        with pytest.raises((Malformed, Rejected)):
            SCHEME.verify(WHOLE, {"amd/milan/crl": bytes(damaged)}, NOW)


def test_only_malformed_or_rejected_comes_out_of_the_scheme() -> None:
    good = WHOLE.payload
    for damaged in mutated(good):
        if damaged != good:
            demand_no(Evidence(tee=SNP, payload=damaged))
            try:
                SCHEME.needs(Evidence(tee=SNP, payload=damaged))
            except (Malformed, Rejected):
                continue


def test_parsers_refuse_each_cut() -> None:
    payload = WHOLE.payload
    for size in range(len(payload)):
        with pytest.raises(Malformed):
            SnpEvidence.parse(payload[:size])
    for size in range(len(PARTS["leaf"])):
        with pytest.raises(Malformed):
            parse_certificates(PARTS["leaf"][:size], zero_serial=True)


def test_describers_explain_what_they_recognise() -> None:
    report, leaf = SnpReportDescriber(), SnpCertificateDescriber()
    assert report.recognises(PARTS["report"])
    assert not report.recognises(PARTS["leaf"])
    assert leaf.recognises(PARTS["leaf"])
    assert not leaf.recognises(AMD.ask.der)
    fields = {item.name: item.value for item in report.describe(PARTS["report"]).fields}
    parsed = Report.parse(PARTS["report"])
    assert fields["MEASUREMENT"] == parsed.measurement.hex()
    assert fields["POLICY.DEBUG"] == "0"
    named = {item.name: item.value for item in leaf.describe(PARTS["leaf"]).fields}
    assert named["hwID"] == Vek.parse(CHIP.leaf()).hwid.hex()
    cloud = Chip(AMD, csp="CN=cloud.example").leaf()
    assert {item.name: item.value for item in leaf.describe(cloud.der).fields}["cspID"] == "CN=cloud.example"
    assert all(item.meaning for item in report.describe(PARTS["report"]).fields)
    with pytest.raises(Malformed):
        leaf.describe(AMD.ask.pem + AMD.ark.pem)
