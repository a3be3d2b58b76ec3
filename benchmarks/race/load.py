"""Load by wrk, a process in C: it parses no more than HTTP heads, and is not what is measured.

Requests are written to a file beforehand, whole, and wrk sends them as they are. One thread of wrk is enough for
everything that a server in Python answers; how busy it was is told with every figure.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_SCRIPT = Path(__file__).with_name("load.lua")
WARM_S = 1  # seconds in which connections are opened, before what counts
_TIMEOUT_S = 30  # seconds until an answer counts as lost
_FAULTS = ("connect", "read", "write", "status", "timeout")


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one stretch of load came to."""

    rate: float  # requests per second
    server_ms: float  # processor milliseconds of the server for one request
    p50_ms: float
    p99_ms: float
    requests: int
    faults: dict[str, int]  # by kind; none where all went well
    wrk: float  # share of one processor that wrk took


def demand_wrk() -> str:
    """Return where wrk is. Ends the program where it is not."""
    found = shutil.which("wrk")
    if found is None:
        raise SystemExit("wrk is not installed: make system, or as root on Debian apt-get install wrk")
    return found


def write_requests(file: Path, requests: Iterable[bytes]) -> int:
    """Write requests into the file that the script reads; return how many."""
    count = 0
    with file.open("wb") as out:
        for request in requests:
            out.write(len(request).to_bytes(4, "big") + request)
            count += 1
    return count


def press(
    url: str, file: Path, *, cpu_s: Callable[[], float], connections: int, seconds: int, think_ms: float = 0
) -> Load:
    """Send the requests of ``file`` over so many connections; each waits for its answer, then thinks.

    ``cpu_s`` tells the processor seconds that the server has used.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = ["-t1", f"-c{connections}", f"-d{seconds + WARM_S}s", f"--timeout={_TIMEOUT_S}s", "-s", str(_SCRIPT), url]
    running = subprocess.Popen(  # noqa: S603 - our own command line
        [demand_wrk(), *words, "--", str(file), str(think_ms), str(WARM_S)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(WARM_S)
    spent_before = cpu_s()
    said, complained = running.communicate(timeout=seconds + 3 * _TIMEOUT_S)
    server_s = cpu_s() - spent_before
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    _, mark, told = said.partition("\n@")
    if not mark:
        raise SystemExit(f"wrk: {complained[-500:] or said[-500:]}")
    found = json.loads(told)
    took = found["us"] / 1e6
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    good = 1 - found["status"] / max(1, found["requests"])
    counted = found["counted"]
    return Load(
        rate=good * counted / (took - WARM_S),
        server_ms=server_s * 1e3 / max(1, counted),
        p50_ms=found["p50"] / 1e3,
        p99_ms=found["p99"] / 1e3,
        requests=found["requests"],
        faults={name: found[name] for name in _FAULTS if found[name]},
        wrk=spent / took,
    )
