"""A platform's token judged from a file, with keys from another (docs/spec/evidence-token.md section 7).

The file of keys is the trust anchor: a JWKS, a JWK, PEM public keys, or certificates that may be the root of the
token's own chain. Without one the pinned root of Confidential Space is left, and no other token can be believed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloister.attest.dossier import Bound, Case
from cloister.attest.dossier.expectations import demand_files, refuse_member, rule_of
from cloister.attest.rats import TeeKind, VerifiedClaims
from cloister.attest.roots import vendor_certificate
from cloister.attest.rules import Exact, NotChecked, Rule
from cloister.attest.tokens.bundle import Bundle
from cloister.attest.tokens.confidential_space import CONFIDENTIAL_SPACE, CONFIDENTIAL_SPACE_TEE, eat_nonces
from cloister.attest.tokens.ear import EAR, EAR_TEE
from cloister.attest.tokens.ita import ITA, ITA_TEE
from cloister.attest.tokens.keyset import KeySet
from cloister.attest.tokens.maa import MAA, MAA_TEE
from cloister.attest.tokens.nras import NRAS
from cloister.attest.tokens.profile import ClaimSet, Profile, Trust, verify_token
from cloister.attest.tokens.proof import ASYMMETRIC
from cloister.attest.tokens.rows import base64_bytes, debug_status, place, text_or_none
from cloister.errors import Malformed, Reason, Rejected, UsageError
from cloister.wire import dump_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cloister.attest.rats import ClaimValue
    from cloister.wire import Json

__all__ = ["TOKEN_PROFILES", "open_case", "profile_of"]


def _plain(claims: ClaimSet, devices: Mapping[str, ClaimSet]) -> dict[str, ClaimValue]:
    """Return what an unknown issuer says of debugging: by EAT's claim or any that is named so."""
    del devices
    found = [value is True for name, value in claims.items() if name.endswith("debuggable")]
    if "dbgstat" in claims:
        found.append(debug_status(claims["dbgstat"], "token: dbgstat"))
    return {"debug": any(found)} if found else {}


def _plain_nonces(claims: ClaimSet) -> tuple[str, ...]:
    nonce = text_or_none(claims, "nonce")
    return eat_nonces(claims) if nonce is None else (nonce, *eat_nonces(claims))


PLAIN = Profile(
    tee=TeeKind("token"),
    title="an issuer nobody here knows",
    algorithms=ASYMMETRIC,
    report_data_bytes=64,
    required=frozenset(),
    ends=False,
    starts_issued=False,
    devices=False,
    flatten=_plain,
    bound=lambda claims: b"",  # noqa: ARG005 - nobody knows where such an issuer puts what an attester chose
    nonces=_plain_nonces,
    recognises=lambda claims: True,  # noqa: ARG005
)
"""A token of no known issuer: signature, times, issuer and audience are all there is to verify."""

TOKEN_PROFILES = (CONFIDENTIAL_SPACE, ITA, MAA, NRAS, EAR, PLAIN)
"""Every kind of token, the first that recognises one is its kind."""

_ALWAYS = ("alg", "exp", "iss")
_SAID: Mapping[tuple[TeeKind, Json], tuple[str, ...]] = {
    (CONFIDENTIAL_SPACE_TEE, None): ("aud", "dbgstat", "eat_nonce", "hwmodel", "secboot", "swname", "swversion"),
    (EAR_TEE, None): ("ear.verifier-id", "eat_profile", "iat", "submods"),
    (ITA_TEE, "SGX"): (
        "attester_tcb_status",
        "attester_type",
        "dbgstat",
        "sgx_is_debuggable",
        "sgx_mrenclave",
        "ver",
    ),
    (MAA_TEE, "azurevm"): ("secureboot", "x-ms-attestation-type", "x-ms-azurevm-vmid", "x-ms-policy-hash"),
}
"""What an index says of an accepted token, by kind and type of attester; of others it says all."""

