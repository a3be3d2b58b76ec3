"""What this machine's clock is, and what its TEE can vouch for (docs/spec/lease.md section 10; threat T37).

Found at boot and said in the log and at ``/readyz``, for the borrower's operators: a machine that could have a
guarded clock and reads another one should be mended. Nobody believes it: whose clock counts the custodian decides
from evidence (``lending.clock_trust``).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloister.wire import Json

__all__ = ["ClockSource", "find_clock_source"]

_ROOT = Path("/")
_CURRENT = "sys/devices/system/clocksource/clocksource0/current_clocksource"
_MSR = "dev/cpu/0/msr"
_SEV_STATUS = 0xC0010131  # AMD APM volume 2, SEV_STATUS
_SECURE_TSC = 1 << 11
_MAX_NAME_BYTES = 64
_READS = "CLOCK_BOOTTIME"
_GUARDED = {
    "snp": ("secure_tsc", "SecureTSC: scale and offset are the guest's own"),
    "tdx": ("tdx_module", "the TDX module virtualises the TSC"),
}
_OTHERS = {
    "nitro": ("hypervisor", "kvm-clock of the hypervisor: out of the parent's reach, not of the cloud's"),
    "sgx": ("host", "an enclave has no clock: every reading comes from the host"),
    "simulated": ("simulated", "a simulated TEE guards nothing"),
    "tpm": ("machine", "nothing measured says what runs the processor's clock"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockSource:
    """Where time comes from: ``kernel`` is behind ``reads``; ``guarded``: the host cannot change its rate."""

    name: str
    reads: str
    kernel: str
    guarded: bool
    why: str

    def to_json(self) -> dict[str, Json]:
        """Return it as ``/readyz`` shows it."""
        return {
            "guarded": self.guarded,
            "kernel": self.kernel,
            "name": self.name,
            "reads": self.reads,
            "why": self.why,
        }


def find_clock_source(tee: str, root: Path = _ROOT) -> ClockSource:
    """Return where time comes from in an enclave of this kind. ``root`` is the file system, for tests."""
    kernel = _kernel_source(root)
    name, guarded, why = _judge(tee, kernel, root)
    return ClockSource(name=name, reads=_READS, kernel=kernel, guarded=guarded, why=why)


def _judge(tee: str, kernel: str, root: Path) -> tuple[str, bool, str]:
    if tee not in _GUARDED:
        name, why = _OTHERS.get(tee, ("host", "nothing is known of clocks in this TEE"))
        return name, False, why
    if tee == "snp" and not _has_secure_tsc(root):
        return "host", False, "SecureTSC is off or cannot be read: the host scales and offsets the TSC"
    if kernel != "tsc":
        return "host", False, "the TEE guards the TSC, but the kernel reads another clock"
    name, why = _GUARDED[tee]
    return name, True, why


def _kernel_source(root: Path) -> str:
    """Return the kernel's clock source; ``unknown`` where it does not say or says something strange."""
    try:
        with (root / _CURRENT).open("rb") as file:
            name = file.read(_MAX_NAME_BYTES).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return "unknown"
    return name if name.replace("-", "").replace("_", "").isalnum() else "unknown"


def _has_secure_tsc(root: Path) -> bool:
    """Tell whether the processor says so; it takes root and the msr module to ask."""
    try:
        descriptor = os.open(root / _MSR, os.O_RDONLY | os.O_CLOEXEC)
        try:
            value = os.pread(descriptor, 8, _SEV_STATUS)
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return len(value) == 8 and bool(int.from_bytes(value, "little") & _SECURE_TSC)  # noqa: PLR2004 - bytes of a register
