"""The launch digest that a report will carry as MEASUREMENT, computed beforehand (AMD 56860 section 8.17, PAGE_INFO).

Through ``sevsnpmeasure``, over bytes: firmware page by page, the pages that its SEV metadata names (edk2,
``OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm``), hashes of kernel, initrd and command line as QEMU writes them, and the
first state of each virtual processor.

Not done here: whether these are the right files, and guests whose hypervisor measures otherwise.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sevsnpmeasure.gctx import GCTX
from sevsnpmeasure.guest import snp_update_metadata_pages
from sevsnpmeasure.ovmf import FOUR_GB, OVMF, SectionType
from sevsnpmeasure.sev_hashes import SevHashes
from sevsnpmeasure.sev_mode import SevMode
from sevsnpmeasure.vcpu_types import CPU_SIGS
from sevsnpmeasure.vmm_types import VMMType
from sevsnpmeasure.vmsa import VMSA

from cloister.errors import Malformed, UsageError

__all__ = ["HYPERVISORS", "VCPU_TYPES", "Launch", "launch_digest"]

MAX_FIRMWARE_BYTES = 64 << 20  # bytes of one firmware image
MAX_METADATA_PAGES = 1 << 14  # pages that its metadata may ask for
MAX_VCPUS = 4096
SNP_ACTIVE = 1  # SEV_FEATURES bit 0 (AMD 24593, table B-4)
_PAGE_BYTES = 4096
_MAX_FEATURES = 2**64 - 1

VCPU_TYPES = frozenset(CPU_SIGS)
"""Models of virtual processors, as QEMU names them."""
HYPERVISORS = {"qemu": VMMType.QEMU, "ec2": VMMType.ec2, "gce": VMMType.gce}
"""Hypervisors whose first processor state is known."""
_BROKEN = (RuntimeError, ValueError, AssertionError, LookupError)  # what the library says of firmware it cannot read


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What is launched. Without a ``kernel`` the firmware boots from disk, and ``initrd`` and ``cmdline`` are empty.

    ``vcpu_type`` is one of ``VCPU_TYPES``; ``guest_features`` is SEV_FEATURES of each processor.
    """

    firmware: bytes
    vcpus: int
    vcpu_type: str
    kernel: bytes | None = None
    initrd: bytes = b""
    cmdline: str = ""
    guest_features: int = SNP_ACTIVE
    hypervisor: str = "qemu"

    def __post_init__(self) -> None:
        """Refuse what no launch has."""
        size = len(self.firmware)
        if not 0 < size <= MAX_FIRMWARE_BYTES or size % _PAGE_BYTES:
            msg = f"launch: firmware of {size} bytes, want whole pages up to {MAX_FIRMWARE_BYTES}"
            raise UsageError(msg)
        if not 0 < self.vcpus <= MAX_VCPUS or not 0 <= self.guest_features <= _MAX_FEATURES:
            msg = f"launch: {self.vcpus} processors with features {self.guest_features:#x}, want 1 to {MAX_VCPUS}"
            raise UsageError(msg)
        if self.vcpu_type not in VCPU_TYPES or self.hypervisor not in HYPERVISORS:
            msg = f"launch: processor {self.vcpu_type[:64]!r} on {self.hypervisor[:64]!r} is none we know"
            raise UsageError(msg, hint=f"one of {', '.join(sorted(VCPU_TYPES))} on {', '.join(HYPERVISORS)}")
        if self.kernel is None and (self.initrd or self.cmdline):
            msg = "launch: initrd or command line without a kernel"
            raise UsageError(msg)


class _Firmware(OVMF):  # type: ignore[misc]  # the library has no types
    """The library's firmware, from bytes in place of a file."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._parse_footer_table()
        self._parse_sev_metadata()
        self._gpa = FOUR_GB - len(data)


class _Hashes(SevHashes):  # type: ignore[misc]  # the library has no types
    """The library's hash table, from bytes in place of files."""

    def __init__(self, launch: Launch) -> None:
        self.kernel_hash = hashlib.sha256(launch.kernel or b"").digest()
        self.initrd_hash = hashlib.sha256(launch.initrd).digest()
        self.cmdline_hash = hashlib.sha256(launch.cmdline.encode() + b"\x00").digest()


def launch_digest(launch: Launch) -> bytes:
    """Return the 48 bytes of MEASUREMENT. Raises ``Malformed`` for firmware that is not made for SEV-SNP."""
    try:
        firmware = _Firmware(launch.firmware)
        _demand_metadata(firmware, launch)
        context = GCTX()
        context.update_normal_pages(firmware.gpa(), firmware.data())
        hashes = None if launch.kernel is None else _Hashes(launch)
        hypervisor = HYPERVISORS[launch.hypervisor]
        snp_update_metadata_pages(context, firmware, hashes, hypervisor)
        signature = CPU_SIGS[launch.vcpu_type]
        state = VMSA(SevMode.SEV_SNP, firmware.sev_es_reset_eip(), signature, launch.guest_features, hypervisor)
        for page in state.pages(launch.vcpus):
            context.update_vmsa_page(page)
    except _BROKEN as exc:
        msg = f"firmware: not made for sev-snp: {str(exc)[:120]}"
        raise Malformed(msg) from exc
    return bytes(context.ld())


def _demand_metadata(firmware: _Firmware, launch: Launch) -> None:
    items = firmware.metadata_items()
    pages = sum(-(-item.size // _PAGE_BYTES) for item in items)
    if not items or pages > MAX_METADATA_PAGES:
        msg = f"sev metadata of {pages} pages, want 1 to {MAX_METADATA_PAGES}"
        raise ValueError(msg)
    if launch.kernel is not None and not firmware.has_metadata_section(SectionType.SNP_KERNEL_HASHES):
        msg = "no place for kernel hashes: the kernel would not be measured"
        raise ValueError(msg)
