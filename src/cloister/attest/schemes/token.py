"""Tokens of somebody else's verifier as evidence: one scheme, a profile for each issuer (docs/spec/evidence-token.md).

What it proves: a verifier that the Relying Party chose to trust says this about an attester, for us, in time. What it
does not: anything about hardware. That was the issuer's work; every result says so, and its tier is never better than
*warning*.

Not done here: comparing report data (``verifier``), reference values (``appraise``), fetching keys (``endorse``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeAlias, assert_never

from cloister.attest.findings import Findings
from cloister.attest.parts import parse_parts
from cloister.attest.roots import vendor_certificate
from cloister.attest.rules import NotChecked, show
from cloister.attest.tokens.bundle import MAX_BUNDLE_BYTES, Bundle
from cloister.attest.tokens.confidential_space import CONFIDENTIAL_SPACE, CS_ISSUER
from cloister.attest.tokens.ita import ITA
from cloister.attest.tokens.keyset import KeySet
from cloister.attest.tokens.maa import MAA
from cloister.attest.tokens.nras import NRAS, NRAS_ISSUER
from cloister.attest.tokens.profile import Profile, Trust, verify_token
from cloister.attest.tokens.rows import text_or_none
from cloister.errors import Rejected, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cloister.attest.chain import Certificate
    from cloister.attest.rats import Evidence, VerifiedClaims

__all__ = [
    "ITA_ISSUERS",
    "TOKEN_CAPS",
    "Issuer",
    "JwksAt",
    "PinnedKeys",
    "PinnedRoots",
    "TokenScheme",
    "production_confidential_space_scheme",
    "production_ita_scheme",
    "production_maa_scheme",
    "production_nras_scheme",
]

TOKEN_CAPS: Final = {"token": MAX_BUNDLE_BYTES}
"""The one part of token evidence, and its most bytes."""

_NO_AUDIENCE = NotChecked("tokens of this issuer name no audience; the nonce ties them to the request")
_NO_ROOT = NotChecked("the issuer publishes its keys without a root to pin; the source of the key set is trusted")


@dataclass(frozen=True, slots=True, kw_only=True)
class JwksAt:
    """Keys are those of the endorsement ``tokens/jwks/{host}``; their certificates end in ``roots``."""

    host: str
    roots: tuple[Certificate, ...] | NotChecked


@dataclass(frozen=True, slots=True)
class PinnedRoots:
    """The token carries its chain, which ends in one of ``roots``."""

    roots: tuple[Certificate, ...]


@dataclass(frozen=True, slots=True)
class PinnedKeys:
    """Exactly these keys sign for the issuer."""

    keys: KeySet


KeySource: TypeAlias = JwksAt | PinnedRoots | PinnedKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Somebody trusted to verify hardware: ``name`` as ``iss`` spells it, and how its keys are known."""

    name: str
    keys: KeySource


class TokenScheme:
    """Verifies tokens of one kind from issuers that were chosen by name."""

    software_claims: Final[frozenset[str]] = frozenset()

    def __init__(
        self,
        profile: Profile,
        issuers: Sequence[Issuer],
        *,
        audiences: Sequence[str] | NotChecked,
        algorithms: frozenset[str] | None = None,
    ) -> None:
        """Trust ``issuers``, each named once, for tokens to ``audiences``; ``algorithms`` narrows the profile's."""
        self._profile = profile
        self._issuers = {issuer.name: issuer for issuer in issuers}
        self._audiences = audiences if isinstance(audiences, NotChecked) else frozenset(audiences)
        self._algorithms = profile.algorithms if algorithms is None else algorithms & profile.algorithms
        empty_roots = any(
            not roots
            for issuer in issuers
            if not isinstance(issuer.keys, PinnedKeys) and not isinstance(roots := issuer.keys.roots, NotChecked)
        )
        if not self._issuers or len(self._issuers) != len(issuers) or empty_roots:
            msg = f"{profile.tee} scheme: want issuers, each once, with a root or with keys"
            raise UsageError(msg, hint="name whom you trust to verify hardware for you")
        if not self._algorithms or self._audiences == frozenset():
            msg = f"{profile.tee} scheme: no algorithm or no audience would accept nothing"
            raise UsageError(msg)
        self.tee: Final = profile.tee
        self.report_data_bytes: Final = profile.report_data_bytes
        self.required: Final = profile.required

    def needs(self, evidence: Evidence) -> tuple[str, ...]:
        """Return the name of the issuer's key set, where it is not pinned. Raises ``Malformed``."""
        issuer = self._issuers.get(_issuer_of(_token(evidence)) or "")
        if issuer is None or not isinstance(issuer.keys, JwksAt):
            return ()
        return (f"tokens/jwks/{issuer.keys.host}",)

    def verify(self, evidence: Evidence, endorsements: Mapping[str, bytes], now: datetime) -> VerifiedClaims:
        """Prove that a trusted issuer says this, for us, in time.

        Raises ``Malformed``; ``Rejected`` with ``issuer_mismatch`` and the codes of ``verify_token``.
        """
        # 1. Who says it: a name, so far nobody's word, that only chooses among keys we were given.
        token = _token(evidence)
        name = _issuer_of(token)
        issuer = self._issuers.get(name or "")
        if issuer is None:
            want = ", ".join(sorted(self._issuers))[:256]
            raise Rejected.because("issuer_mismatch", "issuer", got=show(name), want=want)
        # 2. With that issuer's keys alone.
        trust = Trust(
            keys=_keys(issuer, endorsements),
            algorithms=self._algorithms,
            issuers=frozenset({issuer.name}),
            audiences=self._audiences,
        )
        verified = verify_token(token, self._profile, trust, now)
        # 3. What the keys themselves rest on.
        findings = Findings("token")
        if isinstance(issuer.keys, JwksAt) and isinstance(issuer.keys.roots, NotChecked):
            findings.skip("untrusted_root", "root of the issuer's keys", issuer.keys.roots.why)
        return replace(verified, checks=(*verified.checks, *findings.checks))


