"""Where a custodian stands: its home, its disk, its ports, how many files it may open."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import socket
import stat
import tempfile
import time
from typing import TYPE_CHECKING

from cloister.cli.doctor.finding import failed, good, note, warned

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloister.cli.doctor.finding import Finding
    from cloister.cli.doctor.host import Host

__all__ = ["look_at_home", "look_at_port", "look_at_process"]

_FILES = 4096
_LITTLE_BYTES, _FEW_BYTES = 64 << 20, 1 << 30
_SLOW_S = 0.1
_REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs"})
_PASSING = frozenset({"tmpfs", "ramfs", "overlay"})


def look_at_process(host: Host) -> Finding:
    """Return how many files a server may open: one for each connection."""
    soft, hard = host.limit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _FILES:
        return warned(
            "open files", f"at most {soft}, may be raised to {hard}", f"ulimit -n {_FILES}, or LimitNOFILE= in the unit"
        )
    return good("open files", f"at most {soft}" if soft != resource.RLIM_INFINITY else "without a limit")


def look_at_home(home: Path, host: Host) -> Iterator[Finding]:
    """Yield how it stands with a home that is there, or with the folder in which it would be made."""
    if not home.exists():
        yield note("home", f"{home}: not there yet", "cloister custodian init makes it")
        home = next((folder for folder in home.absolute().parents if folder.exists()), home)
    else:
        yield _private(home)
    yield _file_system(home, host)
    yield _space(home)
    yield _durable(home)


def _private(home: Path) -> Finding:
    status = home.stat()
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.geteuid():
        return failed(
            "home", f"{home}: belongs to user {status.st_uid}", f"chown -R {os.geteuid()} {home}, or run as its owner"
        )
    if mode & 0o077:
        return warned("home", f"{home}: mode {mode:04o}", f"chmod 700 {home}")
    return good("home", f"{home}: mode {mode:04o}")


def _file_system(home: Path, host: Host) -> Finding:
    """Return what kind the disk is: a network's holds no locks, and what is in memory is gone at the next boot."""
    kind = _kind(home, host.text("proc/self/mounts"))
    if kind in _REMOTE:
        return failed(
            "file system", kind, "put the home on a disk of this host, or use PostgreSQL: locks do not hold here"
        )
    if kind in _PASSING:
        return warned("file system", kind, "what is here is gone with this machine or container: mount a disk")
    return good("file system", kind or "the kernel does not say")


def _kind(place: Path, mounts: str) -> str:
    """Return the type of the mount that a place is on: the longest mount point above it."""
    found = ("", "")
    for line in mounts.splitlines():
        _, point, kind, *_ = line.split()
        above = point.rstrip("/") + "/"
        if f"{place.resolve()}/".startswith(above) and len(above) > len(found[0]):
            found = above, kind
    return found[1]


def _space(home: Path) -> Finding:
    free = shutil.disk_usage(home).free
    found = f"{free / (1 << 30):.1f} GiB free"
    if free < _LITTLE_BYTES:
        return failed("disk space", found, "make room: a full disk releases no key")
    if free < _FEW_BYTES:
        return warned("disk space", found, "make room: the log only grows")
    return good("disk space", found)


def _durable(home: Path) -> Finding:
    """Return how long one durable write takes: every lease waits for one."""
    try:
        with tempfile.NamedTemporaryFile(dir=home, prefix=".doctor-") as file:
            file.write(bytes(4096))
            file.flush()
            begun = time.monotonic()
            os.fsync(file.fileno())
            took = time.monotonic() - begun
    except OSError as exc:
        return failed("durable writes", f"{home}: {exc.strerror}", "the custodian must be able to write here")
    found = f"one took {took * 1000:.1f} ms"
    if took > _SLOW_S:
        return warned("durable writes", found, "a faster disk: every lease and release waits for one")
    return good("durable writes", found)


def look_at_port(host: str, port: int) -> Finding:
    """Return whether a server could listen there."""
    name = f"port {port}"
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            return note(name, f"{host}: in use", "by the server that runs already? else choose another port")
        if exc.errno == errno.EACCES:
            return failed(
                name,
                f"{host}: not for this user",
                "choose a port above 1023, or AmbientCapabilities=CAP_NET_BIND_SERVICE",
            )
        return failed(name, f"{host}: {exc.strerror}", "is this an address of this host?")
    return good(name, f"{host}: free")