_ALGORITHMS = frozenset({"algorithms", "algs", "alg"})
_AUDIENCES = frozenset({"aud", "audience", "audiences"})
_ISSUERS = frozenset({"iss", "issuer", "issuers"})
_NONCES = frozenset({"nonce", "challenge", "eat_nonce"})
_DEBUG = frozenset({"allow_debug", "debug_allowed"})
_SECTIONS = ("x-ms-isolation-tee", "tdx", "sgx", "submods")
_MEASURED = ("mrenclave", "mrsigner", "mrtd", "rtmr", "measurement", "image_digest", "hostdata")
_RULED = re.compile(r"(?:min_|max_)?(?P<claim>[a-z][a-z0-9_.]*?)(?:_allowed)?")


def profile_of(bundle: Bundle) -> Profile:
    """Return the kind of a token by what it says, before anybody believes it."""
    claims = _claimset(bundle)
    known = (profile for profile in TOKEN_PROFILES if profile.recognises(claims))
    return NRAS if bundle.devices else next(known)


def open_case(files: Mapping[str, bytes], expectations: Mapping[str, Json]) -> Case:
    """Return the case of a ``token`` with ``keys``. Raises ``Malformed`` and ``Unavailable``."""
    demand_files(files, ("token",), ("keys",))
    token = files["token"].strip()
    bundle = Bundle.parse(token)
    profile = profile_of(bundle)
    claims = _claimset(bundle)
    trust = _trust(files.get("keys"), profile, expectations)
    flat = _flat(profile, bundle, claims)
    rules: dict[str, Rule] = {name: Exact(value=False) for name in ("debug", "gpu_debug") if name in flat}
    rules |= {"result": Exact(value=True)} if "result" in flat else {}
    bound: list[Bound] = []
    for name, value in expectations.items():
        if name in _ALGORITHMS | _AUDIENCES | _ISSUERS:
            continue
        ruled = _RULED.fullmatch(name)
        if name in _NONCES:
            bound.append(_nonce(name, value, profile.nonces(claims)))
        elif name in _DEBUG and isinstance(value, bool):
            rules = {claim: rule for claim, rule in rules.items() if not value or claim != "debug"}
        elif name == "report_data":
            bound.append(_report_data(value, profile.bound(claims), flat.get("hardware_report_data")))
        elif ruled and ruled["claim"] in {*flat, *profile.required}:
            rules[ruled["claim"]] = rule_of(name, value)
        else:
            bound.append(_member(name, value, claims))
    base: dict[str, Json] = {"alg": bundle.overall.algorithm, "exp": claims.get("exp"), "iss": claims.get("iss")}
    return Case(
        claims=base | {name: claims[name] for name in _said(profile, claims) if name in claims},
        refused_claims=base,
        verify=lambda now: _verify(token, profile, trust, now, keyless="keys" not in files),
        rules=rules,
        bound=tuple(bound),
    )


def _claimset(bundle: Bundle) -> ClaimSet:
    """Return what the token says, nothing where that is no JSON: then its signature fails, or ``verify`` says so."""
    try:
        return bundle.overall.claimset(what="token")
    except Malformed:
        return {}


def _flat(profile: Profile, bundle: Bundle, claims: ClaimSet) -> Mapping[str, ClaimValue]:
    try:
        devices = {name: item.claimset(what=f"token of {name}") for name, item in bundle.devices.items()}
        return profile.flatten(claims, devices)
    except Malformed:
        return {}


def _said(profile: Profile, claims: ClaimSet) -> tuple[str, ...]:
    kind = claims.get("attester_type", claims.get("x-ms-attestation-type"))
    return _SAID.get((profile.tee, kind if isinstance(kind, str) else None), tuple(claims))


def _trust(keys: bytes | None, profile: Profile, expectations: Mapping[str, Json]) -> Trust:
    pinned = KeySet(keys=(), roots=(vendor_certificate("google-confidential-space-root"),))
    return Trust(
        keys=pinned if keys is None else KeySet.parse(keys),
        algorithms=_words(expectations, _ALGORITHMS) or profile.algorithms,
        issuers=_words(expectations, _ISSUERS) or NotChecked("the policy names no issuer; its keys are the anchor"),
        audiences=_words(expectations, _AUDIENCES) or NotChecked("the policy names no audience"),
    )


