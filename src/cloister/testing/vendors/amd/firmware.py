"""A synthetic firmware image that says what OVMF says about SEV-SNP, and holds nothing else.

At its end stands edk2's table of GUIDs (``OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm``), read from the back: where
the other processors start, where kernel hashes go, where the SEV metadata lies.
"""

from __future__ import annotations

from uuid import UUID

__all__ = ["synthetic_firmware"]

_FOOTER = UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
_HASHES = UUID("7255371f-3a3b-4b04-927b-1da6efa8d454").bytes_le
_RESET = UUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e").bytes_le
_METADATA = UUID("dc886566-984a-4798-a75e-5585a7bf67cc").bytes_le
_PAGE_BYTES = 4096
_RESET_VECTOR_BYTES = 32  # behind the table
_METADATA_FROM_END = 1024
_HASHES_ADDRESS = 0x10C00
SEC_MEM, SECRETS, CPUID, KERNEL_HASHES = 1, 2, 3, 0x10


def synthetic_firmware(*, pages: int = 4, kernel_hashes: bool = True, metadata: bool = True) -> bytes:
    """Return an image of ``pages`` pages, with or without SEV metadata and a place for kernel hashes in it."""
    sections = [(0x800000, 0x9000, SEC_MEM), (0x80D000, 0x1000, SECRETS), (0x80E000, 0x1000, CPUID)]
    if kernel_hashes:
        sections.append((_HASHES_ADDRESS & ~0xFFF, 0x1000, KERNEL_HASHES))
    items = b"".join(_u32(address) + _u32(size) + _u32(kind) for address, size, kind in sections)
    head = b"ASEV" + _u32(16 + len(items)) + _u32(1) + _u32(len(sections))
    entries = _entry(_RESET, _u32(0x80B004)) + _entry(_HASHES, _u32(_HASHES_ADDRESS) + _u32(0x400))
    if metadata:
        entries += _entry(_METADATA, _u32(_METADATA_FROM_END))
    table = entries + (len(entries) + 18).to_bytes(2, "little") + _FOOTER
    image = bytearray(b"\x90" * pages * _PAGE_BYTES)
    image[-_METADATA_FROM_END : -_METADATA_FROM_END + len(head) + len(items)] = head + items
    image[-_RESET_VECTOR_BYTES - len(table) : -_RESET_VECTOR_BYTES] = table
    return bytes(image)


def _entry(guid: bytes, data: bytes) -> bytes:
    return data + (len(data) + 18).to_bytes(2, "little") + guid


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")
