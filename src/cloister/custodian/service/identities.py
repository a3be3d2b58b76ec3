"""Callers with an identity of a site's own issuer: proven, and what the rules make of them, as an ``Actor``.

Issuers are in the database, so that every custodian over it trusts the same; a number that grows with each change says
when to read them anew. Keys are by hand or fetched (``issuer_keys``). Whoever is proven is remembered until it ends.

Not done here: Cloister's own tokens (``access``), what a role may do (``routes``).
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from cloister.custodian.logs import LOG, Event
from cloister.custodian.service.introductions import keep_fetched
from cloister.custodian.service.issuers import GIVEN
from cloister.custodian.store.issuers import issuers_version, list_issuers
from cloister.custodian.tokens import Actor
from cloister.errors import CloisterError, Malformed, Reason, Rejected, Unavailable
from cloister.identity import Callers, Issuer, Issuers, Trusted
from cloister.identity.bearer import issuer_of
from cloister.identity.identity import Confirmation, verify_confirmation
from cloister.lending.terms import LoanId

if TYPE_CHECKING:
    from datetime import datetime

    from cloister.custodian.service.context import Context
    from cloister.custodian.service.issuer_keys import IssuerKeys
    from cloister.custodian.tokens import Shown
    from cloister.identity import Caller

__all__ = ["Identities"]


class Identities:
    """Proves callers by the issuers of one database. May be used by several threads at once."""

    def __init__(self, context: Context, keys: IssuerKeys) -> None:
        """Trust nobody until the first look at the database."""
        self._context = context
        self.keys = keys
        self._callers = Callers(Issuers(()))
        self._lock = threading.Lock()
        self._version = -1
        self._issuers: list[Issuer] = []

    def by_token(self, shown: Shown, certificates: tuple[bytes, ...]) -> tuple[Actor, bytes | None]:
        """Return who brings this JWT over a connection with these certificates, and the key it is bound to, if any.

        That the caller holds that key is still to be proven. Raises ``Rejected`` (``unauthenticated``, with the
        reasons behind it); ``Unavailable``.
        """
        now = self._context.now()
        self._look(now)
        try:
            caller = self._prove(shown.token.encode("ascii"), now)
            bound = caller.identity.confirmation or Confirmation()
            verify_confirmation(
                caller.identity,
                certificate_sha256=hashlib.sha256(certificates[0]).digest() if certificates else None,
                key_thumbprint=bound.key_thumbprint if shown.bound else None,
            )
            return _actor(caller, certified=bound.certificate_sha256 is not None), bound.key_thumbprint
        except (Rejected, Malformed) as exc:
            raise _refused(exc) from exc

    def by_certificates(self, certificates: tuple[bytes, ...]) -> Actor:
        """Return whom the certificates of the connection name. Raises as ``by_token``."""
        now = self._context.now()
        self._look(now)
        try:
            return _actor(self._callers.prove_certificate(certificates, now), certified=True)
        except (Rejected, Malformed) as exc:
            raise _refused(exc) from exc

    def client_authorities(self) -> str:
        """Return, as PEM, whose certificates may prove a caller: roots of trust domains and authorities of a site's."""
        self._look(self._context.now())
        roots = {root.pem: None for item in self._callers.issuers for root in item.keys.roots}
        return b"".join(roots).decode("ascii")

    def _prove(self, token: bytes, now: datetime) -> Caller:
        """Prove a token; where its key is not known, once more with the keys that the issuer has now."""
        try:
            return self._callers.prove(token, now)
        except Rejected as refusal:
            if refusal.code != "unknown_key":
                raise
            trusted = issuer_of(token, self._callers.issuers)
            if trusted.issuer.keys is not None:
                raise
            self.keys.refresh(trusted.issuer, now)
            keys = self.keys.of(trusted.issuer, now)
            if not keys.tokens.keys:
                msg = "keys of the token's issuer are not to be had"
                raise Unavailable(msg, retry_after_s=30, hint="see 'cloister custodian issuer list'") from refusal
            if keys is trusted.keys:
                raise
            self._trust(now)
            return self._callers.prove(token, now)

    def _look(self, now: datetime) -> None:
        """Read the issuers anew where anybody changed them."""
        with self._context.reading() as connection:
            version = issuers_version(connection)
            if version == self._version:
                return
            rows = list_issuers(connection)
        found = []
        for row in rows:
            try:
                found.append(Issuer.parse(row.document))
            except Malformed:
                LOG.write(Event.ISSUER_UNREADABLE, digest=row.id)
        with self._lock:
            if version <= self._version:
                return  # another thread has read what is newer: an issuer that was removed must not come back
            self._issuers, self._version = found, version
            self.keys.keep(found)
            self._trust_all(now)

    def _trust(self, now: datetime) -> None:
        with self._lock:
            self._trust_all(now)

    def _trust_all(self, now: datetime) -> None:
        self._callers.trust(
            Issuers(Trusted(issuer=_staffing(item), keys=self.keys.of(item, now)) for item in self._issuers)
        )

    def refresh(self) -> None:
        """Fetch keys that are due, and let go of those that are too old. What fails shows in the list of issuers."""
        now = self._context.now()
        self._look(now)
        for issuer in list(self._issuers):
            if self.keys.is_due(issuer, now):
                try:
                    self.keys.refresh(issuer, now)
                except CloisterError as exc:
                    LOG.write(Event.KEYS_NOT_FETCHED, error=type(exc).__name__)
        fetched = [item for item in self._callers.issuers if item.issuer.keys is None]
        if any(item.keys is not self.keys.of(item.issuer, now) for item in fetched):
            self._trust(now)
        keep_fetched(self._context, self.keys, self._issuers)


def _staffing(issuer: Issuer) -> Issuer:
    """Return the issuer as it counts here: with the rules that give a role, whoever else is a consumer somewhere."""
    return replace(issuer, rules=tuple(rule for rule in issuer.rules if rule.grants.role is not None))


def _actor(caller: Caller, *, certified: bool) -> Actor:
    """Return the actor: known to the log by a name made of issuer and subject, never by either."""
    granted, name = caller.grants, caller.identity.id
    role = GIVEN.get(granted.role or "")
    if role is None:
        raise Rejected.because("identity_not_mapped", "rules of the issuer", got=str(granted.role))
    loan = None if granted.loan is None else LoanId(granted.loan)
    return Actor(id=name, role=role, name=name, loan=loan, person=granted.person, certified=certified)


def _refused(exc: Rejected | Malformed) -> Rejected:
    """Return the one refusal of a stranger, with the reasons of this one behind it."""
    reasons = exc.reasons if isinstance(exc, Rejected) else ()
    first = Reason(code="unauthenticated", subject="caller")
    hint = exc.hint or "see 'Who is calling' in docs/reference/errors.md"
    return Rejected(f"caller: unauthenticated: {exc.message}", reasons=(first, *reasons), hint=hint)
