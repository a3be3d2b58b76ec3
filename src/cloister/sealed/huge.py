"""Whether fresh memory files come in huge pages here: what limits opening a model is taking memory, not AES.

Linux, Documentation/admin-guide/mm/transhuge.rst, "Hugepages in tmpfs/shmem". Not used: MFD_HUGETLB, whose
files have no exact size and cannot be written, and tmpfs folders, whose files cannot be sealed (docs/adr/0024).
"""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["HINT", "huge_pages", "memory_pages"]

_SETTINGS = Path("/sys/kernel/mm/transparent_hugepage")
_HELPS = frozenset({"always", "within_size", "advise", "force"})
HINT = "its administrator sets /sys/kernel/mm/transparent_hugepage/shmem_enabled to 'advise'"


def huge_pages(settings: Path = _SETTINGS, overcommit: Path = Path("/proc/sys/vm/overcommit_memory")) -> bool:
    """Tell whether a mapped memory file that asks for huge pages may get them.

    No where the kernel counts memory strictly (vm.overcommit_memory 2): there a write to a mapping can kill the
    process, and a write to the file is refused.
    """
    general = _chosen(settings / "shmem_enabled")
    size = _chosen(settings / "hugepages-2048kB" / "shmem_enabled") or "inherit"  # since 6.14 each size has its own
    chosen = general if size == "inherit" or general in ("deny", "force") else size
    return chosen in _HELPS and _read(overcommit).strip() != "2"


def memory_pages() -> str:
    """Return what models are opened into, in one word: ``huge`` or ``ordinary`` pages."""
    return "huge" if huge_pages() else "ordinary"


def _chosen(place: Path) -> str:
    """Return the word in brackets, or nothing."""
    found = re.search(r"\[(\w+)\]", _read(place))
    return found[1] if found else ""


def _read(place: Path) -> str:
    try:
        return place.read_text()
    except OSError:
        return ""
