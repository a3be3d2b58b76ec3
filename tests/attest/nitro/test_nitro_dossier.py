"""A Nitro document from a file: what the index's policy asks of it, and whose root it may name."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from cloister.attest.dossier import judge
from cloister.attest.dossier.nitro import open_case
from cloister.attest.roots import vendor_certificate
from cloister.attest.rules import AtMost, Exact
from cloister.errors import Unavailable
from cloister.testing.vendors.aws import Document, NitroVendor, sample_pcrs

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
VENDOR = NitroVendor.generate()
PLAIN = Document(timestamp=NOW, user_data=b"\x05" * 64, nonce=b"\x06" * 32, public_key=b"key")
FILES = {"document": VENDOR.document(PLAIN)}


def test_claims_are_what_the_index_calls_them() -> None:
    claims = open_case(FILES, {}).claims
    assert claims["debug"] is False
    assert claims["nonce"] == "06" * 32
    assert claims["ts"] == "2026-05-01 12:00:00+00:00"
    assert claims["window"] == ["2020-01-01 00:00:00+00:00", "2100-01-01 00:00:00+00:00"]
    assert list(claims["pcrs"]) == ["0", "1", "2", "3", "4", "8"]  # type: ignore[arg-type]  # a json object
    assert open_case({"document": VENDOR.document(replace(PLAIN, nonce=None))}, {}).claims["nonce"] is None


@pytest.mark.parametrize("name", ["nonce", "challenge", "user_data", "report_data", "public_key"])
def test_a_field_of_the_policy_is_carried_whole(name: str) -> None:
    got = {"public_key": b"key", "user_data": b"\x05" * 64, "report_data": b"\x05" * 64}.get(name, b"\x06" * 32)
    (bound,) = open_case(FILES, {name: got.hex()}).bound
    assert bound.got == bound.want == got
    (bound,) = open_case(FILES, {name: ["00", got.hex()]}).bound
    assert bound.got == bound.want
    (bound,) = open_case(FILES, {name: got[:-1].hex()}).bound
    assert bound.got != bound.want


def test_an_absent_field_carries_nothing_not_even_nothing() -> None:
    (bound,) = open_case({"document": VENDOR.document(replace(PLAIN, nonce=None))}, {"nonce": ""}).bound
    assert bound.got != bound.want


@pytest.mark.parametrize("name", ["0", "pcr0", "PCR0", "pcr.0"])
def test_registers_are_compared_by_index(name: str) -> None:
    for policy in ({"pcrs": {name: sample_pcrs()[0].hex()}}, {name: sample_pcrs()[0].hex()}):
        (bound,) = open_case(FILES, policy).bound
        assert bound.got == bound.want
        assert bound.code == "measurement_mismatch"
    (bound,) = open_case(FILES, {"pcrs": {"31": "00" * 48}}).bound
    assert bound.got != bound.want


def test_rules_are_the_default_and_what_the_policy_adds() -> None:
    assert open_case(FILES, {}).rules == {"debug": Exact(value=False)}
    rules = open_case(FILES, {"max_age": 60, "debug": True, "module": "i-1"}).rules
    assert rules == {"debug": Exact(value=True), "age": AtMost(60), "module_id": Exact("i-1")}


@pytest.mark.parametrize(
    "policy",
    [
        {"weather": "fine"},
        {"nonce": "xx"},
        {"nonce": 5},
        {"nonce": []},
        {"pcrs": {"32": "00"}},
        {"pcrs": "00"},
        {"debug": {}},
    ],
)
def test_what_nobody_understands_is_not_passed_over(policy: dict[str, object]) -> None:
    with pytest.raises(Unavailable):
        open_case(FILES, policy)  # type: ignore[arg-type]  # as json has it


@pytest.mark.parametrize("files", [{}, {**FILES, "quote": b""}])
def test_files_are_the_ones_that_somebody_looks_at(files: dict[str, bytes]) -> None:
    with pytest.raises(Unavailable):
        open_case(files, {})


def test_a_root_given_along_has_to_be_the_pinned_one() -> None:
    for files in (
        FILES,
        {**FILES, "root": VENDOR.root.pem},
        {**FILES, "root": vendor_certificate("aws-nitro-root-g1").pem},
    ):
        (reason,) = judge(open_case(files, {}), NOW).reasons
        assert reason.code == "untrusted_root"
