"""Attacks on Arm tokens by a host that chooses everything but a device's signatures."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloister.attest.arm.anchors import Anchor, parse_key
from cloister.attest.arm.software import component_claims, parse_components
from cloister.attest.cose import dump_cose_key
from cloister.attest.schemes.psa import PsaScheme
from cloister.errors import Malformed, Rejected
from cloister.testing.vendors.arm import PsaDevice, PsaToken, component

NOW = datetime(2026, 11, 28, tzinfo=UTC)
PUBLIC = ec.generate_private_key(ec.SECP256R1()).public_key()
POINT = PUBLIC.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
COMPRESSED = PUBLIC.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
DER = PUBLIC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("data", [COMPRESSED, dump_cose_key(PUBLIC)], ids=["compressed point", "cose key"])
def test_a_public_key_in_whatever_form_makes_no_tag(data: bytes) -> None:
    """A COSE_Mac0 by the bytes of a public key is everybody's."""
    assert parse_key(data) == PUBLIC
    forger = PsaDevice(data)
    scheme = PsaScheme([Anchor(key=parse_key(data), instance_id=forger.instance_id)])
    with pytest.raises(Rejected) as refused:
        scheme.verify(forger.evidence(PsaToken(nonce=bytes(64))), {}, NOW)
    assert refused.value.code == "signature_invalid"


@pytest.mark.parametrize(
    "data",
    [
        base64.b64encode(DER),
        base64.b64encode(POINT),
        base64.encodebytes(POINT),
        POINT[1:].hex().encode(),
        COMPRESSED.hex().encode(),
    ],
    ids=["der in base64", "point in base64", "in lines", "coordinates in hex", "compressed point in hex"],
)
def test_a_public_key_in_letters_is_no_shared_secret(data: bytes) -> None:
    with pytest.raises(Malformed, match="no text"):
        parse_key(data)


def test_a_component_that_calls_itself_by_a_place_does_not_hide_behind_the_one_at_that_place() -> None:
    listed = [component("n1", b"\x66" * 32), component(None, b"\x03" * 32)]
    claims = component_claims(parse_components(listed, what="token"))
    assert claims["measurement.n0"] == "66" * 32
    assert claims["measurement.n1"] == "03" * 32
    assert claims["software"] == ("03" * 32, "66" * 32)
