"""The certificate of this instance's listener, for hosts that know the custodian's authorities and no evidence.

    the attested TLS key -> asked for by the instance key -> certificate, authorities -> shown, believed -> the next one

It is for the very key that consumers pin from the attested keyset (docs/spec/certificates.md section 6), so a pin holds
whichever certificate is shown. It is renewed halfway through its life; when it has ended without another, nobody is
shown it and nobody is believed: the custodian's authorities count no longer than its last word does.

Not done here: TLS itself (``listener_tls``), what is asked of those who come (``relays``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from cloister.enclave.certificate import PAUSE, note_failure
from cloister.enclave.logs import Event
from cloister.errors import CloisterError, Malformed, Rejected
from cloister.lending.peer import peer_of
from cloister.lending.peer_name import PeerKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from cryptography.hazmat.primitives.asymmetric import ec

    from cloister.enclave.certificate import Certifier
    from cloister.enclave.clock import Clock
    from cloister.enclave.logs import EventLog
    from cloister.lending.messages import InstanceCertificate
    from cloister.lending.peer_name import PeerName

__all__ = ["ListenerIdentity", "Shown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One certificate (DER), whom its custodian believes, and until when, by this machine's uninterrupted clock."""

    name: PeerName
    certificate: bytes
    authorities: tuple[x509.Certificate, ...]
    roots: tuple[bytes, ...]
    until: timedelta


class ListenerIdentity:
    """Gets certificates for one key. ``show`` is told of each, and None when the last one has ended."""

    def __init__(
        self,
        certifier: Certifier,
        key: ec.EllipticCurvePrivateKey,
        *,
        clock: Clock,
        log: EventLog,
        show: Callable[[Shown | None], None],
    ) -> None:
        """Hold none yet; the first is due now."""
        self._certifier, self._key = certifier, key
        self._clock, self._log, self._show = clock, log, show
        self._held: Shown | None = None
        self._next = self._not_before = clock.monotonic()

    @property
    def current(self) -> Shown | None:
        """What counts now, None where there is none or it has ended."""
        held = self._held
        return held if held is not None and self._clock.monotonic() < held.until else None

    def drop_ended(self) -> None:
        """Show a certificate that has ended to nobody; call it every second or so."""
        if self._held is not None and self.current is None:
            self._held = None
            self._show(None)
            self._log.write(Event.LISTENER_UNCERTIFIED)

    async def keep(self, *, within: timedelta) -> None:
        """Get the first one or the next, where it is time to or the custodian believes others by now.

        Raises nothing: what goes wrong is written down and tried again some seconds later.
        """
        now, held = self._clock.monotonic(), self._held
        outdated = held is not None and self._certifier.authorities != held.roots
        if now < self._not_before or (now < self._next and not outdated):
            return
        try:
            issued = await self._certifier.certify(self._key, within=within, server=True)
            found = self._read(issued, now + issued.life)
            self._present(found)
        except CloisterError as exc:
            self._not_before = now + PAUSE
            note_failure(self._log, exc)
            return
        self._next = now + issued.life / 2
        self._not_before = now + PAUSE
        self._log.write(
            Event.LISTENER_CERTIFIED, instance=self._certifier.instance, seconds=issued.life.total_seconds()
        )

    def _present(self, found: Shown) -> None:
        """Show it, and believe whom it came with. Raises ``Malformed`` where the library refuses; then all stays."""
        try:
            self._show(found)
        except OSError as exc:  # ssl.SSLError is one
            msg = "certificate: none that a listener can show"
            raise Malformed(msg) from exc
        self._held = found

    def _read(self, issued: InstanceCertificate, until: timedelta) -> Shown:
        """Return what a listener can show: this instance's, for a server, below an authority that came with it.

        Raises ``Malformed`` and ``Rejected`` (``wrong_certificate``, ``wrong_peer``).
        """
        try:
            leaf = x509.load_der_x509_certificate(issued.certificate)
            authorities = tuple(map(x509.load_der_x509_certificate, issued.authorities))
        except (ValueError, x509.InvalidVersion) as exc:
            msg = "certificate: not x.509"
            raise Malformed(msg) from exc
        name = peer_of(leaf, authorities).name
        if (name.kind, name.name) != (PeerKind.ENCLAVE, self._certifier.instance):
            raise Rejected.because("wrong_certificate", "certificate", got=name.label[:96], want="this instance's")
        if ExtendedKeyUsageOID.SERVER_AUTH not in leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value:
            raise Rejected.because("wrong_certificate", "certificate", got="a client's", want="a server's")
        return Shown(
            name=name, certificate=issued.certificate, authorities=authorities, roots=issued.authorities, until=until
        )
