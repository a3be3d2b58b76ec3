"""Results as tokens: EAT attestation results (``attest.ear``) in the shape that workload identity federation takes.

    iss  this service       sub, aud  only where a policy of the service names the audience and the tier is high enough
    exp, nbf, iat           short     jti  the result's id       the rest: draft-ietf-rats-ear-04

A token without ``aud`` and ``sub`` is a result to be read, and nobody's identity: refusals, results by a Relying
Party's own policy, and those nobody asked an audience for. Systems that federate look at ``iss``, ``aud`` and ``sub``
and not at ``ear_status``: so a token that says no must lack them, and does.

The header is ours: algorithm of the key, its id, the type. Not done here: whether anything is true (``service``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import jwt

from cloister.attest.ear import EAR_TYPE, demand_token_size
from cloister.wire import Json, dump_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from cloister.attest.rats import TrustTier
    from cloister.verifier.ring import RingKey

__all__ = ["CLAIMS", "Identity", "Issued", "issue"]

CLAIMS = (
    "aud", "ear_verifier_id", "eat_nonce", "eat_profile", "exp", "iat", "iss", "jti", "nbf", "sub", "submods",
)  # fmt: skip
"""Every claim that a token may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whom a token is about, for whom."""

    subject: str
    audience: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """One token and what it says."""

    id: str
    token: str
    tier: TrustTier
    payload: bytes
    expires_at: datetime


def issue(
    claims: Mapping[str, Json],
    *,
    tier: TrustTier,
    identity: Identity | None,
    key: RingKey,
    issuer: str,
    result_id: str,
    now: datetime,
    ttl: timedelta,
) -> Issued:
    """Return the signed token of a result's ``claims``, good from ``now`` for ``ttl``. Raises ``UsageError``."""
    issued = int(now.timestamp())
    end = issued + int(ttl.total_seconds())
    payload: dict[str, Json] = {**claims, "exp": end, "iat": issued, "iss": issuer, "jti": result_id, "nbf": issued}
    if identity is not None:
        payload |= {"aud": identity.audience, "sub": identity.subject}
    data = dump_json(payload)
    token = jwt.api_jws.encode(data, key.private, algorithm=key.algorithm, headers={"kid": key.kid, "typ": EAR_TYPE})
    demand_token_size(token)
    return Issued(id=result_id, token=token, tier=tier, payload=data, expires_at=datetime.fromtimestamp(end, UTC))
