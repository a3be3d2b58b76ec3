"""Files of Intel explained: every field has a value and a meaning, and each file is known by its own describer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cloister.attest.describe.intel import (
    CcelDescriber,
    IntelCollateralDescriber,
    SgxQuoteDescriber,
    SigstructDescriber,
    TdxQuoteDescriber,
)
from cloister.errors import Malformed
from cloister.testing.vendors.intel import SyntheticIntel
from cloister.testing.vendors.intel.bodies import EnclaveBody, TdBody
from cloister.testing.vendors.intel.eventlogs import ccel
from cloister.testing.vendors.intel.sigstructs import make_key, sigstruct

if TYPE_CHECKING:
    from cloister.attest.describe import Describer

VENDOR = SyntheticIntel.generate()
DESCRIBERS: tuple[Describer, ...] = (
    SgxQuoteDescriber(),
    TdxQuoteDescriber(),
    CcelDescriber(),
    IntelCollateralDescriber(),
    SigstructDescriber(),
)
FILES = {
    "sgx": VENDOR.quote(EnclaveBody()).dump() + b"\0" * 9,
    "tdx": VENDOR.quote(TdBody(kind=4)).dump(),
    "tdx-eventlog": ccel([(1, b"firmware"), (0, b"td memory")], size=700),
    "intel-collateral": VENDOR.published(tdx=True).dump(),
    "sgx-sigstruct": sigstruct(EnclaveBody(), make_key()),
}


@pytest.mark.parametrize("kind", FILES)
def test_each_file_is_known_by_its_own_describer_which_explains_every_field(kind: str) -> None:
    (describer,) = [item for item in DESCRIBERS if item.recognises(FILES[kind])]
    assert describer.kind == kind
    description = describer.describe(FILES[kind])
    assert description.kind == kind
    assert len(description.fields) > 5
    assert all(item.name and item.value and item.meaning for item in description.fields)


@pytest.mark.parametrize("describer", DESCRIBERS, ids=lambda item: item.kind)
def test_other_bytes_are_nobody_s(describer: Describer) -> None:
    for data in (b"", b"{}", bytes(600), b"\xff" * 4096):
        assert not describer.recognises(data)
        with pytest.raises(Malformed):
            describer.describe(data)


def test_collateral_without_a_list_says_so() -> None:
    spec = replace(VENDOR.published(tdx=True), tampered={"pck_crl": ""})
    fields = {item.name: item.value for item in IntelCollateralDescriber().describe(spec.dump()).fields}
    assert fields["pck_crl"] == "no list"
    assert fields["root_crl"] == "0"


def test_a_quote_of_the_other_kind_and_one_we_do_not_verify_are_malformed() -> None:
    with pytest.raises(Malformed):
        SgxQuoteDescriber().describe(FILES["tdx"])
    with pytest.raises(Malformed, match="unsupported"):
        SgxQuoteDescriber().describe(b"\x09" + FILES["sgx"][1:])
    spec = VENDOR.published(tdx=True)
    spec.tcb_info["version"] = 2
    with pytest.raises(Malformed, match="unsupported"):
        IntelCollateralDescriber().describe(spec.dump())
