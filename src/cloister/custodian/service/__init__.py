"""The use cases of a custodian, one file each; here they stand together behind one object.

``access`` tokens, ``issuers``, ``issuer_keys`` and ``identities`` callers of a site's own issuers, ``models`` publish
and withdraw, ``loans`` and ``asks`` allowances, ``release`` challenge and key, ``endorsements`` where vendors' objects
come from, ``recall`` judge releases again, ``leases`` renew, close, status, ``rotation`` new keys for keys, ``blocks``
stop, ``sweep`` write off, ``start`` come up and recover, ``beginnings`` what a start says, ``sessions`` tokens of
minutes, ``proposals`` what two persons decide, ``permits`` to make shares, ``devices`` TPM identities,
``certificates`` certificates of peers, ``health``, ``figures`` and ``alarms`` how it stands, ``spending`` what loans
spent lately, ``logbook`` the audit log, ``context`` the transaction under all.

The order of steps and nothing else: deciding is done in ``lending``, verifying in ``attest``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cloister.custodian.checkpoint import marks_at
from cloister.custodian.proofs import Proofs
from cloister.custodian.service import leases, proposals, recall, release, rotation, sweep
from cloister.custodian.service.access import authenticate, unauthenticated
from cloister.custodian.service.alarms import Watch
from cloister.custodian.service.beginnings import note_start
from cloister.custodian.service.certificates import CertificateAuthority
from cloister.custodian.service.context import Context, OnceKey, Transaction
from cloister.custodian.service.endorsements import HomeBundle, home_endorsements
from cloister.custodian.service.identities import Identities
from cloister.custodian.service.issuer_keys import IssuerKeys, getter
from cloister.custodian.service.spending import Spending
from cloister.custodian.service.start import load_log, verify_start
from cloister.custodian.tokens import SYSTEM
from cloister.custodian.vaults.change import read_change
from cloister.errors import Rejected
from cloister.lending.events import EventKind
from cloister.telemetry.registry import Together

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from cloister.attest.endorse import Endorsements
    from cloister.attest.rats import Nonce
    from cloister.attest.verifier import Verifier
    from cloister.crypto.sign import VerifyKey
    from cloister.custodian.config import Config
    from cloister.custodian.presented import Presented
    from cloister.custodian.service.devices import DeviceAuthority
    from cloister.custodian.store import Store
    from cloister.custodian.tokens import Actor
    from cloister.custodian.vaults import Vault
    from cloister.lending.terms import InstanceId, LoanId
    from cloister.wire import Fields, Json

__all__ = ["Context", "CustodianService", "OnceKey", "Transaction"]


class CustodianService:
    """A running custodian without its HTTP face.

    ``home`` holds the checkpoint, ``vault_file`` is the digest of the file that the vault was opened from; ``url`` and
    ``ca_pem`` go into loan files; ``endorsements`` take the place of those that the settings name, for who brings its
    own. Raises what ``start.verify_start`` raises when the database is older than the checkpoint, and ``Unavailable``
    when the clock stands behind it.
    """

    def __init__(
        self,
        store: Store,
        vault: Vault,
        verifier: Verifier,
        *,
        config: Config,
        clock: Callable[[], datetime],
        rng: Callable[[int], bytes],
        home: Path,
        vault_file: str,
        ca_pem: str | None = "",
        device_authority: DeviceAuthority | None = None,
        endorsements: Endorsements | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        """Check the log, then note the start in it."""
        checkpoint_path = home / config.checkpoint
        with store.reading() as connection:
            log = load_log(connection)
        verify_start(log, marks_at(checkpoint_path, shared=store.shared), vault.signing_key.verify_key)
        self.context = Context(
            store=store,
            vault=vault,
            verifier=verifier,
            config=config,
            clock=clock,
            rng=rng,
            log=log,
            checkpoint_path=checkpoint_path,
        )
        self._bundle = HomeBundle(self.context, home / config.endorsement_bundle)
        self.watch = Watch(self.context, self._bundle, home)
        self.metrics = Together(self.context.metrics)
        """All that is shown: its own, and those of what is served beside it."""
        self.spending = Spending(self.context)
        self.context.endorsements = endorsements or home_endorsements(self._bundle, config, home)
        self.config = config
        self.proofs = Proofs(config, shared=store.shared, rng=os.urandom, address=lambda: self.url)
        self.home = home
        self.ca_pem = ca_pem
        self.url = config.public_url(config.port)
        self.openapi: Callable[[], bytes] = lambda: b"{}"
        """The API document, set by the HTTP face."""
        self.discreet = False
        """Whether a caller that is not proven is told no reason: which issuers count here would be one."""
        self.device_authority = device_authority
        self.identities = Identities(self.context, IssuerKeys(getter(config, home)))
        self._on_close = on_close
        self.certificates = CertificateAuthority(self.context)
        self.upkeep: list[Callable[[], object]] = [self.keep_certificates]
        """What is done every now and then to keep the server itself good."""
        self._leases = leases.Leases(self.context)
        self.vault_file = vault_file
        self.context.sequence()  # what a custodian that died has left waiting
        self.context.transact(
            lambda transaction: note_start(transaction, vault_file, lambda after: read_change(home, after, self.key))
        )

    @property
    def key(self) -> VerifyKey:
        """The key borrowers and consumers know this custodian by."""
        return self.context.vault.signing_key.verify_key

    @property
    def epoch(self) -> int:
        """The custodian's epoch."""
        return self.context.epoch

    def authenticate(self, presented: Presented, *, again: bool = False) -> Actor:
        """Return who sent a request. Raises as ``access.authenticate``; ``again``: who was proven for it before."""
        try:
            return authenticate(self.context, self.proofs, self.identities, presented, again=again)
        except Rejected as refusal:
            if self.discreet and refusal.code == "unauthenticated":  # whose word counts here is told to nobody
                raise unauthenticated() from refusal
            raise

    def run(self, work: Callable[[Transaction], Json], key: OnceKey | None = None) -> Json:
        """Run a use case in one transaction, at most once for each idempotency key."""
        return self.context.once(key, work)

    def challenge(self, actor: Actor, loan: LoanId) -> bytes:
        """Return a signed challenge for one attestation."""
        return release.challenge(self.context, actor, loan)

    def attest(self, actor: Actor, loan: LoanId, statement: bytes) -> bytes:
        """Return a signed grant for the enclave that ``statement`` proves."""
        return release.attest(self.context, actor, loan, statement, devices=self.device_authority)

    def recall(self, actor: Actor, body: Fields) -> Json:
        """Return which past releases would be refused by what is known now."""
        return recall.recall(self.context, self._bundle, actor, body)

    def lease(self, instance: InstanceId, statement: bytes) -> bytes:
        """Return a signed lease or a signed refusal."""
        return self._leases.lease(instance, statement)

    def renew(self, instance: InstanceId, statement: bytes, report: bytes | None) -> leases.Renewed:
        """Take a usage report and return what comes of it and of the lease request behind it."""
        return self._leases.renew(instance, statement, report)

    def close_instance(self, instance: InstanceId, statement: bytes) -> None:
        """Note that an instance has ended."""
        leases.close(self.context, instance, statement)

    def status(self, instance: InstanceId, nonce: Nonce) -> bytes:
        """Return the signed standing of an instance."""
        return leases.status(self.context, instance, nonce)

    def sweep(self) -> int:
        """Write off instances that can serve no more, and close proposals that nobody decided in time."""
        proposals.expire(self.context)
        return sweep.sweep(self.context)

    def rotate_due(self) -> bool:
        """Rotate keys where the schedule says so, and destroy those past their retention."""
        return rotation.rotate_due(self.context)

    def keep_certificates(self) -> None:
        """Let authorities follow one another, where certificates are wanted or were asked for."""
        if self._wants_certificates or self.certificates.certificates:
            self.certificates.keep()

    def client_authorities(self) -> str:
        """Return, as PEM, the authorities whose certificates callers may show; empty where none are looked at."""
        own = self.certificates.pem if self._wants_certificates else ""
        return own + self.identities.client_authorities()

    @property
    def _wants_certificates(self) -> bool:
        return {self.config.mtls, self.config.mtls_tokens} != {"off"}

    def close(self) -> None:
        """Note the stop, close the database, let go of the lock."""
        try:
            self.context.transact(
                lambda transaction: transaction.record(EventKind.CUSTODIAN_STOPPED, SYSTEM, "custodian")
            )
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the database and let go of the lock without a word, as the end of a process does."""
        self.context.store.close()
        if self._on_close is not None:
            self._on_close()
