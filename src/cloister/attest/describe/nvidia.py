"""NVIDIA reports and reference integrity manifests, field by field."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final

from cloister.attest.describe import Description, Field
from cloister.attest.nvidia.devicechain import DeviceChain
from cloister.attest.nvidia.dice import fwid_of
from cloister.attest.nvidia.opaque import FieldType
from cloister.attest.nvidia.report import Report
from cloister.attest.nvidia.rim import Rim
from cloister.attest.nvidia.rimsignature import window
from cloister.errors import Malformed, Rejected
from cloister.wire import Fields, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloister.wire import Json

__all__ = ["NvidiaReportDescriber", "NvidiaRimDescriber"]

_MAX_DEVICES = 32
_MAX_TEXT = 64 * 1024
_SHOWN = 128
_REPORT_START = b"\x11\xe0"
_RIM_START = b"<SoftwareIdentity"
_TEXTS = frozenset(
    {FieldType.DRIVER_VERSION, FieldType.CHIP_SKU, FieldType.PROJECT, FieldType.PROJECT_SKU, FieldType.CHIP_INFO}
)
_NAMES = {int(item): item.name.lower() for item in FieldType}
_MEANINGS: dict[int, str] = {
    FieldType.DRIVER_VERSION: "version of the driver; its manifest has this version and no other",
    FieldType.GPU_INFO: "state word of the GPU; NVIDIA does not say more",
    FieldType.VBIOS_VERSION: "version of the VBIOS; its manifest has this version and no other",
    FieldType.NVDEC0_STATUS: "aa: the video decoder is on; 55: fused off, and measurement 35 has no golden value",
    FieldType.MSRSCNT: "how often each measurement was taken",
    FieldType.CPRINFO: "protection regions; NVIDIA does not say more",
    FieldType.BOARD_ID: "the board's number",
    FieldType.CHIP_SKU: "the chip's variant: part of the name of the VBIOS's manifest",
    FieldType.CHIP_SKU_MOD: "modification of that variant",
    FieldType.PROJECT: "the board: part of the name of the VBIOS's manifest",
    FieldType.PROJECT_SKU: "the board's variant: part of the name of the VBIOS's manifest",
    FieldType.PROJECT_SKU_MOD: "modification of that variant",
    FieldType.FWID: "digest of the firmware that holds the key: must equal the one in the leaf certificate",
    FieldType.PROTECTED_PCIE_STATUS: "aa: protected PCIe mode is on; 55: off",
    FieldType.PDI: "of a GPU: the switches it is wired to, reversed; of a switch: itself",
    FieldType.DISABLED_PORTS: "ports that are switched off",
    FieldType.POSITION_ID: "which switch of the board this is",
    FieldType.LOCK_STATUS: "whether the switch refuses to be reconfigured",
    FieldType.SWITCH_GPU_PDIS: "the GPUs this switch is wired to, then the ports they are on",
    FieldType.OPAQUE_DATA_VERSION: "version of this list of fields",
    FieldType.CHIP_INFO: "the chip as the driver's manifest names it",
    FieldType.FEATURE_FLAG: "confidential mode: 0 multiple GPUs, 1 one GPU, 2 protected PCIe",
}


class NvidiaReportDescriber:
    """Explains a signed report, alone or in the JSON that NVIDIA's tools write."""

    kind: Final = "nvidia"

    def recognises(self, data: bytes) -> bool:
        """Tell whether ``data`` starts like an SPDM request, or is JSON with evidence and certificates."""
        if data.startswith(_REPORT_START):
            return True
        return data.lstrip()[:1] in {b"[", b"{"} and b'"certificate"' in data and b'"evidence"' in data

    def describe(self, data: bytes) -> Description:
        """Explain every field. Raises ``Malformed``."""
        return Description(
            kind=self.kind, title="NVIDIA device report (SPDM)", fields=tuple(_known(_report_fields, data))
        )


class NvidiaRimDescriber:
    """Explains a reference integrity manifest."""

    kind: Final = "nvidia-rim"

    def recognises(self, data: bytes) -> bool:
        """Tell whether ``data`` looks like a SWID tag with measurements."""
        head = data.lstrip()[:512]
        return _RIM_START in head and b"19770" in head

    def describe(self, data: bytes) -> Description:
        """Explain every field. Raises ``Malformed``."""
        fields = tuple(_rim_fields(Rim.parse(data)))
        return Description(kind=self.kind, title="NVIDIA reference integrity manifest (TCG RIM)", fields=fields)


