"""Certificates for peers: the authority that issues them, to attested instances and to holders of tokens.

An instance asks with the key that evidence bound, and gets one only while nothing forbids it a lease; a holder of a
token gets one for what the token stands for. None lives longer than the settings let it, nothing is revoked but by
its end, and a key is certified once: to renew is to make another (docs/spec/certificates.md). The key of an instance's
listener alone stays, for consumers pin it: it has one certificate at a time, and the next from half its life on.

Not done here: authorities (``authorities``), who may do what with a certificate (``peers``), sockets
(``live_tls``), renewals of hosts (``host_certificates``).
"""

from __future__ import annotations

import hashlib
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cloister.crypto.sign import Statement
from cloister.custodian.certificates.issuing import issue
from cloister.custodian.certificates.signing_request import verify_signing_request
from cloister.custodian.service.authorities import authority_key, is_due, issuer_of, make, standing, succeed
from cloister.custodian.service.kept import Kept
from cloister.custodian.service.standing import instance_key, instance_row, loan_row, loan_state
from cloister.custodian.store.certificates import (
    AuthorityRow,
    CertificateRow,
    authorities,
    certificate_of_key,
    ended_certificates,
    forget_certificates,
    list_certificates,
    retire_authorities,
    write_certificate,
)
from cloister.custodian.store.loans import take_turn
from cloister.errors import Rejected, Unavailable
from cloister.lending.events import EventKind
from cloister.lending.messages import CertificateRequest, InstanceCertificate
from cloister.lending.peer import Peer, fingerprint, verify_peer
from cloister.lending.peer_name import PeerKind, PeerName
from cloister.lending.standing import stops
from cloister.wire import Json, dump_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from cloister.custodian.certificates.signing_request import CertifiedKey
    from cloister.custodian.service.context import Context, Transaction
    from cloister.custodian.tokens import Actor, TokenId
    from cloister.lending.terms import InstanceId

__all__ = ["CertificateAuthority", "demand_new"]

_KEEP_ENDED = timedelta(days=7)  # how long a key is known to have been certified, after its certificate's end
_KEPT_PEERS = 4096


