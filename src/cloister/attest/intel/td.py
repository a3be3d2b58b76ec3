"""The report of a trust domain as a quote carries it (TDX DCAP Quoting Library API, appendix A.3; sgx_quote_5.h).

TD 1.0 has 584 bytes, TD 1.5 appends the SVNs of the module that runs now and the measurement of a bound service TD
(648), TD 1.5 extended the identity of the TD and the history of its migrations (885).

Not done here: what a value has to be, beyond naming the bits (``TdAttributes``, XFAM).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from cloister.wire import Reader

if TYPE_CHECKING:
    from cloister.attest.rats import ClaimValue

__all__ = ["TD10_BYTES", "TD15EX_BYTES", "TD15_BYTES", "ServiceHistory", "TdAttributes", "TdReport"]

TD10_BYTES: Final = 584
TD15_BYTES: Final = 648
TD15EX_BYTES: Final = 885

_XFAM_ALWAYS = 0x3  # x87 and SSE: set in every TD (TDX Module Base Architecture, XFAM)
_XFAM_KNOWN = 0x3 | 0x4 | 0xE0 | 0x100 | 0x200 | 0x1800 | 0x4000 | 0x8000 | 0x60000 | 0x80000
"""AVX, AVX-512, PT, PKRU, CET, UINTR, LBR, AMX, APX: what XSAVE manages and a TD may be given."""


class TdAttributes:
    """Bits of ATTRIBUTES (Intel TDX Module ABI specification 348551-007 table 3.22)."""

    DEBUG = 1 << 0
    HGS_PLUS_PROF = 1 << 4
    PERF_PROF = 1 << 5
    PMT_PROF = 1 << 6
    ICSSD = 1 << 16
    SERVTD_EXT = 1 << 17
    LASS = 1 << 27
    SEPT_VE_DISABLE = 1 << 28
    MIGRATABLE = 1 << 29
    PKS = 1 << 30
    KL = 1 << 31
    TPA = 1 << 62
    PERFMON = 1 << 63

    PROFILING = HGS_PLUS_PROF | PERF_PROF | PMT_PROF
    HARMLESS = 0x1F << 18  # reserved for what only adds to a TD's security: may be ignored
    KNOWN = (
        HARMLESS
        | DEBUG
        | PROFILING
        | ICSSD
        | SERVTD_EXT
        | LASS
        | SEPT_VE_DISABLE
        | MIGRATABLE
        | PKS
        | KL
        | TPA
        | PERFMON
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceHistory:
    """What TD 1.5 extended adds: which TD this is, and the service TDs it was bound to at first and is now."""

    vmid: int
    td_id: bytes
    dev_info: bytes
    init_service_td_hash: bytes
    init_service_td_attributes: bytes
    init_cpusvn: bytes
    init_tee_tcb_svn: bytes
    init_tee_fmspc: bytes
    cur_service_td_hash: bytes
    cur_service_td_attributes: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TdReport:
    """One report body; ``raw`` are its exact bytes. What only later bodies have is None in earlier ones."""

    raw: bytes
    tee_tcb_svn: bytes
    mrseam: bytes
    mrsignerseam: bytes
    seam_attributes: bytes
    td_attributes: bytes
    xfam: bytes
    mrtd: bytes
    mrconfigid: bytes
    mrowner: bytes
    mrownerconfig: bytes
    rtmrs: tuple[bytes, bytes, bytes, bytes]
    report_data: bytes
    tee_tcb_svn2: bytes | None = None
    mrservicetd: bytes | None = None
    history: ServiceHistory | None = None

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse exactly one of the three bodies, told apart by size. Raises ``Malformed``."""
        reader = Reader(data, what="td report")
        if len(data) not in (TD10_BYTES, TD15_BYTES, TD15EX_BYTES):
            reader.fail(f"{len(data)} bytes, want {TD10_BYTES}, {TD15_BYTES} or {TD15EX_BYTES}")
        tee_tcb_svn, mrseam, mrsignerseam = reader.take(16), reader.take(48), reader.take(48)
        seam_attributes, td_attributes, xfam = reader.take(8), reader.take(8), reader.take(8)
        mrtd, mrconfigid, mrowner, mrownerconfig = (reader.take(48) for _ in range(4))
        rtmrs = (reader.take(48), reader.take(48), reader.take(48), reader.take(48))
        report_data = reader.take(64)
        later = (reader.take(16), reader.take(48)) if reader.left else (None, None)
        history = _take_history(reader) if reader.left else None
        reader.end()
        return cls(
            raw=data,
            tee_tcb_svn=tee_tcb_svn,
            mrseam=mrseam,
            mrsignerseam=mrsignerseam,
            seam_attributes=seam_attributes,
            td_attributes=td_attributes,
            xfam=xfam,
            mrtd=mrtd,
            mrconfigid=mrconfigid,
            mrowner=mrowner,
            mrownerconfig=mrownerconfig,
            rtmrs=rtmrs,
            report_data=report_data,
            tee_tcb_svn2=later[0],
            mrservicetd=later[1],
            history=history,
        )

    @property
    def attribute_bits(self) -> int:
        """ATTRIBUTES as a number, bit 0 first."""
        return int.from_bytes(self.td_attributes, "little")

    @property
    def debug(self) -> bool:
        """Whether the host may read and write the TD's memory and registers."""
        return bool(self.attribute_bits & TdAttributes.DEBUG)

    @property
    def xfam_valid(self) -> bool:
        """Whether XFAM has the bits every TD has, and none that no processor manages."""
        bits = int.from_bytes(self.xfam, "little")
        return bits & _XFAM_ALWAYS == _XFAM_ALWAYS and not bits & ~_XFAM_KNOWN

    def claims(self) -> dict[str, ClaimValue]:
        """Return what the report says, flat."""
        claims: dict[str, ClaimValue] = {
            "debug": self.debug,
            "mrconfigid": self.mrconfigid.hex(),
            "mrowner": self.mrowner.hex(),
            "mrownerconfig": self.mrownerconfig.hex(),
            "mrseam": self.mrseam.hex(),
            "mrsignerseam": self.mrsignerseam.hex(),
            "mrtd": self.mrtd.hex(),
            "seam_attributes": self.seam_attributes.hex(),
            "service_td": bool(self.mrservicetd and any(self.mrservicetd)),
            "td_attributes": self.td_attributes.hex(),
            "tee_tcb_svn": self.tee_tcb_svn.hex(),
            "xfam": self.xfam.hex(),
            "xfam.valid": self.xfam_valid,
        }
        claims |= {f"rtmr{index}": value.hex() for index, value in enumerate(self.rtmrs)}
        claims |= {f"tee_tcb_svn.{index}": value for index, value in enumerate(self.tee_tcb_svn)}
        claims |= self._attribute_claims()
        if self.tee_tcb_svn2 is not None and self.mrservicetd is not None:
            claims |= {"tee_tcb_svn2": self.tee_tcb_svn2.hex(), "mrservicetd": self.mrservicetd.hex()}
        return claims | self._history_claims()

    def _attribute_claims(self) -> dict[str, ClaimValue]:
        bits = self.attribute_bits
        return {
            "td_attributes.key_locker": bool(bits & TdAttributes.KL),
            "td_attributes.migratable": bool(bits & TdAttributes.MIGRATABLE),
            "td_attributes.perfmon": bool(bits & TdAttributes.PERFMON),
            "td_attributes.pks": bool(bits & TdAttributes.PKS),
            "td_attributes.profiling": bool(bits & TdAttributes.PROFILING),
            "td_attributes.reserved": bool(bits & ~TdAttributes.KNOWN),
            "td_attributes.sept_ve_disable": bool(bits & TdAttributes.SEPT_VE_DISABLE),
            "td_attributes.servtd_ext": bool(bits & TdAttributes.SERVTD_EXT),
        }

    def _history_claims(self) -> dict[str, ClaimValue]:
        past = self.history
        if past is None:
            return {}
        return {
            "td_id": past.td_id.hex(),
            "td_id.vmid": past.vmid,
            "td_id.dev_info": past.dev_info.hex(),
            "service_td.init_hash": past.init_service_td_hash.hex(),
            "service_td.init_attrs": past.init_service_td_attributes.hex(),
            "service_td.init_cpusvn": past.init_cpusvn.hex(),
            "service_td.init_tcb_svn": past.init_tee_tcb_svn.hex(),
            "service_td.init_fmspc": past.init_tee_fmspc.hex(),
            "service_td.cur_hash": past.cur_service_td_hash.hex(),
            "service_td.cur_attrs": past.cur_service_td_attributes.hex(),
        }


def _take_history(reader: Reader) -> ServiceHistory:
    return ServiceHistory(
        vmid=reader.u8(),
        td_id=reader.take(32),
        dev_info=reader.take(48),
        init_service_td_hash=reader.take(48),
        init_service_td_attributes=reader.take(8),
        init_cpusvn=reader.take(16),
        init_tee_tcb_svn=reader.take(16),
        init_tee_fmspc=reader.take(12),
        cur_service_td_hash=reader.take(48),
        cur_service_td_attributes=reader.take(8),
    )
