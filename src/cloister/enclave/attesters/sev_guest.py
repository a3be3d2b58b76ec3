"""SEV-SNP reports through ``/dev/sev-guest``, for kernels older than configfs-tsm.

Linux, include/uapi/linux/sev-guest.h. The kernel encrypts the request for the AMD secure processor; the report comes
back inside its message, certificates come from the host beside it (GHCB 2.03 section 4.1.8, SNP extended guest
request). The buffer for certificates is offered once at a guess; a host that needs another size says which.
"""

from __future__ import annotations

import ctypes
import errno
from typing import TYPE_CHECKING, Final, NoReturn

from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence, TeeKind
from cloister.enclave.attesters.field import demand_field
from cloister.enclave.attesters.files import cannot
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.wire import Reader

if TYPE_CHECKING:
    from cloister.enclave.attesters.files import Device, Devices

__all__ = ["SEV_GUEST", "SevGuestAttester", "trimmed_table"]

SEV_GUEST = "dev/sev-guest"
SNP_GET_REPORT = 0xC0205300  # _IOWR('S', 0, struct snp_guest_request_ioctl), which has 32 bytes
SNP_GET_EXT_REPORT = 0xC0205302
REPORT_BYTES = 1184  # ATTESTATION_REPORT, SEV-SNP firmware ABI 1.58 section 7.3, table 23
MAX_CERTS_BYTES = 16 * 1024  # SEV_FW_BLOB_MAX_SIZE of the kernel's driver: it takes no larger buffer

_PAGE_BYTES = 4096
_FIRST_CERTS_BYTES = 2 * _PAGE_BYTES
_MESSAGE_VERSION = 1
_REPORT_DATA_BYTES = 64
_MAX_VMPL = 3
_ATTEMPTS = 3
_INVALID_LEN, _BUSY = 1, 2  # SNP_GUEST_VMM_ERR_INVALID_LEN, SNP_GUEST_VMM_ERR_BUSY
_RESPONSE_HEAD_BYTES = 32  # MSG_REPORT_RSP: status, size of the report, reserved (ABI table 25)
_TABLE_ENTRY_BYTES = 24  # GUID, offset, length


class ReportRequest(ctypes.Structure):
    """struct snp_report_req."""

    _fields_ = (
        ("user_data", ctypes.c_uint8 * _REPORT_DATA_BYTES),
        ("vmpl", ctypes.c_uint32),
        ("rsvd", ctypes.c_uint8 * 28),
    )


class ExtReportRequest(ctypes.Structure):
    """struct snp_ext_report_req."""

    _fields_ = (("data", ReportRequest), ("certs_address", ctypes.c_uint64), ("certs_len", ctypes.c_uint32))


class ReportResponse(ctypes.Structure):
    """struct snp_report_resp."""

    _fields_ = (("data", ctypes.c_uint8 * 4000),)


class GuestRequest(ctypes.Structure):
    """struct snp_guest_request_ioctl; ``exitinfo2`` has the firmware's error below and the hypervisor's above."""

    _fields_ = (
        ("msg_version", ctypes.c_uint8),
        ("req_data", ctypes.c_uint64),
        ("resp_data", ctypes.c_uint64),
        ("exitinfo2", ctypes.c_uint64),
    )


class SevGuestAttester:
    """Reports of an SNP guest through the older device.

    Contract of ``collect``: ``UsageError`` for report data that are not 64 bytes; ``Unavailable`` where the device
    is missing, may not be used or throttled; ``Rejected`` (``tee_refused``) where firmware or hypervisor says
    no, with its error number; ``Malformed`` for an answer out of form.
    """

    tee: Final = TeeKind("snp")
    report_data_bytes: Final = _REPORT_DATA_BYTES

    def __init__(self, devices: Devices, *, vmpl: int = 0) -> None:
        """Attest at privilege level ``vmpl``, 0 where no paravisor or SVSM is below this kernel."""
        if not 0 <= vmpl <= _MAX_VMPL:
            msg = f"sev-guest: vmpl {vmpl}, want 0 to {_MAX_VMPL}"
            raise UsageError(msg)
        self._devices = devices
        self._vmpl = vmpl

    def collect(self, report_data: bytes) -> Evidence:
        """Return a report over ``report_data``; see the class for what is raised."""
        demand_field(report_data, _REPORT_DATA_BYTES, what="snp report data")
        request = ReportRequest(vmpl=self._vmpl)
        request.user_data[:] = report_data
        try:
            with self._devices.device(SEV_GUEST) as device:
                report, certs = _extended(device, request)
        except OSError as exc:
            raise cannot(f"sev-guest: /{SEV_GUEST}", exc) from exc
        parts = {"report": report} | ({"certs": certs} if certs else {})
        return Evidence(tee=self.tee, payload=dump_parts(parts))


