"""Ten thousand damaged inputs for each parser: Malformed comes out, or Rejected where a verdict is asked for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence, TeeKind
from cloister.attest.tokens.bundle import Bundle
from cloister.attest.tokens.claimset import parse_claimset
from cloister.attest.tokens.confidential_space import CONFIDENTIAL_SPACE
from cloister.attest.tokens.ear import EAR as EAR_PROFILE
from cloister.attest.tokens.ita import ITA
from cloister.attest.tokens.keyset import KeySet
from cloister.attest.tokens.maa import MAA
from cloister.attest.tokens.nras import NRAS as NRAS_PROFILE
from cloister.errors import Malformed, Rejected
from cloister.testing.vendors.tokens import TokenVendor, claims
from cloister.wire import dump_json
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.attest.tokens.profile import Profile

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
EAR = TokenVendor.generate(TeeKind("ear"))
NRAS = TokenVendor.generate(TeeKind("nras"))


def reads(profile: Profile) -> Callable[[bytes], None]:
    """Return how an issuer's payload is read, every way there is."""

    def read(data: bytes) -> None:
        said = parse_claimset(data, what="token")
        profile.recognises(said)
        profile.nonces(said)
        profile.unread(said)
        profile.flatten(said, {})
        profile.bound(said)

    return read


PARSERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "bundle": (Bundle.parse, NRAS.token(bytes(32), NOW)),
    "token": (Bundle.parse, EAR.token(bytes(64), NOW)),
    "jwks": (KeySet.parse, EAR.jwks()),
    "pem": (KeySet.parse, EAR.root.pem + EAR.chain[0].pem),
    "azure attestation": (reads(MAA), dump_json(claims.maa_azurevm_claims(bytes(64)))),
    "trust authority": (reads(ITA), dump_json(claims.ita_v2_claims(bytes(64)))),
    "confidential space": (reads(CONFIDENTIAL_SPACE), dump_json(claims.confidential_space_claims(bytes(32)))),
    "gpu": (reads(NRAS_PROFILE), dump_json(claims.gpu_claims(bytes(32)))),
    "result": (reads(EAR_PROFILE), dump_json(claims.ear_claims(bytes(64)))),
}


@pytest.mark.parametrize(("parse", "data"), PARSERS.values(), ids=PARSERS)
def test_only_malformed_comes_out_of_a_token_parser(parse: Callable[[bytes], object], data: bytes) -> None:
    parse(data)
    refused = 0
    for damaged in mutated(data):
        try:
            parse(damaged)
        except Malformed:
            refused += 1
    assert refused


@pytest.mark.parametrize("vendor", [EAR, NRAS], ids=["ear", "nras"])
def test_only_malformed_or_rejected_comes_out_of_a_token_scheme(vendor: TokenVendor) -> None:
    scheme, endorsements, tee = vendor.scheme(), vendor.endorsements, vendor.kind.profile.tee
    good = dump_parts({"token": vendor.token(bytes(vendor.kind.profile.report_data_bytes), NOW)})
    assert scheme.verify(Evidence(tee=tee, payload=good), endorsements, NOW).tee == tee
    for damaged in mutated(good, count=5_000):
        if damaged != good:
            with pytest.raises((Malformed, Rejected)):
                scheme.verify(Evidence(tee=tee, payload=damaged), endorsements, NOW)


def test_only_malformed_or_rejected_comes_out_of_a_damaged_key_set() -> None:
    scheme, (name,) = EAR.scheme(), EAR.endorsements
    evidence = Evidence(tee=TeeKind("ear"), payload=dump_parts({"token": EAR.token(bytes(64), NOW)}))
    for damaged in mutated(EAR.jwks(), count=3_000, seed=2):
        try:
            scheme.verify(evidence, {name: damaged}, NOW)
        except (Malformed, Rejected):
            continue
