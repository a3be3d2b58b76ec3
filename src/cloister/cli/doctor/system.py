"""What every role stands on: Python and its libraries, kernel, processor, clock, entropy."""

from __future__ import annotations

import ctypes
import importlib
import os
import platform
import ssl
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from cloister.cli.doctor.finding import failed, good, note, warned
from cloister.client.pinned_tls import HYBRID_GROUP, can_demand_hybrid
from cloister.custodian.config import BUILT_AT_YEAR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.cli.doctor.finding import Finding
    from cloister.cli.doctor.host import Host

__all__ = ["look_at_system"]

_PYTHON = (3, 11)
_KERNEL = (5, 19)  # the first with /dev/sev-guest; configfs-tsm came with 6.7
_TSM = (6, 7)
_LIBRARIES = ("cryptography", "onnxruntime", "uvloop")
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_STEADY = frozenset({"tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "xen", "arch_sys_counter"})


def look_at_system(host: Host) -> Iterator[Finding]:
    """Yield what is there, one finding a thing."""
    yield _python()
    yield from _libraries()
    yield _tls()
    yield _kernel(platform.release())
    yield _processor(host)
    yield _clock_set(host)
    yield _clock_synchronised(adjtimex())
    yield _clock_source(host)
    yield _entropy()


def _python() -> Finding:
    found = platform.python_version()
    if sys.version_info < _PYTHON:
        return failed("python", found, "install Python 3.11 or newer")
    return good("python", found)


def _libraries() -> Iterator[Finding]:
    for name in _LIBRARIES:
        try:
            importlib.import_module(name)
            found = version(name)
        except (ImportError, OSError, PackageNotFoundError) as exc:
            yield failed(
                f"library {name}", f"cannot be loaded ({type(exc).__name__})", f"pip install --force-reinstall {name}"
            )
        else:
            yield good(f"library {name}", found)


def _tls() -> Finding:
    found = ssl.OPENSSL_VERSION
    if can_demand_hybrid():
        return good("tls library", f"{found}, with {HYBRID_GROUP}")
    return note(
        "tls library",
        f"{found}, without {HYBRID_GROUP}",
        "pinned TLS would not be post-quantum, so requests are encapsulated (--way auto); OpenSSL 3.5 or newer has it",
    )


def _kernel(release: str) -> Finding:
    numbers = tuple(int(part) for part in release.split("-", maxsplit=1)[0].split(".")[:2] if part.isdigit())
    if numbers < _KERNEL:
        return failed("kernel", release, "a confidential guest needs Linux 5.19 or newer, better 6.7")
    if numbers < _TSM:
        return note("kernel", release, "Linux 6.7 and newer have one interface for every TEE (configfs-tsm)")
    return good("kernel", release)


def _processor(host: Host) -> Finding:
    lines = host.text("proc/cpuinfo").splitlines()
    flags = next(
        (set(line.partition(":")[2].split()) for line in lines if line.startswith(("flags", "Features"))), set()
    )
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    if not flags & {"aes"}:
        return warned("processor", f"{model}, without AES instructions", "models open many times more slowly here")
    fast = [name for name in ("vaes", "avx512f", "sha_ni", "sha2") if name in flags]
    return good("processor", f"{model}, aes {' '.join(fast)}".rstrip())


def _clock_set(host: Host) -> Finding:
    found = datetime.fromtimestamp(host.now(), UTC)
    if found.year < BUILT_AT_YEAR:
        return failed(
            "clock", found.isoformat(timespec="seconds"), "set the clock; leases and certificates depend on it"
        )
    return good("clock", found.isoformat(timespec="seconds"))


def adjtimex() -> int:
    """Return the state of the kernel's clock discipline (adjtimex(2)), -1 where it does not say."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "adjtimex"):
        return -1
    return int(libc.adjtimex(ctypes.create_string_buffer(512)))  # struct timex, zeroed: modes 0 only asks


def _clock_synchronised(state: int) -> Finding:
    if state == _TIME_ERROR:
        return warned("clock synchronised", "no", "run chrony or systemd-timesyncd: evidence and requests are dated")
    return good("clock synchronised", "yes") if state >= 0 else note("clock synchronised", "the kernel does not say")


def _clock_source(host: Host) -> Finding:
    found = host.text("sys/devices/system/clocksource/clocksource0/current_clocksource")
    if not found:
        return note("clock source", "the kernel does not say")
    if found not in _STEADY:
        return warned("clock source", found, "slow and settable; boot with a TSC the guest can trust")
    return good("clock source", found)


def _entropy() -> Finding:
    try:
        os.getrandom(32, os.GRND_NONBLOCK)
    except BlockingIOError:
        return failed(
            "entropy",
            "the kernel's pool is not ready",
            "wait, or give the guest a hardware generator: keys are made from it",
        )
    return good("entropy", "ready")
