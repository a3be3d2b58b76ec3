"""NV indices: small memories of a TPM with names of their own (TPM 2.0 Part 1 section 37, Part 3 section 31).

Makers and clouds leave certificates, templates and reports there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING

from cloister.attest.tpm.algorithms import Alg, take_alg
from cloister.attest.tpm.structures import b2
from cloister.errors import Malformed
from cloister.tpm.codec import PASSWORD, Code, Handle
from cloister.wire import Reader

if TYPE_CHECKING:
    from cloister.tpm.commands import Tpm

__all__ = [
    "MAX_NV_BYTES",
    "NvAttribute",
    "NvPublic",
    "nv_define",
    "nv_indices",
    "nv_public",
    "nv_read",
    "nv_undefine",
    "nv_write",
]

MAX_NV_BYTES = 8192  # bytes of one index
_CHUNK_BYTES = 512  # below TPM_PT_NV_BUFFER_MAX of every TPM seen
_FIRST_INDEX = 0x01000000
_MAX_PUBLIC_BYTES = 128


class NvAttribute(IntFlag):
    """TPMA_NV, those bits that are looked at or set here (Part 2 section 13.4)."""

    OWNER_WRITE = 1 << 1
    AUTH_WRITE = 1 << 2
    OWNER_READ = 1 << 17
    AUTH_READ = 1 << 18
    NO_DA = 1 << 25
    WRITTEN = 1 << 29


@dataclass(frozen=True, slots=True, kw_only=True)
class NvPublic:
    """What a TPM says about an index (TPMS_NV_PUBLIC)."""

    index: int
    attributes: int
    size: int

    @property
    def reader(self) -> int:
        """The handle whose empty password lets us read: the index itself, or else its owner."""
        return self.index if self.attributes & NvAttribute.AUTH_READ else Handle.OWNER

    @property
    def writer(self) -> int:
        """The handle whose empty password lets us write."""
        return Handle.OWNER if self.attributes & NvAttribute.OWNER_WRITE else self.index


def nv_indices(tpm: Tpm) -> frozenset[int]:
    """Return the indices that are defined."""
    return frozenset(tpm.handles(_FIRST_INDEX))


def nv_public(tpm: Tpm, index: int) -> NvPublic:
    """TPM2_NV_ReadPublic. Raises ``Rejected`` (``tpm_refused``) for an index that is not there."""
    area = tpm.call(Code.NV_READ_PUBLIC, handles=(index,)).prefixed(2, cap=_MAX_PUBLIC_BYTES)
    reader = Reader(area, what="tpm nv public")
    if reader.u32() != index:
        reader.fail("another index than asked for")
    take_alg(reader, Alg.SHA1, Alg.SHA256, Alg.SHA384, Alg.SHA512)
    attributes = reader.u32()
    reader.prefixed(2, cap=_MAX_PUBLIC_BYTES)  # authPolicy
    size = reader.u16()
    reader.end()
    if size > MAX_NV_BYTES:
        msg = f"tpm nv {index:#010x}: {size} bytes, want at most {MAX_NV_BYTES}"
        raise Malformed(msg)
    return NvPublic(index=index, attributes=attributes, size=size)


def nv_read(tpm: Tpm, index: int) -> bytes:
    """TPM2_NV_Read of a whole index that its own or the owner's empty password opens."""
    public = nv_public(tpm, index)
    data = b""
    while len(data) < public.size:
        want = min(_CHUNK_BYTES, public.size - len(data))
        body = want.to_bytes(2, "big") + len(data).to_bytes(2, "big")
        reader = tpm.call(Code.NV_READ, handles=(public.reader, index), sessions=(PASSWORD,), body=body)
        part = reader.prefixed(2, cap=want)
        if not part:
            reader.fail("nothing read")
        data += part
    return data


def nv_define(tpm: Tpm, index: int, size: int, attributes: NvAttribute) -> None:
    """TPM2_NV_DefineSpace of an ordinary index with an empty password, as the owner."""
    public = index.to_bytes(4, "big") + Alg.SHA256.to_bytes(2, "big") + attributes.to_bytes(4, "big")
    public += b2(b"") + size.to_bytes(2, "big")
    tpm.call(Code.NV_DEFINE_SPACE, handles=(Handle.OWNER,), sessions=(PASSWORD,), body=b2(b"") + b2(public)).end()


def nv_undefine(tpm: Tpm, index: int) -> None:
    """TPM2_NV_UndefineSpace, as the owner."""
    tpm.call(Code.NV_UNDEFINE_SPACE, handles=(Handle.OWNER, index), sessions=(PASSWORD,)).end()


def nv_write(tpm: Tpm, index: int, data: bytes) -> None:
    """TPM2_NV_Write from the front of the index on."""
    writer = nv_public(tpm, index).writer
    for start in range(0, len(data), _CHUNK_BYTES):
        body = b2(data[start : start + _CHUNK_BYTES]) + start.to_bytes(2, "big")
        tpm.call(Code.NV_WRITE, handles=(writer, index), sessions=(PASSWORD,), body=body).end()
