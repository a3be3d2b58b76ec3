"""A false clock for one process (clockshim.c): a jump, a standstill, another pace; of the date or of every clock."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

_SOURCE = Path(__file__).with_name("clockshim.c")
_WHICH = struct.Struct("<q")
_SETTING = struct.Struct("<qqdq")  # struct setting
_SIZE = _WHICH.size + 2 * _SETTING.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Lie:
    """What a clock does: it jumps once, and then goes at a pace (0 stands still)."""

    jump: timedelta = timedelta(0)
    rate: float = 1.0


TRUE = Lie()
LIES = {
    "an hour ahead": Lie(jump=timedelta(hours=1)),
    "an hour behind": Lie(jump=timedelta(hours=-1)),
    "a year ahead": Lie(jump=timedelta(days=365)),
    "a year behind": Lie(jump=timedelta(days=-365)),
    "frozen": Lie(rate=0.0),
    "a hundred times too fast": Lie(rate=100.0),
}


class FalseClock:
    """What one process is shown; it begins with the truth."""

    def __init__(self, folder: Path, *, all_clocks: bool) -> None:
        """Compile into ``folder``. ``all_clocks`` is the attacker who controls more than the date."""
        self._library, self._path = folder / "clockshim.so", folder / "clock.control"
        compiler = shutil.which("gcc") or "gcc"
        words = [compiler, "-O2", "-shared", "-fPIC", "-o", str(self._library), str(_SOURCE), "-ldl"]
        subprocess.run(words, check=True)  # noqa: S603 - our own source
        self._path.write_bytes(bytes(_SIZE))
        with self._path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _SIZE)
        self._all_clocks, self._which = all_clocks, 0
        self._delta_ns, self._anchor_ns, self._rate = 0, time.monotonic_ns(), 1.0
        self._write()

    @property
    def environment(self) -> dict[str, str]:
        """What the process needs."""
        return {"LD_PRELOAD": str(self._library), "CLOISTER_CLOCK_CONTROL": str(self._path)}

    def now(self) -> datetime:
        """Return the date that the clock shows, for a consumer who is the borrower's friend."""
        return datetime.now(UTC) + timedelta(microseconds=self._off_ns(time.monotonic_ns()) / 1000)

    def show(self, lie: Lie) -> None:
        """Lie so from now on, beginning with the true time."""
        self._delta_ns = round(lie.jump.total_seconds() * 1e9)
        self._anchor_ns, self._rate = time.monotonic_ns(), lie.rate
        self._write()

    def _off_ns(self, now: int) -> int:
        return self._delta_ns + round((now - self._anchor_ns) * (self._rate - 1.0))

    def _write(self) -> None:
        self._which = 1 - self._which
        at = _WHICH.size + self._which * _SETTING.size
        setting = _SETTING.pack(self._delta_ns, self._anchor_ns, self._rate, self._all_clocks)
        self._shared[at : at + _SETTING.size] = setting
        self._shared[: _WHICH.size] = _WHICH.pack(self._which)
