"""Quotes, keys, PCRs and certificates as files: every spelling in the field, every fault, every policy member."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloister.attest.dossier import azure_akcert, judge, tpm, tpm_akcert
from cloister.attest.rats import Verdict
from cloister.attest.tpm.algorithms import Alg
from cloister.attest.tpm.quote import ATTESTATION_KEY
from cloister.attest.tpm.quoted import parse_any_signature, parse_key, parse_pcrs
from cloister.attest.tpm.structures import Attribute, PcrSelection, Quote, b2
from cloister.errors import Malformed, Unavailable
from cloister.testing.vendors.azure import SyntheticAzure
from cloister.testing.vendors.gce import Instance, SyntheticGoogle, certificate
from cloister.testing.vendors.vtpm import SyntheticVtpm, rsa_key
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW = datetime(2026, 6, 1, tzinfo=UTC)
NONCE = bytes(range(20))
VTPM, ECC = SyntheticVtpm(), SyntheticVtpm(ec.generate_private_key(ec.SECP256R1()))
PCRS = {str(index): value.hex() for index, value in VTPM.pcrs.items()}


def files(vtpm: SyntheticVtpm = VTPM, **other: bytes | None) -> dict[str, bytes]:
    attest = vtpm.quote(NONCE)
    made: dict[str, bytes | None] = {
        "ak_public_tpmt": vtpm.public().dump(),
        "quote": attest,
        "signature_tpmt": vtpm.sign(attest).dump(),
        "pcrs": json.dumps(PCRS).encode(),
        "eventlog": vtpm.event_log,
    }
    return {role: data for role, data in (made | other).items() if data is not None}


def codes(given: Mapping[str, bytes], **policy: Any) -> list[str]:
    return [reason.code for reason in judge(tpm.open_case(given, policy), NOW).reasons]


@pytest.mark.parametrize("vtpm", [VTPM, ECC], ids=["rsa", "ecc"])
def test_quote_is_accepted_and_says_what_nobody_vouched_for(vtpm: SyntheticVtpm) -> None:
    judgement = judge(tpm.open_case(files(vtpm), {"nonce": NONCE.hex()}), NOW)
    assert judgement.reasons == ()
    skipped = {check.code for check in judgement.checks if check.verdict is Verdict.NOT_CHECKED}
    assert "untrusted_root" in skipped
    assert judgement.claims == {
        "events": 12,
        "extraData": NONCE.hex(),
        "fw": "0x2024010100120000",
        "pcr_alg": "sha256",
        "resetCount": 3,
    }


def test_quote_without_pcrs_says_which_it_selects_and_that_nothing_was_compared() -> None:
    judgement = judge(tpm.open_case(files(pcrs=None, eventlog=None), {}), NOW)
    assert judgement.reasons == ()
    assert judgement.claims == {"extraData": NONCE.hex(), "pcrSelect": [["sha256", list(range(24))]]}
    assert "pcr_mismatch" in {check.code for check in judgement.checks if check.verdict is Verdict.NOT_CHECKED}


def test_quote_without_a_nonce_has_empty_extra_data() -> None:
    attest = VTPM.quote(b"")
    given = files(quote=attest, signature_tpmt=VTPM.sign(attest).dump())
    assert codes(given) == []
    assert codes(given, nonce="00") == ["nonce_mismatch"]
    assert tpm.open_case(given, {}).claims["extraData"] == ""


@pytest.mark.parametrize("scheme", [Alg.RSASSA, Alg.RSAPSS])
@pytest.mark.parametrize("hash_alg", [Alg.SHA256, Alg.SHA384])
def test_schemes_fixed_in_the_key_are_taken(scheme: Alg, hash_alg: Alg) -> None:
    attest = VTPM.quote(NONCE, hash_alg=hash_alg)
    key = bytearray(VTPM.public().dump())
    key[12:16] = scheme.to_bytes(2, "big") + hash_alg.to_bytes(2, "big")
    signature = VTPM.sign(attest, scheme=scheme, hash_alg=hash_alg).dump()
    assert codes(files(ak_public_tpmt=bytes(key), quote=attest, signature_tpmt=signature)) == []


SPELLINGS = {
    "tpm2b": {"ak_public_tpmt": b2(VTPM.public().dump()), "quote": b2(VTPM.quote(NONCE))},
    "bare rsa signature": {"signature_tpmt": VTPM.sign(VTPM.quote(NONCE)).value},  # type: ignore[union-attr]  # an RSA key's
    "key as der": {"ak_public_tpmt": certificate(VTPM.key, SyntheticAzure().issue()).public_key_der},
}


@pytest.mark.parametrize("other", SPELLINGS.values(), ids=SPELLINGS)
def test_other_spellings_are_taken(other: dict[str, bytes]) -> None:
    assert codes(files(**other)) == []


SHAPES: dict[str, Any] = {
    "by index": PCRS,
    "with pcr in front": {f"pcr{index}": value for index, value in PCRS.items()},
    "with 0x in front": {index: "0x" + value.upper() for index, value in PCRS.items()},
    "array": list(PCRS.values()),
    "array under its bank": {"SHA256": list(PCRS.values())},
    "under its bank": {"sha256": PCRS},
    "as go-tpm-tools writes": {
        "hash": "SHA256",
        "pcrs": {index: base64.b64encode(bytes.fromhex(value)).decode() for index, value in PCRS.items()},
    },
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_shape_of_pcrs_is_read_alike(shape: Any) -> None:
    assert codes(files(pcrs=json.dumps(shape).encode())) == []


BAD_PCRS: dict[str, Any] = {
    "none": {},
    "empty array": [],
    "index 24": {"24": "00" * 32},
    "index -1": {"-1": "00" * 32},
    "one twice": {"1": "00" * 32, "pcr1": "00" * 32},
    "of several banks": {"0": "00" * 32, "1": "00" * 48},
    "no digest": {"0": "00" * 31},
    "no hex": {"0": "!!" * 32},
    "number": {"0": 0},
    "two banks": {"sha256": PCRS, "sha384": PCRS},
    "too many": ["00" * 32] * 25,
    "word": "00",
}


@pytest.mark.parametrize("shape", BAD_PCRS.values(), ids=BAD_PCRS)
def test_pcrs_out_of_form_are_malformed(shape: Any) -> None:
    with pytest.raises(Malformed):
        parse_pcrs(json.dumps(shape).encode())


def test_sha1_bank_is_refused_and_sha384_is_taken() -> None:
    banks = {Alg.SHA1: dict.fromkeys(range(24), bytes(20)), Alg.SHA384: VTPM.bank(Alg.SHA384)}
    for bank, want in ((Alg.SHA1, ["algorithm_not_allowed"]), (Alg.SHA384, [])):
        attest = VTPM.quote(NONCE, pcrs=banks[bank], bank=bank)
        pcrs = json.dumps({str(index): value.hex() for index, value in banks[bank].items()}).encode()
        assert codes(files(quote=attest, signature_tpmt=VTPM.sign(attest).dump(), pcrs=pcrs)) == want


def test_two_banks_in_one_quote_are_refused() -> None:
    quote = Quote.parse(VTPM.quote(NONCE))
    selections = (*quote.selections, PcrSelection(bank=Alg.SHA1, pcrs=(0,)))
    fields = {name: getattr(quote, name) for name in Quote.__slots__} | {"selections": selections}
    attest = Quote(**fields).dump()
    assert codes(files(quote=attest, signature_tpmt=VTPM.sign(attest).dump())) == ["algorithm_not_allowed"]


@pytest.mark.parametrize("lost", [Attribute.RESTRICTED, Attribute.FIXED_TPM, Attribute.FIXED_PARENT])
def test_key_that_signs_anything_is_refused(lost: Attribute) -> None:
    assert codes(files(ak_public_tpmt=VTPM.public(ATTESTATION_KEY & ~lost).dump())) == ["ak_attributes_invalid"]


def test_another_signature_scheme_than_the_keys_is_refused() -> None:
    assert codes(files(signature_tpmt=ECC.sign(VTPM.quote(NONCE)).dump())) == ["algorithm_not_allowed"]


def test_every_failure_is_told() -> None:
    found = codes(
        files(
            ak_public_tpmt=VTPM.public(ATTESTATION_KEY & ~Attribute.RESTRICTED).dump(),
            signature_tpmt=VTPM.sign(VTPM.quote(b"another")).dump(),
            pcrs=json.dumps(PCRS | {"0": "00" * 32}).encode(),
        ),
    )
    assert found == ["ak_attributes_invalid", "signature_invalid", "pcr_mismatch"]


def test_log_must_arrive_at_the_pcrs_of_firmware_and_may_fall_behind_in_the_systems() -> None:
    log = SyntheticVtpm(secure_boot=False).event_log
    assert set(codes(files(eventlog=log))) == {"pcr_mismatch"}
    moved = VTPM.event_log.replace(b"\x04\x00\x00\x00\x03\x00\x00\x80", b"\x0b\x00\x00\x00\x03\x00\x00\x80")
    assert moved != VTPM.event_log
    assert codes(files(eventlog=moved)) == ["pcr_mismatch"]  # PCR 4; PCR 11, which a system extends, is passed over


def test_log_of_before_2016_is_malformed() -> None:
    with pytest.raises(Malformed):
        tpm.open_case(files(eventlog=bytes(64)), {})


POLICIES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nonce": ({"nonce": NONCE.hex()}, []),
    "nonce, one of several": ({"nonce": ["00", NONCE.hex()]}, []),
    "nonce, another": ({"nonce": "00" * 20}, ["nonce_mismatch"]),
    "nonce, a prefix": ({"nonce": NONCE[:19].hex()}, ["nonce_mismatch"]),
    "nonce, one byte more": ({"nonce": NONCE.hex() + "00"}, ["nonce_mismatch"]),
    "challenge": ({"challenge": "00"}, ["nonce_mismatch"]),
    "report data": ({"report_data": "00"}, ["report_data_mismatch"]),
    "pcrs": ({"pcrs": {"0": PCRS["0"], "4": [PCRS["4"], "00" * 32]}}, []),
    "pcrs, another": ({"pcrs": {"0": "00" * 32}}, ["pcr_mismatch"]),
    "one pcr": ({"pcr4": PCRS["4"]}, []),
    "one pcr, another": ({"pcr.4": "00" * 32}, ["pcr_mismatch"]),
    "secure boot": ({"secure_boot": True}, []),
    "secure boot off": ({"secure_boot": False}, ["secure_boot_mismatch"]),
}


@pytest.mark.parametrize(("policy", "want"), POLICIES.values(), ids=POLICIES)
def test_members_of_the_policy_bite(policy: dict[str, Any], want: list[str]) -> None:
    assert codes(files(), **policy) == want


@pytest.mark.parametrize(
    "policy",
    [{"more": 1}, {"nonce": "zz"}, {"nonce": 7}, {"nonce": []}, {"pcrs": {"24": "00"}}, {"pcrs": []}, {"pcr0": {}}],
)
def test_member_nobody_understands_cannot_be_decided(policy: dict[str, Any]) -> None:
    with pytest.raises(Unavailable):
        codes(files(), **policy)


def test_missing_and_unknown_files_cannot_be_decided() -> None:
    for given in (files(quote=None), files(more=b"")):
        with pytest.raises(Unavailable):
            tpm.open_case(given, {})


@pytest.mark.parametrize("role", ["quote", "signature_tpmt", "ak_public_tpmt"])
def test_file_truncated_at_any_byte_is_malformed(role: str) -> None:
    given = files()
    for size in range(len(given[role])):
        with pytest.raises(Malformed):
            tpm.open_case(given | {role: given[role][:size]}, {})


@pytest.mark.parametrize("role", ["quote", "signature_tpmt", "ak_public_tpmt", "pcrs", "eventlog"])
def test_only_malformed_comes_out(role: str) -> None:
    given = files(eventlog=None) if role != "eventlog" else files()
    for damaged in mutated(given[role], count=600):
        try:
            judge(tpm.open_case(given | {role: damaged}, {}), NOW)
        except Malformed:
            continue


PARSERS = {
    "key": (parse_key, VTPM.public().dump()),
    "key as der": (parse_key, SPELLINGS["key as der"]["ak_public_tpmt"]),
    "signature": (parse_any_signature, VTPM.sign(b"x").dump()),
    "pcrs": (parse_pcrs, json.dumps({index: PCRS[index] for index in ("0", "4", "7")}).encode()),
}


@pytest.mark.parametrize(("parse", "data"), PARSERS.values(), ids=PARSERS)
def test_only_malformed_comes_out_of_a_parser(parse: Any, data: bytes) -> None:
    for damaged in mutated(data):
        try:
            parse(damaged)
        except Malformed:
            continue


@pytest.mark.parametrize("key", [ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP521R1())])
def test_bare_key_of_another_kind_is_malformed(key: Any) -> None:
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(Malformed):
        parse_key(der)


AZURE, GOOGLE = SyntheticAzure(), SyntheticGoogle()
AZURE_LEAF = certificate(rsa_key(0), AZURE.issue())
GOOGLE_LEAF = certificate(rsa_key(0), GOOGLE.issue(Instance()))


def test_certificate_whose_root_nobody_pinned_is_refused() -> None:
    given = {
        "nv_blob": AZURE_LEAF.der + bytes(9),
        "intermediate": b"# text\n" + AZURE.intermediate.pem,
        "root": AZURE.root.pem,
    }
    case = azure_akcert.open_case(given, {})
    assert case.claims == {
        "blob_length": len(AZURE_LEAF.der) + 9,
        "der_length": len(AZURE_LEAF.der),
        "subject": "CN=000000000001.ConfidentialVM.Azure.windows.net",
    }
    assert {reason.code for reason in judge(case, NOW).reasons} == {"untrusted_root"}
    chain = {"chain": GOOGLE.chain(GOOGLE_LEAF), "root": GOOGLE.root.pem}
    assert {reason.code for reason in judge(tpm_akcert.open_case(chain, {}), NOW).reasons} == {"untrusted_root"}


def test_policy_of_a_certificate_cannot_be_decided() -> None:
    with pytest.raises(Unavailable):
        azure_akcert.open_case({"nv_blob": AZURE_LEAF.der}, {"nonce": "00"})
    with pytest.raises(Unavailable):
        tpm_akcert.open_case({"chain": GOOGLE_LEAF.pem}, {"nonce": "00"})
