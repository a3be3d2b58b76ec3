"""Targets of coverage-guided fuzzing for tokens, and honest inputs to start from."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

from cloister.attest.describe.token import TokenDescriber
from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence, TeeKind
from cloister.attest.tokens.bundle import Bundle
from cloister.attest.tokens.claimset import parse_claimset
from cloister.attest.tokens.confidential_space import CONFIDENTIAL_SPACE
from cloister.attest.tokens.ear import EAR
from cloister.attest.tokens.ita import ITA
from cloister.attest.tokens.keyset import KeySet
from cloister.attest.tokens.maa import MAA
from cloister.attest.tokens.nras import NRAS
from cloister.testing.vendors.tokens import TokenVendor, claims
from cloister.wire import dump_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloister.attest.schemes.token import TokenScheme
    from cloister.attest.tokens.profile import Profile

__all__ = ["TARGETS"]

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


@cache
def vendor(kind: str) -> TokenVendor:
    """Return one issuer of a kind, made when first asked for."""
    return TokenVendor.generate(TeeKind(kind))


def reads(profile: Profile) -> Callable[[bytes], None]:
    """Return how a payload is read as one issuer's, every way there is."""

    def read(data: bytes) -> None:
        said = parse_claimset(data, what="token")
        profile.recognises(said)
        profile.nonces(said)
        profile.unread(said)
        profile.flatten(said, {})
        profile.bound(said)

    return read


def verifies(kind: str) -> Callable[[bytes], object]:
    """Return the whole way of evidence of a kind, for bytes that are a token."""

    @cache
    def prepared() -> tuple[TokenScheme, Mapping[str, bytes]]:
        return vendor(kind).scheme(), vendor(kind).endorsements

    def verify(data: bytes) -> object:
        scheme, endorsements = prepared()
        return scheme.verify(Evidence(tee=TeeKind(kind), payload=dump_parts({"token": data})), endorsements, NOW)

    return verify


TARGETS: dict[str, tuple[Callable[[bytes], object], Callable[[], list[bytes]]]] = {
    "token-bundle": (Bundle.parse, lambda: [vendor("nras").token(bytes(32), NOW), vendor("ear").token(bytes(64), NOW)]),
    "token-keys": (KeySet.parse, lambda: [vendor("ear").jwks(), vendor("ear").root.pem, vendor("ear").root.der]),
    "token-maa": (
        reads(MAA),
        lambda: [
            dump_json(make(bytes(64)))
            for make in (
                claims.maa_azurevm_claims,
                claims.maa_sgx_claims,
                claims.maa_snp_claims,
                claims.maa_tdx_claims,
            )
        ],
    ),
    "token-ita": (
        reads(ITA),
        lambda: [dump_json(make(bytes(64))) for make in (claims.ita_claims, claims.ita_v2_claims)],
    ),
    "token-confidential-space": (
        reads(CONFIDENTIAL_SPACE),
        lambda: [dump_json(claims.confidential_space_claims(bytes(32)))],
    ),
    "token-nras": (reads(NRAS), lambda: [dump_json(claims.gpu_claims(bytes(32)))]),
    "token-ear": (reads(EAR), lambda: [dump_json(claims.ear_claims(bytes(64)))]),
    "token-described": (TokenDescriber().describe, lambda: [vendor("nras").token(bytes(32), NOW)]),
    "token-scheme": (verifies("ear"), lambda: [vendor("ear").token(bytes(64), NOW)]),
}
"""Name of a target: what reads the bytes (``Malformed`` and ``Rejected`` are no findings), and seeds for it."""
