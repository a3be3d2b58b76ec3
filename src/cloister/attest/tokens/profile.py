"""What differs between issuers of tokens, and the one procedure over it.

A profile knows an issuer's claims: which of them become ours, and in which of them an attester can bind bytes. The
procedure is the same for all: signature, times, issuer, audience, devices, claims.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from cloister.attest.findings import Findings
from cloister.attest.rats import TeeKind, VerifiedClaims
from cloister.attest.rules import NotChecked, show
from cloister.attest.tokens.bundle import Bundle, verify_digests
from cloister.attest.tokens.proof import verify_signature
from cloister.attest.tokens.registered import audiences, moment, verify_audience, verify_issuer, verify_times
from cloister.attest.tokens.rows import text, text_or_none
from cloister.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from cloister.attest.rats import ClaimValue
    from cloister.attest.tokens.keyset import KeySet
    from cloister.wire import Json

__all__ = ["ClaimSet", "Profile", "Trust", "verify_token"]

ClaimSet: TypeAlias = "Mapping[str, Json]"


def _nothing(claims: ClaimSet) -> tuple[str, ...]:
    del claims
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One kind of token.

    ``ends``: its tokens always name an end. ``starts_issued``: they are good from their ``iat``. ``devices``: they may
    come with tokens of devices. ``flatten`` makes our claims of its claims and of its devices' (``Malformed``);
    ``bound`` returns the bytes its attester chose, empty where there are none; ``nonces`` every text in it that a
    Relying Party may have sent; ``unread`` the parts of a composite token that ``flatten`` does not look at.
    """

    tee: TeeKind
    title: str
    algorithms: frozenset[str]
    report_data_bytes: int
    required: frozenset[str]
    ends: bool
    starts_issued: bool
    devices: bool
    flatten: Callable[[ClaimSet, Mapping[str, ClaimSet]], dict[str, ClaimValue]]
    bound: Callable[[ClaimSet], bytes]
    nonces: Callable[[ClaimSet], tuple[str, ...]]
    recognises: Callable[[ClaimSet], bool]
    unread: Callable[[ClaimSet], tuple[str, ...]] = _nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What a Relying Party knows before it sees a token: keys of these issuers, and its own names."""

    keys: KeySet
    algorithms: frozenset[str]
    issuers: frozenset[str] | NotChecked
    audiences: frozenset[str] | NotChecked


def verify_token(data: bytes, profile: Profile, trust: Trust, now: datetime) -> VerifiedClaims:
    """Prove that an issuer in ``trust`` says this, for us, now; that hardware backs it is the issuer's word.

    Raises ``Malformed``; ``Rejected`` with the codes of ``verify_signature``, ``verify_times``, ``verify_issuer``,
    ``verify_audience``, ``verify_digests``, and ``nonce_mismatch`` for a device of another request.
    """
    # 1. Every token parses; the devices' too.
    bundle = Bundle.parse(data)
    if bundle.devices and not profile.devices:
        msg = f"{profile.tee} token: comes with devices, want a plain token"
        raise Malformed(msg)
    findings = Findings(f"{profile.tee} token")
    # 2. Signed by a key of the issuer. Nothing below is read of a token that nobody signed.
    verify_signature(bundle.overall, trust.keys, trust.algorithms, now, findings, what="token")
    for name, device in bundle.devices.items():
        verify_signature(device, trust.keys, trust.algorithms, now, findings, what=f"token of {name}")
    # 3. In time, from the issuer the keys belong to, for us.
    claims = bundle.overall.claimset(what="token")
    devices = {name: item.claimset(what=f"token of {name}") for name, item in bundle.devices.items()}
    verify_times(claims, now, findings, what="token", ends=profile.ends, starts_issued=profile.starts_issued)
    verify_issuer(claims, trust.issuers, findings)
    verify_audience(claims, trust.audiences, findings)
    # 4. The devices are those the token speaks of, and of the same request.
    if profile.devices and ("submods" in claims or devices):
        verify_digests(bundle, claims, findings)
    for name, item in devices.items():
        _verify_device(name, item, claims, now, findings)
    # 5. What is left to say: whose word it is, and what of it was not looked at.
    issuer = show(text_or_none(claims, "iss")) or profile.title
    findings.skip("hardware_not_verified", "hardware", f"hardware evidence was verified by {issuer}, not by us")
    for name in profile.unread(claims):
        findings.skip("submodule_not_appraised", name[:64], "a part of the token that this verifier does not read")
    flat = _registered(claims, now) | profile.flatten(claims, devices)
    return VerifiedClaims(tee=profile.tee, claims=flat, report_data=profile.bound(claims), checks=findings.settle())


def _verify_device(name: str, device: ClaimSet, overall: ClaimSet, now: datetime, findings: Findings) -> None:
    verify_times(device, now, findings, what=f"token of {name}", ends=False, starts_issued=True)
    for claim, code in (("iss", "issuer_mismatch"), ("eat_nonce", "nonce_mismatch")):
        got, want = show(text_or_none(device, claim)), show(text_or_none(overall, claim))
        findings.expect(got == want, code, f"{claim} of {name}", got=got, want=want)


def _registered(claims: ClaimSet, now: datetime) -> dict[str, ClaimValue]:
    """Return the claims of every token: issuer, audience, and its age in seconds."""
    found: dict[str, ClaimValue] = {}
    if text_or_none(claims, "iss") is not None:
        found["issuer"] = text(claims["iss"], "token: iss")
    if for_whom := audiences(claims):
        found["audience"] = for_whom
    if (issued := moment(claims, "iat")) is not None:
        found["age"] = max(0, int((now - issued).total_seconds()))
    return found
