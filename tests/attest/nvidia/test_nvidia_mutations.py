"""Ten thousand damaged inputs for each parser: Malformed comes out, or Rejected where a verdict is asked for."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from cloister.attest.chain import Certificate
from cloister.attest.describe.nvidia import NvidiaReportDescriber
from cloister.attest.nvidia.devicechain import Arch, DeviceChain
from cloister.attest.nvidia.dice import fwid_of
from cloister.attest.nvidia.evidence import dump_nvidia_evidence
from cloister.attest.nvidia.ocsp import parse_answers
from cloister.attest.nvidia.opaque import parse_opaque
from cloister.attest.nvidia.report import Report
from cloister.attest.nvidia.rim import Rim
from cloister.attest.nvidia.rimsignature import verify_rim_signature
from cloister.attest.rats import Evidence
from cloister.attest.rules import NotChecked
from cloister.attest.schemes.nvidia import NVIDIA_GPU, Relaxed
from cloister.errors import Malformed, Rejected
from cloister.testing.vendors.nvidia import NvidiaVendor
from cloister.testing.vendors.nvidia.issuing import answer
from cloister.testing.vendors.nvidia.manifests import build_manifest, sign_manifest
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Callable

VENDOR = NvidiaVendor.generate()
HOPPER = VENDOR.device()
SMALL = replace(HOPPER, measurements={index: HOPPER.measurements[index] for index in (1, 2, 64)})
REPORT = SMALL.report(bytes(32))
TAG = build_manifest("590.12", "GH100", {0: [bytes(48)]})
del TAG[2][2:]
RIM = sign_manifest(TAG, VENDOR.signer(), (VENDOR.rim_authority.certificate,))
NOW = datetime(2026, 6, 1, tzinfo=UTC)
WHY = NotChecked("not the point of this test")
RELAXED = Relaxed(revocation=WHY, rim_revocation=WHY, driver_rim=WHY, vbios_rim=WHY)


def whole_report(data: bytes) -> None:
    report = Report.parse(data)
    assert isinstance((report.driver, report.vbios, report.mode, report.wired_switches, report.wired_gpus), tuple)


def whole_chain(data: bytes) -> None:
    chain = DeviceChain.parse(data)
    assert isinstance((chain.arch, chain.model_name, fwid_of(chain.leaf)), tuple)


PARSERS = {
    "report": (whole_report, REPORT),
    "fields": (parse_opaque, SMALL.opaque),
    "versioned fields": (parse_opaque, replace(SMALL, versioned=True).opaque),
    "chain of der": (whole_chain, b"".join(item.der for item in HOPPER.chain[:2])),
    "chain of pem": (whole_chain, HOPPER.chain[0].pem + HOPPER.chain[1].pem),
    "blackwell leaf": (lambda data: fwid_of(Certificate.parse(data)), VENDOR.device(Arch.BLACKWELL).chain[0].der),
    "answer": (parse_answers, answer(HOPPER.chain[1], VENDOR.provisioner, responder=VENDOR.provisioner.responder())),
    "manifest": (Rim.parse, RIM),
    "description": (NvidiaReportDescriber().describe, REPORT),
}


@pytest.mark.parametrize(("parse", "data"), PARSERS.values(), ids=PARSERS)
def test_only_malformed_comes_out_of_a_parser(parse: Callable[[bytes], object], data: bytes) -> None:
    parse(data)
    refused = 0
    for damaged in mutated(data):
        try:
            parse(damaged)
        except (Malformed, Rejected) as exc:  # unsupported_format is a verdict about a version
            refused += 1
            code = exc.code if isinstance(exc, Rejected) else "malformed"
            assert code in {"malformed", "unsupported_format", "revocation_unknown"}
    assert refused


def test_only_a_refusal_comes_out_of_the_signature_of_a_manifest() -> None:
    good = Rim.parse(RIM)
    for damaged in mutated(RIM, count=2500, seed=3):
        try:
            rim = Rim.parse(damaged)
            manifest = verify_rim_signature(rim)
        except (Malformed, Rejected):
            continue
        assert manifest == good.manifest  # only certificates above the signer are not under the signature


def test_only_malformed_or_rejected_comes_out_of_the_scheme() -> None:
    scheme = VENDOR.scheme(relaxed=RELAXED)
    root = VENDOR.device_root
    rom = root.authority("GH100 A01 GSP BROM")
    short = VENDOR.device(rom=rom)
    der = b"".join(item.der for item in (short.chain[0], short.chain[1]))
    good = dump_nvidia_evidence(replace(short, measurements=SMALL.measurements).report(bytes(32)), der)
    verified = scheme.verify(Evidence(tee=NVIDIA_GPU, payload=good), {}, NOW)
    for damaged in mutated(good):
        if damaged != good:
            with pytest.raises((Malformed, Rejected)):
                scheme.verify(Evidence(tee=NVIDIA_GPU, payload=damaged), {}, NOW)
    assert verified.claims["chip"] == "GH100"
