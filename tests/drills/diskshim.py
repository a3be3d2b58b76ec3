"""The shim between a real custodian and its disk (diskshim.c): built, set, and its notes read back.

What the drill itself notes in the same log (``acknowledge``) stands behind everything the custodian had done when it
answered: a client writes it down after the answer came.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_SOURCE = Path(__file__).with_name("diskshim.c")
_CONTROL = struct.Struct("<8I64s")  # struct control
_RECORD = struct.Struct("<BBHiQI")  # struct record
_ACKNOWLEDGED = ord("A")
PPM = 1_000_000

needs_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="the shim is compiled: apt-get install gcc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One call, or one acknowledgement (``op`` A)."""

    op: str
    ok: bool
    fd: int
    at: int
    data: bytes

    @property
    def said(self) -> dict[str, Any]:
        """What was acknowledged."""
        return dict(json.loads(self.data))


@dataclass(slots=True, kw_only=True)
class Faults:
    """What fails from now on. ``only`` is the end of the name of the files it is about."""

    writes: float = 0.0
    syncs: float = 0.0
    sync_in: int = 0
    error: int = errno.EIO
    read_only: bool = False
    seed: int = 1
    only: str = ""


class Shim:
    """A compiled shim with its log and its control, for one process at a time."""

    def __init__(self, folder: Path, *, watch: Path) -> None:
        """Compile into ``folder``; what changes below ``watch`` is noted."""
        folder.mkdir(exist_ok=True)
        self.log, self._library = folder / "shim.log", folder / "diskshim.so"
        compiler = shutil.which("gcc") or "gcc"
        words = [compiler, "-O2", "-shared", "-fPIC", "-o", str(self._library), str(_SOURCE), "-ldl", "-lpthread"]
        subprocess.run(words, check=True)  # noqa: S603 - our own source
        self._settings = folder / "shim.control"
        self._settings.write_bytes(bytes(_CONTROL.size))
        self._watch = watch
        with self._settings.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _CONTROL.size)
        self.set(Faults())
        self._own = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @property
    def environment(self) -> dict[str, str]:
        """What the custodian's environment needs."""
        return {
            "LD_PRELOAD": str(self._library),
            "CLOISTER_SHIM_LOG": str(self.log),
            "CLOISTER_SHIM_CONTROL": str(self._settings),
            "CLOISTER_SHIM_ROOT": str(self._watch),
        }

    def set(self, faults: Faults) -> None:
        """Let fail what ``faults`` say, from the next call on."""
        self._shared[:] = _CONTROL.pack(
            round(faults.writes * PPM), round(faults.syncs * PPM), faults.sync_in, faults.error, faults.read_only,
            faults.seed, 0, 0, faults.only.encode(),
        )  # fmt: skip

    @property
    def failed(self) -> tuple[int, int]:
        """How many writes and how many syncs failed since ``set``."""
        fields = _CONTROL.unpack(self._shared[:])
        return int(fields[6]), int(fields[7])

    def acknowledge(self, **said: Any) -> None:
        """Note what a client was told. One write to an append-only file: it is not torn."""
        data = json.dumps(said).encode()
        os.write(self._own, _RECORD.pack(_ACKNOWLEDGED, 1, 0, -1, 0, len(data)) + data)

    def close(self) -> None:
        """Let go of log and control."""
        os.close(self._own)
        self._shared.close()


def read_notes(log: Path) -> Iterator[Note]:
    """Return the notes in their order."""
    data = log.read_bytes()
    at = 0
    while at < len(data):
        op, ok, _, fd, where, length = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        yield Note(op=chr(op), ok=bool(ok), fd=fd, at=where, data=data[at : at + length])
        at += length
