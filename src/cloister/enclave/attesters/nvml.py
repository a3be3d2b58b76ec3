"""Reports of NVIDIA GPUs in confidential computing mode, through the driver's library.

NVML API reference, "Confidential Computing": structures and calls of nvml.h (12.2 and later). The library is an
object with those calls: ``libnvidia-ml.so.1`` loaded by ctypes, or a fake that fills the same structures.

A GPU starts to take work only when it is told that it was verified (``set_ready``); nothing here tells it so by
itself. Not done here: verifying a report, NVSwitches (NSCQ has an interface of its own).
"""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence, TeeKind
from cloister.enclave.attesters.field import demand_field
from cloister.errors import Malformed, Unavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["GpuAttester", "NvmlLibrary", "collect_gpus", "count_gpus", "gpu_attesters", "load_nvml", "set_ready"]

LIBRARY = "libnvidia-ml.so.1"
MAX_REPORT_BYTES = 0x2000  # NVML_CC_GPU_ATTESTATION_REPORT_SIZE
MAX_CHAIN_BYTES = 0x1400  # NVML_GPU_ATTESTATION_CERT_CHAIN_SIZE
MAX_GPUS = 16
_NONCE_BYTES = 32  # NVML_CC_GPU_CEC_NONCE_SIZE
_READY = 1  # NVML_CC_ACCEPTING_CLIENT_REQUESTS_TRUE
_TIMEOUT = 10
_REASONS: Final = {  # nvmlReturn_t
    1: "not initialised",
    2: "invalid argument",
    3: "not supported: is confidential computing switched on for this gpu?",
    4: "no permission",
    6: "not found",
    9: "the driver is not loaded",
    _TIMEOUT: "timeout",
    13: "the driver is older than this call",
    15: "the gpu fell off the bus",
}
_NO_PERMISSION, _NO_FUNCTION = 4, 13


class AttestationReport(ctypes.Structure):
    """nvmlConfComputeGpuAttestationReport_t."""

    _fields_ = (
        ("isCecAttestationReportPresent", ctypes.c_uint),
        ("attestationReportSize", ctypes.c_uint),
        ("cecAttestationReportSize", ctypes.c_uint),
        ("nonce", ctypes.c_ubyte * _NONCE_BYTES),
        ("attestationReport", ctypes.c_ubyte * MAX_REPORT_BYTES),
        ("cecAttestationReport", ctypes.c_ubyte * 0x1000),
    )


class GpuCertificate(ctypes.Structure):
    """nvmlConfComputeGpuCertificate_t."""

    _fields_ = (
        ("certChainSize", ctypes.c_uint),
        ("attestationCertChainSize", ctypes.c_uint),
        ("certChain", ctypes.c_ubyte * 0x1000),
        ("attestationCertChain", ctypes.c_ubyte * MAX_CHAIN_BYTES),
    )


class NvmlLibrary(Protocol):
    """The calls used of NVML, each returning an nvmlReturn_t; arguments are ctypes values and pointers."""

    nvmlInit_v2: Any  # noqa: N815 - the library's own names
    nvmlShutdown: Any  # noqa: N815
    nvmlDeviceGetCount_v2: Any  # noqa: N815
    nvmlDeviceGetHandleByIndex_v2: Any  # noqa: N815
    nvmlDeviceGetConfComputeGpuAttestationReport: Any  # noqa: N815
    nvmlDeviceGetConfComputeGpuCertificate: Any  # noqa: N815
    nvmlSystemSetConfComputeGpusReadyState: Any  # noqa: N815


def load_nvml() -> NvmlLibrary:
    """Load the driver's library. Raises ``Unavailable``."""
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError as exc:
        msg = f"nvml: {LIBRARY} is not there"
        raise Unavailable(msg, hint="install the nvidia driver, or give the container its libraries") from exc


def _call(library: NvmlLibrary, name: str, *arguments: object) -> None:
    """Make one call. Raises ``Unavailable`` with NVML's reason."""
    function = getattr(library, name, None)
    code = _NO_FUNCTION if function is None else function(*arguments)
    if code:
        hint = "run as root" if code == _NO_PERMISSION else None
        msg = f"nvml: {name}: {_REASONS.get(code, f'error {code}')}"
        raise Unavailable(msg, retry_after_s=1 if code == _TIMEOUT else None, hint=hint)


