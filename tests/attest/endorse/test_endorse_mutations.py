"""Ten thousand damaged inputs for each parser: Malformed comes out, or Rejected where a verdict is asked for."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest
from seeds_endorse import TARGETS, key, signed_bundle

from cloister.attest.endorse.bundle import verify_bundle
from cloister.attest.endorse.names import parse_name
from cloister.attest.endorse.window import window_of
from cloister.errors import Malformed, Rejected
from endorse_kit import NOW, intel
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("target", TARGETS)
def test_damaged_input_is_malformed_and_nothing_else(target: str) -> None:
    parser, seeds = TARGETS[target]
    for seed, data in enumerate(seeds()):
        parser(data)
        for damaged in mutated(data, count=10_000 // len(seeds()), seed=seed):
            _survives(parser, damaged)


def _survives(parser: Callable[[bytes], object], data: bytes) -> None:
    with contextlib.suppress(Malformed, Rejected):
        parser(data)


def test_a_damaged_signed_bundle_is_never_accepted() -> None:
    signed = signed_bundle()
    accepted = verify_bundle(signed, (key().verify_key,), NOW, last=None)
    for damaged in mutated(signed):
        if damaged == signed:
            continue
        with pytest.raises((Malformed, Rejected)):
            verify_bundle(damaged, (key().verify_key,), NOW, last=None)
    assert accepted.bundle.version == 7


@pytest.mark.parametrize("member", ["root_ca_crl", "pck_crl"])
def test_collateral_without_a_revocation_list_is_none(member: str) -> None:
    members = json.loads(intel().published(tdx=True).dump())
    data = json.dumps({**members, member: ""}).encode()
    with pytest.raises(Malformed, match="revocation list is missing"):
        window_of(parse_name(intel().endorsement(tdx=True)), data)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("amd/milan/ca", b""),
        ("amd/milan/crl", b"0"),
        ("nvidia/rim/X", b"<a/>"),
        ("nvidia/ocsp/1", b"0\x03\x0a\x01\x01"),
        ("tokens/jwks/a", json.dumps({"keys": []}).encode()),
        ("intel/sgx/000000000000/platform", b"{}"),
        ("amd/turin/vcek/0000000000000000/0000000000000000", b"-----BEGIN CERTIFICATE-----"),
    ],
)
def test_what_is_no_such_object_has_no_window(name: str, data: bytes) -> None:
    with pytest.raises(Malformed):
        window_of(parse_name(name), data)
