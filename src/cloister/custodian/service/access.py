"""Who may come in: tokens made, listed, revoked, and what a caller shows turned into an actor."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from cloister.custodian.duty import Operation, named_operations
from cloister.custodian.store.loans import find_loan
from cloister.custodian.store.persons import note_admin
from cloister.custodian.store.sessions import find_session
from cloister.custodian.store.tokens import (
    TokenRow,
    find_token,
    find_token_by_id,
    insert_token,
    list_tokens,
    revoke_token,
)
from cloister.custodian.tokens import (
    TOKEN_ID_PREFIX,
    Actor,
    Role,
    TokenHash,
    TokenId,
    hash_token,
    new_token,
    parse_authorization,
)
from cloister.errors import Rejected
from cloister.lending.events import EventKind
from cloister.lending.terms import LOAN_ID, LoanId
from cloister.wire import Fields, Json, dump_time

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from sqlalchemy import Connection

    from cloister.custodian.presented import Presented
    from cloister.custodian.proofs import Proofs
    from cloister.custodian.service.context import Context, Transaction
    from cloister.custodian.service.identities import Identities

__all__ = [
    "APPROVERS",
    "MAX_LIFE_S",
    "admit_token",
    "authenticate",
    "create_token",
    "demand_lasting",
    "demand_standing",
    "issue_token",
    "token_list",
    "unauthenticated",
    "withdraw_token",
]

_ID_BYTES = 8
MAX_LIFE_S = 10 * 365 * 86_400  # seconds
_HASH_BYTES = 32
_ROLES = {role.value for role in Role} - {Role.OPERATOR.value}  # a host gives its own
APPROVERS = frozenset({Role.ADMIN.value, Role.LENDER.value})
"""Roles whose holders have a say in what two persons decide."""
PERSON = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,127}")
"""How a person is called: lower case, so that nobody is two by spelling."""


def issue_token(
    transaction: Transaction,
    actor: Actor | str,
    *,
    role: Role,
    name: str,
    loan: LoanId | None = None,
    life: timedelta | None = None,
    person: str | None = None,
) -> str:
    """Return a fresh token, of which only the hash is stored. It is shown once."""
    token = new_token(transaction.context.rng)
    admit_token(transaction, actor, hash_token(token), role=role, name=name, loan=loan, life=life, person=person)
    return token


def admit_token(
    transaction: Transaction,
    actor: Actor | str,
    sha256: TokenHash,
    *,
    role: Role,
    name: str,
    loan: LoanId | None,
    life: timedelta | None,
    person: str | None,
    own: bool = False,
) -> TokenId:
    """Write down that this token opens something; ``own``: its holder made it, and nobody else has seen it."""
    row = TokenRow(
        id=TokenId(f"tok-{transaction.context.rng(_ID_BYTES).hex()}"),
        sha256=sha256,
        role=role,
        name=name,
        loan=loan,
        created_at=transaction.now,
        expires_at=None if life is None else transaction.now + life,
        revoked_at=None,
        person=person,
    )
    insert_token(transaction.connection, row)
    if role is Role.ADMIN and person is not None:
        note_admin(transaction.connection, person, transaction.now)
    bound = {} if loan is None else {"loan": str(loan)}
    transaction.record(EventKind.TOKEN_CREATED, actor, row.id, role=role.value, own=own, **bound)
    return row.id


def authenticate(
    context: Context, proofs: Proofs, identities: Identities, presented: Presented, *, again: bool = False
) -> Actor:
    """Return who calls: the holder of a token, or of a session or a site's token and of the key that it is bound to.

    A proof that comes with a token binds the session that it asks for; it is proven all the same. ``again``: the same
    request was proven before, whose proof is taken once. Raises ``Rejected``: ``unauthenticated`` for all tokens that
    are good for nothing alike and for an identity that is not proven, ``dpop_invalid`` and ``dpop_nonce_wanted`` for a
    proof beside a good one.
    """
    if presented.authorization is None and presented.certificates:
        return identities.by_certificates(presented.certificates)
    shown = parse_authorization(presented.authorization)
    now = context.now()
    if shown.is_jwt:
        actor, bound_to = identities.by_token(shown, presented.certificates)
    else:
        with context.reading() as connection:
            actor, bound_to = _holder(connection, shown.sha256, now)
    if shown.bound != (bound_to is not None):
        raise unauthenticated()  # RFC 9449 section 7.2: no downgrade to a bearer, nor the other way round
    if again or (bound_to is None and presented.proof is None):
        return actor
    key = proofs.prove(presented, shown.token, now, key=bound_to)
    # Beside what is bound to no key a proof shows one of anybody's choice: it counts for the session that is asked for.
    fleeting = bound_to is None and (actor.session is not None or not actor.is_token)
    return actor if fleeting else replace(actor, key=key)


def _holder(connection: Connection, sha256: TokenHash, now: datetime) -> tuple[Actor, bytes | None]:
    """Return whose token this is, and the key that it is bound to, if any."""
    token = find_token(connection, sha256)
    if token is not None and token.is_good(now):
        return Actor(id=token.id, role=token.role, name=token.name, loan=token.loan, person=token.person), None
    session = find_session(connection, sha256) if token is None else None
    if session is None or not session.is_good(now):
        raise unauthenticated()
    opener = find_token_by_id(connection, session.actor)
    if opener is None or not opener.is_good(now):
        raise unauthenticated()
    actor = Actor(
        id=session.actor, role=session.role, name=session.name, loan=session.loan, person=session.person,
        session=session.id,
    )  # fmt: skip
    return actor, session.key


def unauthenticated() -> Rejected:
    """Return what a caller is told whose token is good for nothing, and no more than that."""
    return Rejected.because("unauthenticated", "bearer token", hint="ask the custodian for a fresh token")


def demand_lasting(actor: Actor) -> None:
    """Refuse to let what ends in minutes and can be stolen make something that lasts (``session_unbound``)."""
    if actor.is_fleeting:
        want = "a token of the custodian's own, or what is bound to a key or certificate"
        raise Rejected.because("session_unbound", "caller", want=want)


def demand_standing(transaction: Transaction, token: str, *, role: Role, person: str) -> None:
    """Prove that who asked by this token still may: it is good, of the same role and person (T90).

    An identity that is no token of ours is proven anew with each call and cannot be asked again; how it stood when it
    asked counts as long as the issuers are the same (``proposals_http``). Raises ``Rejected`` (``proposer_gone``).
    """
    row = find_token_by_id(transaction.connection, token)
    if row is None and not token.startswith(TOKEN_ID_PREFIX):
        return
    if row is None or not row.is_good(transaction.now) or (row.role, row.person) != (role, person):
        raise Rejected.because("proposer_gone", "proposal", hint="its author's token is good no more")


def create_token(transaction: Transaction, actor: Actor, body: Fields) -> Json:
    """Make a token from ``{"role", "name", "loan"?, "life_s"?, "person"?, "sha256"?}``; the answer shows it once.

    With ``sha256`` its holder has made it, and the answer has none. Raises ``Rejected`` (``token_digest_wanted``)
    where somebody else would get to know what gives a person a say in what two persons decide; ``session_unbound``: a
    session that can be stolen makes nothing that outlives it.
    """
    role = body.text("role", cap=16)
    name = body.text("name", cap=100, floor=1)
    loan = body.optional("loan", lambda member: LoanId(body.match(member, LOAN_ID)))
    life = body.optional("life_s", lambda member: body.seconds(member, floor=60, cap=MAX_LIFE_S))
    person = body.optional("person", lambda member: body.match(member, PERSON))
    sha256 = body.optional("sha256", lambda member: TokenHash(body.hex(member, size=_HASH_BYTES)))
    body.end()
    demand_lasting(actor)
    if role not in _ROLES:
        body.fail("role", "want admin, lender, auditor, viewer or borrower")
    if (role == Role.BORROWER.value) != (loan is not None):
        body.fail("loan", "wanted for a borrower, and only there")
    if loan is not None and find_loan(transaction.connection, loan) is None:
        raise Rejected.because("not_found", "loan")
    shown: dict[str, Json] = {"name": name, "role": role, **({} if loan is None else {"loan": loan})}
    if person is not None:
        shown["person"] = person
        if sha256 is None and role in APPROVERS and person != actor.person:
            _demand_own(transaction)
    if sha256 is None:
        return {
            **shown,
            "token": issue_token(transaction, actor, role=Role(role), name=name, loan=loan, life=life, person=person),
        }
    if find_token(transaction.connection, sha256) is not None:
        raise Rejected.because("already_exists", "token")
    identity = admit_token(
        transaction, actor, sha256, role=Role(role), name=name, loan=loan, life=life, person=person, own=True
    )
    return {**shown, "id": identity}


def _demand_own(transaction: Transaction) -> None:
    """Refuse to make a person's token in another's sight, where two persons decide."""
    if Operation.PERSON in named_operations(transaction.context.config):
        raise Rejected.because(
            "token_digest_wanted", "token", hint="let its holder make it: 'cloister custodian token make'"
        )


def token_list(context: Context) -> Json:
    """Return every token without its hash."""
    with context.reading() as connection:
        rows = list_tokens(connection)
    now = context.now()
    return {
        "tokens": [
            {
                "created_at": dump_time(row.created_at),
                "expires_at": None if row.expires_at is None else dump_time(row.expires_at),
                "good": row.is_good(now),
                "id": row.id,
                "loan": row.loan,
                "name": row.name,
                "person": row.person,
                "role": row.role.value,
            }
            for row in rows
        ]
    }


def withdraw_token(transaction: Transaction, actor: Actor, token: str, *, keeper: Role = Role.ADMIN) -> Json:
    """Revoke a token, but never the last one that opens everything: nobody could make another."""
    keepers = {
        row.id
        for row in list_tokens(transaction.connection)
        if row.role is keeper and row.is_good(transaction.now) and row.expires_at is None
    }
    if keepers == {token}:
        hint = f"make another {keeper.value} token that does not expire first"
        raise Rejected.because("last_admin", "token", hint=hint)
    if not revoke_token(transaction.connection, TokenId(token), transaction.now):
        raise Rejected.because("not_found", "token")
    transaction.record(EventKind.TOKEN_REVOKED, actor, token)
    return {"id": token, "revoked": True}
