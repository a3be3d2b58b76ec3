"""The certificate of a listening server, and whom it believes, changed while it listens (docs/reference/tls.md).

A ``LiveContext`` is what the server holds; each handshake is made by the settings that are current then, and
connections that are open keep what they began with. New settings are put together whole before they count: files that
cannot be read, that do not fit together, that others may read or that have ended change nothing, and it is said once
why.

Not done here: making certificates (``tls``, ``acme``), and who looks when (``serve``).
"""

from __future__ import annotations

import hashlib
import ssl
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from cloister.custodian.logs import LOG, Event
from cloister.errors import CloisterError, Rejected, UsageError
from cloister.live_context import LiveContext, load_identity
from cloister.private_file import read_private

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

__all__ = ["LiveTls", "ServerFiles"]

_TIME = "%Y-%m-%d %H:%M"
_MAX_PEM_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFiles:
    """Where a server's certificate chain and key lie, both PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """What the files and the authorities were at one moment. One file may hold chain and key, the key first."""

    files: ServerFiles
    certificate: bytes
    key: bytes = field(repr=False)
    believed: str

    @property
    def pem(self) -> bytes:
        """Everything that is shown, each once."""
        return self.key if self.files.key == self.files.certificate else self.certificate + b"\n" + self.key

    @property
    def digest(self) -> bytes:
        """What changes when any of it does."""
        parts = (self.certificate, self.key, self.believed.encode("ascii"))
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()


@dataclass(slots=True, kw_only=True)
class LiveTls:
    """Looks after a ``LiveContext``.

    ``files`` says where to look; ``authorities`` returns, as PEM, whom clients' certificates may be of, nothing where
    none is asked for. ``refresh`` may be called from any thread.
    """

    files: Callable[[], ServerFiles]
    minimum: str
    clock: Callable[[], datetime]
    authorities: Callable[[], str] = lambda: ""
    context: LiveContext = field(init=False, repr=False)
    problem: str | None = None
    _seen: bytes = b""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        """Read for the first time. Raises as ``_make``: a server without a certificate does not start."""
        read = self._read()
        self._seen = read.digest
        self.context = LiveContext(self._make(read))

    def refresh(self) -> bool:
        """Take over what has changed; tells whether something did. What does not fit leaves everything as it was."""
        with self._lock:
            try:
                read = self._read()
                if read.digest == self._seen:
                    self.problem = None
                    return False
                made = self._make(read)
            except CloisterError as exc:
                if exc.message != self.problem:
                    LOG.write(Event.TLS_KEPT, code=exc.code if isinstance(exc, Rejected) else "unreadable")
                self.problem = exc.message
                return False
            self._seen, self.problem = read.digest, None
            self.context.current = made
            LOG.write(Event.TLS_CHANGED, digest=hashlib.sha256(read.certificate).hexdigest())
            return True

    def _read(self) -> _Read:
        files = self.files()
        try:
            with files.certificate.open("rb") as file:
                certificate = file.read(_MAX_PEM_BYTES)
        except OSError as exc:
            msg = f"{files.certificate}: {exc.strerror}"
            raise UsageError(msg) from exc
        key = read_private(files.key, cap=_MAX_PEM_BYTES, links=True)
        return _Read(files=files, certificate=certificate, key=key, believed=self.authorities())

    def _make(self, read: _Read) -> ssl.SSLContext:
        """Return settings of exactly these bytes. Raises ``UsageError`` and ``Rejected``."""
        self._demand_good(read)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2 if self.minimum == "1.2" else ssl.TLSVersion.TLSv1_3
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        try:
            load_identity(context, read.pem)
            if read.believed:
                context.load_verify_locations(cadata=read.believed)
        except (ssl.SSLError, OSError) as exc:
            msg = f"{read.files.certificate} and {read.files.key}: cannot be used"
            raise UsageError(msg) from exc
        if read.believed:
            context.verify_mode = ssl.CERT_OPTIONAL
            context.verify_flags |= ssl.VERIFY_X509_STRICT
            # A resumed session would bring a certificate that was proven when it was made, not now.
            context.options |= ssl.OP_NO_TICKET
            context.num_tickets = 0
        return context

    def _demand_good(self, read: _Read) -> None:
        """Prove that certificate and key are of one another, and that now is its time.

        Raises ``UsageError``, and ``Rejected``: ``wrong_key``, ``certificate_expired``.
        """
        where, now = read.files.certificate, self.clock()
        try:
            leaf = x509.load_pem_x509_certificates(read.certificate)[0]
            fits = load_pem_private_key(read.key, password=None).public_key() == leaf.public_key()
        except (ValueError, TypeError, x509.InvalidVersion) as exc:
            msg = f"{where} and {read.files.key}: not a certificate and its key in pem"
            raise UsageError(msg) from exc
        if not fits:
            raise Rejected.because("wrong_key", str(read.files.key), got="another certificate's", want=str(where))
        if not leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc:
            time = f"{leaf.not_valid_before_utc:{_TIME}} to {leaf.not_valid_after_utc:{_TIME}}"
            raise Rejected.because("certificate_expired", str(where), got=time, hint="renew it, or set the clock")
