"""What an enclave hands over beside its evidence weakens no consumer's check."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from client_town import Town

from cloister.attest.binding import ChannelBinding
from cloister.attest.endorse.names import jwks
from cloister.attest.parts import dump_parts
from cloister.attest.rats import Nonce
from cloister.attest.schemes.token import ITA_ISSUERS
from cloister.attest.tokens.ita import ITA_TEE
from cloister.client.trust import verify_document
from cloister.errors import Unavailable
from cloister.testing.vendors.tokens import TokenVendor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.channel.keyset import EvidenceDocument

NONCE = Nonce(b"n" * 32)
MALLORY = TokenVendor.generate(ITA_TEE)
NAME = jwks(ITA_ISSUERS[MALLORY.issuer])
KEYS = {NAME: MALLORY.jwks(certified=False)}


def forged(town: Town, collateral: Mapping[str, bytes]) -> EvidenceDocument:
    """Return a token that Intel never signed, about a machine that is none, for this keyset and this nonce."""
    document = town.enclave.document(NONCE)
    bound = ChannelBinding(nonce=NONCE, keyset=document.keyset).report_data()
    payload = dump_parts({"token": MALLORY.token(bound, town.clock.now)})
    return replace(document, tee=ITA_TEE, evidence=payload, collateral=collateral)


def judge(town: Town, collateral: Mapping[str, bytes], own: Mapping[str, bytes]) -> str:
    """Return the tier of the forged token for a consumer that trusts Intel Trust Authority, as production knows it."""
    verified = verify_document(
        forged(town, collateral).dump(),
        url="https://enclave.test",
        trust=town.trust(policy=MALLORY.policy()),
        nonce=NONCE,
        schemes=(),
        endorsements=own,
        now=town.clock.now,
    )
    return verified.result.tier.value


def test_an_enclave_that_brings_the_keys_of_a_token_service_is_not_believed() -> None:
    """Nobody signs a key set: whoever hands one over says whom to believe, and that is for the consumer to say."""
    town = Town()
    with pytest.raises(Unavailable, match=NAME):
        judge(town, KEYS, {})
    assert judge(town, {}, KEYS) == "warning", "the same token, with keys that the consumer has itself"
