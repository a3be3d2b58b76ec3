"""JWT bearers: who a token is about, proven (RFC 7519, RFC 8725, RFC 9068, JWT-SVID, Kubernetes' tokens).

``verify_bearer`` is one procedure for all of them, top to bottom. What a token says of itself is used to find the
issuer and the key among those that are trusted, never to add one: ``jku``, ``x5u``, ``jwk`` and ``x5c`` of a header are
not read, and ``kid`` is compared and nothing else.

Not done here: asking an issuer whether a token was revoked, or whether the pod of a service account still runs
(TokenReview): a token is good until it ends, which ``max_age_s`` bounds. Possession of a bound key
(``identity.verify_confirmation``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.findings import Findings
from cloister.attest.rules import NotChecked, show
from cloister.attest.tokens.jws import Jws
from cloister.attest.tokens.proof import verify_signature
from cloister.attest.tokens.registered import moment, verify_audience, verify_times
from cloister.attest.tokens.rows import text_or_none
from cloister.errors import Malformed
from cloister.identity.identity import MAX_SUBJECT_CHARS, Confirmation, Identity, IdentityKind
from cloister.identity.issuer import IssuerKind
from cloister.identity.rules import take_claims
from cloister.identity.spiffe import parse_spiffe_id, prefixes
from cloister.wire import STEERING, parse_b64u

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cloister.identity.issuer import Issuer
    from cloister.identity.issuers import Issuers, Trusted
    from cloister.wire import Json

__all__ = ["MAX_BEARER_BYTES", "issuer_of", "verify_bearer"]

MAX_BEARER_BYTES = 16 * 1024  # bytes of one token
_THUMBPRINT_BYTES = 32
_KINDS = {
    IssuerKind.OIDC: IdentityKind.OIDC,
    IssuerKind.KUBERNETES: IdentityKind.KUBERNETES,
    IssuerKind.SPIFFE: IdentityKind.JWT_SVID,
}


def verify_bearer(token: bytes, issuers: Issuers, now: datetime) -> Identity:
    """Prove that a trusted issuer says, for us and now, who the bearer is; return that.

    Raises ``Malformed``; ``Rejected``: ``issuer_unknown``, ``token_type_wrong``, those of ``verify_signature``,
    ``verify_times``, ``verify_audience``, and ``claim_missing``, ``token_too_old``, ``party_not_allowed``,
    ``subject_invalid``, ``confirmation_unsupported``.
    """
    # 1. It parses, whole and small.
    jws = _parse(token)
    claims = jws.claimset(what="token")
    # 2. Whose word it is said to be; all below is judged by that issuer's keys and conditions alone.
    trusted = issuers.of_claims(claims)
    issuer, findings = trusted.issuer, Findings("token")
    # 3. The kind of token we were told of (RFC 8725 section 3.11), signed with a key of the issuer.
    _verify_type(jws, issuer, findings)
    verify_signature(jws, trusted.keys.tokens, issuer.algorithms, now, findings, what="token")
    # 4. In time, for us, issued to a client that may bring it.
    verify_times(claims, now, findings, what="token", ends=True, starts_issued=True, skew=issuer.leeway)
    expires_at = _verify_age(claims, issuer, now, findings)
    verify_audience(claims, issuer.audiences, findings)
    _verify_party(claims, issuer, findings)
    _verify_not_an_event(claims, findings)
    # 5. Who it is about, and what it is bound to.
    subject = _verify_subject(claims, issuer, findings)
    confirmation = _take_confirmation(claims, findings)
    findings.settle()
    taken = take_claims(_with_paths(claims, issuer, subject), issuer.rules)
    return Identity(
        kind=_KINDS[issuer.kind],
        issuer=issuer.name,
        subject=subject,
        claims=taken,
        expires_at=expires_at,
        confirmation=confirmation,
    )


def issuer_of(token: bytes, issuers: Issuers) -> Trusted:
    """Return the issuer that an unproven token names. Raises ``Malformed``; ``Rejected`` (``issuer_unknown``)."""
    return issuers.of_claims(_parse(token).claimset(what="token"))


def _parse(token: bytes) -> Jws:
    if len(token) > MAX_BEARER_BYTES:
        msg = f"token: {len(token)} bytes, want at most {MAX_BEARER_BYTES}"
        raise Malformed(msg)
    return Jws.parse(token, what="token")


def _verify_type(jws: Jws, issuer: Issuer, findings: Findings) -> None:
    got = (jws.typ or "").lower().removeprefix("application/")
    want = ", ".join(sorted(issuer.types)) or "none"
    if not findings.expect(got in issuer.types, "token_type_wrong", "typ of token", got=got[:64], want=want):
        findings.settle()


def _verify_age(claims: Mapping[str, Json], issuer: Issuer, now: datetime, findings: Findings) -> datetime:
    """Return the end of what is proven: the token's, or of the age it may reach. Recorded: ``token_too_old``.

    ``iat`` is wanted (RFC 9068 section 2.2) but of JWT-SVIDs, which may leave it out: then the end must be near.
    """
    end, issued = moment(claims, "exp"), moment(claims, "iat")
    last = (now if issued is None else min(issued, now)) + issuer.max_age
    if issued is None and issuer.kind is not IssuerKind.SPIFFE:
        findings.expect(False, "claim_missing", "iat of token", want="when it was issued")  # noqa: FBT003 - a failure
    if issued is None and end is not None:
        findings.expect(end <= last, "token_too_old", "end of token", got=end.isoformat(), want=f"by {last}")
    findings.expect(now < last, "token_too_old", "age of token", got=now.isoformat(), want=f"before {last}")
    return last if end is None else min(end, last)


def _verify_party(claims: Mapping[str, Json], issuer: Issuer, findings: Findings) -> None:
    """Record whether the client the token was issued to is allowed (``party_not_allowed``).

    Issuers call it ``azp`` (OpenID Connect Core section 2) or ``client_id`` (RFC 9068 section 2.2); where a token has
    both, both count.
    """
    if issuer.kind is not IssuerKind.OIDC:
        return
    if isinstance(issuer.parties, NotChecked):
        findings.skip("party_not_allowed", "authorised party", issuer.parties.why)
        return
    named = [claims[name] for name in ("azp", "client_id") if claims.get(name) is not None]
    holds = bool(named) and all(isinstance(name, str) and name in issuer.parties for name in named)
    got = ", ".join(show(name) for name in named if isinstance(name, str))[:256]
    want = ", ".join(sorted(issuer.parties))[:256]
    findings.expect(holds, "party_not_allowed", "authorised party", got=got, want=want)


def _verify_not_an_event(claims: Mapping[str, Json], findings: Findings) -> None:
    """Refuse what is signed by the same keys and is no word about a caller: logout and event tokens (RFC 8417)."""
    findings.expect("events" not in claims, "token_type_wrong", "token", got="an event", want="a bearer token")


def _verify_subject(claims: Mapping[str, Json], issuer: Issuer, findings: Findings) -> str:
    """Return whom the token is about; recorded: ``claim_missing``, ``subject_invalid``."""
    subject = text_or_none(claims, "sub") or ""
    if not findings.expect(bool(subject), "claim_missing", "sub of token", want="a subject"):
        return ""
    if len(subject) > MAX_SUBJECT_CHARS or STEERING.search(subject):
        findings.expect(False, "subject_invalid", "sub of token", want="a plain name")  # noqa: FBT003 - a failure
        return ""
    match issuer.kind:
        case IssuerKind.SPIFFE:
            domain, _ = parse_spiffe_id(subject)
            findings.expect(domain == issuer.name, "subject_invalid", "trust domain", got=domain, want=issuer.name)
        case IssuerKind.KUBERNETES:
            paths = (("kubernetes.io", "namespace"), ("kubernetes.io", "serviceaccount", "name"))
            want = ":".join(["system:serviceaccount", *(text_or_none(claims, *path) or "" for path in paths)])
            findings.expect(subject == want, "subject_invalid", "sub of token", got=show(subject), want=show(want))
        case IssuerKind.OIDC | IssuerKind.CERTIFICATES:
            pass
    return subject


def _take_confirmation(claims: Mapping[str, Json], findings: Findings) -> Confirmation | None:
    """Return what the token is bound to (RFC 7800); what we cannot prove is refused: ``confirmation_unsupported``."""
    match claims.get("cnf"):
        case None:
            return None
        case {"x5t#S256": str(thumbprint), **rest} if not rest:
            return Confirmation(certificate_sha256=_thumbprint(thumbprint))
        case {"jkt": str(thumbprint), **rest} if not rest:
            return Confirmation(key_thumbprint=_thumbprint(thumbprint))
        case _:
            findings.expect(False, "confirmation_unsupported", "cnf of token", want="x5t#S256 or jkt")  # noqa: FBT003
            return None


def _thumbprint(text: str) -> bytes:
    return parse_b64u(text, what="token: cnf", size=_THUMBPRINT_BYTES)


def _with_paths(claims: Mapping[str, Json], issuer: Issuer, subject: str) -> Mapping[str, Json]:
    """Return the claims; those of a SPIFFE id say what its path is below, so that a rule can ask for a folder."""
    if issuer.kind is not IssuerKind.SPIFFE:
        return claims
    return {**claims, "spiffe": {"below": list(prefixes(parse_spiffe_id(subject)[1]))}}
