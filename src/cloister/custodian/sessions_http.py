"""What the routes of sessions do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.custodian.calls import changed, json_reply
from cloister.custodian.service import sessions

if TYPE_CHECKING:
    from cloister.custodian.calls import Call, Reply

__all__ = ["end_session", "exchange_session", "list_sessions", "open_session", "renew_session"]


def open_session(call: Call) -> Reply:
    """Exchange a long-lived token for a session of minutes, bound to the key in the header DPoP where there is one."""
    return changed(call, sessions.open_session, status=201)


def renew_session(call: Call) -> Reply:
    """Let the session that calls be good for another while."""
    return changed(call, sessions.renew)


def exchange_session(call: Call) -> Reply:
    """Open a session in the place of the one that calls, which ends: what came in a link is good for this once."""
    return changed(call, sessions.exchange)


def list_sessions(call: Call) -> Reply:
    """List sessions that are good: an admin's list has all, others' their own."""
    return json_reply(sessions.session_list(call.service.context, call.actor))


def end_session(call: Call) -> Reply:
    """End a session of one's own, or anybody's for an admin."""
    session = call.parameters["session"]
    return json_reply(call.run(lambda transaction: sessions.end(transaction, call.actor, session)))
