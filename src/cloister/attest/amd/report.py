"""The attestation report: 1,184 bytes, little-endian (AMD 56860 revision 1.58, section 7.3, table 23).

Versions 2 to 5 have one layout; later ones use bytes that were reserved: CPUID since 3, mitigation vectors since 5.
No public document describes 4; it is read as 3, and refused where it says more.

Not done here: the signature (``signature``), whether anything in it is good.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from cloister.attest.amd.bits import POLICY_KNOWN, POLICY_MUST_BE_ONE
from cloister.attest.amd.products import Product, product_of_cpuid
from cloister.attest.amd.tcb import TCB_BYTES
from cloister.wire import Reader

__all__ = ["REPORT_BYTES", "REPORT_DATA_BYTES", "SIGNED_BYTES", "VERSIONS", "Cpuid", "Firmware", "Report", "SigningKey"]

REPORT_BYTES = 1184
SIGNED_BYTES = 0x2A0  # bytes in front of the signature, all of them signed
REPORT_DATA_BYTES = 64
VERSIONS = range(2, 6)
_CPUID_SINCE, _MITIGATION_SINCE = 3, 5
_SCALAR_BYTES = 72  # R and S each
_SIGNATURE_BYTES = REPORT_BYTES - SIGNED_BYTES


class SigningKey(IntEnum):
    """SIGNING_KEY of KEY_INFO: which key signed."""

    VCEK = 0
    VLEK = 1
    NONE = 7


@dataclass(frozen=True, slots=True)
class Cpuid:
    """Combined family and model, and stepping, as CPUID Fn0000_0001 tells them."""

    family: int
    model: int
    stepping: int


@dataclass(frozen=True, slots=True)
class Firmware:
    """Version of the SEV firmware."""

    major: int
    minor: int
    build: int

    def __str__(self) -> str:
        """Return ``1.55.29``."""
        return f"{self.major}.{self.minor}.{self.build}"

    @property
    def number(self) -> int:
        """The version as one number, a byte each, to compare: 1.55.29 is 0x01371d."""
        return self.major << 16 | self.minor << 8 | self.build


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One report, field by field; unverified. TCB versions are bytes: their order depends on the processor.

    ``reserved`` names what should be zero and is not. ``signature`` is R, S.
    """

    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    signature_algorithm: int
    current_tcb: bytes
    platform_info: int
    key_info: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: bytes
    cpuid: Cpuid | None
    chip_id: bytes
    committed_tcb: bytes
    current: Firmware
    committed: Firmware
    launch_tcb: bytes
    launch_mitigation: int | None
    current_mitigation: int | None
    signature: tuple[int, int]
    signed: bytes
    reserved: tuple[str, ...]

    @property
    def author_key_en(self) -> bool:
        """AUTHOR_KEY_EN: an author's key signed the identity key."""
        return bool(self.key_info & 1)

    @property
    def mask_chip_key(self) -> bool:
        """MASK_CHIP_KEY: the firmware writes zeros in place of a VCEK signature."""
        return bool(self.key_info >> 1 & 1)

    @property
    def signing_key(self) -> SigningKey | None:
        """SIGNING_KEY; None for a reserved value."""
        value = self.key_info >> 2 & 7
        return SigningKey(value) if value in set(SigningKey) else None

    @property
    def chip_id_masked(self) -> bool:
        """CHIP_ID is all zero: the platform hides it (MASK_CHIP_ID)."""
        return not any(self.chip_id)

    @property
    def product(self) -> Product | None:
        """The line of processors by CPUID; None before version 3 and for one we do not know."""
        return None if self.cpuid is None else product_of_cpuid(self.cpuid.family, self.cpuid.model)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse exactly one report of any version. Raises ``Malformed``."""
        reader = Reader(data, what="snp report")
        if reader.left != REPORT_BYTES:
            reader.fail(f"{reader.left} bytes, want {REPORT_BYTES}")
        fields = _Fields(reader)
        version = fields.uint(4)
        return cls(
            version=version,
            guest_svn=fields.uint(4),
            policy=fields.policy(),
            family_id=fields.take(16),
            image_id=fields.take(16),
            vmpl=fields.uint(4),
            signature_algorithm=fields.uint(4),
            current_tcb=fields.take(TCB_BYTES),
            platform_info=fields.uint(8),
            key_info=fields.key_info(),
            report_data=fields.take(REPORT_DATA_BYTES),
            measurement=fields.take(48),
            host_data=fields.take(32),
            id_key_digest=fields.take(48),
            author_key_digest=fields.take(48),
            report_id=fields.take(32),
            report_id_ma=fields.take(32),
            reported_tcb=fields.take(TCB_BYTES),
            cpuid=fields.cpuid(version),
            chip_id=fields.take(64),
            committed_tcb=fields.take(TCB_BYTES),
            current=fields.firmware("0x1EB"),
            committed=fields.firmware("0x1EF"),
            launch_tcb=fields.take(TCB_BYTES),
            launch_mitigation=fields.mitigation(version, "0x1F8"),
            current_mitigation=fields.mitigation(version, "0x200"),
            signature=fields.signature(),
            signed=data[:SIGNED_BYTES],
            reserved=tuple(fields.reserved),
        )


class _Fields:
    """Takes the fields in their order and notes which reserved ones are not zero."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.reserved: list[str] = []
        self.take = reader.take

    def uint(self, size: int) -> int:
        return self._reader.uint(size, little=True)

    def zero(self, size: int, name: str) -> None:
        if any(self.take(size)):
            self.reserved.append(name)

    def policy(self) -> int:
        value = self.uint(8)
        if value & ~POLICY_KNOWN or not value & POLICY_MUST_BE_ONE:
            self.reserved.append("POLICY")
        return value

    def key_info(self) -> int:
        value = self.uint(4)
        if value >> 5:
            self.reserved.append("KEY_INFO")
        self.zero(4, "0x4C")
        return value

    def cpuid(self, version: int) -> Cpuid | None:
        if version < _CPUID_SINCE:
            self.zero(24, "0x188")
            return None
        found = Cpuid(self.uint(1), self.uint(1), self.uint(1))
        self.zero(21, "0x18B")
        return found

    def firmware(self, reserved: str) -> Firmware:
        build, minor, major = self.uint(1), self.uint(1), self.uint(1)
        self.zero(1, reserved)
        return Firmware(major, minor, build)

    def mitigation(self, version: int, name: str) -> int | None:
        if version < _MITIGATION_SINCE:
            self.zero(8, name)
            return None
        return self.uint(8)

    def signature(self) -> tuple[int, int]:
        self.zero(152, "0x208")
        pair = (self.uint(_SCALAR_BYTES), self.uint(_SCALAR_BYTES))
        self.zero(_SIGNATURE_BYTES - 2 * _SCALAR_BYTES, "0x330")
        return pair