def _known(read: Callable[[bytes], Iterator[Field]], data: bytes) -> Iterator[Field]:
    """Explain; a version that nobody knows cannot be explained."""
    try:
        yield from read(data)
    except Rejected as exc:
        msg = f"nvidia report: {exc.message}"
        raise Malformed(msg) from exc


def _report_fields(data: bytes) -> Iterator[Field]:
    if data.startswith(_REPORT_START):
        yield from _one_report(Report.parse(data), "")
        return
    document = parse_json(data, what="nvidia evidence")
    devices = document if isinstance(document, list) else [document]
    if not 0 < len(devices) <= _MAX_DEVICES:
        msg = f"nvidia evidence: {len(devices)} devices, want 1 to {_MAX_DEVICES}"
        raise Malformed(msg)
    for number, device in enumerate(devices, start=1):
        yield from _element(device, f"device {number}: " if len(devices) > 1 else "")


def _element(value: Json, where: str) -> Iterator[Field]:
    fields = Fields(value, what="nvidia evidence")
    report, chain = (_base64(fields.text(name, cap=_MAX_TEXT)) for name in ("evidence", "certificate"))
    yield from _one_chain(DeviceChain.parse(chain), where)
    yield from _one_report(Report.parse(report), where)


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        msg = "nvidia evidence: not base64"
        raise Malformed(msg) from exc


def _one_chain(chain: DeviceChain, where: str) -> Iterator[Field]:
    for number, item in enumerate(chain.certificates):
        meaning = "the attestation key, held by firmware" if number == 0 else "vouches for the one before"
        yield Field(name=f"{where}certificate {number}", value=item.shown, meaning=meaning)
    fwid = fwid_of(chain.leaf)
    value = "" if fwid is None else fwid.hex()
    yield Field(name=f"{where}certified firmware", value=value, meaning="digest of the firmware that holds the key")


def _one_report(report: Report, where: str) -> Iterator[Field]:
    request, response = report.request, report.response
    yield Field(
        name=f"{where}nonce", value=request.nonce.hex(), meaning="what the verifier asked with: must be its own"
    )
    yield Field(name=f"{where}slot", value=str(request.slot), meaning="which certificate chain of the device signs")
    yield Field(name=f"{where}device nonce", value=response.nonce.hex(), meaning="the device's own randomness")
    yield Field(name=f"{where}mode", value=report.mode or "not said", meaning="confidential computing mode")
    yield Field(name=f"{where}vbios", value=report.vbios, meaning="version as NVIDIA writes it")
    for kind, field in report.opaque.fields.items():
        known = _NAMES.get(kind, f"field {kind}")
        meaning = _MEANINGS.get(kind, "NVIDIA does not say what this is")
        shown = report.text(FieldType(kind)) if kind in _TEXTS else field.value.hex()
        yield Field(name=f"{where}{known}", value=shown[:_SHOWN], meaning=meaning)
    for index, block in sorted(response.measurements.items()):
        meaning = f"compared with index {index - 1} of a manifest" + (" (a value, no digest)" if block.raw else "")
        yield Field(name=f"{where}measurement {index}", value=block.value.hex()[:_SHOWN], meaning=meaning)
    yield Field(name=f"{where}signature", value=response.signature.hex(), meaning="ECDSA P-384 over all of the above")


def _rim_fields(rim: Rim) -> Iterator[Field]:
    manifest = rim.manifest
    since, until = window(rim.certificates)
    yield Field(name="tag", value=manifest.tag, meaning="identity of this manifest")
    yield Field(name="version", value=manifest.version, meaning="version of driver or VBIOS it is about")
    yield Field(name="product", value=manifest.product, meaning="chip it is about")
    yield Field(name="signer", value=rim.certificates[0].shown, meaning="must chain to NVIDIA's manifest root")
    yield Field(name="window", value=f"{since} to {until}", meaning="when all of the signer's certificates are valid")
    for item in manifest.references:
        if item.min_svn is not None:
            value, meaning = str(item.min_svn), f"least security version in opaque field {item.opaque_type}"
        elif item.active:
            value = " or ".join(golden.hex()[:_SHOWN] for golden in item.values)
            meaning = f"golden values of measurement {item.index + 1}"
        else:
            value, meaning = "inactive", "not compared"
        yield Field(name=f"index {item.index}", value=value, meaning=meaning)
