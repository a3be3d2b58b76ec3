"""Certificates for peers: the authority that issues them, to attested instances and to holders of tokens.

An instance asks with the key that evidence bound, and gets one only while nothing forbids it a lease; a holder of a
token gets one for what the token stands for. None lives longer than the settings let it, nothing is revoked but by
its end, and a key is certified once: to renew is to make another (docs/spec/certificates.md).

Authorities follow one another by themselves: halfway through its life one gets a successor, which is believed at
once, everywhere, and issues a quarter of a life later. Their keys rest in the database, wrapped by the vault.

Not done here: who may do what with a certificate (``peers``), sockets (``live_tls``).
"""

from __future__ import annotations

import hashlib
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cloister.crypto.sign import Statement
from cloister.custodian.certificates.issuing import Peer, fingerprint, issue, make_authority, verify_peer
from cloister.custodian.certificates.names import PeerKind, PeerName
from cloister.custodian.certificates.signing_request import verify_signing_request
from cloister.custodian.service.kept import Kept
from cloister.custodian.service.standing import instance_key, instance_row, loan_row, loan_state
from cloister.custodian.store.certificates import (
    AuthorityRow,
    CertificateRow,
    authorities,
    certified_name,
    ended_certificates,
    forget_certificates,
    insert_authority,
    insert_certificate,
    list_certificates,
    retire_authorities,
)
from cloister.custodian.store.loans import take_turn
from cloister.custodian.tls import load_authority
from cloister.custodian.tokens import SYSTEM
from cloister.errors import Rejected, Unavailable
from cloister.lending.events import EventKind
from cloister.lending.messages import CertificateRequest, InstanceCertificate
from cloister.lending.standing import stops
from cloister.wire import Json, dump_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from cloister.custodian.certificates.signing_request import CertifiedKey
    from cloister.custodian.service.context import Context, Transaction
    from cloister.custodian.tokens import Actor
    from cloister.lending.terms import InstanceId

__all__ = ["CertificateAuthority"]

