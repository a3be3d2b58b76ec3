"""This instance's certificates, and the one by which it is known to the custodian (docs/spec/certificates.md).

A request is signed by the instance key, which evidence bound; the answer is signed by the custodian that the loan file
pins. The key for the connection to the custodian is made here, for each certificate anew, and stays in memory. It is
renewed halfway through its life, told by this machine's uninterrupted clock from when it came, so that no clocks are
compared.

Not done here: connections (``custodian_link``), when to look (``renew``), the listener's (``listener_identity``).
"""

from __future__ import annotations

import asyncio
import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cloister.crypto.sign import Statement
from cloister.enclave.logs import Event
from cloister.errors import CloisterError, Malformed, Rejected, Unavailable
from cloister.lending.messages import CertificateRequest, InstanceCertificate

if TYPE_CHECKING:
    from cloister.crypto.sign import SigningKey, VerifyKey
    from cloister.enclave.clock import Clock
    from cloister.enclave.custodian_link import Link
    from cloister.enclave.logs import EventLog
    from cloister.lending.terms import InstanceId

__all__ = ["PAUSE", "Certifier", "InstanceIdentity", "note_failure", "pem_of", "pem_of_key"]

PAUSE = timedelta(seconds=5)  # between two tries to renew, at least


class Certifier:
    """Has keys of one instance certified. ``wipe`` drops the instance key."""

    def __init__(self, link: Link, *, key: SigningKey, instance: InstanceId, custodian: VerifyKey) -> None:
        """Ask over ``link``, and believe ``custodian``."""
        self._link, self._key, self._custodian = link, key, custodian
        self.instance = instance
        self.authorities: tuple[bytes, ...] = ()
        """The authorities that the custodian believed when it answered last (DER)."""
        self._wiped = False

    async def certify(
        self, key: ec.EllipticCurvePrivateKey, *, within: timedelta, server: bool = False
    ) -> InstanceCertificate:
        """Return the custodian's certificate for a key of ours; with ``server`` one that a listener shows.

        Raises ``Rejected`` with the custodian's reasons or where the answer is not for us (``wrong_certificate``),
        ``Malformed``, ``Unavailable``.
        """
        if self._wiped:
            msg = "certificate: this instance has ended"
            raise Unavailable(msg)
        csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, SHA256())
        asked = CertificateRequest(instance=self.instance, csr=csr.public_bytes(Encoding.DER), server=server)
        payload = asked.dump()
        statement = Statement.sign(self._key, CertificateRequest.LABEL, payload).dump()
        answer = await self._link.certificate(self.instance, statement, within=within)
        issued = self._verified(answer, payload, key.public_key())
        self.authorities = issued.authorities
        return issued

    def _verified(self, answer: bytes, payload: bytes, key: ec.EllipticCurvePublicKey) -> InstanceCertificate:
        """Return the custodian's answer to exactly this request, for exactly this key."""
        signed = Statement.parse(answer, label=InstanceCertificate.LABEL).verify([self._custodian])
        issued = InstanceCertificate.parse(signed)
        if issued.instance != self.instance or issued.req_digest != hashlib.sha256(payload).digest():
            raise Rejected.because("wrong_certificate", "certificate", got="the answer to another request")
        try:
            is_ours = x509.load_der_x509_certificate(issued.certificate).public_key() == key
        except (ValueError, x509.InvalidVersion) as exc:
            msg = "certificate: not x.509"
            raise Malformed(msg) from exc
        if not is_ours:
            raise Rejected.because("wrong_certificate", "certificate", got="another key's")
        return issued

    def wipe(self) -> None:
        """Ask for no more. The instance key goes with its last reference."""
        self._wiped = True
        del self._key


class InstanceIdentity:
    """Gets certificates for one instance and hands them to its link."""

    def __init__(self, link: Link, certifier: Certifier, *, clock: Clock, log: EventLog, always: bool = False) -> None:
        """Hold none yet. ``always`` asks for one before anybody wants it."""
        self._link, self._certifier = link, certifier
        self._clock, self._log = clock, log
        self._lock = asyncio.Lock()
        self._next: timedelta | None = clock.monotonic() if always else None

    async def keep(self, *, within: timedelta) -> None:
        """Renew where it is time to.

        Raises as ``ask``; the certificate that is held stays, and the next try is some seconds away.
        """
        if self._next is None or self._clock.monotonic() < self._next:
            return
        await self.ask(within=within)

    async def ask(self, *, within: timedelta, instead_of: int | None = None) -> None:
        """Get a certificate now; not where another call has got one instead of number ``instead_of`` already.

        Raises as ``Certifier.certify``.
        """
        async with self._lock:
            now = self._clock.monotonic()
            if instead_of is not None and self._link.presented > instead_of:
                return
            try:
                life = await self._ask(within)
            except CloisterError as exc:
                note_failure(self._log, exc)
                if self._next is not None:
                    self._next = now + max(PAUSE, within)
                raise
            self._next = now + life / 2
            self._log.write(Event.CERTIFICATE_RENEWED, instance=self._certifier.instance, seconds=life.total_seconds())

    async def _ask(self, within: timedelta) -> timedelta:
        """Make a key, have it certified, use it; return how long the certificate is good."""
        key = ec.generate_private_key(ec.SECP256R1())
        issued = await self._certifier.certify(key, within=within)
        await self._link.present(pem_of(issued.certificate) + pem_of_key(key))
        return issued.life


def note_failure(log: EventLog, error: CloisterError) -> None:
    """Write down that there is no certificate, and why."""
    log.write(Event.CERTIFICATE_FAILED, code=error.logged)


def pem_of(der: bytes) -> bytes:
    """Return a certificate as PEM."""
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def pem_of_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PEM; it stays in memory."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
