"""NVIDIA reports judged from files (docs/spec/evidence-nvidia.md section 6).

Either ``evidence``, the JSON list that NVIDIA's tools write, one element for each device, every one of which is judged,
or the request to NVIDIA's service that has such a list inside; or ``report_bin`` and ``chain`` of one device.
Manifests are those of every device, where they are there. Answers about revocation are
judged where they are there (``ocsp``) and not demanded: no collection of files has had any.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.attest.dossier import Bound, Case
from cloister.attest.dossier.expectations import carried, demand_files, refuse_member, rule_of
from cloister.attest.dossier.nvidia_rim import rim_claims
from cloister.attest.findings import Findings
from cloister.attest.nvidia.collateral import Relaxed, collected
from cloister.attest.nvidia.evidence import NvidiaEvidence, dump_nvidia_evidence
from cloister.attest.nvidia.golden import mismatching_indices
from cloister.attest.nvidia.opaque import FieldType
from cloister.attest.rats import Evidence, VerifiedClaims
from cloister.attest.rules import NotChecked
from cloister.attest.schemes.nvidia import NVIDIA_GPU, NVIDIA_SWITCH, production_nvidia_schemes
from cloister.errors import Malformed
from cloister.wire import Fields, parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cloister.attest.rats import TeeKind
    from cloister.attest.rules import Rule
    from cloister.attest.schemes.nvidia import NvidiaScheme
    from cloister.wire import Json

__all__ = ["RELAXED", "open_case", "open_devices"]

_MAX_DEVICES = 32
_ALONG = ("driver_rim", "vbios_rim", "ocsp")
_ABSENT = NotChecked("not among the files")
RELAXED = Relaxed(revocation=_ABSENT, rim_revocation=_ABSENT, driver_rim=_ABSENT, vbios_rim=_ABSENT)
"""Files are what somebody kept: what is not among them is shown as not checked."""
_NONCES = frozenset({"nonce", "challenge", "report_data"})
_CLAIMED = frozenset({"arch", "cc_mode", "chip", "device", "driver", "measurements", "pdi"})
_MEASUREMENT = re.compile(r"measurement_([1-9][0-9]{0,2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Device:
    """One device's files: what they are for the scheme, and what stood beside them, unsigned."""

    payload: bytes
    parts: NvidiaEvidence
    beside: Mapping[str, str]


def open_case(files: Mapping[str, bytes], expectations: Mapping[str, Json]) -> Case:
    """Return the case of one or more devices below NVIDIA's own roots (``open_devices``)."""
    return open_devices(files, expectations, production_nvidia_schemes(RELAXED))


def open_devices(files: Mapping[str, bytes], expectations: Mapping[str, Json], schemes: Sequence[NvidiaScheme]) -> Case:
    """Return the case of one or more devices, judged by the scheme for their kind. Claims are the first one's.

    Raises ``Malformed``, ``Rejected`` (``unsupported_format``) and ``Unavailable``.
    """
    devices = _devices(files)
    first = devices[0].parts
    claims = _claims(first)
    rules: dict[str, Rule] = {}
    bound = [
        _nonce("nonce beside the report", item.beside["nonce"], item) for item in devices if "nonce" in item.beside
    ]
    for name, value in expectations.items():
        if name in _NONCES:
            bound += [_nonce(name, value, item) for item in devices]
        elif name in _CLAIMED or (name == "vbios" and "." in str(value)):
            rules[name] = rule_of(name, value)
        else:
            bound += [_expected(name, value, item) for item in devices]

    def verify(now: datetime) -> VerifiedClaims:
        return _verify(devices, {scheme.tee: scheme for scheme in schemes}, now)

    return Case(claims=claims, verify=verify, rules=rules, bound=tuple(bound))


def _devices(files: Mapping[str, bytes]) -> list[_Device]:
    along = {role: files[role] for role in _ALONG if role in files}
    if "evidence" in files:
        demand_files(files, ("evidence",), _ALONG)
        return _listed(files["evidence"], along)
    demand_files(files, ("report_bin", "chain"), _ALONG)
    return [_device(files["report_bin"], files["chain"], {}, along)]


def _listed(data: bytes, along: Mapping[str, bytes]) -> list[_Device]:
    document = parse_json(data, what="nvidia evidence")
    above: dict[str, Json] = {}
    if isinstance(document, dict) and "evidence_list" in document:
        above = {name: document[name] for name in ("arch", "nonce") if name in document}
        document = document["evidence_list"]
    elements = document if isinstance(document, list) else [document]
    if not 0 < len(elements) <= _MAX_DEVICES:
        msg = f"nvidia evidence: {len(elements)} devices, want 1 to {_MAX_DEVICES}"
        raise Malformed(msg)
    return [_element({**above, **item} if isinstance(item, dict) else item, along) for item in elements]