_LABEL = b"cloister/custodian/authority"
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
        if _is_due(self._rows(), context.now()):
            context.transact(self._succeed)
        with context.reading() as connection:
            forgettable = ended_certificates(connection, context.now() - _KEEP_ENDED)
        if forgettable:
            context.transact(lambda work: forget_certificates(work.connection, work.now - _KEEP_ENDED), beside=True)
        self.refresh()

    def replace(self, transaction: Transaction, actor: Actor) -> Json:
        """Believe no authority any more, and make another that issues at once: a key of theirs may be known."""
        retired = retire_authorities(transaction.connection, transaction.now)
        transaction.record(EventKind.AUTHORITIES_RETIRED, actor, self.domain, size=retired)
        made = self._make(transaction, actor, issues_from=transaction.now)
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
            self._demand_issuer()

            def work(transaction: Transaction) -> x509.Certificate:
                _demand_standing(transaction, instance)
                return self._issue(transaction, instance, name, certified, life=life, server=request.server)

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
        self, actor: Actor, name: PeerName, csr: bytes, *, life: timedelta, ends_at: datetime | None, server: bool
    ) -> Json:
        """Return a certificate of this name; not beyond ``ends_at``, where the token that asks for it ends."""
        context = self._context
        try:
            certified = verify_signing_request(csr)
            self._demand_issuer()
            left = life if ends_at is None else min(life, ends_at - context.now())
            certificate = context.transact(
                lambda work: self._issue(work, actor, name, certified, life=left, server=server), beside=True
            )
        except Rejected as refusal:
            context.refuse(EventKind.CERTIFICATE_REFUSED, actor, name.label, refusal)
            raise
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

    def _demand_issuer(self) -> None:
        """Make the first authority where there is none."""
        if _issuer(self._rows(), self._context.now()) is None:
            self.keep()

    def _succeed(self, transaction: Transaction) -> None:
        """Make an authority if one is still due: another custodian may have been faster."""
        rows = _standing(authorities(transaction.connection), transaction.now)
        if not _is_due(rows, transaction.now):
            return
        quarter = timedelta(days=self._context.config.authority_life_days) / 4
        last = rows[-1].ends_at - timedelta(seconds=self._context.config.certificate_max_life_s) if rows else None
        begins = transaction.now if last is None else max(transaction.now, min(transaction.now + quarter, last))
        self._make(transaction, SYSTEM, issues_from=begins)

    def _make(self, transaction: Transaction, actor: Actor, *, issues_from: datetime) -> x509.Certificate:
        known = authorities(transaction.connection)
        number = known[-1].number + 1 if known else 1
        key = ec.generate_private_key(ec.SECP256R1())
        life = timedelta(days=self._context.config.authority_life_days)
        name = f"{number} {self._context.vault.signing_key.key_id}"
        made = make_authority(key, domain=self.domain, name=name, now=transaction.now, life=life)
        plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        row = AuthorityRow(
            number=number,
            certificate=made.public_bytes(Encoding.DER),
            wrapped=self._context.vault.wrap(plain, aad=_aad(number)),
            made_at=transaction.now,
            issues_from=issues_from,
            ends_at=made.not_valid_after_utc,
        )
        insert_authority(transaction.connection, row)
        transaction.record(
            EventKind.AUTHORITY_MADE, actor, self.domain,
            fingerprint=fingerprint(made), ends_at=int(row.ends_at.timestamp()),
        )  # fmt: skip
        return made

    def _issue(
        self,
        transaction: Transaction,
        actor: Actor | str,
        name: PeerName,
        certified: CertifiedKey,
        *,
        life: timedelta,
        server: bool,
    ) -> x509.Certificate:
        """Issue one, note it and log it. Raises ``Rejected`` (``key_certified``) for a key that has been certified."""
        if certified_name(transaction.connection, certified.spki_sha256) is not None:
            raise Rejected.because("key_certified", "certificate request", hint="make another key for each certificate")
        row = _issuer(_standing(authorities(transaction.connection), transaction.now), transaction.now)
        if row is None:
            msg = "certificates: no authority issues now"
            raise Unavailable(msg)
        key = load_authority(self._context.vault.unwrap(row.wrapped, aad=_aad(row.number)))
        authority = x509.load_der_x509_certificate(row.certificate)
        certificate = issue(authority, key, certified, name, now=transaction.now, life=life, server=server)
        ends_at, print_ = certificate.not_valid_after_utc, fingerprint(certificate)
        insert_certificate(
            transaction.connection,
            CertificateRow(
                fingerprint=print_,
                spki_sha256=certified.spki_sha256,
                name=name.label,
                authority=row.number,
                issued_at=transaction.now,
                ends_at=ends_at,
            ),
        )
        transaction.record(
            EventKind.CERTIFICATE_ISSUED, actor, name.label, fingerprint=print_, ends_at=int(ends_at.timestamp())
        )
        return certificate


def _aad(number: int) -> bytes:
    return _LABEL + b"/%d" % number


def _standing(rows: Iterable[AuthorityRow], now: datetime) -> tuple[AuthorityRow, ...]:
    """Return the authorities that are believed now."""
    return tuple(row for row in rows if row.retired_at is None and now < row.ends_at)


def _issuer(rows: tuple[AuthorityRow, ...], now: datetime) -> AuthorityRow | None:
    """Return the newest authority whose time to issue has come."""
    return next((row for row in reversed(rows) if row.issues_from <= now < row.ends_at), None)


def _is_due(rows: tuple[AuthorityRow, ...], now: datetime) -> bool:
    """Tell whether another authority is to be made: none issues, or the newest is halfway through its life."""
    if _issuer(rows, now) is None:
        return True
    return now >= rows[-1].made_at + (rows[-1].ends_at - rows[-1].made_at) / 2


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
