"""Reports that a platform signs, field by field (Intel SDM volume 3D section 38.15; sgx_quote_5.h)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

__all__ = ["EnclaveBody", "TdBody"]


def _le(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveBody:
    """An enclave's report; the defaults are those of a production enclave."""

    cpusvn: bytes = bytes(16)
    miscselect: bytes = bytes(4)
    isvextprodid: bytes = bytes(16)
    attributes: bytes = bytes.fromhex("0500000000000000e700000000000000")
    mrenclave: bytes = field(default=hashlib.sha256(b"synthetic enclave").digest())
    mrsigner: bytes = field(default=hashlib.sha256(b"synthetic enclave signer").digest())
    configid: bytes = bytes(64)
    isvprodid: int = 1
    isvsvn: int = 7
    configsvn: int = 0
    isvfamilyid: bytes = bytes(16)
    report_data: bytes = bytes(64)

    def dump(self) -> bytes:
        """Return the 384 bytes."""
        parts = (
            self.cpusvn,
            self.miscselect,
            bytes(12),
            self.isvextprodid,
            self.attributes,
            self.mrenclave,
            bytes(32),
            self.mrsigner,
            bytes(32),
            self.configid,
            _le(self.isvprodid, 2),
            _le(self.isvsvn, 2),
            _le(self.configsvn, 2),
            bytes(42),
            self.isvfamilyid,
            self.report_data,
        )
        return b"".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class TdBody:
    """A TD's report; the defaults are those of a production TD. ``kind`` is the body type of quote version 5."""

    kind: int = 2
    tee_tcb_svn: bytes = bytes.fromhex("05010200000000000000000000000000")
    mrseam: bytes = field(default=hashlib.sha384(b"synthetic tdx module").digest())
    mrsignerseam: bytes = bytes(48)
    seam_attributes: bytes = bytes(8)
    td_attributes: int = 1 << 28
    xfam: int = 0x0602E7
    mrtd: bytes = field(default=hashlib.sha384(b"synthetic td").digest())
    mrconfigid: bytes = bytes(48)
    mrowner: bytes = bytes(48)
    mrownerconfig: bytes = bytes(48)
    rtmrs: tuple[bytes, bytes, bytes, bytes] = (bytes(48), bytes(48), bytes(48), bytes(48))
    report_data: bytes = bytes(64)
    tee_tcb_svn2: bytes = bytes.fromhex("05010200000000000000000000000000")
    mrservicetd: bytes = bytes(48)
    vmid: int = 0
    td_id: bytes = field(default=hashlib.sha256(b"synthetic td id").digest())
    dev_info: bytes = bytes(48)
    init_service_td: bytes = bytes(48 + 8 + 16 + 16 + 12)
    cur_service_td: bytes = bytes(48 + 8)

    def dump(self) -> bytes:
        """Return the 584, 648 or 885 bytes of its kind."""
        first = (
            self.tee_tcb_svn,
            self.mrseam,
            self.mrsignerseam,
            self.seam_attributes,
            _le(self.td_attributes, 8),
            _le(self.xfam, 8),
            self.mrtd,
            self.mrconfigid,
            self.mrowner,
            self.mrownerconfig,
            *self.rtmrs,
            self.report_data,
        )
        later = (self.tee_tcb_svn2, self.mrservicetd) if self.kind in (3, 4) else ()
        last = (_le(self.vmid, 1), self.td_id, self.dev_info, self.init_service_td, self.cur_service_td)
        return b"".join((*first, *later, *(last if self.kind == 4 else ())))  # noqa: PLR2004 - the body type
