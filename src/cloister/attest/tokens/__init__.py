"""Tokens in which somebody else's verifier says what it found out (docs/spec/evidence-token.md).

    claimset  strict JSON of a payload, numbers as issuers write them
    jws       one compact JWS (RFC 7515), and nothing it says about keys believed
    bundle    a token with the tokens of its devices, tied by digest (RFC 9711 section 6)
    keyset    keys a Relying Party was given: JWKS, JWK, PEM
    proof     signature, chain, times, issuer, audience
    rows      claims by name, type and place
    profile   what differs between issuers
    maa ita confidential_space nras ear   the issuers

Who trusts a token trusts its issuer's verifier: hardware evidence was verified there, not here. Every result says so.
"""
