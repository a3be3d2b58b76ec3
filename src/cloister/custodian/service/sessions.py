"""Sessions: a long-lived token exchanged for one of minutes (docs/spec/session.md).

A session is what its opener is, and no longer than that: it ends with the token that opened it. Bound to a key, it is
worthless to whoever has only the session's token.

Not done here: proving a key (``proofs``), who calls (``access``).
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.custodian.store.sessions import (
    SessionRow,
    end_session,
    find_session_by_id,
    good_sessions,
    insert_session,
    list_sessions,
    prolong_session,
    purge_sessions,
)
from cloister.custodian.tokens import Role, hash_token, new_session_token
from cloister.errors import Rejected
from cloister.lending.events import EventKind
from cloister.wire import dump_b64u, dump_time

if TYPE_CHECKING:
    from datetime import datetime

    from cloister.custodian.service.context import Context, Transaction
    from cloister.custodian.tokens import Actor
    from cloister.wire import Fields, Json

__all__ = ["end", "exchange", "open_session", "renew", "session_list"]

_ID_BYTES = 8
_MIN_LIFE_S = 60
_MAX_OPEN = 16  # good sessions of one token at once
_KEPT = timedelta(days=1)  # rows of sessions that are over


def open_session(transaction: Transaction, actor: Actor, body: Fields) -> Json:
    """Open a session, ``{"life_s"?}``, bound to the key that the actor proved with the call, if any.

    Raises ``Rejected``: ``token_wanted`` where a session asks, ``too_many_sessions``.
    """
    config, now = transaction.context.config, transaction.now
    life_s = config.session_ttl_s
    if "life_s" in body:
        life_s = body.integer("life_s", floor=_MIN_LIFE_S, cap=config.session_max_s)
    body.end()
    if actor.session is not None or not actor.is_token:
        got = "a session" if actor.session is not None else "an identity"
        raise Rejected.because("token_wanted", "session", got=got, want="a token of the custodian's own")
    purge_sessions(transaction.connection, now - _KEPT)
    if good_sessions(transaction.connection, actor.id, now) >= _MAX_OPEN:
        raise Rejected.because("too_many_sessions", "session", want=f"at most {_MAX_OPEN}", hint="end another first")
    until = now + timedelta(seconds=life_s)
    return _opened(transaction, actor, until, now + timedelta(seconds=config.session_max_s))


def renew(transaction: Transaction, actor: Actor, body: Fields) -> Json:
    """Let the session that calls be good for another while, up to where it may be renewed.

    Raises ``Rejected`` (``session_wanted``) where no session calls.
    """
    body.end()
    row = None if actor.session is None else find_session_by_id(transaction.connection, actor.session)
    if row is None:
        raise Rejected.because("session_wanted", "session", got="a token", want="a session's own token")
    longer = transaction.now + timedelta(seconds=transaction.context.config.session_ttl_s)
    until = max(row.expires_at, min(longer, row.renew_until))
    prolong_session(transaction.connection, row.id, until)
    transaction.record(EventKind.SESSION_RENEWED, actor, row.id, bound=row.key is not None)
    found = find_session_by_id(transaction.connection, row.id)
    return _view(row if found is None else found)


def exchange(transaction: Transaction, actor: Actor, body: Fields) -> Json:
    """Open a session in the place of the one that calls, which is over: once, whoever calls by it first.

    So what came in a link becomes what nobody has seen. It is renewable for no longer than the one before.
    Raises ``Rejected``: ``session_wanted`` where no good session calls, ``token_wanted`` for one bound to a key.
    """
    body.end()
    row = None if actor.session is None else find_session_by_id(transaction.connection, actor.session)
    if row is None or not row.is_good(transaction.now):
        raise Rejected.because("session_wanted", "session", want="a session's own token, the first time")
    if row.key is not None:
        raise Rejected.because("token_wanted", "session", got="one that is bound to a key", want="one that is not")
    end_session(transaction.connection, row.id, transaction.now)
    transaction.record(EventKind.SESSION_ENDED, actor, row.id, bound=False)
    longer = transaction.now + timedelta(seconds=transaction.context.config.session_ttl_s)
    return _opened(transaction, actor, min(longer, row.renew_until), row.renew_until)


def _opened(transaction: Transaction, actor: Actor, expires_at: datetime, renew_until: datetime) -> Json:
    """Open a session, and return it with its token."""
    rng = transaction.context.rng
    token = new_session_token(rng)
    row = SessionRow(
        id=f"ses-{rng(_ID_BYTES).hex()}",
        sha256=hash_token(token),
        actor=actor.id,
        role=actor.role,
        name=actor.name,
        loan=actor.loan,
        person=actor.person,
        key=actor.key,
        created_at=transaction.now,
        expires_at=expires_at,
        renew_until=renew_until,
    )
    insert_session(transaction.connection, row)
    transaction.record(EventKind.SESSION_OPENED, actor, row.id, bound=row.key is not None)
    return {**_view(row), "token": token}


def end(transaction: Transaction, actor: Actor, session: str) -> Json:
    """End a session of one's own, or anybody's for an admin; what is not there and what is not yours look alike."""
    row = find_session_by_id(transaction.connection, session)
    if row is None or not row.is_good(transaction.now) or (actor.role is not Role.ADMIN and row.actor != actor.id):
        raise Rejected.because("not_found", "session")
    end_session(transaction.connection, session, transaction.now)
    transaction.record(EventKind.SESSION_ENDED, actor, session, bound=row.key is not None)
    return {"ended": True, "session": session}


def session_list(context: Context, actor: Actor) -> Json:
    """Return the sessions that are good: for an admin all, else one's own."""
    mine = None if actor.role is Role.ADMIN else actor.id
    with context.reading() as connection:
        return {"sessions": [_view(row) for row in list_sessions(connection, context.now(), actor=mine)]}


def _view(row: SessionRow) -> dict[str, Json]:
    return {
        "by": f"{row.role.value}:{row.actor}",
        "created_at": dump_time(row.created_at),
        "expires_at": dump_time(row.expires_at),
        "jkt": None if row.key is None else dump_b64u(row.key),
        "name": row.name,
        "person": row.person,
        "renew_until": dump_time(row.renew_until),
        "session": row.id,
        "token_type": "Bearer" if row.key is None else "DPoP",
    }
