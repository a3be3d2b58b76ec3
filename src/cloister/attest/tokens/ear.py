"""EAT Attestation Results of other verifiers: Veraison, Trustee (draft-ietf-rats-ear, draft-ietf-rats-ar4si).

Up to draft 03, and in Veraison's and Trustee's releases, names have dots (``ear.status``); from draft 04 on
underscores (``ear_status``). Both are read, in one token either. Every submodule is appraised: ``status`` and each
part of the trustworthiness vector are sets of tiers over all of them, so that a rule holds for all.

``status`` is never better than the worst of its vector says (draft-ietf-rats-ear section 3.2): where an issuer claims
more, the vector counts.

What the attester binds, 64 bytes: a single ``eat_nonce``, base64url.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.rats import TeeKind, TrustTier
from cloister.attest.tokens.confidential_space import eat_nonces
from cloister.attest.tokens.profile import Profile
from cloister.attest.tokens.rows import Row, base64_bytes, flatten, text, text_or_none, words
from cloister.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cloister.attest.rats import ClaimValue
    from cloister.attest.tokens.profile import ClaimSet
    from cloister.wire import Json

__all__ = ["EAR", "EAR_TEE"]

EAR_TEE = TeeKind("ear")

_FALLING = (TrustTier.AFFIRMING, TrustTier.NONE, TrustTier.WARNING, TrustTier.CONTRAINDICATED)
_NUMBERED = {0: TrustTier.NONE, 2: TrustTier.AFFIRMING, 32: TrustTier.WARNING, 96: TrustTier.CONTRAINDICATED}
_VECTOR = (
    "instance-identity",
    "configuration",
    "executables",
    "file-system",
    "hardware",
    "runtime-opaque",
    "storage-opaque",
    "sourced-data",
)
_MAX_SUBMODS = 64
_LOWEST, _HIGHEST = -128, 127  # one signed byte (draft-ietf-rats-ar4si section 2.3.2)

_TOKEN_ROWS = (
    Row("profile", text, ("eat_profile",)),
    Row("verifier_build", text, ("ear_verifier_id", "build")),
    Row("verifier_developer", text, ("ear_verifier_id", "developer")),
)


def _spelled(members: ClaimSet) -> ClaimSet:
    """Return the members with the names of draft 04. Raises ``Malformed`` for one in both spellings."""
    found = {f"ear_{name[4:].replace('-', '_')}" if name[:4] == "ear." else name: name for name in members}
    if len(found) != len(members):
        msg = "token: a claim in both spellings"
        raise Malformed(msg)
    return {ours: members[name] for ours, name in found.items()}


def _flatten(claims: ClaimSet, devices: Mapping[str, ClaimSet]) -> dict[str, ClaimValue]:
    del devices
    overall = _spelled(claims)
    found = flatten(overall, _TOKEN_ROWS)
    submods = claims.get("submods")
    if submods is None:
        return found
    if not isinstance(submods, dict) or not 0 < len(submods) <= _MAX_SUBMODS:
        msg = f"token: submods: want 1 to {_MAX_SUBMODS}"
        raise Malformed(msg)
    appraisals = [_appraisal(item) for item in submods.values()]
    found["submods"] = words([*submods], "token: submods")
    found["status"] = _set(_status(item) for item in (*appraisals, *([overall] if "ear_status" in overall else [])))
    policies = {item for appraisal in appraisals for item in _policies(appraisal)}
    if policies:
        found["policy_ids"] = tuple(sorted(policies))
    for name in _VECTOR:
        found[f"trust_{name.replace('-', '_')}"] = _set(_vector(item)[name] for item in appraisals)
    return found


def _appraisal(item: Json) -> ClaimSet:
    if not isinstance(item, dict):
        msg = "token: submods: want objects"
        raise Malformed(msg)
    return _spelled(item)


def _set(tiers: Iterable[TrustTier]) -> tuple[str, ...]:
    return tuple(sorted({tier.value for tier in tiers}))


def _status(appraisal: ClaimSet) -> TrustTier:
    value = appraisal.get("ear_status")
    named = {tier.value: tier for tier in TrustTier}
    tier = named.get(value) if isinstance(value, str) else _NUMBERED.get(value) if type(value) is int else None
    if tier is None:
        msg = "token: ear_status: want a trust tier"
        raise Malformed(msg)
    made = [found for found in _vector(appraisal).values() if found is not TrustTier.NONE]
    return max((tier, *made), key=_FALLING.index)


def _vector(appraisal: ClaimSet) -> dict[str, TrustTier]:
    members = appraisal.get("ear_trustworthiness_vector", {})
    if not isinstance(members, dict):
        msg = "token: trustworthiness vector: want an object"
        raise Malformed(msg)
    return {name: _tier(members.get(name, 0)) for name in _VECTOR}


def _tier(value: Json) -> TrustTier:
    """Return the tier of one trustworthiness claim (draft-ietf-rats-ar4si section 2.3.2)."""
    if type(value) is not int or not _LOWEST <= value <= _HIGHEST:
        msg = "token: trustworthiness claim: want one signed byte"
        raise Malformed(msg)
    if value in {-1, 0, 1}:
        return TrustTier.NONE
    size = value if value > 0 else -value - 1  # -2 to -32, -33 to -96 and -97 to -128 lie beside 2, 32 and 96
    if size < 32:  # noqa: PLR2004
        return TrustTier.AFFIRMING
    return TrustTier.WARNING if size < 96 else TrustTier.CONTRAINDICATED  # noqa: PLR2004


def _policies(appraisal: ClaimSet) -> tuple[str, ...]:
    single = appraisal.get("ear_appraisal_policy_id")
    listed = appraisal.get("ear_appraisal_policy_ids")
    if single is not None:
        return (text(single, "token: ear_appraisal_policy_id"),)
    return () if listed is None else words(listed, "token: ear_appraisal_policy_ids")


def _bound(claims: ClaimSet) -> bytes:
    nonces = eat_nonces(claims)
    return base64_bytes(nonces[0][:256]) if len(nonces) == 1 else b""


def _recognises(claims: ClaimSet) -> bool:
    return (
        "ear.verifier-id" in claims
        or "ear_verifier_id" in claims
        or "/ear" in (text_or_none(claims, "eat_profile") or "")
    )


EAR = Profile(
    tee=EAR_TEE,
    title="a verifier that issues EAT attestation results",
    algorithms=frozenset({"EdDSA", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"}),
    report_data_bytes=64,
    required=frozenset({"status"}),
    ends=False,
    starts_issued=False,
    devices=False,
    flatten=_flatten,
    bound=_bound,
    nonces=eat_nonces,
    recognises=_recognises,
)
