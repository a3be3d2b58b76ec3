"""The certificate that a caller showed in its TLS handshake, as the application sees it.

``listener`` puts it into the scope of every request of the connection, in the form of the ASGI TLS extension
(``extensions.tls.client_cert_chain``, the leaf first). It is there only where the handshake proved it below one of the
authorities that the listener trusts, and only for that moment: that it has not ended since is for who reads it.

Not done here: who an authority is, and what a certificate lets its holder do (``peers``).
"""

from __future__ import annotations

import ssl
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cryptography import x509

from cloister.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["certificates_of", "peer_certificate"]

_KEPT = 4096  # certificates that are not parsed anew for every request


def peer_certificate(scope: Mapping[str, Any]) -> x509.Certificate | None:
    """Return the caller's certificate, None where it showed none. Raises ``Malformed`` for what does not parse."""
    chain = scope.get("extensions", {}).get("tls", {}).get("client_cert_chain", ())
    return _parsed(chain[0]) if chain else None


def certificates_of(scope: Mapping[str, Any]) -> tuple[bytes, ...]:
    """Return what the caller showed, DER, its own first; nothing where it showed nothing."""
    chain = scope.get("extensions", {}).get("tls", {}).get("client_cert_chain", ())
    return tuple(ssl.PEM_cert_to_DER_cert(pem) for pem in chain)


@lru_cache(maxsize=_KEPT)
def _parsed(pem: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem.encode("ascii"))
    except (ValueError, x509.InvalidVersion) as exc:
        msg = "peer certificate: not one that can be read"
        raise Malformed(msg) from exc
