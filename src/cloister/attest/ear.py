"""Attestation results as tokens: EAR (draft-ietf-rats-ear-04) in a JWT signed with Ed25519 (RFC 8037).

The token says what was checked, with which outcome and by which policy, so that somebody who was not
there can read it. It carries digests of what was bound, never the keys themselves: Relying Parties of
Cloister take keys from an ``AttestationResult``, other systems read the token.

The JWS signing input starts with ``eyJ``, a statement's with ``DSSEv1 ``: one key may sign both kinds
without either passing for the other. The header is ours alone: no algorithm, key or URL is ever taken
from it (RFC 8725 section 3.1).

Not done here: JWKS, discovery and other algorithms (the attestation service, ``verifier``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cloister.attest.devices import MAX_DEVICES
from cloister.attest.rats import Check, TeeKind, TrustTier, Verdict
from cloister.attest.trust_vector import trust_vector
from cloister.crypto.sign import KeyId, VerifyKey
from cloister.errors import Malformed, Rejected, UsageError
from cloister.wire import Fields, Json, dump_b64u, dump_json, parse_b64u

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cloister.attest.rats import AttestationResult, ClaimValue, Submodule
    from cloister.crypto.sign import SigningKey

__all__ = [
    "EAR_PROFILE",
    "EAR_TYPE",
    "MAX_TOKEN_CHARS",
    "MAX_TTL",
    "SUBMOD",
    "Ear",
    "EarSubmodule",
    "demand_token_size",
    "ear_claims",
    "issue_ear",
    "parse_ear",
    "refused_claims",
    "verify_ear",
]

EAR_PROFILE = "tag:ietf.org,2026:rats/ear#04"
SUBMOD = "cloister"
"""The attester a token is about; its devices are submodules beside it, by their names."""

MAX_TOKEN_CHARS = 512 * 1024  # characters of one token: 24 devices, each with 10 KiB of checks, make half of it
MAX_TTL = timedelta(days=1)
_CLOCK_SKEW_S = 5  # seconds an issuer's clock may be ahead of ours
EAR_TYPE = "eat+jwt"  # RFC 9782 section 4: application/eat+jwt
_DEVELOPER = "cloister"
_BUILD = f"cloister/{version('cloister')}"
_MAX_CHECKS = 256
_MAX_CLAIMS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class EarSubmodule:
    """What a verified token says about one device beside the CPU."""

    tee: TeeKind
    tier: TrustTier
    claims: Mapping[str, ClaimValue]
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ear:
    """A verified token: what its issuer says about one attester and its devices. Made by ``verify_ear`` only."""

    issuer: str
    key_id: KeyId
    issued_at: datetime
    expires_at: datetime
    tee: TeeKind
    tier: TrustTier
    policy_digest: str
    claims: Mapping[str, ClaimValue]
    checks: tuple[Check, ...]
    bound_sha256: Mapping[str, bytes]
    nonce: bytes
    submodules: Mapping[str, EarSubmodule]


def issue_ear(result: AttestationResult, *, key: SigningKey, issuer: str, now: datetime, ttl: timedelta) -> str:
    """Return ``result`` as a signed token, good from ``now`` for ``ttl``. The same inputs give the same token."""
    if not timedelta(0) < ttl <= MAX_TTL:
        msg = f"ear: ttl of {ttl}, want up to {MAX_TTL}"
        raise UsageError(msg)
    issued = int(now.timestamp())
    payload = {**ear_claims(result), "exp": issued + int(ttl.total_seconds()), "iat": issued, "iss": issuer}
    private = Ed25519PrivateKey.from_private_bytes(key.seed())
    token = jwt.api_jws.encode(
        dump_json(payload), private, algorithm="EdDSA", headers={"kid": key.key_id, "typ": EAR_TYPE}
    )
    demand_token_size(token)
    return token


def demand_token_size(token: str) -> None:
    """Refuse a token that no reader of ours would take. Raises ``UsageError``."""
    if len(token) > MAX_TOKEN_CHARS:
        msg = f"ear: token of {len(token)} characters, want at most {MAX_TOKEN_CHARS}"
        raise UsageError(msg)


def ear_claims(result: AttestationResult, *, brief: bool = False) -> dict[str, Json]:
    """Return the claims of a token about ``result``, but for who says it and until when.

    A ``brief`` token names tiers, vectors and policy, and neither claims nor checks: some readers take few bytes.
    """
    submods: dict[str, Json] = {SUBMOD: _appraisal_json(result, result.policy_digest, result.bound, brief=brief)}
    submods |= {item.name: _appraisal_json(item, result.policy_digest, {}, brief=brief) for item in result.submodules}
    return _whole(submods, result.nonce)


def refused_claims(refusal: Rejected, *, tee: TeeKind, policy_digest: str, nonce: bytes) -> dict[str, Json]:
    """Return the claims of a token that says no: *contraindicated*, every reason a failed check, and no claim.

    What was not verified is not repeated as if it were (draft-ietf-rats-ear-04 section 3.2).
    """
    checks = [
        Check(code=item.code, subject=item.subject, verdict=Verdict.FAILED, got=item.got, want=item.want)
        for item in refusal.reasons[:_MAX_CHECKS]
    ]
    appraisal: dict[str, Json] = {
        "ear_appraisal_policy_ids": [f"sha256:{policy_digest}"],
        "ear_attester_claims": {},
        "ear_status": TrustTier.CONTRAINDICATED.value,
        "ear_verifier_claims": {"bound_sha256": {}, "checks": [_check_json(check) for check in checks], "tee": tee},
    }
    return _whole({SUBMOD: appraisal}, nonce)


def _whole(submods: dict[str, Json], nonce: bytes) -> dict[str, Json]:
    claims: dict[str, Json] = {
        "ear_verifier_id": {"build": _BUILD, "developer": _DEVELOPER},
        "eat_profile": EAR_PROFILE,
        "submods": submods,
    }
    # RFC 9711 section 4.1: what the evidence answered, so that the result is as fresh as it is
    return {**claims, "eat_nonce": dump_b64u(nonce)} if nonce else claims


def _appraisal_json(
    item: AttestationResult | Submodule, policy_digest: str, bound: Mapping[str, bytes], *, brief: bool
) -> Json:
    """Return the EAR appraisal of one attester (draft-ietf-rats-ear-04 section 3.2)."""
    appraisal: dict[str, Json] = {
        "ear_appraisal_policy_ids": [f"sha256:{policy_digest}"],
        "ear_attester_claims": {} if brief else dict(item.claims),
        "ear_status": item.tier.value,
        "ear_verifier_claims": {
            "bound_sha256": {name: hashlib.sha256(value).hexdigest() for name, value in bound.items()},
            "checks": [] if brief else [_check_json(check) for check in item.checks],
            "tee": item.tee,
        },
    }
    vector = trust_vector(item.tee, item.claims, item.checks)
    if vector:  # draft-ietf-rats-ar4si section 3.1: never an empty one
        appraisal["ear_trustworthiness_vector"] = dict(vector)
    return appraisal


def verify_ear(token: str, keys: Iterable[VerifyKey], now: datetime) -> Ear:
    """Return what the token says once one of ``keys`` is proven to have signed it and it is in time.

    Raises ``Malformed``; ``Rejected`` with ``algorithm_not_allowed``, ``unknown_key``,
    ``signature_invalid``, ``token_expired`` or ``token_not_yet_valid``.
    """
    # 1. The header is exactly ours: algorithm and type fixed, a key id to look up, nothing else.
    header, payload = _split(token)
    key_id = _take_header(header)
    # 2. The signature, by a key the caller trusts.
    key = next((key for key in keys if key.key_id == key_id), None)
    if key is None:
        raise Rejected.because("unknown_key", "ear", got=key_id)
    try:
        jwt.api_jws.decode(token, Ed25519PublicKey.from_public_bytes(key.raw), algorithms=["EdDSA"])
    except (jwt.InvalidTokenError, ValueError) as exc:
        raise Rejected.because("signature_invalid", "ear") from exc
    # 3. Only now is the payload read, from the bytes that were signed.
    ear = parse_ear(payload, key_id)
    # 4. In time: `now` is the caller's clock, never the library's.
    skew = timedelta(seconds=_CLOCK_SKEW_S)
    if ear.issued_at > now + skew:
        raise Rejected.because("token_not_yet_valid", "ear", got=str(ear.issued_at), want=f"at most {now}")
    if now >= ear.expires_at:
        raise Rejected.because("token_expired", "ear", got=str(ear.expires_at), want=f"after {now}")
    return ear


def _split(token: str) -> tuple[bytes, bytes]:
    """Return header and payload bytes of a compact JWS of three parts."""
    if len(token) > MAX_TOKEN_CHARS:
        msg = f"ear: {len(token)} characters, want at most {MAX_TOKEN_CHARS}"
        raise Malformed(msg)
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - RFC 7515 section 7.1: header, payload, signature
        msg = f"ear: {len(parts)} parts, want 3"
        raise Malformed(msg)
    header, payload, _ = (parse_b64u(part, what="ear") for part in parts)
    return header, payload


def _take_header(data: bytes) -> KeyId:
    fields = Fields.parse(data, what="ear header", cap=1024)
    algorithm = fields.text("alg", cap=32)
    if algorithm != "EdDSA":
        raise Rejected.because("algorithm_not_allowed", "ear", got=algorithm, want="EdDSA")
    fields.literal("typ", EAR_TYPE)
    key_id = KeyId(fields.hex("kid", size=16).hex())
    fields.end()  # no crit, jku, jwk, x5c, x5u: nothing that brings a key along (RFC 8725 section 3.10)
    return key_id


def parse_ear(payload: bytes, key_id: KeyId) -> Ear:
    """Read the claims we know; a receiver ignores unknown ones (draft-ietf-rats-ear-04 section 4).

    Proves nothing: the caller has verified the signature over ``payload`` by the key ``key_id``. Raises ``Malformed``.
    """
    fields = Fields.parse(payload, what="ear", cap=MAX_TOKEN_CHARS)
    fields.literal("eat_profile", EAR_PROFILE)
    members = fields.members("submods", cap=1 + MAX_DEVICES)
    submods = Fields(members, what="ear: submods")
    appraisal = submods.fields(SUBMOD)
    policies = appraisal.texts("ear_appraisal_policy_ids", cap=1, item_cap=80)
    if not policies:
        appraisal.fail("ear_appraisal_policy_ids", "want one")
    ours = appraisal.fields("ear_verifier_claims")
    bound = ours.members("bound_sha256", cap=16)
    digests = Fields(bound, what="ear: bound_sha256")
    own = _take_submodule(appraisal, ours)
    others = {name: submods.fields(name) for name in members if name != SUBMOD}
    return Ear(
        issuer=fields.text("iss", cap=256, floor=1),
        key_id=key_id,
        issued_at=datetime.fromtimestamp(fields.integer("iat", cap=_LAST_SECOND), UTC),
        expires_at=datetime.fromtimestamp(fields.integer("exp", cap=_LAST_SECOND), UTC),
        tee=own.tee,
        tier=own.tier,
        policy_digest=policies[0].removeprefix("sha256:"),
        claims=own.claims,
        checks=own.checks,
        bound_sha256={name: digests.hex(name, size=32) for name in bound},
        nonce=fields.optional("eat_nonce", lambda name: fields.b64u(name, cap=64)) or b"",
        submodules={name: _take_submodule(item, item.fields("ear_verifier_claims")) for name, item in others.items()},
    )


def _take_submodule(appraisal: Fields, ours: Fields) -> EarSubmodule:
    claims = appraisal.members("ear_attester_claims", cap=_MAX_CLAIMS)
    tier = appraisal.text("ear_status", cap=16)
    if tier not in {member.value for member in TrustTier}:
        appraisal.fail("ear_status", "unknown tier")
    return EarSubmodule(
        tee=TeeKind(ours.text("tee", cap=32)),
        tier=TrustTier(tier),
        claims={name: _take_claim(appraisal, value) for name, value in claims.items()},
        checks=tuple(_take_check(item) for item in ours.items("checks", cap=_MAX_CHECKS)),
    )


_LAST_SECOND = 253402300799  # 9999-12-31T23:59:59Z, where datetime ends


def _take_claim(appraisal: Fields, value: Json) -> ClaimValue:
    if isinstance(value, list):
        return tuple(_take_word(appraisal, item) for item in value)
    if not isinstance(value, (str, int)):
        appraisal.fail("ear_attester_claims", "want strings, integers, booleans and arrays of strings")
    return value


def _take_word(appraisal: Fields, value: Json) -> str:
    if not isinstance(value, str):
        appraisal.fail("ear_attester_claims", "want an array of strings")
    return value


def _check_json(check: Check) -> Json:
    members = {"code": check.code, "subject": check.subject, "verdict": check.verdict.value}
    extra = {"got": check.got, "want": check.want, "note": check.note}
    return {**members, **{name: text for name, text in extra.items() if text}}


def _take_check(value: Json) -> Check:
    fields = Fields(value, what="ear: check")
    verdict = fields.text("verdict", cap=16)
    if verdict not in {member.value for member in Verdict}:
        fields.fail("verdict", "unknown")
    return Check(
        code=fields.text("code", cap=64),
        subject=fields.text("subject"),
        verdict=Verdict(verdict),
        got=fields.optional("got", fields.text) or "",
        want=fields.optional("want", fields.text) or "",
        note=fields.optional("note", fields.text) or "",
    )
