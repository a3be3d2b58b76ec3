"""What a custodian's process takes of its machine: descriptors, buffers and heaps for a thousand enclaves."""

from __future__ import annotations

import ctypes
import resource
from asyncio import sslproto

from cloister.custodian.logs import LOG, Event

__all__ = ["fit_process"]

_TLS_BUFFER_BYTES = 32 * 1024  # for each connection; asyncio's 256 KiB are 280 MB for a thousand enclaves
_OTHER_DESCRIPTORS = 256  # the database's, the checkpoint's, files
_M_ARENA_MAX = -8  # mallopt(3)


def fit_process(connections: int) -> None:
    """Prepare this process to serve ``connections`` at once. Call it before threads and connections are made."""
    _share_one_heap()
    _allow_descriptors(connections)
    sslproto.SSLProtocol.max_size = _TLS_BUFFER_BYTES  # no public setting has it


def _share_one_heap() -> None:
    """Let all threads of this process allocate from one heap, where the C library is glibc; else nothing is done.

    It gives each thread a heap of its own, up to eight for each processor, and each keeps what the largest request in
    it once took: under a steady load memory grows for hours. Our threads take turns anyway (the interpreter's lock).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def _allow_descriptors(connections: int) -> None:
    """Let this process have a descriptor for each connection, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    want = connections + _OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < want:
        most = want if hard == resource.RLIM_INFINITY else min(want, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        if most < want:
            LOG.write(Event.DESCRIPTORS_FEW, count=most, wanted=want)
