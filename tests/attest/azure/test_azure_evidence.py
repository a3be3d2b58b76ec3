"""JSON in which projects pass Azure evidence on: every published shape, and nothing else."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from cloister.attest.azure.evidence import AzureEvidence
from cloister.errors import Malformed
from mutations import mutated

HCL, ATTEST, SIGNATURE, VCEK, QUOTE = b"HCLA" * 9, b"\xffTCG" * 9, bytes(range(256)), b"\x30\x82" * 9, b"\x04\x00" * 9
PCRS = [bytes((index,)) * 32 for index in range(24)]
PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def url(data: bytes, *, padded: bool = True) -> str:
    text = base64.urlsafe_b64encode(data).decode()
    return text if padded else text.rstrip("=")


OLD_QUOTE = {"message": list(ATTEST), "signature": list(SIGNATURE), "pcrs": [list(value) for value in PCRS]}
QUOTED = {"message": ATTEST.hex(), "signature": SIGNATURE.hex(), "pcrs": [value.hex() for value in PCRS]}
SNP = {"version": 1, "tpm_quote": QUOTED, "hcl_report": url(HCL), "vcek": url(VCEK)}
TDX = {"version": 1, "tpm_quote": QUOTED, "hcl_report": url(HCL), "td_quote": url(QUOTE)}
SHAPES: dict[str, dict[str, Any]] = {
    "snp 0": {"quote": OLD_QUOTE, "report": list(HCL), "vcek": PEM},
    "snp 1": SNP,
    "snp 2": SNP | {"version": 2},
    "snp 1, no padding": SNP | {"hcl_report": url(HCL, padded=False), "vcek": url(VCEK, padded=False)},
    "snp 1, standard alphabet": SNP | {"hcl_report": base64.b64encode(HCL).decode()},
    "snp wrapped": {"platform": "az-snp", "evidence": SNP},
    "snp with the metadata service's certificates": {
        "quote": OLD_QUOTE,
        "report": list(HCL),
        "certs": {"vcekCert": PEM, "certificateChain": PEM + PEM, "tcbm": "DB18000000000004", "cacheControl": "1"},
        "report_data": [1, 2, 3],
    },
    "tdx 0": {"tpm_quote": OLD_QUOTE, "hcl_report": list(HCL), "td_quote": list(QUOTE)},
    "tdx 1": TDX,
    "tdx wrapped": {"platform": "az-tdx", "evidence": TDX},
}


@pytest.mark.parametrize("document", SHAPES.values(), ids=SHAPES)
def test_every_published_shape_is_read_alike(document: dict[str, Any]) -> None:
    found = AzureEvidence.parse(json.dumps(document).encode())
    assert (found.hcl_report, found.attest, found.signature) == (HCL, ATTEST, SIGNATURE)
    assert found.pcrs == dict(enumerate(PCRS))
    assert (found.leaf in {VCEK, PEM.encode()}) is not (found.td_quote == QUOTE)


BAD: dict[str, dict[str, Any]] = {
    "version 0": SNP | {"version": 0},
    "version 3": SNP | {"version": 3},
    "version true": SNP | {"version": True},
    "unknown member": SNP | {"more": 1},
    "unknown member of the quote": SNP | {"tpm_quote": QUOTED | {"more": 1}},
    "no quote": {name: value for name, value in SNP.items() if name != "tpm_quote"},
    "two reports": SNP | {"report": url(HCL)},
    "neither hardware": {name: value for name, value in SNP.items() if name != "vcek"},
    "both hardwares": SNP | {"td_quote": url(QUOTE)},
    "another platform": {"platform": "gce", "evidence": SNP},
    "wrapped twice": {"platform": "az-snp", "evidence": {"platform": "az-snp", "evidence": SNP}},
    "beside the wrapping": {"platform": "az-snp", "evidence": SNP, "more": 1},
    "number above 255": SNP | {"hcl_report": [256]},
    "number below 0": SNP | {"hcl_report": [-1]},
    "true as a byte": SNP | {"hcl_report": [True]},
    "float as a byte": SNP | {"hcl_report": [1.0]},
    "report too long": SNP | {"hcl_report": url(b"HCLA" * 2049)},
    "short pcr": SNP | {"tpm_quote": QUOTED | {"pcrs": ["00" * 31]}},
    "too many pcrs": SNP | {"tpm_quote": QUOTED | {"pcrs": ["00" * 32] * 25}},
    "pcrs no array": SNP | {"tpm_quote": QUOTED | {"pcrs": {"0": "00" * 32}}},
    "neither hex nor base64": SNP | {"hcl_report": "!!"},
    "base64 of no length": SNP | {"hcl_report": "zzzzz"},
    "null": SNP | {"hcl_report": None},
}


@pytest.mark.parametrize("document", BAD.values(), ids=BAD)
def test_any_other_shape_is_malformed(document: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        AzureEvidence.parse(json.dumps(document).encode())


def test_too_long_a_document_is_malformed() -> None:
    with pytest.raises(Malformed):
        AzureEvidence.parse(b" " * (256 * 1024 + 1))


def test_only_malformed_comes_out() -> None:
    for damaged in mutated(json.dumps(SNP).encode()):
        try:
            AzureEvidence.parse(damaged)
        except Malformed:
            continue
