"""Synthetic GPUs and switches: chips with certificates, fields and measurements, and the reports they sign."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from cloister.attest.nvidia.devicechain import Arch
from cloister.attest.nvidia.opaque import FieldType
from cloister.testing.vendors.nvidia.issuing import ALWAYS, usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.chain import Certificate
    from cloister.testing.vendors.nvidia.issuing import Issuer, Window

__all__ = ["CHIPS", "Device", "attestation_key", "golden_value", "opaque_fields"]

CHIPS = {Arch.HOPPER: "GH100", Arch.BLACKWELL: "GB100", Arch.LS10: "LS_10"}
BLOCKS = {Arch.HOPPER: 64, Arch.BLACKWELL: 64, Arch.LS10: 31}
FWID = hashlib.sha384(b"synthetic firmware").digest()
_LONG_FORM = 0x80  # of a DER length
_SHA384_OID = bytes.fromhex("0609608648016503040202")


def golden_value(arch: Arch, index: int) -> bytes:
    """Return what a chip of ``arch`` measures at manifest index ``index``."""
    return hashlib.sha384(f"synthetic {arch.value} {index}".encode()).digest()


def opaque_fields(arch: Arch) -> dict[int, bytes]:
    """Return the fields a chip of ``arch`` sends, as its driver writes them."""
    if arch.is_switch:
        return {
            FieldType.VBIOS_VERSION: b"96.10.55.00.01",
            FieldType.PDI: bytes.fromhex("203eb31ad9ed0008"),
            FieldType.SWITCH_GPU_PDIS: bytes(range(64)) + bytes(64),
            FieldType.DISABLED_PORTS: b"\xec\x00",
            FieldType.POSITION_ID: b"\x02\x00",
            FieldType.LOCK_STATUS: b"\x01\x00",
        }
    fields: dict[int, bytes] = {
        FieldType.VBIOS_VERSION: bytes.fromhex("00a5009601000000"),
        FieldType.BOARD_ID: bytes.fromhex("37040000"),
        FieldType.CHIP_SKU: b"885\x00\x00\x00\x00\x00\x00",
        FieldType.CHIP_SKU_MOD: b"0\x00",
        FieldType.PROJECT: b"G520\x00",
        FieldType.PROJECT_SKU: b"0200\x00",
        FieldType.DRIVER_VERSION: b"590.12\x00",
        FieldType.NVDEC0_STATUS: b"\xaa",
        FieldType.FWID: FWID,
        FieldType.PROTECTED_PCIE_STATUS: b"\x55",
        FieldType.PDI: bytes.fromhex("77e911d843b7533a") * 2,
        FieldType.OPAQUE_DATA_VERSION: b"\x01\x00",
        FieldType.FEATURE_FLAG: b"\x01\x00",
    }
    return {**fields, **({FieldType.CHIP_INFO: b"GB100\x00"} if arch is Arch.BLACKWELL else {})}


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One chip. ``measurements`` by block index; ``versioned`` chooses the newer layout of the fields."""

    arch: Arch
    issuer: Issuer
    leaf: Issuer
    chain: tuple[Certificate, ...]
    measurements: Mapping[int, bytes]
    fields: Mapping[int, bytes]
    versioned: bool = False

    @property
    def chain_pem(self) -> bytes:
        """The certificates as NVML returns them."""
        return b"".join(item.pem for item in self.chain)

    @property
    def opaque(self) -> bytes:
        """The fields in the layout chosen; the newer one has value types, of which only floors are looked at."""
        if not self.versioned:
            return b"".join(_u16(kind) + _u16(len(value)) + value for kind, value in self.fields.items())
        entries = (_u16(kind) + _u16(0x87) + _u16(len(value)) + value for kind, value in self.fields.items())
        return b"NVDAOD" + _u16(0) + bytes((2, 0, 0, 0)) + b"".join(entries)

    def report(self, nonce: bytes, *, slot: int = 0) -> bytes:
        """Return a signed report for ``nonce``."""
        record = b"".join(
            bytes((index, 1)) + _u16(len(value) + 3) + b"\x01" + _u16(len(value)) + value
            for index, value in self.measurements.items()
        )
        size = len(record).to_bytes(3, "little")
        request = bytes((0x11, 0xE0, 0x01, 0xFF)) + nonce + bytes((slot,))
        response = bytes((0x11, 0x60, 0, slot, len(self.measurements))) + size + record
        answer_nonce = hashlib.sha256(b"synthetic answer" + nonce).digest()
        return self.signed(request + response + answer_nonce + _u16(len(self.opaque)) + self.opaque)

    def signed(self, transcript: bytes) -> bytes:
        """Return any transcript with a good signature behind it."""
        half = self.leaf.key.key_size // 8
        signature = self.leaf.key.sign(transcript, ec.ECDSA(hashes.SHA384()))
        return transcript + b"".join(part.to_bytes(half, "big") for part in decode_dss_signature(signature))


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "little")


def attestation_key(
    rom: Issuer,
    arch: Arch,
    *,
    name: str | None = None,
    device_name: str | None = None,
    fwid: bytes | None = FWID,
    signs: bool = True,
    issues: bool = False,
    window: Window = ALWAYS,
    curve: ec.EllipticCurve | None = None,
) -> Issuer:
    """Return the attestation key that the key in the ROM certifies, with the firmware's digest in its extension."""
    chip = CHIPS[arch]
    shown = f"NVIDIA:{chip}:48B02D0000000001" if device_name is None else device_name
    other = x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.412.274.1"), _der(0x0C, shown.encode()))
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (usage(signs=signs, issues=issues), True),
        (x509.SubjectAlternativeName([other]), False),
    ]
    if fwid is not None:
        extensions.append((_dice(rom, arch, fwid), False))
    processor = "FSP" if arch.is_switch else "GSP"
    return rom.issue(name or f"{chip} A01 {processor} FMC LF", extensions=extensions, window=window, curve=curve)


def _dice(rom: Issuer, arch: Arch, fwid: bytes) -> x509.UnrecognizedExtension:
    """Return CompositeDeviceID as Hopper has it, or DiceTcbInfo as Blackwell does."""
    digest = _der(0x30, _SHA384_OID + _der(0x04, fwid))
    if arch is Arch.BLACKWELL:
        fwids = _der(0xA6, digest + _der(0x30, _SHA384_OID + _der(0x04, bytes(48))))
        content = _der(0x80, b"NVIDIA") + _der(0x81, b"GB100 A01 GSP") + _der(0x83, b"\x04") + fwids
        return x509.UnrecognizedExtension(x509.ObjectIdentifier("2.23.133.5.4.1.1"), _der(0x30, content))
    key = rom.key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    content = _der(0x02, b"\x01") + key + digest
    return x509.UnrecognizedExtension(x509.ObjectIdentifier("2.23.133.5.4.1"), _der(0x30, content))


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    raw = size.to_bytes((size.bit_length() + 7) // 8 or 1, "big")
    return bytes((tag,)) + (raw if size < _LONG_FORM else bytes((_LONG_FORM | len(raw),)) + raw) + content