@contextmanager
def _session(library: NvmlLibrary) -> Iterator[None]:
    _call(library, "nvmlInit_v2")
    try:
        yield
    finally:
        library.nvmlShutdown()


def _count(library: NvmlLibrary) -> int:
    count = ctypes.c_uint()
    _call(library, "nvmlDeviceGetCount_v2", ctypes.pointer(count))
    if count.value > MAX_GPUS:
        msg = f"nvml: {count.value} gpus, want at most {MAX_GPUS}"
        raise Malformed(msg)
    return count.value


def count_gpus(library: NvmlLibrary) -> int:
    """Return how many GPUs this machine has. Raises ``Unavailable``."""
    with _session(library):
        return _count(library)


class GpuAttester:
    """Reports of one GPU.

    Contract of ``collect``: ``UsageError`` for report data that are not 32 bytes; ``Unavailable`` with NVML's reason
    where the GPU gives no report; ``Malformed`` for sizes beyond the structures, or a report for another nonce.
    """

    tee: Final = TeeKind("nvidia-gpu")
    report_data_bytes: Final = _NONCE_BYTES

    def __init__(self, library: NvmlLibrary, index: int = 0) -> None:
        """Attest the GPU with this index, in the driver's order."""
        self._library = library
        self._index = index

    def collect(self, report_data: bytes) -> Evidence:
        """Return the GPU's report with ``report_data`` as nonce, and its certificates; see the class."""
        demand_field(report_data, _NONCE_BYTES, what="nvidia nonce")
        with _session(self._library):
            return self._collect(report_data)

    def _collect(self, nonce: bytes) -> Evidence:
        device = ctypes.c_void_p()
        _call(self._library, "nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(self._index), ctypes.pointer(device))
        report = AttestationReport()
        report.nonce[:] = nonce
        _call(self._library, "nvmlDeviceGetConfComputeGpuAttestationReport", device, ctypes.pointer(report))
        if bytes(report.nonce) != nonce:
            msg = f"nvml: gpu {self._index} answered another nonce"
            raise Malformed(msg)
        chain = GpuCertificate()
        _call(self._library, "nvmlDeviceGetConfComputeGpuCertificate", device, ctypes.pointer(chain))
        parts = {
            "chain": self._filled(chain.attestationCertChain, chain.attestationCertChainSize, "certificates"),
            "report": self._filled(report.attestationReport, report.attestationReportSize, "report"),
        }
        return Evidence(tee=self.tee, payload=dump_parts(parts))

    def _filled(self, room: ctypes.Array[ctypes.c_ubyte], size: int, what: str) -> bytes:
        if not 0 < size <= len(room):
            msg = f"nvml: gpu {self._index}: {what} of {size} bytes, want 1 to {len(room)}"
            raise Malformed(msg)
        return bytes(room[:size])


def gpu_attesters(library: NvmlLibrary) -> tuple[GpuAttester, ...]:
    """Return an attester for every GPU of this machine: none is left out. Raises ``Unavailable``."""
    return tuple(GpuAttester(library, index) for index in range(count_gpus(library)))


def collect_gpus(library: NvmlLibrary, report_data: bytes) -> tuple[Evidence, ...]:
    """Return the evidence of every GPU over the same ``report_data``. Raises ``Unavailable``, also for no GPU."""
    attesters = gpu_attesters(library)
    if not attesters:
        msg = "nvml: no gpu"
        raise Unavailable(msg)
    return tuple(attester.collect(report_data) for attester in attesters)


def set_ready(library: NvmlLibrary, *, verified: int) -> None:
    """Let all GPUs of this machine take work. For whoever has verified ``verified`` reports just now, locally.

    Raises ``UsageError`` unless that is every GPU, ``Unavailable`` with NVML's reason.
    """
    with _session(library):
        count = _count(library)
        if not 0 < verified == count:
            msg = f"nvml: {verified} gpus verified of {count}"
            raise UsageError(msg)
        _call(library, "nvmlSystemSetConfComputeGpusReadyState", ctypes.c_uint(_READY))
