"""Certificates inside of anything: found in quotes, parts and PEM, bounded, and never an error."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from cloister.attest.carried import MAX_CARRIED, carried_certificates
from cloister.testing.vendors.intel.pki import Authority
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
