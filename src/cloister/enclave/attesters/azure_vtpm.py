"""Evidence of an Azure confidential VM: a quote by a key of the paravisor's TPM, which the hardware's report names.

Azure documentation, "Confidential VM guest attestation design detail"; Azure/azure-cvm-tooling, az-cvm-vtpm/src/vtpm.

    NV 0x01400001   the paravisor's report (HCL), with the hardware's inside
    NV 0x01400002   64 bytes of ours; what is written there comes back in the report's runtime claims
    0x81000003      attestation key, persistent
    NV 0x01C101D0   Azure's certificate for it

What the vTPM does not hold comes from the metadata service: a TD quote, or the certificates of an SNP chip.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from cloister.attest.azure.hcl import HardwareKind, HclReport, RuntimeClaims
from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence, TeeKind
from cloister.attest.tpm.eventlog import EventLog
from cloister.attest.tpm.measured import dump_pcrs
from cloister.attest.tpm.structures import PCR_COUNT
from cloister.enclave.attesters.field import demand_field
from cloister.enclave.attesters.imds import td_quote, vcek_certificates
from cloister.enclave.attesters.tpm import explaining
from cloister.errors import Unavailable, UsageError
from cloister.tpm.commands import Tpm
from cloister.tpm.nv import NvAttribute, nv_define, nv_indices, nv_public, nv_read, nv_undefine, nv_write
from cloister.tpm.quoting import quote_pcrs

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.enclave.attesters.local_http import Fetch
    from cloister.tpm.transport import Transport

__all__ = ["AK_CERTIFICATE_INDEX", "AK_HANDLE", "HCL_REPORT_INDEX", "USER_DATA_INDEX", "AzureVtpmAttester"]

HCL_REPORT_INDEX = 0x01400001
USER_DATA_INDEX = 0x01400002
AK_HANDLE = 0x81000003
AK_CERTIFICATE_INDEX = 0x01C101D0
_KINDS = {HardwareKind.SNP: TeeKind("azure-snp-vtpm"), HardwareKind.TDX: TeeKind("azure-tdx-vtpm")}
_USER_DATA_BYTES = 64
_REPORT_DATA_BYTES = 32
_LOOKS = 10  # the report is made anew after a write to the index: about three seconds
_PAUSE_S = 1.0


class AzureVtpmAttester:
    """Quotes of an Azure confidential VM.

    Contract of ``collect``: ``UsageError`` for report data that are not 32 bytes; ``Unavailable`` where TPM or
    metadata service does not answer, or the report does not take up what was written; ``Rejected``
    (``tpm_refused``, ``tee_refused``, ``unsupported_format``) where one of them says no; ``Malformed``.
    """

    report_data_bytes: Final = _REPORT_DATA_BYTES

    def __init__(
        self,
        transport: Transport,
        tee: TeeKind,
        *,
        imds: Fetch,
        software: bytes = b"",
        event_log: bytes = b"",
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Attest an ``azure-snp-vtpm`` or ``azure-tdx-vtpm``; ``software`` is what ``measure_software`` was given."""
        if tee not in _KINDS.values():
            msg = f"azure vtpm: {tee}, want {' or '.join(sorted(_KINDS.values()))}"
            raise UsageError(msg)
        self._tpm = Tpm(transport)
        self._tee = tee
        self._imds = imds
        self._software = software
        self._log = EventLog.parse(event_log) if event_log else None
        self._pause = pause
        self._turn = threading.Lock()  # the data written belong to the report read next, commands to their answers

    @property
    def tee(self) -> TeeKind:
        """The kind of evidence."""
        return self._tee

    def collect(self, report_data: bytes) -> Evidence:
        """Return a quote over ``report_data``, with a report that carries them too; see the class."""
        demand_field(report_data, _REPORT_DATA_BYTES, what="azure vtpm report data")
        with self._turn:
            # 1. The paravisor's report, made anew over the same data.
            report = self._report(report_data.ljust(_USER_DATA_BYTES, b"\x00"))
            # 2. The quote of the key that the report names.
            quoted = quote_pcrs(self._tpm, AK_HANDLE, extra=report_data, pcrs=range(PCR_COUNT))
        parts = {
            "hcl_report": report,
            "pcrs": dump_pcrs(quoted.pcrs),
            "quote": quoted.attest,
            "signature_tpmt": quoted.signature,
        }
        events = explaining(self._log, quoted.pcrs)
        parts |= {"eventlog": events} if events else {}
        parts |= {"software": self._software} if self._software else {}
        # 3. What a verifier needs for the hardware's report.
        return Evidence(tee=self._tee, payload=dump_parts(parts | self._hardware(report)))

    def ak_certificate(self) -> bytes:
        """Return Azure's certificate for the key, padded as it lies in NV memory; nothing where there is none."""
        with self._turn:
            if AK_CERTIFICATE_INDEX not in nv_indices(self._tpm):
                return b""
            return nv_read(self._tpm, AK_CERTIFICATE_INDEX)

    def _report(self, user_data: bytes) -> bytes:
        """Return the paravisor's report once its runtime claims say ``user_data``: until then it is an older one."""
        if HCL_REPORT_INDEX not in nv_indices(self._tpm):
            msg = f"azure vtpm: no report in nv {HCL_REPORT_INDEX:#010x}"
            raise Unavailable(msg, hint="is this a confidential vm of azure?")
        self._write(user_data)
        for _ in range(_LOOKS):
            report = nv_read(self._tpm, HCL_REPORT_INDEX)
            hcl = HclReport.parse(report)
            if _KINDS[hcl.kind] != self._tee:
                msg = f"azure vtpm: this machine is {_KINDS[hcl.kind]}, want {self._tee}"
                raise Unavailable(msg, hint=f"--tee {_KINDS[hcl.kind]}")
            if RuntimeClaims.parse(hcl.claims).user_data.lower() == user_data.hex():
                return report
            self._pause(_PAUSE_S)
        msg = f"azure vtpm: the report did not take up what was written to nv {USER_DATA_INDEX:#010x}"
        raise Unavailable(msg, retry_after_s=1)

    def _write(self, user_data: bytes) -> None:
        """Write to the index, which is made where it is not there or has another size."""
        there = USER_DATA_INDEX in nv_indices(self._tpm)
        if there and nv_public(self._tpm, USER_DATA_INDEX).size != _USER_DATA_BYTES:
            nv_undefine(self._tpm, USER_DATA_INDEX)
            there = False
        if not there:
            access = NvAttribute.OWNER_READ | NvAttribute.OWNER_WRITE
            nv_define(self._tpm, USER_DATA_INDEX, _USER_DATA_BYTES, access)
        nv_write(self._tpm, USER_DATA_INDEX, user_data)

    def _hardware(self, report: bytes) -> dict[str, bytes]:
        hcl = HclReport.parse(report)
        if hcl.kind is HardwareKind.TDX:
            return {"td_quote": td_quote(self._imds, hcl.hardware)}
        leaf, above = vcek_certificates(self._imds)
        return {"leaf": leaf, "intermediate": above}
