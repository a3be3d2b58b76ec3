"""NVIDIA evidence that others published: each verdict and every claim of the index (kept outside the repository)."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from cloister.attest.describe.nvidia import NvidiaReportDescriber, NvidiaRimDescriber
from cloister.attest.dossier import judge, nvidia, nvidia_rim
from cloister.errors import Malformed, Rejected
from evidence_index import at, entries, expected, files_of

if TYPE_CHECKING:
    from collections.abc import Mapping

OPEN = {"nvidia": nvidia.open_case, "nvidia-rim": nvidia_rim.open_case}


def codes(entry: Mapping[str, Any], files: Mapping[str, bytes], policy: Mapping[str, Any] | None = None) -> list[str]:
    """Return what a judgement says of these files: its reasons, or ok."""
    case = OPEN[entry["tee"]](files, entry["policy"] if policy is None else policy)
    return [reason.code for reason in judge(case, at(entry)).reasons] or ["ok"]


@pytest.mark.parametrize("entry", entries("nvidia", "nvidia-rim"))
def test_recorded_evidence_gets_the_verdict_and_the_claims_of_the_index(entry: dict[str, Any]) -> None:
    case = OPEN[entry["tee"]](files_of(entry), entry["policy"])
    assert case.claims == entry["claims"]
    assert set(codes(entry, files_of(entry))) <= expected(entry)


@pytest.mark.parametrize("entry", entries("nvidia", "nvidia-rim"))
def test_recorded_evidence_is_explained(entry: dict[str, Any]) -> None:
    files = files_of(entry)
    for role, describer in (("evidence", NvidiaReportDescriber()), ("report_bin", NvidiaReportDescriber())):
        if role in files:
            assert describer.recognises(files[role])
            assert len(describer.describe(files[role]).fields) > 30
    for role in ("rim", "vbios_rim", "driver_rim"):
        if role in files:
            assert NvidiaRimDescriber().recognises(files[role])
            assert len(NvidiaRimDescriber().describe(files[role]).fields) == 69


@pytest.mark.parametrize(
    "entry", [item for item in entries("nvidia") if "nvidia-switch_evidence" in str(item.id)] or entries("none")
)
def test_every_byte_of_a_recorded_report_is_under_its_signature(entry: dict[str, Any]) -> None:
    (element,) = json.loads(files_of(entry)["evidence"])
    report = base64.b64decode(element["evidence"])
    for where in range(0, len(report), 37):
        flipped = report[:where] + bytes((report[where] ^ 0x10,)) + report[where + 1 :]
        altered = {**element, "evidence": base64.b64encode(flipped).decode()}
        try:
            found = codes(entry, {"evidence": json.dumps([altered]).encode()})
        except (Malformed, Rejected):
            continue
        assert "signature_invalid" in found
