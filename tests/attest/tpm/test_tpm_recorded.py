"""TPM evidence that others published: each verdict and reason of the index (kept outside the repository)."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cloister.attest.chain import parse_certificates, verify_chain
from cloister.attest.rats import Evidence
from cloister.attest.schemes.tpm import TPM_TEE, TpmScheme
from cloister.attest.tpm.eventlog import EventLog, secure_boot, verify_replay
from cloister.attest.tpm.evidence import TpmEvidence
from cloister.attest.tpm.quote import verify_attestation_key, verify_pcrs, verify_signature
from cloister.attest.tpm.structures import Public, Quote, parse_signature
from cloister.errors import Rejected
from tpm_kit import NOW, Authority, SoftTpm

ROOT = Path(os.environ.get("CLOISTER_EVIDENCE") or Path(__file__).parents[4] / "shared" / "evidence")
INDEX = ROOT / "index.json"
ENTRIES = json.loads(INDEX.read_text())["entries"] if INDEX.exists() else []

pytestmark = pytest.mark.skipif(
    not ENTRIES, reason="recorded evidence is not beside the checkout: set CLOISTER_EVIDENCE"
)


def entries(tee: str) -> list:
    return [pytest.param(entry, id=entry["id"]) for entry in ENTRIES if entry["tee"] == tee]


def files(entry: dict) -> dict[str, bytes]:
    return {role: (ROOT / path).read_bytes() for role, path in entry["files"].items()}


def pcrs_of(found: dict[str, bytes]) -> dict[int, bytes]:
    return {int(index): bytes.fromhex(value) for index, value in json.loads(found["pcrs"]).items()}


def verify(entry: dict, found: dict[str, bytes]) -> Quote:
    ak, signature = Public.parse(found["ak_public_tpmt"]), parse_signature(found["signature_tpmt"])
    verify_attestation_key(ak)
    quote = verify_signature(found["quote"], signature, ak)
    if "pcrs" in found:
        pcrs = pcrs_of(found)
        verify_pcrs(quote, signature.hash_alg, pcrs)
        log = EventLog.parse(found["eventlog"])
        assert verify_replay(log, pcrs) == set(range(10))
        assert len(log.events) == entry["claims"]["events"]
        assert log.dump() == found["eventlog"]
        assert secure_boot(log) is True
    if quote.extra_data != bytes.fromhex(entry["policy"]["nonce"]):
        raise Rejected.because("nonce_mismatch", "quote")
    return quote


@pytest.mark.parametrize("entry", entries("tpm"))
def test_recorded_quotes_get_the_verdict_of_the_index(entry: dict) -> None:
    found = files(entry)
    if entry["expect"] == "ok":
        quote = verify(entry, found)
        assert quote.extra_data.hex() == entry["claims"]["extraData"]
        assert quote.dump() == found["quote"]
    else:
        with pytest.raises(Rejected) as refused:
            verify(entry, found)
        assert refused.value.code in entry["all_reasons"]


@pytest.mark.parametrize("entry", entries("tpm"))
def test_every_flipped_byte_of_a_recorded_quote_is_refused(entry: dict) -> None:
    found = files(entry)
    for at in range(len(found["quote"])):
        data = found["quote"]
        flipped = data[:at] + bytes((data[at] ^ 0x80,)) + data[at + 1 :]
        with pytest.raises(Rejected) as refused:
            verify(entry, found | {"quote": flipped})
        assert refused.value.code == "signature_invalid"


def test_a_recorded_quote_passes_the_scheme_under_an_authority_of_ours() -> None:
    entry = next(entry for entry in ENTRIES if entry["id"] == "tpm-gce-cos-85-nonce9009")
    found, authority = files(entry), Authority()
    certificate = authority.certify(SoftTpm(), Public.parse(found["ak_public_tpmt"]))
    payload = TpmEvidence(
        attest=found["quote"],
        signature=found["signature_tpmt"],
        ak_public=found["ak_public_tpmt"],
        certificates=(certificate,),
        pcrs=pcrs_of(found),
        software=b"",
        event_log=found["eventlog"],
    ).dump()
    scheme = TpmScheme([authority.certificate])
    verified = scheme.verify(Evidence(tee=TPM_TEE, payload=payload), {}, NOW)
    assert verified.report_data.hex() == "9009"
    assert verified.claims["secure_boot"] is True
    assert verified.claims["reset_count"] == entry["claims"]["resetCount"]
    assert int(verified.claims["firmware_version"], 16) == 0x2016051100162800
    # one event of the recorded log altered
    log = EventLog.parse(found["eventlog"])
    digest = log.events[20].digests[0x0B]
    assert found["eventlog"].count(digest) == 1
    with pytest.raises(Rejected) as refused:
        scheme.verify(Evidence(tee=TPM_TEE, payload=payload.replace(digest, bytes(32))), {}, NOW)
    assert refused.value.code == "pcr_mismatch"


@pytest.mark.parametrize("entry", entries("tpm-akcert"))
def test_recorded_certificates_lead_to_their_root(entry: dict) -> None:
    found = files(entry)
    leaf, *between = parse_certificates(found["chain"])
    roots = parse_certificates(found["root"])
    now = datetime.fromisoformat(entry["verify_time"]).astimezone(UTC)
    path = verify_chain(leaf, between, roots, now)
    assert path[-1] == roots[0]
    subject = {part.partition("=")[2] for part in entry["claims"]["subject"].split(",")}
    assert {attribute.value for attribute in leaf.x509.subject} == subject
    with pytest.raises(Rejected) as refused:
        verify_chain(leaf, between, parse_certificates(Authority().certificate), now)
    assert refused.value.code == "untrusted_root"
    with pytest.raises(Rejected) as refused:
        verify_chain(leaf, between, roots, datetime(2024, 1, 1, tzinfo=UTC))
    assert refused.value.code == "cert_not_yet_valid"
