"""What the enclave's listener shows and asks for in its next handshake, changed while it listens.

One key for the life of the process. With it goes the certificate that it signed itself, or the custodian's where there
is one (``listener_identity``); clients may show certificates below the roots of issuers (``introductions``) and of the
custodian's authorities. Each change puts the settings together whole; open connections keep what they began with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.enclave.certificate import pem_of
from cloister.enclave.web.listener import server_context
from cloister.errors import UsageError
from cloister.live_context import LiveContext

if TYPE_CHECKING:
    import ssl

    from cryptography.hazmat.primitives.asymmetric import ec

    from cloister.enclave.listener_identity import Shown
    from cloister.enclave.tls import OuterTls

__all__ = ["ListenerTls"]


class ListenerTls:
    """Settings of one listener. ``context`` is what the server holds."""

    def __init__(self, outer: OuterTls, *, asks_certificates: bool) -> None:
        """Show the operator's or our own certificate. Raises ``UsageError`` for files that do not fit together."""
        self._outer = outer
        self.asks_certificates = asks_certificates
        self._shown: Shown | None = None
        self._roots = b""
        try:
            self.context = LiveContext(self._made(None, b""))
        except OSError as exc:  # ssl.SSLError is one
            msg = "tls: certificate and key do not fit together"
            raise UsageError(msg) from exc

    @property
    def own(self) -> ec.EllipticCurvePrivateKey | None:
        """The key, where it was made here and nobody else has it."""
        return self._outer.own

    @property
    def pinned(self) -> tuple[bytes, ...]:
        """The hash of that key, for the keyset; none where consumers must not pin."""
        return () if self._outer.own is None else (self._outer.spki_sha256,)

    def show(self, shown: Shown | None) -> None:
        """Show this certificate and believe whom it came with; None: our own, and no authority of the custodian's.

        Raises ``OSError`` for what the library does not take; then all stays as it was.
        """
        self.context.current = self._made(shown, self._roots)
        self._shown = shown

    def believe(self, roots: bytes) -> None:
        """Take clients' certificates below these roots (DER, one after the other), and none of those before.

        Raises as ``show``.
        """
        self.context.current = self._made(self._shown, roots)
        self._roots = roots

    def _made(self, shown: Shown | None, roots: bytes) -> ssl.SSLContext:
        chain = self._outer.chain if shown is None else pem_of(shown.certificate)
        pem = chain + b"\n" + self._outer.key  # a file need not end its last line
        context = server_context(pem, asks_certificates=self.asks_certificates)
        if shown is not None:
            roots += b"".join(shown.roots)
        if roots and self.asks_certificates:
            context.load_verify_locations(cadata=roots)
        return context
