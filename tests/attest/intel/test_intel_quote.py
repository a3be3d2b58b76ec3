"""Quotes byte by byte: versions, bodies, lengths, cuts; each field of a genuine one flipped."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from cloister.attest.intel.quote import MAX_QUOTE_BYTES, Quote
from cloister.attest.intel.td import TdReport
from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence
from cloister.attest.rules import NotChecked
from cloister.attest.schemes.sgx import SGX
from cloister.attest.schemes.tdx import TDX
from cloister.errors import Malformed, Rejected
from cloister.testing.vendors.intel import SyntheticIntel
from cloister.testing.vendors.intel.bodies import EnclaveBody, TdBody

if TYPE_CHECKING:
    from cloister.attest.verifier import Scheme

NOW = datetime(2026, 6, 1, tzinfo=UTC)
VENDOR = SyntheticIntel.generate()
QUOTES = {
    "v3 sgx": VENDOR.quote(EnclaveBody()).dump(),
    "v4 tdx": VENDOR.quote(TdBody()).dump(),
    "v5 td 1.5": VENDOR.quote(TdBody(kind=3)).dump(),
    "v5 td 1.5 extended": VENDOR.quote(TdBody(kind=4, vmid=7)).dump(),
}


@pytest.mark.parametrize("name", QUOTES)
def test_a_quote_is_read_to_its_end_and_no_further(name: str) -> None:
    data = QUOTES[name]
    quote = Quote.parse(data)
    assert quote.raw == data
    assert Quote.parse(data + b"\xff" * 100) == quote


def test_every_field_of_the_longest_body_is_where_intel_puts_it() -> None:
    body = TdBody(
        kind=4, vmid=7, dev_info=b"\xd1" * 48, init_service_td=bytes(range(100)), cur_service_td=bytes(range(56))
    )
    raw = VENDOR.quote(body).dump()
    assert int.from_bytes(raw[48:50], "little") == 4
    assert int.from_bytes(raw[50:54], "little") == 885
    assert raw[54 + 648] == 7
    assert raw[54 + 681 : 54 + 729] == b"\xd1" * 48
    found = Quote.parse(raw).body
    assert isinstance(found, TdReport)
    assert found.history is not None
    assert found.history.init_tee_fmspc == bytes(range(88, 100))
    assert found.history.cur_service_td_attributes == bytes(range(48, 56))
    assert len(found.raw) == 885


@pytest.mark.parametrize("name", QUOTES)
def test_a_quote_cut_at_any_byte_is_malformed(name: str) -> None:
    data = QUOTES[name]
    for size in range(len(data)):
        with pytest.raises((Malformed, Rejected)):
            Quote.parse(data[:size])


@pytest.mark.parametrize("name", QUOTES)
@pytest.mark.parametrize("length", [0, 1, 0xFFFF, 2**31, 2**32 - 1])
def test_a_length_that_is_not_so_is_malformed(name: str, length: int) -> None:
    data = bytearray(QUOTES[name])
    quote = Quote.parse(QUOTES[name])
    data[len(quote.signed) : len(quote.signed) + 4] = length.to_bytes(4, "little")
    with pytest.raises((Malformed, Rejected)):
        Quote.parse(bytes(data))


def test_a_quote_longer_than_any_buffer_is_malformed() -> None:
    with pytest.raises(Malformed, match="want at most"):
        Quote.parse(QUOTES["v3 sgx"].ljust(MAX_QUOTE_BYTES + 1, b"\0"))


@pytest.mark.parametrize(
    ("at", "value"),
    [(0, 0), (0, 2), (0, 6), (0, 65535), (2, 0), (2, 3), (4, 0x82), (4, 0x81)],
    ids=["version 0", "version 2", "version 6", "version 65535", "key 0", "p-384", "tee 130", "tdx in version 3"],
)
def test_kinds_of_quotes_that_we_do_not_verify_are_named(at: int, value: int) -> None:
    data = bytearray(QUOTES["v3 sgx"])
    data[at : at + 2] = value.to_bytes(2, "little")
    with pytest.raises(Rejected) as refusal:
        Quote.parse(bytes(data))
    assert refusal.value.code == "unsupported_format"


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4, 6, 7, 65535])
def test_certification_data_without_the_chain_is_named(kind: int) -> None:
    for body in (EnclaveBody(), TdBody()):
        with pytest.raises(Rejected) as refusal:
            Quote.parse(replace(VENDOR.quote(body), certification=kind).dump())
        assert refusal.value.code == "unsupported_format"


def test_body_type_and_size_of_version_five_have_to_agree() -> None:
    data = bytearray(QUOTES["v5 td 1.5"])
    for kind in (0, 5):
        data[48:50] = kind.to_bytes(2, "little")
        with pytest.raises(Rejected):
            Quote.parse(bytes(data))
    for kind in (1, 2, 4):
        data[48:50] = kind.to_bytes(2, "little")
        with pytest.raises(Malformed):
            Quote.parse(bytes(data))


def test_a_td_report_of_another_size_is_malformed() -> None:
    with pytest.raises(Malformed):
        TdReport.parse(bytes(600))


@pytest.mark.parametrize("name", ["v3 sgx", "v5 td 1.5 extended"])
def test_each_signed_byte_with_one_bit_flipped_is_refused(name: str) -> None:
    """Header, body, signatures, key, report of the Quoting Enclave, authentication data: all but the text of PEM."""
    data = QUOTES[name]
    tdx = "td" in name
    without = NotChecked("not what is damaged here")
    make = VENDOR.tdx_scheme if tdx else VENDOR.sgx_scheme
    scheme: Scheme = make(without_collateral=without)
    end = len(data) - len(Quote.parse(data).pck_chain)
    for at in range(end):
        damaged = bytearray(data)
        damaged[at] ^= 1 << (at % 8)
        evidence = Evidence(tee=TDX if tdx else SGX, payload=dump_parts({"quote": bytes(damaged)}))
        with pytest.raises((Malformed, Rejected)):
            scheme.verify(evidence, {}, NOW)
