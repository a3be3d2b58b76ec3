"""Descriptions of Azure and TPM files: every field explained, Malformed and nothing else, each file one kind."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from cloister.attest.describe.azure import AzureEvidenceDescriber, HclReportDescriber
from cloister.attest.describe.tpm import (
    AkCertificateDescriber,
    EventLogDescriber,
    TpmKeyDescriber,
    TpmQuoteDescriber,
    TpmSignatureDescriber,
)
from cloister.attest.tpm.structures import b2
from cloister.errors import Malformed
from cloister.testing.vendors.azure import AzureAttester, HclValues, SyntheticAzure, TdxHardware, hcl_report
from cloister.testing.vendors.gce import GceAttester, Instance, SyntheticGoogle, certificate
from cloister.testing.vendors.vtpm import rsa_key
from mutations import mutated

if TYPE_CHECKING:
    from cloister.attest.describe import Describer

VM = AzureAttester(TdxHardware(), hashlib.sha256(b"software").digest())
PARTS = VM.parts(bytes(32)) | {"ak_public_tpmt": VM.vtpm.public().dump()}
ECC = GceAttester(SyntheticGoogle(), VM.vtpm.software).vtpm
PCRS = [VM.vtpm.pcrs[index].hex() for index in range(24)]
DOCUMENT = json.dumps(
    {
        "version": 1,
        "tpm_quote": {"message": PARTS["quote"].hex(), "signature": PARTS["signature_tpmt"].hex(), "pcrs": PCRS},
        "hcl_report": PARTS["hcl_report"].hex(),
        "td_quote": PARTS["td_quote"].hex(),
    }
).encode()
FILES: dict[str, tuple[Describer, bytes, str]] = {
    "hcl report": (HclReportDescriber(), PARTS["hcl_report"], "is the digest of the claims"),
    "document": (AzureEvidenceDescriber(), DOCUMENT, "it has to be your nonce"),
    "quote": (TpmQuoteDescriber(), PARTS["quote"], "SHA1 is refused"),
    "quote with its length": (TpmQuoteDescriber(), b2(PARTS["quote"]), "starts of the machine"),
    "key": (TpmKeyDescriber(), PARTS["ak_public_tpmt"], "has what an attestation key needs"),
    "signature": (TpmSignatureDescriber(), PARTS["signature_tpmt"], "the scheme fixed in the key"),
    "event log": (EventLogDescriber(), PARTS["eventlog"], "Secure Boot"),
    "azure's certificate": (
        AkCertificateDescriber(),
        certificate(rsa_key(0), SyntheticAzure().issue()).der,
        "pinned root",
    ),
    "google's certificate": (
        AkCertificateDescriber(),
        certificate(rsa_key(0), SyntheticGoogle().issue(Instance())).der,
        "where Google runs the machine",
    ),
}


@pytest.mark.parametrize(("describer", "data", "meaning"), FILES.values(), ids=FILES)
def test_every_field_is_explained(describer: Describer, data: bytes, meaning: str) -> None:
    found = describer.describe(data)
    assert found.kind == describer.kind
    assert any(meaning in field.meaning for field in found.fields)
    for field in found.fields:
        assert field.name
        assert field.value.isprintable()
        assert field.meaning[-1] != "."


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_recognised_by_its_own_describer_alone(name: str) -> None:
    describer, data, _ = FILES[name]
    assert {type(other[0]) for other in FILES.values() if other[0].recognises(data)} == {type(describer)}


@pytest.mark.parametrize("data", [b"", b"\x00", b"{", b"\x30", b"HCL"])
def test_nothing_recognises_scraps(data: bytes) -> None:
    assert not any(other[0].recognises(data) for other in FILES.values())


@pytest.mark.parametrize(("describer", "data", "meaning"), FILES.values(), ids=FILES)
def test_only_malformed_comes_out(describer: Describer, data: bytes, meaning: str) -> None:
    del meaning
    for damaged in mutated(data, count=1000):
        try:
            describer.describe(damaged)
        except Malformed:
            continue


def test_altered_claims_and_other_tees_are_told() -> None:
    altered = PARTS["hcl_report"].replace(b'"console-enabled": true', b'"console-enabled":false')
    assert any("altered" in field.meaning for field in HclReportDescriber().describe(altered).fields)
    other = hcl_report(bytes(1024), VM.hardware.kind, VM.claims(), HclValues(report_type=1))
    with pytest.raises(Malformed):
        HclReportDescriber().describe(other)
