"""Any file of this trade is explained, what lies beside evidence too; whatever the bytes, one error: Malformed."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import tpm_kit
import vendor_kit
from cloister.attest.amd.certtable import dump_table
from cloister.attest.describe.table import DESCRIBERS, explain
from cloister.attest.parts import dump_parts
from cloister.attest.rats import TeeKind
from cloister.attest.tpm.measured import dump_pcrs
from cloister.errors import Malformed, UsageError
from cloister.testing.vendors.samples import Roots
from cloister.wire import dump_json
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Mapping

CHIP = vendor_kit.chip()
TPM, AUTHORITY = tpm_kit.SoftTpm(), tpm_kit.Authority()
JWKS = vendor_kit.issuer("maa").jwks()
PEM = vendor_kit.issuer("maa").key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
ANCHOR = vendor_kit.psa_device().anchor
ANCHORS = json.dumps(json.loads(Roots(tee=TeeKind("psa"), certificates={}, anchors=(ANCHOR,)).dump())["anchors"])
TABLE = dump_table(
    {
        "vcek": CHIP.parts(vendor_kit.ReportValues())["leaf"],
        "ark": vendor_kit.amd().ark.pem,
        "crl": vendor_kit.amd().crl(),
    }
)
FILES: Mapping[str, bytes] = {
    "arm-anchors": ANCHORS.encode(),
    "keys": JWKS,
    "snp-certs": TABLE,
    "tpm-pcrs": dump_pcrs(TPM.pcrs),
}
EVIDENCE = TPM.evidence(bytes(32), (AUTHORITY.certify(TPM),)).dump()


@pytest.mark.parametrize("kind", FILES)
def test_what_lies_beside_evidence_is_explained(kind: str) -> None:
    found = explain(FILES[kind])
    assert found.kind == kind
    assert found == explain(FILES[kind], kind=kind)
    assert found.fields
    assert all(field.name and field.value and field.meaning for field in found.fields)


@pytest.mark.parametrize("kind", FILES)
def test_damaged_companions_raise_malformed_and_nothing_else(kind: str) -> None:
    for damaged in mutated(FILES[kind], count=1000):
        with contextlib.suppress(Malformed):
            explain(damaged)
        with contextlib.suppress(Malformed):
            explain(damaged, kind=kind)


def test_a_tables_subjects_are_those_of_its_certificates() -> None:
    values = {field.name: field.value for field in explain(TABLE).fields}
    assert values["vcek"].startswith("CN=SEV-VCEK")
    assert values["ark"].startswith("CN=ARK-Milan")
    assert "CN=ARK-Milan" in values["crl"]


def test_keys_come_as_pem_jwk_or_a_secret() -> None:
    assert explain(PEM).fields[0].value == "RSA, 2048 bits"
    assert explain(vendor_kit.issuer("ita").jwks()).fields[0].value.startswith("RSA, ")
    jwk = {"crv": "Ed25519", "kty": "OKP", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    assert explain(dump_json(jwk)).fields[0].value == "Ed25519"
    secret = [{"instance-id": "01" + "00" * 32, "pkey": {"k": "AAAAAAAAAAAAAAAAAAAAAA", "kty": "oct"}}]
    values = [field.value for field in explain(dump_json(secret)).fields]
    assert values == ["a shared secret", "01" + "00" * 32, "any"]
    bare = {"keys": [{"kid": "1", "kty": "RSA", "x5c": vendor_kit.issuer("maa").x5c}]}
    assert explain(dump_json(bare)).fields[0].value == "in its certificate"


def test_a_tpms_evidence_is_explained_part_by_part() -> None:
    found = explain(EVIDENCE)
    assert found.kind == "tpm"
    names = {field.name for field in found.fields}
    assert {"ak_public_tpmt", "chain", "pcrs", "quote", "signature_tpmt", "software"} <= names
    assert "eventlog" not in names
    for damaged in mutated(EVIDENCE, count=1000):
        with contextlib.suppress(Malformed):
            explain(damaged)


def test_a_part_that_nobody_knows_is_named_with_its_size() -> None:
    (field,) = explain(dump_parts({"token": b"good morning"})).fields
    assert (field.name, field.value) == ("token", "12 bytes")
    assert field.meaning == "a part that is explained nowhere"


def test_notes_in_front_of_a_certificate_are_passed_over() -> None:
    pem = vendor_kit.amd().ark.pem
    assert explain(b"# from the vendor's page\n" + pem).fields == explain(pem).fields


def test_no_kind_is_guessed_for_what_is_none() -> None:
    for data in (b"", b"{}", b"[]", b"{" * 100, b"x" * 1000, b'{"0": "zz"}', b"[" + b" " * 300_000 + b"]"):
        with pytest.raises(Malformed):
            explain(data)
    with pytest.raises(UsageError, match="want one of"):
        explain(b"x", kind="weather")


def test_kinds_are_named_once() -> None:
    kinds = [item.kind for item in DESCRIBERS]
    assert len(kinds) == len(set(kinds))
