"""Routes of certificates: who may ask for which name, a request in, a certificate out."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.custodian.calls import Call, Member, Reply, json_reply, statement_reply
from cloister.custodian.certificates.signing_request import MAX_REQUEST_BYTES
from cloister.custodian.service.host_certificates import MANAGERS, renew_host
from cloister.custodian.service.leases import parse_instance_id
from cloister.custodian.service.standing import loan_row, parse_loan_id
from cloister.custodian.store.tokens import TokenRow, find_token_by_id
from cloister.custodian.tokens import Role
from cloister.errors import Rejected
from cloister.lending.peer_name import HOSTS, PeerKind, PeerName

if TYPE_CHECKING:
    from cloister.wire import Fields

__all__ = [
    "HOST_MEMBERS",
    "ISSUE_MEMBERS",
    "RENEWAL_MEMBERS",
    "authorities",
    "certify_instance",
    "issue",
    "list_certificates",
    "renew_certificate",
    "replace_authorities",
]

ISSUE_MEMBERS = (
    Member(name="csr", type="string", doc="PKCS #10 request (DER), base64url: a key and no wishes"),
    Member(name="kind", type="string", doc="`borrower`, `operator`, `relay` or `proxy`"),
    Member(name="name", type="string", doc="of a relay or proxy; for staff: the loan of a borrower", required=False),
    Member(name="server", type="boolean", doc="also for listeners; relays and proxies only", required=False),
    Member(name="life_s", type="integer", doc="seconds it lives; `certificate_max_life_s` at most and by default",
           required=False),
)  # fmt: skip
HOST_MEMBERS = (
    *ISSUE_MEMBERS,
    Member(name="renewable", type="boolean", required=False,
           doc="its holder renews it by itself while the token that asks here is good; relays and proxies only"),
)  # fmt: skip
RENEWAL_MEMBERS = ISSUE_MEMBERS[:1]


def certify_instance(call: Call) -> Reply:
    """Certify a key of an attested instance; the answer is a certificate, signed."""
    instance = parse_instance_id(call.parameters["instance"])
    return statement_reply(call.service.certificates.for_instance(instance, call.body))


def issue(call: Call) -> Reply:
    """Certify a key for what the token stands for, or for a host in the custodian's service."""
    body, cap = call.fields(), call.service.config.certificate_max_life_s
    csr = body.b64u("csr", cap=MAX_REQUEST_BYTES)
    kind = body.text("kind", cap=16)
    asked = body.optional("name", lambda member: body.text(member, cap=128, floor=1))
    server = body.optional("server", body.boolean) or False
    life = body.optional("life_s", lambda member: body.seconds(member, floor=60, cap=cap))
    renewable = body.optional("renewable", body.boolean) or False
    body.end()
    if kind not in {item.value for item in PeerKind}:
        body.fail("kind", "want borrower, operator, relay or proxy")
    name, token = _name(call, body, PeerKind(kind), asked)
    if (server or renewable) and name.kind not in HOSTS:
        what = "listener's" if server else "renewable"
        raise Rejected.because("forbidden", f"a {what} certificate for a {kind}", want="relay or proxy")
    if renewable and token is None:
        raise Rejected.because("forbidden", "a renewable certificate", want="a token of the custodian's own behind it")
    ends_at = None if token is None else token.expires_at
    made = call.service.certificates.for_actor(
        call.actor, name, csr, life=life or timedelta(seconds=cap), ends_at=ends_at, server=server,
        vouched_by=token.id if token is not None and renewable else None,
    )  # fmt: skip
    return json_reply(made, status=201)


def renew_certificate(call: Call) -> Reply:
    """Certify the next key of the relay or proxy whose certificate the connection shows."""
    body = call.fields()
    csr = body.b64u("csr", cap=MAX_REQUEST_BYTES)
    body.end()
    if call.certificate is None:  # the route wants one, always
        raise Rejected.because("certificate_wanted", "peer certificate", got="none")
    service = call.service
    return json_reply(renew_host(service.context, service.certificates, call.certificate, csr), status=201)


def _name(call: Call, body: Fields, kind: PeerKind, asked: str | None) -> tuple[PeerName, TokenRow | None]:
    """Return the name that this caller may have certified, and the token that it may not outlive.

    Itself, and staff that manages also a borrower, relay or proxy; an admin also another holder of a staff token.
    Nobody gets an instance's: that takes evidence. Raises ``Rejected`` and ``Malformed``.
    """
    actor, domain = call.actor, call.service.certificates.domain
    own, itself = _token(call, actor.id), f"{actor.role.value}/{actor.id}"
    if kind is PeerKind.OPERATOR and actor.role is not Role.BORROWER and asked in {None, itself}:
        return PeerName.of(domain, kind, itself), own
    if kind is PeerKind.BORROWER and actor.role is Role.BORROWER and asked in {None, actor.loan}:
        return PeerName.of(domain, kind, str(actor.loan)), own
    may = actor.role is Role.ADMIN or (kind is not PeerKind.OPERATOR and actor.role in MANAGERS)
    if kind is PeerKind.ENCLAVE or not may:
        raise Rejected.because("forbidden", f"a certificate for another {kind.value}", got=actor.role.value)
    if asked is None:
        body.fail("name", f"wanted for a {kind.value}")
    if kind is PeerKind.OPERATOR:
        return _operator(call, asked)
    if kind is PeerKind.BORROWER:
        with call.service.context.reading() as connection:
            loan_row(connection, parse_loan_id(asked))
    return PeerName.of(domain, kind, asked), own


def _operator(call: Call, asked: str) -> tuple[PeerName, TokenRow]:
    """Return the name of another holder of a staff token. Raises ``Rejected`` (``not_found``), ``Malformed``."""
    name = PeerName.of(call.service.certificates.domain, PeerKind.OPERATOR, asked)
    role, _, token = asked.partition("/")
    found = _token(call, token)
    if found is None or found.role.value != role or not found.is_good(call.service.context.now()):
        raise Rejected.because("not_found", "token")
    return name, found


def _token(call: Call, token: str) -> TokenRow | None:
    with call.service.context.reading() as connection:
        return find_token_by_id(connection, token)


def list_certificates(call: Call) -> Reply:
    """List certificates that have not ended, without what they are of."""
    return json_reply(call.service.certificates.listed())


def authorities(call: Call) -> Reply:
    """Get the trust domain and the authorities that peers believe."""
    return json_reply(call.service.certificates.bundle())


def replace_authorities(call: Call) -> Reply:
    """Believe none of the authorities any more, and make another: every certificate ends at once."""
    call.fields().end()
    made = call.run(lambda transaction: call.service.certificates.replace(transaction, call.actor))
    call.service.certificates.refresh()
    return json_reply(made, status=201)
