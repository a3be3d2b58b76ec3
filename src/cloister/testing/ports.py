"""A port for a server that starts in a while: none that the system gives to whoever connects meanwhile.

For the demo, examples, benchmarks and tests alike: each has to tell a process of its own where to listen.
"""

from __future__ import annotations

import contextlib
import random
import socket

__all__ = ["free_port"]

_LOWEST, _END = 20_000, 32_000  # Linux gives those from 32,768 on to connections


def free_port() -> int:
    """Return a loopback port nobody listens on now, and that no connection takes before it is used."""
    while True:
        port = random.SystemRandom().randrange(_LOWEST, _END)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