def _token(evidence: Evidence) -> bytes:
    return parse_parts(evidence.payload, what=f"{evidence.tee} evidence", caps=TOKEN_CAPS, required=("token",))["token"]


def _issuer_of(token: bytes) -> str | None:
    """Return ``iss`` of a token that nobody has verified yet."""
    return text_or_none(Bundle.parse(token).overall.claimset(what="token"), "iss")


def _keys(issuer: Issuer, endorsements: Mapping[str, bytes]) -> KeySet:
    match issuer.keys:
        case PinnedKeys(keys):
            return keys
        case PinnedRoots(roots):
            return KeySet.of_certificates(roots)
        case JwksAt(host=host, roots=roots):
            data = endorsements.get(f"tokens/jwks/{host}")
            if data is None:
                raise Rejected.because("unknown_key", f"keys of {host}", want="the issuer's key set")
            keys = KeySet.parse(data)
            return keys if isinstance(roots, NotChecked) else replace(keys, roots=roots)
        case _:
            assert_never(issuer.keys)


ITA_ISSUERS: Final = {
    "Intel Trust Authority": "portal.trustauthority.intel.com",
    "https://portal.trustauthority.intel.com": "portal.trustauthority.intel.com",
    "https://portal.eu.trustauthority.intel.com": "portal.eu.trustauthority.intel.com",
}
"""Trust Authority's names in ``iss``, and where each publishes its keys."""


def production_maa_scheme(hosts: Sequence[str]) -> TokenScheme:
    """Return the scheme that trusts these Azure Attestation providers (``sharedweu.weu.attest.azure.net``)."""
    issuers = [Issuer(name=f"https://{host}", keys=JwksAt(host=host, roots=_NO_ROOT)) for host in hosts]
    return TokenScheme(MAA, issuers, audiences=_NO_AUDIENCE)


def production_ita_scheme() -> TokenScheme:
    """Return the scheme that trusts Intel Trust Authority."""
    issuers = [Issuer(name=name, keys=JwksAt(host=host, roots=_NO_ROOT)) for name, host in ITA_ISSUERS.items()]
    return TokenScheme(ITA, issuers, audiences=_NO_AUDIENCE)


def production_confidential_space_scheme(audiences: Sequence[str]) -> TokenScheme:
    """Return the scheme that trusts Confidential Space tokens of the PKI kind, to these audiences."""
    root = vendor_certificate("google-confidential-space-root")
    issuer = Issuer(name=CS_ISSUER, keys=PinnedRoots((root,)))
    return TokenScheme(CONFIDENTIAL_SPACE, [issuer], audiences=audiences)


def production_nras_scheme() -> TokenScheme:
    """Return the scheme that trusts NVIDIA's service."""
    issuer = Issuer(name=NRAS_ISSUER, keys=JwksAt(host=NRAS_ISSUER.removeprefix("https://"), roots=_NO_ROOT))
    return TokenScheme(NRAS, [issuer], audiences=_NO_AUDIENCE)
