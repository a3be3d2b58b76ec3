"""Mutual TLS to a gateway: its certificate of the custodian's authority, named by its URI, and one of our own.

Who the gateway is says the URI alone (docs/spec/certificates.md): no DNS name is compared, and none could be in such a
certificate. The check stands in the TLS context itself, so no byte of a request goes to whoever has not passed it.

Not done here: when files are read again (``link``).
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509

from cloister.errors import CloisterError, Malformed, UsageError
from cloister.lending.peer import peer_of
from cloister.lending.peer_name import TRUST_DOMAIN, PeerKind, PeerName
from cloister.private_file import read_private

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["GatewayName", "GatewayRefused", "PeerContext", "parse_gateway_name"]

_MAX_PEM_BYTES = 256 * 1024
_GATEWAYS = frozenset({PeerKind.ENCLAVE, PeerKind.PROXY})
_HINT = "spiffe://DOMAIN/enclave for any instance, spiffe://DOMAIN/enclave/ID or spiffe://DOMAIN/proxy/NAME for one"


class GatewayRefused(ssl.SSLError):
    """The gateway showed a certificate of somebody else; nothing was sent to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayName:
    """Whom a gateway must be: one peer, or with no ``name`` any instance of a custodian's."""

    domain: str
    kind: PeerKind
    name: str | None

    def admits(self, peer: PeerName) -> bool:
        """Tell whether it is that peer, octet by octet."""
        return (peer.domain, peer.kind) == (self.domain, self.kind) and self.name in {None, peer.name}


def parse_gateway_name(text: str) -> GatewayName:
    """Return whom ``--gateway-peer`` names. Raises ``UsageError``."""
    domain, _, kind = text.removeprefix("spiffe://").partition("/")
    if text.startswith("spiffe://") and kind == PeerKind.ENCLAVE.value and TRUST_DOMAIN.fullmatch(domain):
        return GatewayName(domain=domain, kind=PeerKind.ENCLAVE, name=None)
    try:
        found = PeerName.parse(text)
    except Malformed as exc:
        msg = f"gateway: {text[:160]}: no name of a gateway"
        raise UsageError(msg, hint=_HINT) from exc
    if found.kind not in _GATEWAYS:
        msg = f"gateway: a {found.kind.value} is no gateway"
        raise UsageError(msg, hint=_HINT)
    return GatewayName(domain=found.domain, kind=found.kind, name=found.name)


class PeerContext(ssl.SSLContext):
    """TLS 1.3 to a gateway of one of ``names`` below ``authorities``, and below nobody else."""

    names: tuple[GatewayName, ...] = ()
    authorities: tuple[x509.Certificate, ...] = ()

    @classmethod
    def of(
        cls, names: tuple[GatewayName, ...], *, authorities: Path, certificate: Path | None, key: Path | None
    ) -> PeerContext:
        """Return a context out of files, read now. Raises ``UsageError`` for files that are no use."""
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        context.names, context.authorities = names, _read_authorities(authorities)
        context.check_hostname = False  # a certificate of a peer has a URI and no other name
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(cafile=authorities)
        if certificate is not None:
            _show(context, certificate, key or certificate)
        return context


def _read_authorities(path: Path) -> tuple[x509.Certificate, ...]:
    try:
        with path.open("rb") as file:
            return tuple(x509.load_pem_x509_certificates(file.read(_MAX_PEM_BYTES)))
    except (OSError, ValueError) as exc:
        msg = f"relay: {path}: no certificates in pem"
        raise UsageError(msg, hint="'cloister custodian certificate issue --authorities' writes such a file") from exc


def _show(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    read_private(key, cap=_MAX_PEM_BYTES, holds="a private key", links=True)
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except OSError as exc:  # ssl.SSLError is one
        msg = f"relay: {certificate}: no certificate with the key {key}"
        raise UsageError(msg, hint="want both in pem, the key without a password") from exc


class _Socket(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the library's signature
        super().do_handshake(block)
        _demand_named(self)


class _Object(ssl.SSLObject):
    def do_handshake(self) -> None:
        super().do_handshake()
        _demand_named(self)


PeerContext.sslsocket_class = _Socket
PeerContext.sslobject_class = _Object


def _demand_named(connection: ssl.SSLSocket | ssl.SSLObject) -> None:
    """Prove that the chain, which the handshake verified, ends in whom we want. Raises ``GatewayRefused``."""
    context = connection.context
    shown = connection.getpeercert(True)  # noqa: FBT003 - by place: a name differs between the library's classes
    if not isinstance(context, PeerContext) or shown is None:
        raise GatewayRefused(1, "no certificate of a gateway")
    try:
        name = peer_of(x509.load_der_x509_certificate(shown), context.authorities).name
    except (CloisterError, ValueError) as exc:
        raise GatewayRefused(1, "not a certificate of a peer") from exc
    if not any(wanted.admits(name) for wanted in context.names):
        raise GatewayRefused(1, "a certificate of somebody else")
