"""TLS whose connections are held against attested keys before a byte of a request is sent (docs/spec/channel.md, 9).

The check stands in the TLS context itself: whoever opens a connection with it, of whatever pool and through whatever
proxy, has no connection before the other side has shown a listed key and proven that it holds it.

Not done here: which keys are attested (``trust``), whether this way is taken at all (``way``).
"""

from __future__ import annotations

import hashlib
import ssl
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloister.errors import Rejected, UsageError
from cloister.private_file import read_private

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["PinnedContext", "UnlistedKey", "UnlistedKeyShown", "can_demand_hybrid", "shown_key"]

HYBRID_GROUP = "X25519MLKEM768"  # draft-ietf-tls-ecdhe-mlkem; what encapsulated requests have by default
_TLS_1_3 = "TLSv1.3"
_MAX_PEM_BYTES = 256 * 1024


class UnlistedKey(Rejected):
    """A connection showed a key that the attested keyset does not list; nothing was sent on it."""


class UnlistedKeyShown(ssl.SSLError):
    """The same, said to the TLS library, which closes the connection."""


class PinnedContext(ssl.SSLContext):
    """TLS 1.3 to whoever holds one of ``keys``; no resumption, so every connection shows its key."""

    keys: frozenset[bytes] = frozenset()

    @classmethod
    def of(cls, keys: Iterable[bytes], *, hybrid: bool, certificate: Path | str | None = None) -> PinnedContext:
        """Return a context for keys, the SHA-256 of SubjectPublicKeyInfo each. Says nothing of names and issuers.

        With ``hybrid`` the key exchange is the post-quantum one. Raises ``ValueError`` where the library has none.
        ``certificate`` is a file of our own (PEM, key and chain) that the enclave may ask to see; read now: whoever
        follows its changes makes another context (``pinned_clients``). Raises ``UsageError``.
        """
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        context.keys = frozenset(keys)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if hybrid:
            context.set_ecdh_curve(HYBRID_GROUP)
        if certificate is not None:
            _show(context, certificate)
        return context


def _show(context: ssl.SSLContext, certificate: Path | str) -> None:
    read_private(certificate, cap=_MAX_PEM_BYTES, holds="a key", links=True)
    try:
        context.load_cert_chain(certificate)
    except (OSError, ValueError) as exc:
        msg = f"{certificate}: no certificate chain with its key in PEM"
        raise UsageError(msg) from exc


class _Socket(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the library's signature
        super().do_handshake(block)
        _demand_listed(self)


class _Object(ssl.SSLObject):
    def do_handshake(self) -> None:
        super().do_handshake()
        _demand_listed(self)


PinnedContext.sslsocket_class = _Socket
PinnedContext.sslobject_class = _Object


def _demand_listed(connection: ssl.SSLSocket | ssl.SSLObject) -> None:
    context = connection.context
    if not isinstance(context, PinnedContext) or shown_key(connection) not in context.keys:
        raise UnlistedKeyShown(1, "the key shown is not an attested one")


def shown_key(connection: Any) -> bytes:
    """Return the SHA-256 of the key that a TLS 1.3 connection shows; empty for older TLS, or none."""
    if connection is None or connection.version() != _TLS_1_3:
        return b""
    certificate = connection.getpeercert(True)  # noqa: FBT003 - by place: a name differs between the library's classes
    if certificate is None:
        return b""
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
        return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    except (ValueError, UnsupportedAlgorithm):
        return b""


def can_demand_hybrid() -> bool:
    """Say whether the TLS library here can be held to the post-quantum key exchange."""
    return _knows(HYBRID_GROUP)


@lru_cache(maxsize=8)
def _knows(group: str) -> bool:
    """Ask the library once: a context is dear, and this is wanted for every request."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).set_ecdh_curve(group)
    except ValueError:
        return False
    return True
