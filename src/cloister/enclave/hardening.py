"""What a Linux process can do to keep its memory to itself (50-sealed, "Memory hygiene"; T27).

Each measure is tried, and what was achieved is said: a root user of the host reads this memory anyway unless a
TEE protects it. Not done here: seccomp, landlock, network namespaces, which the deployment sets; keeping
weights out of dumps, which ``sealed.memfd`` does with MADV_DONTDUMP.
"""

from __future__ import annotations

import ctypes
import os
import resource
from dataclasses import dataclass
from pathlib import Path

from cloister.errors import UsageError

__all__ = ["Measure", "demand_unswappable", "harden"]

_PR_SET_DUMPABLE = 4  # prctl(2)
_PR_GET_DUMPABLE = 3
_PR_SET_NO_NEW_PRIVS = 38
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4  # mlockall(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One measure and whether it holds; ``detail`` says why not."""

    name: str
    achieved: bool
    detail: str = ""


def harden() -> tuple[Measure, ...]:
    """Take every measure for this process and say which hold. Never raises: what failed is in the list."""
    libc = ctypes.CDLL(None, use_errno=True)
    return (_no_core(), _not_dumpable(libc), _no_new_privs(libc), _locked(libc), _no_swap())


def demand_unswappable(measures: tuple[Measure, ...]) -> None:
    """Prove that plaintext cannot reach a swap device: memory is locked, or there is no swap.

    Raises ``UsageError``.
    """
    if not any(measure.achieved for measure in measures if measure.name in {"memory_locked", "no_swap"}):
        why = "; ".join(f"{measure.name}: {measure.detail}" for measure in measures if not measure.achieved)
        msg = f"hardening: memory could be swapped out ({why})"
        raise UsageError(msg, hint="raise the limit on locked memory (ulimit -l unlimited), or swapoff -a")


def _no_core() -> Measure:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return Measure(name="no_core_dump", achieved=resource.getrlimit(resource.RLIMIT_CORE) == (0, 0))


def _not_dumpable(libc: ctypes.CDLL) -> Measure:
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    return Measure(name="not_dumpable", achieved=libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) == 0)


def _no_new_privs(libc: ctypes.CDLL) -> Measure:
    done = libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    return Measure(name="no_new_privs", achieved=done)


def _locked(libc: ctypes.CDLL) -> Measure:
    """Lock what is and will be touched, where the limit allows all of it: a half-locked process would run out."""
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if limit != resource.RLIM_INFINITY and not _may_lock():
        return Measure(name="memory_locked", achieved=False, detail=f"limit is {limit} bytes")
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) != 0:
        return Measure(name="memory_locked", achieved=False, detail=os.strerror(ctypes.get_errno()))
    return Measure(name="memory_locked", achieved=True)


def _may_lock() -> bool:
    """Tell whether this process has CAP_IPC_LOCK, which no limit binds."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> 14 & 1)  # capability.h: CAP_IPC_LOCK is 14
    return False


def _no_swap() -> Measure:
    try:
        devices = Path("/proc/swaps").read_text(encoding="utf-8").splitlines()[1:]
    except OSError:
        return Measure(name="no_swap", achieved=False, detail="/proc/swaps cannot be read")
    return Measure(name="no_swap", achieved=not devices, detail=f"{len(devices)} swap devices" if devices else "")
