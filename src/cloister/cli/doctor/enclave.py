"""What an enclave needs of its host: a TEE, memory that is not swapped, dumped or too little."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

from cloister.cli.doctor.finding import failed, good, note, warned
from cloister.enclave.attesters.detect import Strength, choose, look
from cloister.errors import CloisterError
from cloister.sealed.huge import HINT, huge_pages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.cli.doctor.finding import Finding
    from cloister.cli.doctor.host import Host
    from cloister.enclave.attesters.machine import Machine

__all__ = ["look_at_enclave"]

_GIB = 1 << 30


def look_at_enclave(host: Host, machine: Machine) -> Iterator[Finding]:
    """Yield what an enclave would meet here."""
    yield from _tees(machine)
    yield _locked(host)
    yield _swap(host)
    yield _dumps(host)
    yield _memory(host)
    yield _pages(host)


def _tees(machine: Machine) -> Iterator[Finding]:
    """Yield the TEE that would be used, and every interface that was asked."""
    found = look(machine)
    try:
        choice = choose(found)
    except CloisterError:
        has_tpm = any(item.strength is Strength.TPM for item in found)
        yield failed(
            "tee",
            "no interface of a TEE answers" + (", a TPM does" if has_tpm else ""),
            "run inside a confidential guest (SEV-SNP, TDX, Nitro, Gramine); --tee simulated protects nothing",
        )
    else:
        yield good("tee", f"{choice.tee} by {choice.interface}: {choice.why}")
    for item in found:
        yield note(f"interface {item.interface}", item.note)


def _locked(host: Host) -> Finding:
    soft, hard = host.limit(resource.RLIMIT_MEMLOCK)
    if soft == resource.RLIM_INFINITY:
        return good("locked memory", "without a limit")
    mibs = f"{soft >> 20} MiB" + (", may be raised" if hard == resource.RLIM_INFINITY else "")
    return warned(
        "locked memory", mibs, "LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited: weights must not be swapped"
    )


def _swap(host: Host) -> Finding:
    devices = [line.split()[0] for line in host.text("proc/swaps").splitlines()[1:]]
    if not devices:
        return good("swap", "none")
    encrypted = all("zram" in name or "dm-" in name for name in devices)
    fix = "swapoff -a; or lock memory, which profile production demands" if not encrypted else ""
    return warned("swap", ", ".join(devices), fix or "see that it is encrypted under a key of this boot, or swapoff -a")


def _dumps(host: Host) -> Finding:
    pattern = host.text("proc/sys/kernel/core_pattern")
    suid = host.text("proc/sys/fs/suid_dumpable")
    if suid == "1":
        return warned("core dumps", f"suid_dumpable is 1, pattern {pattern[:60]}", "sysctl fs.suid_dumpable=0")
    return good("core dumps", f"pattern {pattern[:60] or 'none'}; an enclave turns its own off")


def _memory(host: Host) -> Finding:
    lines = dict(line.split(":", 1) for line in host.text("proc/meminfo").splitlines() if ":" in line)
    free = int(lines.get("MemAvailable", "0 kB").split()[0]) << 10
    if not free:
        return note("memory", "the kernel does not say")
    found = f"{free / _GIB:.1f} GiB free"
    if free < _GIB:
        return warned("memory", found, "a model takes its own size and a tenth")
    return good("memory", found)


def _pages(host: Host) -> Finding:
    settings = host.root / "sys/kernel/mm/transparent_hugepage"
    if huge_pages(settings, host.root / "proc/sys/vm/overcommit_memory"):
        return good("huge pages", "for models")
    return note("huge pages", "ordinary pages for models: opening takes longer", HINT)
