"""Codes: certificates of peers."""

from __future__ import annotations

from cloister.codes.code import Chapter, Code, Who

__all__ = ["CHAPTER"]

CHAPTER = Chapter(
    title="Certificates of peers",
    about="What they are wanted for: [certificates](../spec/certificates.md), [TLS](tls.md).",
    codes=(
        Code(
            name="acme_refused",
            cause="the ACME authority says no, or offers no http-01",
            fix="see whether the names lead here, and port 80 of them to `acme_http`",
            who=Who.CUSTODIAN,
            example="acme: authorization: acme_refused (got no http-01, want http-01)",
        ),
        Code(
            name="certificate_expired",
            cause="the certificate has ended, or has not begun",
            fix="get a fresh one, and connect anew with it; if that does not help, compare the clocks",
            who=Who.CALLER,
            example="client certificate: certificate_expired",
        ),
        Code(
            name="certificate_wanted",
            cause="the route wants a certificate on the connection, and there was none",
            fix="an enclave gets one by itself; else `cloister custodian certificate issue`",
            who=Who.CALLER,
            example="client certificate: certificate_wanted (got none, want nothing)",
        ),
        Code(
            name="csr_extension",
            cause="a certificate request asks for names, uses or rights",
            fix="ask for a key alone: the custodian says what a certificate says",
            who=Who.CALLER,
            example="certificate request: csr_extension (got attributes, want a key and nothing else)",
        ),
        Code(
            name="key_certified",
            cause="the key in a request has been certified before",
            fix="make another key for each certificate",
            who=Who.BORROWER,
            example="certificate request: key_certified",
        ),
        Code(
            name="key_unsuitable",
            cause="the key in a request is of another kind",
            fix="use P-256, P-384 or Ed25519",
            who=Who.CALLER,
            example="certificate request: key_unsuitable (got nothing, want P-256, P-384 or Ed25519)",
        ),
        Code(
            name="wrong_certificate",
            cause="the certificate that came is not the answer to the request, or not for our key",
            fix="nothing; if it repeats, messages are mixed up on the way",
            who=Who.NOBODY,
            example="certificate: wrong_certificate (got the answer to another request, want nothing)",
        ),
        Code(
            name="wrong_peer",
            cause=(
                "the certificate is of somebody else than path or token say, of another authority, or not of our form"
            ),
            fix="show the certificate that belongs to this instance or token",
            who=Who.CALLER,
            example="peer certificate: wrong_peer (got other uses, want a client's)",
        ),
    ),
)
