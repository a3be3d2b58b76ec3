"""Hosts that renew their certificates by themselves: with the one they have, by the word of a token of staff.

Whoever had the first one issued vouched for the host, and said so; each renewal carries that on. Where the token is
revoked, has ended or is of another role by now nothing is renewed, and the host is out within its certificate's life
(docs/spec/certificates.md section 3). The key is another each time.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from cloister.custodian.certificates.signing_request import verify_signing_request
from cloister.custodian.service.certificates import demand_new
from cloister.custodian.store.certificates import certificate_by_fingerprint
from cloister.custodian.store.tokens import find_token_by_id
from cloister.custodian.tokens import Role
from cloister.errors import Rejected
from cloister.lending.events import EventKind

if TYPE_CHECKING:
    from cloister.custodian.service.certificates import CertificateAuthority
    from cloister.custodian.service.context import Context, Transaction
    from cloister.custodian.store.certificates import CertificateRow
    from cloister.custodian.tokens import TokenId
    from cloister.wire import Json

__all__ = ["MANAGERS", "renew_host"]

MANAGERS = frozenset({Role.ADMIN, Role.LENDER})
"""Who vouches for hosts."""


def renew_host(context: Context, issuing: CertificateAuthority, shown: x509.Certificate, csr: bytes) -> Json:
    """Return the next certificate of the host whose certificate was shown, for the key of a request.

    Does not look at the end of the one that was shown (``peers`` does). Raises ``Rejected``: ``forbidden`` where nobody
    vouches for it, ``key_certified``, ``wrong_peer``, and what is wrong with the key.
    """
    peer = issuing.peer(shown)
    uses = shown.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    try:
        certified = verify_signing_request(csr)
        issuing.demand_issuer()

        def work(transaction: Transaction) -> x509.Certificate:
            held, token, left = _vouched(transaction, peer.fingerprint)
            demand_new(transaction, certified)
            longest = timedelta(seconds=context.config.certificate_max_life_s)  # as it is now: it may be less by now
            life = min(held.ends_at - held.issued_at, longest)
            return issuing.issue(
                transaction, peer.name.label, peer.name, certified,
                life=life if left is None else min(life, left), server=ExtendedKeyUsageOID.SERVER_AUTH in uses,
                vouched_by=token,
            )  # fmt: skip

        certificate = context.transact(work, beside=True)
    except Rejected as refusal:
        context.refuse(EventKind.CERTIFICATE_REFUSED, peer.name.label, peer.name.label, refusal)
        raise
    return issuing.shown(certificate, peer.name)


def _vouched(transaction: Transaction, fingerprint: str) -> tuple[CertificateRow, TokenId, timedelta | None]:
    """Return a certificate that is known, who vouches for its holder, and for how long yet; None for no end.

    Raises ``Rejected`` (``forbidden``).
    """
    held = certificate_by_fingerprint(transaction.connection, fingerprint)
    by = None if held is None else held.vouched_by
    token = None if by is None else find_token_by_id(transaction.connection, by)
    if held is None or token is None or not token.is_good(transaction.now) or token.role not in MANAGERS:
        hint = "nobody vouches for it any more, or ever did: 'cloister custodian certificate issue --renewable'"
        raise Rejected.because("forbidden", "renewal of a certificate", want="a token of staff behind it", hint=hint)
    return held, token.id, None if token.expires_at is None else token.expires_at - transaction.now