def _element(value: Json, along: Mapping[str, bytes]) -> _Device:
    """Take one element; members we do not know are not signed by anybody and are passed over."""
    fields = Fields(value, what="nvidia evidence")
    report, chain = (_base64(fields.text(name, cap=64 * 1024)) for name in ("evidence", "certificate"))
    names = ("arch", "nonce", "driver_version", "vbios_version")
    return _device(report, chain, {name: fields.text(name, cap=256) for name in names if name in fields}, along)


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        msg = "nvidia evidence: not base64"
        raise Malformed(msg) from exc


def _device(report: bytes, chain: bytes, beside: Mapping[str, str], along: Mapping[str, bytes]) -> _Device:
    payload = dump_nvidia_evidence(report, chain, **along)
    return _Device(payload=payload, parts=NvidiaEvidence.parse(payload), beside=beside)


def _verify(devices: list[_Device], schemes: Mapping[TeeKind, NvidiaScheme], now: datetime) -> VerifiedClaims:
    findings = Findings("nvidia evidence")
    found: list[VerifiedClaims] = []
    for device in devices:
        with collected(findings):
            scheme = schemes[NVIDIA_SWITCH if device.parts.chain.is_switch else NVIDIA_GPU]
            found.append(scheme.verify(Evidence(tee=scheme.tee, payload=device.payload), {}, now))
        with collected(findings):
            _compare_beside(device, findings)
    own = findings.settle()
    checks = (*own, *(check for item in found for check in item.checks))
    return VerifiedClaims(tee=found[0].tee, claims=found[0].claims, report_data=found[0].report_data, checks=checks)


def _compare_beside(device: _Device, findings: Findings) -> None:
    """Demand that what stood beside a report is what the report says."""
    report = device.parts.report
    said = {"arch": device.parts.chain.arch.value, "driver_version": report.driver, "vbios_version": report.vbios}
    for name, got in said.items():
        want = device.beside.get(name)
        if want is not None:
            code = f"{name.removesuffix('_version')}_mismatch"
            findings.expect(got.upper() == want.upper(), code, f"{name} beside the report", got=got[:64], want=want)


def _nonce(name: str, value: Json, device: _Device) -> Bound:
    return carried("nonce_mismatch", name, value, device.parts.report.request.nonce)


def _expected(name: str, value: Json, device: _Device) -> Bound:
    """Return what a claim of the index has to be, or one of a list."""
    measured = _MEASUREMENT.fullmatch(name)
    if measured is not None:
        block = device.parts.report.response.measurements.get(int(measured[1]))
        return carried("measurement_mismatch", name, value, None if block is None else block.value)
    claims = _claims(device.parts)
    if name not in claims or name.endswith(("_rim", "_indices")):
        refuse_member(name)
    options = value if isinstance(value, list) else [value]
    if not options:
        refuse_member(name, "an empty list")
    got = claims[name]
    want = got if got in options else options[0]
    return Bound(code=f"{name}_mismatch", subject=name, got=str(got).encode(), want=str(want).encode())


def _claims(parts: NvidiaEvidence) -> dict[str, Json]:
    """Return what report, certificates and manifests say in the words of the index."""
    report, chain = parts.report, parts.chain
    blocks = report.response.measurements
    claims: dict[str, Json] = {
        "chip_sku": report.text(FieldType.CHIP_SKU),
        "driver": report.driver,
        "feature_flag": (report.opaque.get(FieldType.FEATURE_FLAG) or b"").hex(),
        "fwid": None if report.fwid is None else report.fwid.hex(),
        "leaf_cn": chain.leaf_name,
        "measurement_1": blocks[1].value.hex() if 1 in blocks else None,
        "model_cn": chain.model_name,
        "n_measurements": len(blocks),
        "nonce": report.request.nonce.hex(),
        "project": report.text(FieldType.PROJECT),
        "project_sku": report.text(FieldType.PROJECT_SKU),
        "serial": str(chain.leaf.x509.serial_number),
        "vbios": (report.opaque.get(FieldType.VBIOS_VERSION) or b"").hex(),
    }
    for part, rim in parts.rims.items():
        claims[part] = rim_claims(rim)
        claims[f"{part}_mismatching_indices"] = list(mismatching_indices(report, rim.manifest))
    return claims