def _words(expectations: Mapping[str, Json], names: frozenset[str]) -> frozenset[str]:
    """Return the words of the one member that says it; none where there is none."""
    found: frozenset[str] = frozenset()
    for name in sorted(names & {*expectations}):
        value = expectations[name]
        words = [value] if isinstance(value, str) else value
        if found or not isinstance(words, list) or not words or not all(isinstance(item, str) for item in words):
            refuse_member(name, "want a word or a list of words, once")
        found = frozenset(str(item) for item in words)
    return found


def _nonce(name: str, value: Json, nonces: tuple[str, ...]) -> Bound:
    """Return that one nonce of the token is the one wanted: as text, or the bytes it spells."""
    wanted = value if isinstance(value, list) else [value]
    options = {item for text in wanted if isinstance(text, str) for item in (text.encode(), _hex(text)) if item}
    if not options:
        refuse_member(name, "want text or hex")
    spelled = [item for text in nonces for item in (text.encode(), _hex(text), base64_bytes(text[:1024])) if item]
    got = next((item for item in spelled if item in options), spelled[0] if spelled else b"")
    return Bound(code="nonce_mismatch", subject=name, got=got, want=got if got in options else min(options))


def _report_data(value: Json, held: bytes, reported: ClaimValue | None) -> Bound:
    if not isinstance(value, str):
        refuse_member("report_data", "want hex")
    options = {held, _hex(str(reported)) if reported is not None else b""} - {b""}
    want = _hex(value)
    got = want if want in options else min(options, default=b"")
    return Bound(code="report_data_mismatch", subject="report data", got=got, want=want or value.encode())


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _member(name: str, value: Json, claims: ClaimSet) -> Bound:
    """Return that a claim of the token, by the issuer's own name for it, is the value or one of the values wanted."""
    path = name.split(".")
    found = [item for item in (claims.get(name), place(claims, *path)) if item is not None]
    found += [item for section in _SECTIONS if (item := place(claims, section, *path)) is not None]
    if not found:
        refuse_member(name, "the token has no such claim")
    got, want = _spelled(name, found[0]), _spelled(name, value)
    wanted = {_spelled(name, item) for item in value} if isinstance(value, list) else {want}
    listed = {_spelled(name, item) for item in found[0]} if isinstance(found[0], list) else {got}
    holds = got == want or (bool(wanted) and (wanted <= listed if isinstance(found[0], list) else listed <= wanted))
    return Bound(code=_code(name), subject=name[:64], got=got, want=got if holds else want)


def _spelled(name: str, value: Json) -> bytes:
    try:
        return dump_json(value)
    except UsageError:
        refuse_member(name, "a value that cannot be compared")


def _code(name: str) -> str:
    short = re.sub(r"[^a-z0-9]+", "_", name.lower().removeprefix("x-ms-")).strip("_")
    if any(word in short for word in _MEASURED):
        return "measurement_mismatch"
    if "debug" in short or "dbgstat" in short:
        return "debug_enabled"
    return "tcb_status_not_allowed" if "tcb_status" in short else f"{short[:48]}_mismatch"


def _verify(token: bytes, profile: Profile, trust: Trust, now: datetime, *, keyless: bool) -> VerifiedClaims:
    """Verify, and say it in the words of an index: there, a key nobody was given is a signature that does not hold."""
    try:
        return verify_token(token, profile, trust, now)
    except Rejected as exc:
        code = "untrusted_root" if keyless else "signature_invalid"
        reasons = tuple(
            Reason(
                code=code if reason.code == "unknown_key" else reason.code,
                subject=reason.subject,
                got=reason.got,
                want=reason.want,
            )
            for reason in exc.reasons
        )
        raise Rejected(exc.message, reasons=reasons) from exc
