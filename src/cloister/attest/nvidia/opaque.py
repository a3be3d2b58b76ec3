"""Opaque data of an NVIDIA report: typed fields, in two layouts (NVIDIA Opaque Data Format).

    legacy = *(type u16 | size u16 | bytes)
    versioned = "NVDAOD" | profile u16 = 0 | major u8 | minor u8 | patch u8 | padding u8
                | *(type u16 | value type u16 | size u16 | bytes)

Integers are little-endian. Drivers up to CUDA 13.4 write the first; later ones the second. Types we do not know are
kept: a device may say more than a reader looks at. A type that comes twice is refused.

Not done here: what a field means (``report``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from cloister.errors import Rejected
from cloister.wire import Reader

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MIN_SVN", "Field", "FieldType", "Opaque", "parse_opaque"]

MIN_SVN = 0x87
"""Value type of a security version that a manifest gives a floor for (Opaque Data RIM Attributes, ``minSvn``)."""

_MAGIC = b"NVDAOD"
_PROFILE = 0
_MAX_MAJOR = 2  # the newest layout we know


class FieldType(IntEnum):
    """Types that NVIDIA names (attestation-sdk, ``GpuOpaqueDataType`` and ``SwitchOpaqueDataType``)."""

    CERT_ISSUER_NAME = 1
    CERT_AUTHORITY_KEY_IDENTIFIER = 2
    DRIVER_VERSION = 3
    GPU_INFO = 4
    SKU = 5
    VBIOS_VERSION = 6
    MANUFACTURER_ID = 7
    TAMPER_DETECTION = 8
    SMC = 9
    VPR = 10
    NVDEC0_STATUS = 11
    MSRSCNT = 12
    CPRINFO = 13
    BOARD_ID = 14
    CHIP_SKU = 15
    CHIP_SKU_MOD = 16
    PROJECT = 17
    PROJECT_SKU = 18
    PROJECT_SKU_MOD = 19
    FWID = 20
    PROTECTED_PCIE_STATUS = 21
    PDI = 22  # of a GPU: the switches it is wired to; of a switch: its own
    DISABLED_PORTS = 23
    POSITION_ID = 24
    LOCK_STATUS = 25
    SWITCH_GPU_PDIS = 26
    GPU_LINK_CONN = 32
    SYS_ENABLE_STATUS = 33
    OPAQUE_DATA_VERSION = 34
    CHIP_INFO = 35
    FEATURE_FLAG = 36


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field. ``value_type`` is 0 in the legacy layout, which has none."""

    value_type: int
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Opaque:
    """All fields by type. ``major`` is the version of the layout, 0 where the device does not say."""

    major: int
    fields: Mapping[int, Field]

    def get(self, kind: FieldType) -> bytes | None:
        """Return the bytes of a field, None where the device did not send it."""
        field = self.fields.get(kind)
        return None if field is None else field.value


def parse_opaque(data: bytes) -> Opaque:
    """Parse either layout to its end.

    Raises ``Malformed``; ``Rejected`` (``unsupported_format``) for a profile or a version newer than we know.
    """
    reader = Reader(data, what="nvidia opaque data")
    if not data.startswith(_MAGIC):
        fields = _take_fields(reader, typed=False)
        said = fields.get(FieldType.OPAQUE_DATA_VERSION)
        major = 0 if said is None else int.from_bytes(said.value, "little")
        return _known(Opaque(major=major, fields=fields))
    reader.expect(_MAGIC)
    profile = reader.uint(2, little=True)
    if profile != _PROFILE:
        raise Rejected.because("unsupported_format", "nvidia opaque data", got=f"profile {profile}", want="0")
    major = reader.u8()
    reader.take(3)  # minor and patch change nothing in the layout; padding
    return _known(Opaque(major=major, fields=_take_fields(reader, typed=True)))


def _known(opaque: Opaque) -> Opaque:
    if opaque.major > _MAX_MAJOR:
        got, want = f"version {opaque.major:#x}"[:64], f"at most {_MAX_MAJOR}"  # of any size: decimal is bounded
        raise Rejected.because("unsupported_format", "nvidia opaque data", got=got, want=want)
    return opaque


def _take_fields(reader: Reader, *, typed: bool) -> dict[int, Field]:
    fields: dict[int, Field] = {}
    while reader.left:
        kind = reader.uint(2, little=True)
        value_type = reader.uint(2, little=True) if typed else 0
        value = reader.take(reader.uint(2, little=True))
        if kind in fields:
            reader.fail(f"field {kind} twice")
        fields[kind] = Field(value_type=value_type, value=value)
    return fields
