"""Damaged tokens: Malformed or Rejected comes out, and what is signed is never accepted otherwise."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import cbor2
import pytest

from cloister.attest.arm.cca import CcaToken as ParsedCca
from cloister.attest.arm.platform import PlatformClaims
from cloister.attest.arm.psa import PsaClaims, parse_claims_set
from cloister.attest.arm.realm import RealmClaims, RealmKey
from cloister.attest.describe.arm import CcaDescriber, PsaDescriber
from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence
from cloister.attest.schemes.cca import CCA
from cloister.errors import Malformed, Rejected
from cloister.testing.vendors.arm import RMM_2, CcaPlatform, CcaToken, PsaDevice, PsaToken
from mutations import MUTATIONS, mutated

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.attest.verifier import Scheme

NOW = datetime(2026, 5, 1, tzinfo=UTC)
DEVICE, SYMMETRIC, PLATFORM = PsaDevice.generate(), PsaDevice.symmetric(), CcaPlatform.generate()
PSA_TOKEN = PsaToken(nonce=bytes(64))
TOKENS: dict[str, tuple[Scheme, bytes]] = {
    "sign1": (DEVICE.scheme(), DEVICE.token(PSA_TOKEN)),
    "mac0": (SYMMETRIC.scheme(), SYMMETRIC.token(PSA_TOKEN)),
    "cca": (PLATFORM.scheme(), PLATFORM.token(CcaToken(challenge=bytes(64), profile=RMM_2))),
}


def verify(scheme: Scheme, token: bytes) -> None:
    scheme.verify(Evidence(tee=scheme.tee, payload=dump_parts({"token": token})), {}, NOW)


@pytest.mark.parametrize(("scheme", "token"), TOKENS.values(), ids=TOKENS)
def test_no_damaged_token_is_accepted(scheme: Scheme, token: bytes) -> None:
    verify(scheme, token)
    for damaged in mutated(token, count=4000 if scheme.tee == CCA else MUTATIONS):
        if damaged != token:
            with pytest.raises((Malformed, Rejected)):
                verify(scheme, damaged)


@pytest.mark.parametrize(("scheme", "token"), TOKENS.values(), ids=TOKENS)
def test_no_flipped_bit_is_accepted(scheme: Scheme, token: bytes) -> None:
    for at in range(8 * len(token)):
        if len(token) > 600 and at % 23:  # each costs three verifications
            continue
        damaged = bytearray(token)
        damaged[at // 8] ^= 1 << at % 8
        with pytest.raises((Malformed, Rejected)):
            verify(scheme, bytes(damaged))


@pytest.mark.parametrize(("scheme", "token"), TOKENS.values(), ids=TOKENS)
def test_a_token_cut_anywhere_is_malformed(scheme: Scheme, token: bytes) -> None:
    for size in range(len(token)):
        with pytest.raises(Malformed):
            verify(scheme, token[:size])


PSA_CLAIMS = cbor2.loads(TOKENS["sign1"][1]).value[2]
CCA_PARTS = ParsedCca.parse(TOKENS["cca"][1])


def realm(data: bytes) -> None:
    claims = parse_claims_set(data)
    RealmKey.parse(claims).public_key()
    RealmClaims.parse(claims, platform_profile=RMM_2.platform)


PARSERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "psa claims": (lambda data: PsaClaims.parse(parse_claims_set(data)), PSA_CLAIMS),
    "platform claims": (lambda data: PlatformClaims.parse(parse_claims_set(data)), CCA_PARTS.platform.payload),
    "realm claims": (realm, CCA_PARTS.realm.payload),
}


@pytest.mark.parametrize(("parse", "data"), PARSERS.values(), ids=PARSERS)
def test_only_malformed_or_a_profile_nobody_reads_comes_out_of_a_parser(
    parse: Callable[[bytes], object], data: bytes
) -> None:
    parse(data)
    for damaged in mutated(data):
        try:
            parse(damaged)
        except Malformed:
            continue
        except Rejected as refusal:
            assert refusal.code == "unsupported_format"  # noqa: PT017 - a bit in the profile's name


@pytest.mark.parametrize("kind", ["sign1", "cca"])
def test_only_malformed_comes_out_of_a_description(kind: str) -> None:
    describer = CcaDescriber() if kind == "cca" else PsaDescriber()
    for damaged in mutated(TOKENS[kind][1], count=3000, seed=3):
        try:
            describer.describe(damaged)
        except Malformed:
            continue
