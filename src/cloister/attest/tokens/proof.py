"""Who signed a token: algorithm, key, chain, signature (RFC 7515 section 5.2, RFC 8725).

The Relying Party says which algorithms and which keys; the header only helps to find the key among them. PyJWT does
the signatures; which algorithm and key it is handed is decided here, never by the token.

A key with certificates (``x5c`` in a JWKS) must be the key of its leaf, and the certificates must hold together; where
roots are pinned they must end there. A token's own ``x5c`` counts only where roots are pinned.

Not done here: revocation of signing certificates (said in the result; an issuer withdraws a key by taking it out of its
set), and what the token says (``registered``, ``profile``).
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import jwt

from cloister.attest.chain import Certificate, verify_chain
from cloister.attest.tokens.keyset import KeySet, PublicKey, TokenKey, fits
from cloister.errors import Malformed, Reason, Rejected

if TYPE_CHECKING:
    from datetime import datetime

    from cloister.attest.findings import Findings
    from cloister.attest.tokens.jws import Jws

__all__ = ["ASYMMETRIC", "verify_signature"]

ASYMMETRIC = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)  # never HS*: a public key is no shared secret; never none (RFC 8725 section 3.1)


def verify_signature(
    jws: Jws, keys: KeySet, algorithms: frozenset[str], now: datetime, findings: Findings, *, what: str
) -> None:
    """Prove that one of ``keys`` signed the token; record what its certificates lack.

    Raises ``Rejected`` (with all there is in ``findings``) where nobody is proven to have signed:
    ``algorithm_not_allowed``, ``unsupported_format``, ``unknown_key``, ``signature_invalid``, ``chain_invalid``.
    Records ``chain_invalid``, ``untrusted_root``, ``cert_expired``, ``cert_not_yet_valid``.
    """
    # 1. An algorithm of the Relying Party's, and no extension that changes how the token is to be read.
    allowed = algorithms & ASYMMETRIC
    want = ", ".join(sorted(allowed)) or "none"
    fit = findings.expect(
        jws.algorithm in allowed, "algorithm_not_allowed", f"algorithm of {what}", got=jws.algorithm[:32], want=want
    )
    plain = findings.expect(
        not jws.critical, "unsupported_format", f"header of {what}", got=", ".join(jws.critical), want="no extension"
    )
    if not (fit and plain):
        findings.settle()
    # 2. The key: at the end of the token's chain to a pinned root, or of the set.
    candidates = _chained(jws, what, findings) if jws.x5c and keys.roots else _found(jws, keys)
    fitting = [key for key in candidates if _fits(key, jws.algorithm)]
    if not findings.expect(
        bool(candidates), "unknown_key", f"key of {what}", got=(jws.kid or "no kid")[:256], want="a key of the issuer"
    ) or not findings.expect(
        bool(fitting), "algorithm_not_allowed", f"key of {what}", got="another kind of key", want=jws.algorithm
    ):
        findings.settle()
    # 3. The signature, over the exact bytes; then, whether who vouches for the key still does.
    signers = [key for key in fitting if _signed(jws, key)]
    if findings.expect(bool(signers), "signature_invalid", f"signature of {what}"):
        _vouched(signers[0], keys, now, findings, what)
    else:
        findings.settle()


def _found(jws: Jws, keys: KeySet) -> list[TokenKey]:
    """Return the keys the token may mean: by its key id, and those that have none."""
    return [key for key in keys.keys if jws.kid is None or key.kid in {None, jws.kid}]


def _chained(jws: Jws, what: str, findings: Findings) -> list[TokenKey]:
    """Return the key at the leaf of the token's own chain."""
    key = TokenKey(public=None, x5c=jws.x5c)
    if not findings.expect(_public(key) is not None, "chain_invalid", f"certificates of {what}", got="unreadable"):
        findings.settle()
    return [key]


def _public(key: TokenKey) -> PublicKey | None:
    """Return the key itself, or that of its leaf certificate; None where that is unreadable."""
    if key.public is not None or key.x5c is None:
        return key.public
    try:
        certificates = _certificates(key.x5c)
    except Malformed:
        return None
    leaf = KeySet.of_certificates(certificates[:1])
    return leaf.keys[0].public if leaf.keys else None


def _fits(key: TokenKey, algorithm: str) -> bool:
    public = _public(key)
    return public is not None and fits(public, algorithm) and key.algorithm in {None, algorithm}


def _signed(jws: Jws, key: TokenKey) -> bool:
    return bool(jwt.get_algorithm_by_name(jws.algorithm).verify(jws.signed, _public(key), jws.signature))


def _certificates(x5c: tuple[str, ...]) -> tuple[Certificate, ...]:
    """Return the certificates of an ``x5c``: standard base64 of DER, leaf first (RFC 7515 section 4.1.6)."""
    try:
        return tuple(Certificate.parse(base64.b64decode(item, validate=True)) for item in x5c)
    except ValueError as exc:  # binascii's own, and letters that are not ascii
        msg = "x5c: not base64"
        raise Malformed(msg) from exc


def _vouched(key: TokenKey, keys: KeySet, now: datetime, findings: Findings, what: str) -> None:
    """Record whether the certificates of the key that signed hold at ``now``."""
    subject = f"certificates of {what}"
    if key.certificate is not None:  # pinned itself: only its window is left to see
        _in_window(key.certificate, now, findings)
        return
    if key.x5c is None:
        if keys.roots:
            findings.expect(False, "chain_invalid", subject, got="none", want="a chain to a pinned root")  # noqa: FBT003 - a failure
        return
    try:
        leaf, *above = _certificates(key.x5c)
    except Malformed as exc:
        findings.expect(False, "chain_invalid", subject, got=exc.message[:128], want="certificates")  # noqa: FBT003
        return
    same = KeySet.of_certificates((leaf,)).keys[:1] and _public(key) == leaf.x509.public_key()
    findings.expect(bool(same), "chain_invalid", subject, got="leaf of another key", want="the key that signed")
    try:
        if keys.roots:
            verify_chain(leaf, above, keys.roots, now)
        elif above:  # the set is trusted, so the end of its chain is; what is below must follow from it
            verify_chain(leaf, above[:-1], above[-1:], now)
        else:
            _in_window(leaf, now, findings)
    except Rejected as exc:
        findings.refused(exc if keys.roots else _broken(exc))
    findings.skip("revocation_unknown", subject, "lists of revoked signing certificates are not read")


def _in_window(certificate: Certificate, now: datetime, findings: Findings) -> None:
    start, end = certificate.x509.not_valid_before_utc, certificate.x509.not_valid_after_utc
    got = now.isoformat()
    findings.expect(now >= start, "cert_not_yet_valid", certificate.shown, got=got, want=start.isoformat())
    findings.expect(now <= end, "cert_expired", certificate.shown, got=got, want=end.isoformat())


def _broken(refusal: Rejected) -> Rejected:
    """Return the refusal of a chain that brings its own end: it does not hold together, no root was missing."""
    reasons = tuple(
        Reason(
            code="chain_invalid" if reason.code == "untrusted_root" else reason.code,
            subject=reason.subject,
            got=reason.got,
            want=reason.want,
        )
        for reason in refusal.reasons
    )
    return Rejected(refusal.message, reasons=reasons)
