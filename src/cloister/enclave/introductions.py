"""Consumers by another's word: tokens and certificates of the issuers that the custodian names, proven in here.

A lease says which version of them counts. Until this enclave has that very version it believes nobody's word: an issuer
that was taken out, because its keys were stolen, must not live on in an enclave whose host holds the news back. The
loan's own tokens are not touched by that. What was proven is remembered until it ends (``identity.Callers``), so that a
second request costs a look-up.

Not done here: what a consumer may do (``lending``), whether the certificate's key was shown (the TLS handshake).
"""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

from cloister.enclave.asker import Asker
from cloister.enclave.logs import Event
from cloister.errors import CloisterError, Malformed, Reason, Rejected, Unavailable
from cloister.identity import Callers, Issuers
from cloister.identity.identity import verify_confirmation
from cloister.identity.lent import parse_lent
from cloister.lending.introduction import open_issuers
from cloister.lending.terms import ConsumerId

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime, timedelta

    from cloister.crypto.sign import VerifyKey
    from cloister.enclave.custodian_link import Link
    from cloister.enclave.logs import EventLog
    from cloister.enclave.metering import Metering
    from cloister.identity import Caller

__all__ = ["Introductions", "is_introduced"]

_NONCE_BYTES = 16
_SCOPE = b"identity\x00"  # before an id: no token begins so
_DOTS = 2  # of a compact JWS; tokens of ours have none


def is_introduced(token: bytes) -> bool:
    """Tell whether a token is another's word, and not one of the loan's own."""
    return token.count(b".") == _DOTS


class Introductions:
    """Whose word counts in one instance, and who was proven by it. For one event loop."""

    def __init__(self, metering: Metering, link: Link, *, custodian: VerifyKey, log: EventLog) -> None:
        """Believe nobody yet."""
        self._metering = metering
        self._link = link
        self._custodian = custodian
        self._log = log
        self._callers = Callers(Issuers(()))
        self._version = 0
        self._listeners: list[Callable[[bytes], None]] = []

    def show_roots_to(self, believe: Callable[[bytes], None]) -> None:
        """Let a listener take certificates below the roots that count, now and from now on (DER, one after the other).

        A connection from before is judged here, request by request.
        """
        self._listeners.append(believe)
        self._show_roots()

    def _show_roots(self) -> None:
        roots = b"".join(root.der for item in self._callers.issuers for root in item.keys.roots)
        for believe in self._listeners:
            believe(roots)

    @property
    def is_due(self) -> bool:
        """Tell whether the lease names a version that is not here."""
        return self._metering.issuers != self._version

    async def refresh(self, *, within: timedelta) -> None:
        """Get what the lease names, where that is not here.

        Raises ``Unavailable``, ``Malformed`` and ``Rejected``; then nobody's word counts, and it is asked for again.
        """
        wanted = self._metering.issuers
        if wanted in (0, self._version):
            return
        asked = self._metering.issuers_request(secrets.token_bytes(_NONCE_BYTES))
        statement = await self._link.issuers(self._metering.instance, asked.statement, within=within)
        version, lent = open_issuers(statement, asked, custodian=self._custodian)
        if version < wanted:
            raise Rejected.because("issuers_stale", "issuers", got=str(version), want=str(wanted))
        self._callers.trust(parse_lent(lent))
        self._version = version
        self._show_roots()
        self._log.write(Event.ISSUERS_TAKEN, seq=version, count=len(tuple(self._callers.issuers)))

    def note(self, error: CloisterError) -> None:
        """Write down why there is nothing new."""
        code = error.logged
        self._log.write(Event.ISSUERS_FAILED, code=code)

    def by_token(self, token: bytes, certificate: Sequence[bytes] = ()) -> Asker:
        """Return the consumer that an issuer says the token's bearer is.

        ``certificate`` is what the caller proved in its TLS handshake, first its own (DER). Raises ``Rejected``
        (``unauthorized`` with every reason behind it) and ``Unavailable`` while the issuers are not here.
        """
        return self._asker(lambda now: self._current().prove(token, now), certificate)

    def by_certificate(self, certificate: Sequence[bytes]) -> Asker:
        """Return the consumer that an authority says the holder of a client certificate is. Raises as ``by_token``."""
        return self._asker(lambda now: self._current().prove_certificate(certificate, now), certificate)

    def _current(self) -> Callers:
        if self.is_due:
            if self._metering.issuers:
                msg = "issuers: not here yet in the version that the lease names"
                raise Unavailable(msg, retry_after_s=1)
            return Callers(Issuers(()))  # the custodian takes nobody's word
        return self._callers

    def _asker(self, prove: Callable[[datetime], Caller], certificate: Sequence[bytes]) -> Asker:
        try:
            found = prove(self._metering.now())
            shown = hashlib.sha256(certificate[0]).digest() if certificate else None
            verify_confirmation(found.identity, certificate_sha256=shown)
            if found.grants.consumer is None:
                raise Rejected.because("identity_not_mapped", "rules of the issuer", want="a consumer of this loan")
            name = ConsumerId(found.grants.consumer)
            caller = self._metering.named(name)
        except (Malformed, Rejected) as exc:
            raise _unauthorized(exc) from exc
        return Asker(who=name, caller=caller, scope=_SCOPE + found.identity.id.encode("ascii"))


def _unauthorized(error: Malformed | Rejected) -> Rejected:
    """Return the refusal as a consumer gets it: no token, no claim and no key in it."""
    behind = error.reasons if isinstance(error, Rejected) else (Reason(code="malformed", subject="token"),)
    told = tuple(Reason(code=reason.code, subject=reason.subject, want=reason.want) for reason in behind)
    first = Reason(code="unauthorized", subject="consumer")
    return Rejected(
        "; ".join(str(reason) for reason in (first, *told)),
        reasons=(first, *told),
        hint="bring a token of an issuer that this loan knows",
    )
