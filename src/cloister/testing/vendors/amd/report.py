"""Values of a synthetic report, and its bytes (docs/spec/evidence-snp.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from cloister.attest.amd.bits import POLICY_MUST_BE_ONE
from cloister.attest.amd.products import Product
from cloister.attest.amd.report import SIGNED_BYTES, Cpuid, Firmware
from cloister.attest.amd.tcb import Tcb

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CPUIDS", "LEVELS", "ReportValues", "sign"]

CPUIDS: Mapping[Product, Cpuid] = {
    Product.MILAN: Cpuid(0x19, 0x01, 1),
    Product.GENOA: Cpuid(0x19, 0x11, 1),
    Product.TURIN: Cpuid(0x1A, 0x02, 1),
}
LEVELS: Mapping[Product, Mapping[str, int]] = {
    Product.MILAN: {"bl": 4, "tee": 0, "snp": 24, "ucode": 219},
    Product.GENOA: {"bl": 10, "tee": 0, "snp": 25, "ucode": 84},
    Product.TURIN: {"fmc": 1, "bl": 2, "tee": 1, "snp": 4, "ucode": 71},
}
_SMT = 1 << 16
_CPUID_SINCE, _MITIGATION_SINCE = 3, 5
_SCALAR_BYTES = 72
_SIGNATURE_BYTES = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportValues:
    """What a report says. None leaves a field to the chip; ``patches`` put bytes anywhere, after everything else."""

    version: int = 5
    guest_svn: int = 1
    policy: int = POLICY_MUST_BE_ONE | _SMT
    family_id: bytes = bytes(16)
    image_id: bytes = bytes(16)
    vmpl: int = 0
    signature_algorithm: int = 1
    current_tcb: Mapping[str, int] | None = None
    platform_info: int = 0x25
    key_info: int | None = None
    report_data: bytes = bytes(64)
    measurement: bytes = b"\x5a" * 48
    host_data: bytes = bytes(32)
    id_key_digest: bytes = bytes(48)
    author_key_digest: bytes = bytes(48)
    report_id: bytes = b"\x33" * 32
    report_id_ma: bytes = b"\xff" * 32
    reported_tcb: Mapping[str, int] | None = None
    cpuid: Cpuid | None = None
    chip_id: bytes | None = None
    committed_tcb: Mapping[str, int] | None = None
    current: Firmware = Firmware(1, 58, 3)  # noqa: RUF009 - a frozen value
    committed: Firmware = Firmware(1, 58, 3)  # noqa: RUF009
    launch_tcb: Mapping[str, int] | None = None
    launch_mitigation: int = 1
    current_mitigation: int = 3
    patches: Mapping[int, bytes] = field(default_factory=dict)

    def dump(self, product: Product, levels: Mapping[str, int], chip_id: bytes, key_info: int) -> bytes:
        """Return the bytes that are signed; the arguments are what the chip fills in."""

        def tcb(chosen: Mapping[str, int] | None) -> bytes:
            return Tcb.make(product, levels if chosen is None else chosen).raw

        body = b"".join(
            (
                _u32(self.version),
                _u32(self.guest_svn),
                _u64(self.policy),
                self.family_id,
                self.image_id,
                _u32(self.vmpl),
                _u32(self.signature_algorithm),
                tcb(self.current_tcb),
                _u64(self.platform_info),
                _u32(key_info if self.key_info is None else self.key_info),
                bytes(4),
                self.report_data,
                self.measurement,
                self.host_data,
                self.id_key_digest,
                self.author_key_digest,
                self.report_id,
                self.report_id_ma,
                tcb(self.reported_tcb),
                self._processor(product),
                chip_id if self.chip_id is None else self.chip_id,
                tcb(self.committed_tcb),
                _firmware(self.current),
                _firmware(self.committed),
                tcb(self.launch_tcb),
                self._mitigations(),
                bytes(152),
            )
        )
        return self._patched(body)

    def _processor(self, product: Product) -> bytes:
        if self.version < _CPUID_SINCE:
            return bytes(24)
        cpuid = self.cpuid or CPUIDS[product]
        return bytes((cpuid.family, cpuid.model, cpuid.stepping)) + bytes(21)

    def _mitigations(self) -> bytes:
        if self.version < _MITIGATION_SINCE:
            return bytes(16)
        return _u64(self.launch_mitigation) + _u64(self.current_mitigation)

    def _patched(self, body: bytes) -> bytes:
        changed = bytearray(body)
        for offset, data in self.patches.items():
            if offset < SIGNED_BYTES:
                changed[offset : offset + len(data)] = data
        return bytes(changed)


def sign(body: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the signature over ``body`` in AMD's form, 512 bytes."""
    r, s = decode_dss_signature(key.sign(body, ec.ECDSA(hashes.SHA384())))
    return (r.to_bytes(_SCALAR_BYTES, "little") + s.to_bytes(_SCALAR_BYTES, "little")).ljust(_SIGNATURE_BYTES, b"\x00")


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def _u64(value: int) -> bytes:
    return value.to_bytes(8, "little")


def _firmware(version: Firmware) -> bytes:
    return bytes((version.build, version.minor, version.major, 0))