def _extended(device: Device, request: ReportRequest) -> tuple[bytes, bytes]:
    """Return the report and the host's certificate table, empty where the host has none."""
    size = _FIRST_CERTS_BYTES
    for _ in range(_ATTEMPTS):
        certs = ctypes.create_string_buffer(size)
        extended = ExtReportRequest(data=request, certs_address=ctypes.addressof(certs), certs_len=size)
        response = ReportResponse()
        call = _call(extended, response)
        try:
            device.ioctl(SNP_GET_EXT_REPORT, call)
        except OSError as exc:
            if exc.errno in {errno.ENOTTY, errno.EINVAL}:  # a driver without this call: the report alone then
                return _plain(device, request), b""
            if call.exitinfo2 >> 32 != _INVALID_LEN:
                _refuse(call, exc)
        if call.exitinfo2 >> 32 == _INVALID_LEN:
            size = extended.certs_len
            if not 0 < size <= MAX_CERTS_BYTES or size % _PAGE_BYTES:
                msg = (
                    f"sev-guest: host wants {size} bytes for certificates, want at most {MAX_CERTS_BYTES}, whole pages"
                )
                raise Malformed(msg)
            continue
        return _report(call, response), trimmed_table(certs.raw)
    msg = f"sev-guest: the host changed the size of its certificates {_ATTEMPTS} times"
    raise Unavailable(msg, retry_after_s=1)


def _plain(device: Device, request: ReportRequest) -> bytes:
    response = ReportResponse()
    call = _call(request, response)
    try:
        device.ioctl(SNP_GET_REPORT, call)
    except OSError as exc:
        _refuse(call, exc)
    return _report(call, response)


def _call(request: ctypes.Structure, response: ReportResponse) -> GuestRequest:
    return GuestRequest(
        msg_version=_MESSAGE_VERSION,
        req_data=ctypes.addressof(request),
        resp_data=ctypes.addressof(response),
        exitinfo2=0,
    )


def _refuse(call: GuestRequest, exc: OSError) -> NoReturn:
    """Raise what a failed call means: the firmware's or hypervisor's word where there is one, else the kernel's."""
    firmware, hypervisor = call.exitinfo2 & 0xFFFFFFFF, call.exitinfo2 >> 32
    if hypervisor == _BUSY:
        msg = "sev-guest: the host throttles requests"
        raise Unavailable(msg, retry_after_s=2) from exc
    if (not firmware and not hypervisor) or firmware == 0xFFFFFFFF:  # noqa: PLR2004 - SEV_RET_NO_FW_CALL
        raise cannot("sev-guest: no report", exc) from exc
    got = f"firmware error {firmware:#x}" if firmware else f"hypervisor error {hypervisor:#x}"
    raise Rejected.because("tee_refused", "sev-guest", got=got) from exc


def _report(call: GuestRequest, response: ReportResponse) -> bytes:
    """Return the report out of MSG_REPORT_RSP."""
    if call.exitinfo2:
        _refuse(call, OSError(errno.EIO, "refused"))
    reader = Reader(bytes(response.data), what="sev-guest response")
    status, size = reader.uint(4, little=True), reader.uint(4, little=True)
    if status:
        raise Rejected.because("tee_refused", "sev-guest", got=f"status {status:#x}")
    if size != REPORT_BYTES:
        reader.fail(f"report of {size} bytes, want {REPORT_BYTES}")
    reader.take(_RESPONSE_HEAD_BYTES - reader.position)
    return reader.take(size)


def trimmed_table(pages: bytes) -> bytes:
    """Return the certificate table without the rest of its pages (GHCB section 4.1.8.1). Raises ``Malformed``."""
    reader = Reader(pages, what="sev-guest certificates")
    end = 0
    while any(reader.take(16)):
        offset, length = reader.uint(4, little=True), reader.uint(4, little=True)
        if offset + length > len(pages):
            reader.fail(f"entry of {length} bytes at {offset}, behind the end")
        end = max(end, offset + length)
    return pages[: max(end, reader.position - 16 + _TABLE_ENTRY_BYTES)] if end else b""
