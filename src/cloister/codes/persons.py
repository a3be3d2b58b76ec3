"""Codes: tokens, sessions, second persons and tenants."""

from __future__ import annotations

from cloister.codes.code import Chapter, Code, Who

__all__ = ["CHAPTER"]

CHAPTER = Chapter(
    title="Tokens, sessions, second persons and tenants",
    about=(
        "Who may do what, and when one person is not enough ([roles](roles.md), "
        "[sessions](../spec/session.md), [two persons](../spec/proposal.md), [tenants](tenants.md))."
    ),
    codes=(
        Code(
            name="dpop_invalid",
            cause="the proof that a key is held is not for this request, not of now, seen before, or of another key",
            fix="compare clocks and addresses; make a new proof for each request ([sessions](../spec/session.md))",
            who=Who.CALLER,
            example="proof: dpop_invalid (got another key, want the key of the session)",
        ),
        Code(
            name="dpop_nonce_wanted",
            cause="the proof needs the custodian's nonce",
            fix="prove again with the nonce in the header `DPoP-Nonce`",
            who=Who.CALLER,
            example="proof: dpop_nonce_wanted",
        ),
        Code(
            name="forbidden",
            cause="the token's role may not do this",
            fix="use a token of a role that may",
            who=Who.CUSTODIAN,
            example="POST /v1/loans: forbidden (got viewer, want operator)",
        ),
        Code(
            name="last_admin",
            cause="the token is the last that opens everything",
            fix="make another admin token first, then revoke this one",
            who=Who.CUSTODIAN,
            example="token: last_admin",
        ),
        Code(
            name="person_wanted",
            cause="two persons decide this, and the token names nobody",
            fix="ask an admin for a token that names you (`cloister custodian token create --person`)",
            who=Who.CALLER,
            example="admin: person_wanted",
        ),
        Code(
            name="phrase_wanted",
            cause="a removal is confirmed that nobody asked for, or too late",
            fix="ask for it first: `cloister tenant remove` without `--phrase`",
            who=Who.CALLER,
            example="removal: phrase_wanted",
        ),
        Code(
            name="phrase_wrong",
            cause="another phrase than was printed",
            fix="give it exactly as it was printed",
            who=Who.CALLER,
            example="removal: phrase_wrong",
        ),
        Code(
            name="proposal_changed",
            cause="the digest is not that of the proposal, or a custodian shows another request than it keeps",
            fix="look at the proposal again",
            who=Who.CALLER,
            example="proposal: proposal_changed (got 91ff04c2…, want 81c1b7aa…)",
        ),
        Code(
            name="proposal_denied",
            cause="a second person said no",
            fix="ask them; propose it anew",
            who=Who.CALLER,
            example="prop-99d65c29: proposal_denied (got ben, want nothing)",
        ),
        Code(
            name="proposal_expired",
            cause="nobody decided in time",
            fix="ask for it anew",
            who=Who.CALLER,
            example="proposal: proposal_expired (got 2026-05-06T08:30:00Z, want nothing)",
        ),
        Code(
            name="proposal_stale",
            cause="what the proposal was made on has changed since",
            fix="look at what is there now, ask for it anew",
            who=Who.CALLER,
            example="proposal: proposal_stale (got a route of another version, want nothing)",
        ),
        Code(
            name="proposal_withdrawn",
            cause="who asked for it took it back",
            fix="ask them why; propose it anew",
            who=Who.CALLER,
            example="prop-99d65c29: proposal_withdrawn (got anna, want nothing)",
        ),
        Code(
            name="proposer_gone",
            cause="the token that asked was revoked, is over, or changed its role or person",
            fix="ask for it anew with a good one",
            who=Who.CUSTODIAN,
            example="proposal: proposer_gone",
        ),
        Code(
            name="same_person",
            cause="who asked for it, with whichever token, approves or denies it",
            fix="ask somebody else",
            who=Who.CALLER,
            example="proposal: same_person (got anna, want another person than its author)",
        ),
        Code(
            name="second_operator_wanted",
            cause="who confirms a removal is who asked for it, and the host wants two",
            fix="let another operator confirm it",
            who=Who.CALLER,
            example="removal: second_operator_wanted",
        ),
        Code(
            name="session_over",
            cause="the session in the file has ended",
            fix="log in again: `cloister custodian login`",
            who=Who.CALLER,
            example="custodian.session: session_over",
        ),
        Code(
            name="session_unbound",
            cause=(
                "a session or a site's token, bound to nothing, would make a token or register an issuer; such a "
                "session would approve what another person asked for"
            ),
            fix="use a token of the custodian's own, or what is bound to a key or certificate",
            who=Who.CALLER,
            example="caller: session_unbound (got nothing, want a token bound to a key)",
        ),
        Code(
            name="session_wanted",
            cause="only a session renews itself",
            fix="call with the session's token",
            who=Who.CALLER,
            example="session: session_wanted (got a token, want a session's own token)",
        ),
        Code(
            name="tenant_state",
            cause="a tenant is not in a state in which that can be done",
            fix="see it with `cloister tenant show`",
            who=Who.CALLER,
            example="tenant clinic: tenant_state (got suspended, want active)",
        ),
        Code(
            name="token_digest_wanted",
            cause="two persons decide, and another person's token would be seen by who makes it",
            fix="let its holder make it: `cloister custodian token make`",
            who=Who.CUSTODIAN,
            example="token: token_digest_wanted",
        ),
        Code(
            name="token_wanted",
            cause="a session, or an identity of a site's own, asks for a session",
            fix="call with the token that it is of",
            who=Who.CALLER,
            example="session: token_wanted (got a session, want a token of the custodian's own)",
        ),
        Code(
            name="too_many_proposals",
            cause="100 proposals wait to be decided",
            fix="decide or withdraw some",
            who=Who.CUSTODIAN,
            example="proposals: too_many_proposals (got nothing, want at most 100 open)",
        ),
        Code(
            name="too_many_sessions",
            cause="16 sessions of this token are good",
            fix="end another (`cloister custodian sessions`)",
            who=Who.CALLER,
            example="session: too_many_sessions (got nothing, want at most 16)",
        ),
        Code(
            name="too_many_tenants",
            cause="the host has as many tenants as it may",
            fix="erase one, or raise `tenants` in `host.toml`",
            who=Who.CUSTODIAN,
            example="tenants: too_many_tenants (got nothing, want at most 16)",
        ),
        Code(
            name="unauthenticated",
            cause="no token, or one that is wrong, revoked or ended",
            fix="pass `--token-file`, or `--home` on the custodian's machine",
            who=Who.CALLER,
            example="bearer token: unauthenticated",
        ),
    ),
)
