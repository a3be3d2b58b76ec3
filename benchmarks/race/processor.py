"""What the kernel says about processes: processor time, memory, and their children; and how to still them."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    parents: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found, queue = [], [pid]
    while queue:
        one = queue.pop()
        found.append(one)
        queue += parents.get(one, [])
    return found


def cpu_s(pids: list[int]) -> float:
    """Return the processor seconds that these processes have used."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            words = _stat(pid)
            total += int(words[11]) + int(words[12])
    return total / TICKS


def busy_s() -> float:
    """Return the processor seconds that everything on this machine has used together."""
    user, nice, system, _idle, _wait, irq, soft, steal = map(int, (_PROC / "stat").read_text().split()[1:9])
    return (user + nice + system + irq + soft + steal) / TICKS


def resident_bytes(pid: int) -> int:
    """Return a process' resident memory."""
    for line in (_PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def still(pids: list[int]) -> None:
    """Stop these processes until ``wake``, so that they take nothing from what is measured."""
    _tell(pids, signal.SIGSTOP)


def wake(pids: list[int]) -> None:
    """Let them go on."""
    _tell(pids, signal.SIGCONT)


def _tell(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _stat(pid: int) -> list[str]:
    """Return what follows the name in ``/proc/PID/stat``: the state first, then the parent."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
