"""Which hosts may bring what consumers ask, by the certificate of the connection (docs/spec/certificates.md section 6).

A relay shows a certificate of kind ``relay`` of this enclave's custodian. Whose authorities count comes with the
listener's own certificate, out of the custodian's signed answer to this instance: neither a file nor a setting of the
host's can add one. The end of a certificate is looked at for every request, for a connection may outlive it.

What consumers ask stays sealed to attested keys: this decides who gets as far as to bring it, and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509

from cloister.enclave.modes import Relays
from cloister.enclave.problems import plain
from cloister.errors import Malformed, Rejected
from cloister.lending.peer import Peer, issuer_among, verify_peer
from cloister.lending.peer_name import PeerKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from cloister.enclave.listener_identity import ListenerIdentity, Shown
    from cloister.enclave.metrics import Metrics
    from cloister.enclave.web.exchange import Answer, Head

__all__ = ["RelayRule"]

_KEPT = 64  # peers that are not proven anew for every request


class RelayRule:
    """The rule of one instance. Without an identity there is nobody to believe."""

    def __init__(
        self, mode: Relays, identity: ListenerIdentity | None, *, now: Callable[[], datetime], metrics: Metrics
    ) -> None:
        """Hold requests against ``mode``; ``now`` is the time by which leases are judged."""
        self._mode, self._identity, self._now, self._metrics = mode, identity, now, metrics
        self._by: Shown | None = None
        self._peers: dict[bytes, Peer] = {}

    def refusal(self, head: Head) -> Answer | None:
        """Return the answer to whoever must not bring a request, None for who may."""
        if self._mode is Relays.OFF:
            return None
        try:
            self._demand(head)
        except (Malformed, Rejected):
            self._metrics.add("cloister_exchanges_total", label="peer_refused")
            return plain(403)
        return None

    def _demand(self, head: Head) -> None:
        """Prove that the connection is a relay's, as far as the mode wants. Raises ``Rejected`` and ``Malformed``."""
        shown = None if self._identity is None else self._identity.current
        if not head.certificates:
            if self._mode is Relays.REQUIRE:
                raise Rejected.because("certificate_wanted", "relay", got="none")
            return
        peer = self._peer(head.certificates[0], shown)
        if peer is None:  # of an issuer of consumers', which the handshake took and ``introductions`` judges
            if self._mode is Relays.REQUIRE:
                raise Rejected.because("wrong_peer", "relay", got="another authority's")
            return
        if peer.ends_at <= self._now():
            raise Rejected.because("certificate_expired", "relay")
        if peer.name.kind is not PeerKind.RELAY:
            raise Rejected.because("wrong_peer", "relay", got=peer.name.kind.value)

    def _peer(self, certificate: bytes, shown: Shown | None) -> Peer | None:
        """Return whom a certificate names, None for one of no authority that counts now. Raises ``Rejected``."""
        if shown is not self._by:
            self._by, self._peers = shown, {}
        if shown is None:
            return None
        if certificate not in self._peers:
            parsed = _parsed(certificate)
            if issuer_among(parsed, shown.authorities) is None:
                return None
            if len(self._peers) >= _KEPT:
                self._peers.clear()
            self._peers[certificate] = verify_peer(parsed, shown.authorities, domain=shown.name.domain)
        return self._peers[certificate]


def _parsed(certificate: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(certificate)
    except (ValueError, x509.InvalidVersion) as exc:
        msg = "relay: certificate that cannot be read"
        raise Malformed(msg) from exc
