"""What a certificate must say where one is wanted: who is at the other end, beside what signs or opens the call.

A rule for each route, on one listener (decision 0047): a handshake cannot know what will be asked, and enclaves without
a certificate yet must come in by the same door. ``Wanted.INSTANCE``: the instance in the path. ``Wanted.HOLDER``: the
token's own. ``Wanted.HOST``: a relay's or a proxy's, and always. Everything else needs none: what is public,
attestation, which an enclave without a certificate asks for, and asking for a certificate itself.

A certificate takes nothing's place: leases are still signed by instance keys, and calls opened by tokens. What it adds
is that nobody else gets so far as to try. Its end is looked at for every call, for a connection may outlive it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.custodian.calls import Wanted
from cloister.custodian.tokens import Role
from cloister.errors import Rejected
from cloister.lending.events import EventKind
from cloister.lending.peer_name import HOSTS, PeerKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography import x509

    from cloister.custodian.calls import Route
    from cloister.custodian.config import Config
    from cloister.custodian.service import CustodianService
    from cloister.custodian.tokens import Actor
    from cloister.lending.peer import Peer

__all__ = ["demand_peer", "peer_mode"]

_SUBJECT = "peer certificate"


def demand_peer(
    service: CustodianService,
    route: Route,
    actor: Actor,
    parameters: Mapping[str, str],
    certificate: x509.Certificate | None,
) -> None:
    """Prove that whoever calls a route is whom the route, path and token are about, as the settings want it.

    Raises ``Rejected``: ``certificate_wanted``, ``certificate_expired``, ``wrong_peer``, which is logged.
    """
    mode = peer_mode(service.config, route)
    if mode == "off" or (actor.certified and route.wanted is Wanted.HOLDER):
        return  # a certificate of a site's own authority is what the caller was proven by
    if certificate is None:
        if mode == "require":
            hint = "an enclave asks for one by itself; else 'cloister custodian certificate issue'"
            raise Rejected.because("certificate_wanted", _SUBJECT, got="none", hint=hint)
        return
    try:
        peer = service.certificates.peer(certificate)
        if peer.ends_at <= service.context.now():
            raise Rejected.because("certificate_expired", _SUBJECT, hint="a fresh certificate, and a fresh connection")
        _demand_name(peer, route, actor, parameters)
    except Rejected as refusal:
        if refusal.code == "wrong_peer":
            who = "stranger" if actor.id == "custodian" else actor
            service.context.refuse(EventKind.ACCESS_DENIED, who, route.handler.__name__, refusal)
        raise


def peer_mode(config: Config, route: Route) -> str:
    """Return ``off``, ``accept`` or ``require``: what the settings want of a caller's certificate on a route."""
    match route.wanted:
        case Wanted.INSTANCE:
            return config.mtls
        case Wanted.HOLDER:
            return config.mtls_tokens
        case Wanted.HOST:
            return "require"
        case Wanted.NOTHING:
            return "off"


def _demand_name(peer: Peer, route: Route, actor: Actor, parameters: Mapping[str, str]) -> None:
    """Prove that the certificate is the path's instance's, a host's, or the token's own. Raises ``Rejected``."""
    if route.wanted is Wanted.HOST:
        if peer.name.kind not in HOSTS:
            raise Rejected.because("wrong_peer", _SUBJECT, got=peer.name.label, want="relay or proxy")
        return
    if route.wanted is Wanted.INSTANCE:
        wanted = (PeerKind.ENCLAVE, parameters["instance"])
    elif actor.role is Role.BORROWER:
        wanted = (PeerKind.BORROWER, str(actor.loan))
    else:
        wanted = (PeerKind.OPERATOR, f"{actor.role.value}/{actor.id}")
    if (peer.name.kind, peer.name.name) != wanted:
        raise Rejected.because("wrong_peer", _SUBJECT, got=peer.name.label, want=f"{wanted[0].value}/{wanted[1]}"[:96])
