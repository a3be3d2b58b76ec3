"""Certificates inside of anything: found in quotes, parts and PEM, bounded, and never an error."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from cloister.attest.carried import MAX_CARRIED, carried_certificates
from cloister.attest.rats import TeeKind
from cloister.testing.vendors.intel.pki import Authority
from cloister.testing.vendors.tokens.issuer import TokenVendor
from endorse_kit import intel

if TYPE_CHECKING:
    from cloister.attest.chain import Certificate


def _chain() -> list[Certificate]:
    """Return a leaf, an intermediate and a root."""
    leaf, issuer = intel().pck.certificate, intel().issuer.certificate
    return [leaf, issuer, *intel().roots]


def _names(pieces: list[bytes]) -> list[str]:
    return [item.shown for item in carried_certificates(pieces)]


def test_certificates_are_found_in_whatever_they_are_wrapped_in_and_stand_before_their_issuers() -> None:
    leaf, issuer, root = _chain()
    wanted = [leaf.shown, issuer.shown, root.shown]
    assert _names([b"\x00junk" + root.der + b"\x30\x82" + issuer.der, b"quote" + leaf.pem]) == wanted
    assert _names([root.pem + leaf.pem + issuer.pem, leaf.der]) == wanted


@pytest.mark.parametrize("before", [b"", b"token\x00\x00\x0a\x41", b'[["JWT","'])
def test_the_chain_of_a_token_is_found_in_its_header_and_in_a_key_set(before: bytes) -> None:
    issuer = TokenVendor.generate(TeeKind("confidential-space"))
    wanted = [item.shown for item in issuer.chain]
    token = issuer.token(bytes(64), datetime(2026, 11, 30, tzinfo=UTC))
    assert _names([before + token + b'"]']) == wanted
    keys = issuer.jwks()
    assert _names([keys]) == wanted
    assert b"/" in keys
    assert _names([keys.replace(b"/", b"\\/")]) == wanted, "JSON may write a slash so"
    assert _names([before + token.partition(b".")[0]]) == []
    assert _names([issuer.jwks(certified=False)]) == []


@pytest.mark.parametrize(
    "piece",
    [b"eyJ" * 100_000, b"eyJ." * 100_000, b'"MIIA' * 60_000, b'"MII' + b"A" * 300_000, b'"MIIA"' * 50_000,
     b"eyJ" + b"A" * 99_998 + b".", b'"MIIAA"', b"eyJ" + b"A" * 18 + b".", b"eyJAAAAAAAAAAAAAAA." * 20_000],
)  # fmt: skip
def test_noise_that_looks_like_tokens_takes_no_time_and_no_error(piece: bytes) -> None:
    assert carried_certificates([piece]) == ()


def test_what_is_no_certificate_is_passed_over() -> None:
    leaf, *_ = _chain()
    cut = leaf.der[:-1]
    assert (
        _names(
            [cut, b"\x30\x82\xff\xff\x30", b"\x30\x82", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]
        )
        == []
    )


def test_noise_full_of_beginnings_takes_no_time_and_no_error() -> None:
    rng = random.Random(7)
    noise = b"".join(b"\x30\x82" + rng.randbytes(2) + b"\x30" + rng.randbytes(40) for _ in range(20_000))
    assert carried_certificates([noise]) == ()


def test_a_flood_of_certificates_is_cut() -> None:
    many = [Authority.root(f"root {number}").certificate.der for number in range(MAX_CARRIED + 5)]
    assert len(carried_certificates([b"".join(many)])) == MAX_CARRIED
