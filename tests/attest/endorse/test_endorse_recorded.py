"""Recorded endorsements under the pinned roots: what a release may use is vouched for, what was altered is not."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from cloister.attest.amd.certificates import parse_certificates
from cloister.attest.amd.vek import Vek
from cloister.attest.endorse.names import amd_crl, amd_vcek, intel_collateral, parse_name
from cloister.attest.endorse.vouch import production_vouch
from cloister.attest.endorse.window import window_of
from cloister.errors import Rejected
from evidence_index import at, entries, files_of

_ALTERED = frozenset({"collateral_signature_invalid"})


@pytest.mark.parametrize("entry", entries("sgx", "tdx"))
def test_collateral_is_vouched_for_where_the_index_accepts_it(entry: dict[str, Any]) -> None:
    data = files_of(entry).get("collateral")
    if data is None or not (entry["expect"] == "ok" or _ALTERED & set(entry["all_reasons"])):
        pytest.skip("the verdict does not rest on the collateral alone")
    info = json.loads(json.loads(data)["tcb_info"])
    verdicts = []
    for authority in ("platform", "processor"):
        name = parse_name(intel_collateral(info["id"].lower(), info["fmspc"].lower(), authority))
        try:
            verdicts.append(at(entry) in production_vouch().verify(name, data, at(entry)))
        except Rejected:
            verdicts.append(False)
    assert verdicts.count(True) == (entry["expect"] == "ok")


@pytest.mark.parametrize("entry", entries("snp"))
def test_a_chips_certificate_and_list_are_vouched_for_where_the_index_accepts_them(entry: dict[str, Any]) -> None:
    files = files_of(entry)
    if entry["expect"] != "ok" or "leaf" not in files:
        pytest.skip("not accepted, or nothing of AMD's beside it")
    vek = Vek.parse(parse_certificates(files["leaf"], zero_serial=True)[0])
    if vek.hwid:
        name = parse_name(amd_vcek(vek.product.key, vek.hwid.hex(), vek.tcb.hex()))
        assert production_vouch().verify(name, files["leaf"], at(entry)) == window_of(name, files["leaf"])
    if "crl" in files:
        name = parse_name(amd_crl(vek.product.key))
        last_moment = window_of(name, files["crl"]).not_after - timedelta(seconds=1)
        assert production_vouch().verify(name, files["crl"], last_moment)