class CertificateAuthority:
    """Issues certificates, and knows whom they name."""

    def __init__(self, context: Context) -> None:
        """Issue in ``context``; no authority is made before one is needed."""
        self._context = context
        own = f"{context.vault.signing_key.key_id}.cloister.internal"
        self.domain = context.config.trust_domain or own
        self._believed: tuple[tuple[AuthorityRow, x509.Certificate], ...] = ()
        self._peers: Kept[bytes, Peer] = Kept(_KEPT_PEERS)
        self._lock = threading.Lock()
        self.watching: list[Callable[[], object]] = []
        """Who is told when other authorities are believed: listeners."""
        self.refresh()

    def refresh(self) -> None:
        """Take in the authorities that there are, other custodians' over the same database among them."""
        with self._lock:
            with self._context.reading() as connection:
                rows = authorities(connection)
            now = self._context.now()
            known = {row.number: certificate for row, certificate in self._believed}
            believed = tuple(
                (row, known.get(row.number) or x509.load_der_x509_certificate(row.certificate))
                for row in rows
                if row.retired_at is None and now < row.ends_at
            )
            changed = [row.number for row, _ in believed] != [row.number for row, _ in self._believed]
            self._believed = believed
            if changed:  # and only then: whom a retired one named is proven anew, and is not
                self._peers = Kept(_KEPT_PEERS)
        if changed:
            for look in self.watching:
                look()

    @property
    def certificates(self) -> tuple[x509.Certificate, ...]:
        """The authorities that are believed."""
        return tuple(certificate for _, certificate in self._believed)

    @property
    def pem(self) -> str:
        """The same, for a TLS listener; empty where there is none yet."""
        return "".join(item.public_bytes(Encoding.PEM).decode("ascii") for item in self.certificates)

    def peer(self, certificate: x509.Certificate) -> Peer:
        """Return whom a certificate of ours names and until when. Raises ``Rejected`` (``wrong_peer``)."""
        der = certificate.public_bytes(Encoding.DER)
        peers = self._peers
        found = peers.get(der)
        if found is None:
            found = verify_peer(certificate, self.certificates, domain=self.domain)
            peers.keep(der, found)
        return found

    def keep(self) -> None:
        """Make the authority that is due, and forget certificates that ended long ago."""
        context = self._context
        if is_due(self._rows(), context.now()):
            context.transact(lambda work: succeed(work, self.domain))
        with context.reading() as connection:
            forgettable = ended_certificates(connection, context.now() - _KEEP_ENDED)
        if forgettable:
            context.transact(lambda work: forget_certificates(work.connection, work.now - _KEEP_ENDED), beside=True)
        self.refresh()

    def replace(self, transaction: Transaction, actor: Actor) -> Json:
        """Believe no authority any more, and make another that issues at once: a key of theirs may be known."""
        retired = retire_authorities(transaction.connection, transaction.now)
        transaction.record(EventKind.AUTHORITIES_RETIRED, actor, self.domain, size=retired)
        made = make(transaction, actor, self.domain, issues_from=transaction.now)
        return {"fingerprint": fingerprint(made), "retired": retired, "trust_domain": self.domain}

    def for_instance(self, instance: InstanceId, statement: bytes) -> bytes:
        """Return a signed certificate for a key of an attested instance.

        Raises ``Malformed``, ``Rejected`` (not signed by this instance; whatever would stop its lease;
        ``key_certified``; what is wrong with the key) and ``Unavailable``.
        """
        context = self._context
        payload = Statement.parse(statement, label=CertificateRequest.LABEL).verify([instance_key(context, instance)])
        request = CertificateRequest.parse(payload)
        name = PeerName.of(self.domain, PeerKind.ENCLAVE, instance)
        life = timedelta(seconds=context.config.certificate_life_s)
        try:
            if request.instance != instance:
                raise Rejected.because("wrong_instance", "certificate request", got=request.instance, want=instance)
            certified = verify_signing_request(request.csr)
            self.demand_issuer()

            def work(transaction: Transaction) -> x509.Certificate:
                _demand_standing(transaction, instance)
                if request.server:
                    return self._for_listener(transaction, instance, name, certified, life=life)
                demand_new(transaction, certified)
                return self.issue(transaction, instance, name, certified, life=life)

            certificate = context.transact(work, beside=True)
        except Rejected as refusal:
            if refusal.code != "key_certified":  # anybody who has a request can send it again, and change nothing
                context.refuse(EventKind.CERTIFICATE_REFUSED, instance, name.label, refusal)
            raise
        answer = InstanceCertificate(
            instance=instance,
            req_digest=hashlib.sha256(payload).digest(),
            certificate=certificate.public_bytes(Encoding.DER),
            authorities=tuple(item.public_bytes(Encoding.DER) for item in self.certificates),
            life=certificate.not_valid_after_utc - context.now(),
        )
        return Statement.sign(context.vault.signing_key, answer.LABEL, answer.dump()).dump()

    def for_actor(
        self,
        actor: Actor,
        name: PeerName,
        csr: bytes,
        *,
        life: timedelta,
        ends_at: datetime | None,
        server: bool,
        vouched_by: TokenId | None = None,
    ) -> Json:
        """Return a certificate of this name; not beyond ``ends_at``, where the token that asks for it ends.

        Its holder renews it (``host_certificates``) by the word of ``vouched_by``, where there is one.
        """
        context = self._context
        try:
            certified = verify_signing_request(csr)
            self.demand_issuer()
            left = life if ends_at is None else min(life, ends_at - context.now())

            def work(transaction: Transaction) -> x509.Certificate:
                demand_new(transaction, certified)
                return self.issue(transaction, actor, name, certified, life=left, server=server, vouched_by=vouched_by)

            certificate = context.transact(work, beside=True)
        except Rejected as refusal:
            context.refuse(EventKind.CERTIFICATE_REFUSED, actor, name.label, refusal)
            raise
        return self.shown(certificate, name)

    def shown(self, certificate: x509.Certificate, name: PeerName) -> Json:
        """Return a fresh certificate as who asked for it gets it, with whom to believe."""
        return {
            "authorities": self.pem,
            "certificate": certificate.public_bytes(Encoding.PEM).decode("ascii"),
            "ends_at": dump_time(certificate.not_valid_after_utc),
            "fingerprint": fingerprint(certificate),
            "name": name.uri,
        }

    def listed(self) -> Json:
        """Return the certificates that have not ended, and the authorities."""
        context = self._context
        now = context.now()
        with context.reading() as connection:
            rows = list_certificates(connection, now)
        shown: list[Json] = [
            {
                "authority": row.authority,
                "ends_at": dump_time(row.ends_at),
                "fingerprint": row.fingerprint,
                "issued_at": dump_time(row.issued_at),
                "name": row.name,
            }
            for row in rows
        ]
        return {"authorities": self._authorities(), "certificates": shown, "trust_domain": self.domain}

    def bundle(self) -> Json:
        """Return what a peer believes: the trust domain and its authorities."""
        return {"authorities": self._authorities(), "trust_domain": self.domain}

    def _authorities(self) -> list[Json]:
        return [
            {
                "certificate": certificate.public_bytes(Encoding.PEM).decode("ascii"),
                "ends_at": dump_time(row.ends_at),
                "fingerprint": fingerprint(certificate),
                "issues_from": dump_time(row.issues_from),
                "number": row.number,
            }
            for row, certificate in self._believed
        ]

    def _rows(self) -> tuple[AuthorityRow, ...]:
        return tuple(row for row, _ in self._believed)

    def demand_issuer(self) -> None:
        """Make the first authority where there is none."""
        if issuer_of(self._rows(), self._context.now()) is None:
            self.keep()

    def _for_listener(
        self,
        transaction: Transaction,
        instance: InstanceId,
        name: PeerName,
        certified: CertifiedKey,
        *,
        life: timedelta,
    ) -> x509.Certificate:
        """Return the certificate that the key of an instance's listener has, and the next one in its last half.

        A request that is replayed gets what anybody who connects is shown. Raises ``Rejected`` (``key_certified``) for
        a key that was certified for anything else.
        """
        held = certificate_of_key(transaction.connection, certified.spki_sha256)
        if held is not None:
            if held.der is None or held.name != name.label:
                raise _certified_before()
            believed = {row.number for row in standing(authorities(transaction.connection), transaction.now)}
            half = held.issued_at + (held.ends_at - held.issued_at) / 2
            if held.authority in believed and transaction.now < half:
                return x509.load_der_x509_certificate(held.der)
        return self.issue(transaction, instance, name, certified, life=life, server=True, keeps=True)

    def issue(
        self,
        transaction: Transaction,
        actor: Actor | str,
        name: PeerName,
        certified: CertifiedKey,
        *,
        life: timedelta,
        server: bool = False,
        keeps: bool = False,
        vouched_by: TokenId | None = None,
    ) -> x509.Certificate:
        """Issue one, note it and log it; with ``keeps`` the certificate itself is noted too."""
        row = issuer_of(standing(authorities(transaction.connection), transaction.now), transaction.now)
        if row is None:
            msg = "certificates: no authority issues now"
            raise Unavailable(msg)
        key = authority_key(transaction, row)
        authority = x509.load_der_x509_certificate(row.certificate)
        certificate = issue(authority, key, certified, name, now=transaction.now, life=life, server=server)
        ends_at, print_ = certificate.not_valid_after_utc, fingerprint(certificate)
        write_certificate(
            transaction.connection,
            CertificateRow(
                fingerprint=print_,
                spki_sha256=certified.spki_sha256,
                name=name.label,
                authority=row.number,
                issued_at=transaction.now,
                ends_at=ends_at,
                der=certificate.public_bytes(Encoding.DER) if keeps else None,
                vouched_by=vouched_by,
            ),
        )
        transaction.record(
            EventKind.CERTIFICATE_ISSUED, actor, name.label, fingerprint=print_, ends_at=int(ends_at.timestamp())
        )
        return certificate


def demand_new(transaction: Transaction, certified: CertifiedKey) -> None:
    """Prove that a key has not been certified yet. Raises ``Rejected`` (``key_certified``)."""
    if certificate_of_key(transaction.connection, certified.spki_sha256) is not None:
        raise _certified_before()


def _certified_before() -> Rejected:
    return Rejected.because("key_certified", "certificate request", hint="make another key for each certificate")


def _demand_standing(transaction: Transaction, instance: InstanceId) -> None:
    """Prove that nothing would stop this instance's lease now. Raises ``Rejected`` with every reason."""
    connection, config = transaction.connection, transaction.context.config
    row = instance_row(connection, instance)
    take_turn(connection, row.state.loan)
    state = instance_row(connection, instance).state
    loan = loan_state(connection, loan_row(connection, state.loan), config)
    epoch = transaction.epoch.epoch
    reasons, _ = stops(state, loan, told_epoch=epoch, epoch=epoch, now=transaction.now)
    if reasons:
        raise Rejected("; ".join(map(str, reasons)), reasons=reasons)
