"""TLS settings that change while a server listens: each handshake is made by those that are current then.

A ``LiveContext`` hands handshakes to another context, whole: certificates, and whom clients are believed by.
Connections that are open keep what they began with. ``load_identity`` gives a context its certificates from memory.

Not done here: when to change (``serving``, ``custodian.live_tls``, ``enclave.listener_tls``).
"""

from __future__ import annotations

import os
import ssl
from typing import Any, Self

__all__ = ["LiveContext", "load_identity"]


class LiveContext(ssl.SSLContext):
    """A server's TLS context that hands every handshake to the one that is current."""

    current: ssl.SSLContext

    def __new__(cls, current: ssl.SSLContext) -> Self:
        """Hand handshakes to ``current``; assign another to change."""
        made = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        made.current = current
        return made

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Begin a handshake with the current settings."""
        return self.current.wrap_bio(*args, **kwargs)


def load_identity(context: ssl.SSLContext, pem: bytes) -> None:
    """Give a context these certificates and their key, through anonymous memory: the library insists on a path.

    A file read again could be another by now.
    """
    descriptor = os.memfd_create("cloister", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
