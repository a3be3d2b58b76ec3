"""Codes: who is calling."""

from __future__ import annotations

from cloister.codes.code import Chapter, Code, Who

__all__ = ["CHAPTER"]

CHAPTER = Chapter(
    title="Who is calling",
    about=(
        "A token or certificate of a site's own issuer ([identity](../spec/identity.md)). The custodian "
        "answers all of them `401`, with the reason behind `unauthenticated`."
    ),
    codes=(
        Code(
            name="address_not_allowed",
            cause="an issuer's keys would be fetched from an address that the settings do not allow",
            fix="see `issuer_addresses` in the [settings](settings.md), or give the keys by hand",
            who=Who.CUSTODIAN,
            example="keys.example: address_not_allowed (got plain http, want https)",
        ),
        Code(
            name="confirmation_mismatch",
            cause="the token is bound to another certificate or key than the caller's",
            fix="use the one it was issued for",
            who=Who.CALLER,
            example="token: confirmation_mismatch",
        ),
        Code(
            name="confirmation_missing",
            cause="the token is bound to a certificate or key, and the caller proved none",
            fix="call over mutual TLS, or prove the key",
            who=Who.CALLER,
            example="token: confirmation_missing",
        ),
        Code(
            name="confirmation_unsupported",
            cause="the token is bound in a way that cannot be proven here",
            fix="have it issued with `x5t#S256` or `jkt`",
            who=Who.CUSTODIAN,
            example="token: confirmation_unsupported",
        ),
        Code(
            name="identity_not_mapped",
            cause="the caller is proven, and no rule of the issuer is about them",
            fix="add a rule with this subject or claim",
            who=Who.CUSTODIAN,
            example="rules of the issuer: identity_not_mapped (got alice@example.org, want a rule that holds)",
        ),
        Code(
            name="issuer_unknown",
            cause="nobody registered the issuer of this token or certificate",
            fix="register it, under exactly its `iss`",
            who=Who.CUSTODIAN,
            example="client certificate: issuer_unknown",
        ),
        Code(
            name="name_missing",
            cause="a client certificate has no alternative name, or an SVID not exactly one URI",
            fix="have it issued with one",
            who=Who.CUSTODIAN,
            example="client certificate: name_missing (got none, want a uri, e-mail address or host)",
        ),
        Code(
            name="party_not_allowed",
            cause="the token was issued to a client that is not named",
            fix="name the client in `authorized_parties` if you trust it",
            who=Who.CUSTODIAN,
            example="azp: party_not_allowed (got other-client, want clinic-app)",
        ),
        Code(
            name="subject_invalid",
            cause="`sub` is not of the form that this kind of issuer writes",
            fix="see who made the token",
            who=Who.CUSTODIAN,
            example="sub: subject_invalid (got root, want system:serviceaccount:NAMESPACE:NAME)",
        ),
        Code(
            name="token_too_old",
            cause="the token was issued longer ago than `max_age_s`",
            fix="ask the issuer for a fresh one",
            who=Who.CALLER,
            example="iat: token_too_old (got 7200 s, want at most 3600 s)",
        ),
        Code(
            name="token_type_wrong",
            cause="the token is of another kind: of a login, a logout, a proof",
            fix="bring an access token; see `types`",
            who=Who.CALLER,
            example="typ: token_type_wrong (got logout+jwt, want at+jwt)",
        ),
        Code(
            name="too_many_issuers",
            cause="there are as many issuers as there may be",
            fix="remove one that is used no longer",
            who=Who.CUSTODIAN,
            example="issuers: too_many_issuers (got nothing, want at most 16)",
        ),
        Code(
            name="usage_not_allowed",
            cause="the certificate is not a client's",
            fix="have it issued with `clientAuth` and `digitalSignature`",
            who=Who.CUSTODIAN,
            example="CN=clinic: usage_not_allowed (got serverAuth, want a client's certificate)",
        ),
    ),
)
