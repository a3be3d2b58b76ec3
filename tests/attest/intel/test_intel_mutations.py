"""Ten thousand damaged inputs for each parser and both schemes: Malformed or Rejected comes out, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar

import pytest

from cloister.attest.describe.intel import (
    CcelDescriber,
    IntelCollateralDescriber,
    SgxQuoteDescriber,
    SigstructDescriber,
    TdxQuoteDescriber,
)
from cloister.attest.intel.collateral import Collateral
from cloister.attest.intel.eventlog import CcelLog, rtmrs_of
from cloister.attest.intel.pck import Pck
from cloister.attest.intel.quote import Quote
from cloister.attest.intel.sigstruct import verify_sigstruct
from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence
from cloister.attest.rules import NotChecked
from cloister.attest.schemes.tdx import TDX
from cloister.errors import Malformed, Rejected
from cloister.testing.vendors.intel import SyntheticIntel
from cloister.testing.vendors.intel.bodies import EnclaveBody, TdBody
from cloister.testing.vendors.intel.eventlogs import ccel
from cloister.testing.vendors.intel.pki import PlatformSpec
from cloister.testing.vendors.intel.sigstructs import make_key, sigstruct
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2026, 6, 1, tzinfo=UTC)
VENDOR = SyntheticIntel.generate()
SGX_QUOTE = VENDOR.quote(EnclaveBody()).dump()
TDX_QUOTE = VENDOR.quote(TdBody(kind=4)).dump()
COLLATERAL = VENDOR.published(tdx=True).dump()
LOG = ccel([(1, b"firmware"), (2, b"kernel")], size=600)
SIGNED = sigstruct(EnclaveBody(), make_key())


def whole_log(data: bytes) -> None:
    rtmrs_of(CcelLog.parse(data))


def described(data: bytes) -> None:
    for describer in (SgxQuoteDescriber(), TdxQuoteDescriber(), IntelCollateralDescriber()):
        if describer.recognises(data):
            describer.describe(data)


PARSERS: dict[str, tuple[Callable[[bytes], object], bytes, int]] = {
    "sgx quote": (Quote.parse, SGX_QUOTE, 10_000),
    "tdx quote": (Quote.parse, TDX_QUOTE, 10_000),
    "collateral": (Collateral.parse, COLLATERAL, 10_000),
    "event log": (whole_log, LOG, 10_000),
    "sigstruct": (verify_sigstruct, SIGNED, 10_000),
    "sgx description": (described, SGX_QUOTE, 2_000),
    "tdx description": (described, TDX_QUOTE, 2_000),
    "event log description": (CcelDescriber().describe, LOG, 2_000),
    "sigstruct description": (SigstructDescriber().describe, SIGNED, 2_000),
}


@pytest.mark.parametrize("name", PARSERS)
def test_only_malformed_or_rejected_comes_out_of_a_parser(name: str) -> None:
    parse, data, count = PARSERS[name]
    parse(data)
    refused = 0
    for damaged in mutated(data, count=count):
        try:
            parse(damaged)
        except (Malformed, Rejected):
            refused += 1
    assert refused


class DamagedSpec(PlatformSpec):
    """A platform whose certificate has a damaged extension: the last one put here."""

    __slots__ = ()
    extensions: ClassVar[list[bytes]] = [PlatformSpec().extension()]

    def extension(self) -> bytes:
        return self.extensions[-1]


def test_only_malformed_comes_out_of_damaged_certificate_extensions() -> None:
    refused = 0
    for damaged in mutated(PlatformSpec().extension(), count=1500):
        DamagedSpec.extensions.append(damaged)
        certificate = VENDOR.issuer.issue("Intel SGX PCK Certificate", platform=DamagedSpec()).certificate
        try:
            Pck.parse(certificate)
        except Malformed:
            refused += 1
    assert refused > 1000


def test_damaged_evidence_is_refused_ten_thousand_times() -> None:
    """All but the text of the certificates, of which two spellings may say the same."""
    scheme = VENDOR.tdx_scheme(without_collateral=NotChecked("not what is damaged here"))
    quote = Quote.parse(TDX_QUOTE)
    end = len(TDX_QUOTE) - len(quote.pck_chain)
    for damaged in mutated(TDX_QUOTE[:end], seed=5):
        raw = damaged + TDX_QUOTE[end:]
        if raw == TDX_QUOTE:
            continue
        evidence = Evidence(tee=TDX, payload=dump_parts({"quote": raw}))
        with pytest.raises((Malformed, Rejected)):
            scheme.verify(evidence, {}, NOW)


def test_damaged_collateral_raises_nothing_else() -> None:
    evidence = Evidence(tee=TDX, payload=dump_parts({"quote": TDX_QUOTE}))
    name = VENDOR.endorsement(tdx=True)
    refused = 0
    scheme = VENDOR.tdx_scheme()
    for damaged in mutated(COLLATERAL, count=500, seed=6):
        try:
            scheme.verify(evidence, {name: damaged}, NOW)
        except (Malformed, Rejected):
            refused += 1
    assert refused > 400
