"""One report, and what its fields mean (NVIDIA attestation-sdk, ``gpu/evidence.cpp`` and ``switch/evidence.cpp``).

Everything here is what the bytes say; ``verify_signature`` proves who says so, given a key the chain vouches for.

Not done here: the chain (``devicechain``), reference values (``golden``).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from cloister.attest.nvidia.opaque import FieldType, Opaque, parse_opaque
from cloister.attest.nvidia.spdm import MAX_REPORT_BYTES, SIGNATURE_BYTES, Request, Response, take_messages
from cloister.errors import Malformed, Rejected
from cloister.wire import Reader

if TYPE_CHECKING:
    from cloister.attest.chain import Certificate

__all__ = ["Report", "verify_signature"]

_NVDEC0_DISABLED = b"\x55"
_VBIOS_BYTES = 8
_MODES = {0: "mpt", 1: "spt", 2: "ppcie"}  # multi, single passthrough; protected PCIe
_PDI_BYTES = 8
_SWITCH_GPUS = 8  # the first entries of field 26; the map of ports follows
_NO_PDI = (bytes(_PDI_BYTES), b"\xff" * _PDI_BYTES)
_RIM_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_LS10_BOARD = "5612_0002_890"  # project, project SKU, chip SKU: a switch does not report them


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Request, response and opaque fields; ``signed`` are the bytes the signature is over."""

    request: Request
    response: Response
    opaque: Opaque
    signed: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a report to its end. Raises ``Malformed``; ``Rejected`` (``unsupported_format``)."""
        if len(data) > MAX_REPORT_BYTES:
            msg = f"nvidia report: {len(data)} bytes, want at most {MAX_REPORT_BYTES}"
            raise Malformed(msg)
        request, response = take_messages(Reader(data, what="nvidia report"))
        opaque = parse_opaque(response.opaque)
        return cls(request=request, response=response, opaque=opaque, signed=data[:-SIGNATURE_BYTES])

    def text(self, kind: FieldType) -> str:
        """Return a text field up to its first zero byte, empty where the device did not send it.

        What is no printable ASCII is replaced: no version has it, and nothing here steers a terminal (T84).
        """
        value = (self.opaque.get(kind) or b"").partition(b"\x00")[0]
        return "".join(char if char.isprintable() else "\ufffd" for char in value.decode("ascii", "replace"))

    @property
    def driver(self) -> str:
        """Version of the driver's firmware as NVIDIA writes it, empty for a switch."""
        return self.text(FieldType.DRIVER_VERSION)

    @property
    def vbios(self) -> str:
        """Version of the VBIOS as NVIDIA writes it: ``96.00.5E.00.01``; empty where the device did not send it.

        A GPU sends eight bytes, the version's first four little-endian and its fifth; a switch sends text.
        """
        value = self.opaque.get(FieldType.VBIOS_VERSION) or b""
        if len(value) == _VBIOS_BYTES:
            return ".".join(f"{byte:02X}" for byte in (*value[3::-1], value[4]))
        return self.text(FieldType.VBIOS_VERSION)

    @property
    def fwid(self) -> bytes | None:
        """Digest of the firmware that holds the attestation key; older drivers do not send it."""
        return self.opaque.get(FieldType.FWID)

    @property
    def nvdec0_disabled(self) -> bool:
        """Whether the video decoder is fused off: measurement 35 then has no golden value."""
        return self.opaque.get(FieldType.NVDEC0_STATUS) == _NVDEC0_DISABLED

    @property
    def mode(self) -> str:
        """``spt``, ``mpt``, ``ppcie``; ``invalid`` for a value nobody named; empty where the device does not say."""
        flag = self.opaque.get(FieldType.FEATURE_FLAG)
        return "" if flag is None else _MODES.get(int.from_bytes(flag, "little"), "invalid")

    @property
    def wired_switches(self) -> tuple[str, ...]:
        """Of a GPU: the switches it is wired to, by PDI as their certificates spell it (field 22 is reversed)."""
        return self._pdis(self.opaque.get(FieldType.PDI) or b"", reverse=True)

    @property
    def wired_gpus(self) -> tuple[str, ...]:
        """Of a switch: the GPUs it is wired to, by PDI."""
        return self._pdis((self.opaque.get(FieldType.SWITCH_GPU_PDIS) or b"")[: _SWITCH_GPUS * _PDI_BYTES])

    @staticmethod
    def _pdis(data: bytes, *, reverse: bool = False) -> tuple[str, ...]:
        found = {data[at : at + _PDI_BYTES] for at in range(0, len(data) - _PDI_BYTES + 1, _PDI_BYTES)}
        step = -1 if reverse else 1
        return tuple(sorted(pdi[::step].hex() for pdi in found if pdi not in _NO_PDI))

    @property
    def measurements_digest(self) -> bytes:
        """SHA-384 over every block's index and value: one number for the whole state."""
        digest = hashlib.sha384()
        for index, block in sorted(self.response.measurements.items()):
            digest.update(bytes((index,)) + len(block.value).to_bytes(2, "big") + block.value)
        return digest.digest()

    def driver_rim_id(self, chip: str) -> str:
        """Return the name of the driver's manifest. Raises ``Malformed`` where the report cannot have one.

        Hopper: ``NV_GPU_DRIVER_GH100_<driver>``. From Blackwell: ``NV_GPU_CC_DRIVER_<chip>_<driver>``.
        """
        if chip.startswith("GH"):
            return _rim_id(f"NV_GPU_DRIVER_{chip}_{self.driver}")
        return _rim_id(f"NV_GPU_CC_DRIVER_{self.text(FieldType.CHIP_INFO) or chip}_{self.driver}")

    def vbios_rim_id(self, *, switch: bool) -> str:
        """Return the name of the VBIOS's manifest. Raises ``Malformed`` where the report cannot have one."""
        version = self.vbios.replace(".", "").upper()
        if switch:
            return _rim_id(f"NV_SWITCH_BIOS_{_LS10_BOARD}_{version}")
        board = (self.text(kind) for kind in (FieldType.PROJECT, FieldType.PROJECT_SKU, FieldType.CHIP_SKU))
        return _rim_id(f"NV_GPU_VBIOS_{'_'.join(board)}_{version}".upper())


def _rim_id(name: str) -> str:
    if not _RIM_ID.fullmatch(name):
        msg = "nvidia report: versions or board are not words a manifest can be named by"
        raise Malformed(msg)
    return name


def verify_signature(report: Report, leaf: Certificate) -> None:
    """Prove that ``leaf``'s key signed request and response: ECDSA over SHA-384 with P-384.

    DSP0274 1.1.0, "MEASUREMENTS signature generation": over L1, both messages up to the signature.

    Raises ``Rejected``: ``algorithm_not_allowed`` for another kind of key, ``signature_invalid``.
    """
    key = leaf.x509.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise Rejected.because("algorithm_not_allowed", "attestation key", got=type(key).__name__, want="P-384")
    half = SIGNATURE_BYTES // 2
    r, s = (
        int.from_bytes(part, "big") for part in (report.response.signature[:half], report.response.signature[half:])
    )
    try:
        key.verify(encode_dss_signature(r, s), report.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature as exc:
        raise Rejected.because("signature_invalid", "spdm report") from exc
