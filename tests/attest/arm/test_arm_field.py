"""Keys as devices' makers hand them out, and members of a policy as the index itself spells what tokens say."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloister.attest.arm.anchors import parse_key
from cloister.attest.dossier import judge, psa
from cloister.attest.dossier.cca import open_case
from cloister.attest.rules import Exact
from cloister.errors import Malformed, Unavailable
from cloister.testing.vendors.arm import CcaPlatform, CcaToken, PsaDevice, PsaToken

NOW = datetime(2026, 5, 1, tzinfo=UTC)
CURVES = [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()]
FORMS = {
    "pem after text": (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    "der": (Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    "point": (Encoding.X962, PublicFormat.UncompressedPoint),
    "coordinates": (Encoding.X962, PublicFormat.UncompressedPoint),
}
FILES = {"token": CcaPlatform.generate().token(CcaToken(challenge=bytes(64))), "trust_anchor": json.dumps([]).encode()}


@pytest.mark.parametrize("value", [0x3003, "0x3003"])
def test_a_lifecycle_is_a_number_however_it_is_written(value: object) -> None:
    assert open_case(FILES, {"lifecycle": value}).rules["lifecycle"] == Exact(0x3003)  # type: ignore[dict-item]  # json


def test_a_lifecycle_that_is_no_number_is_not_passed_over() -> None:
    with pytest.raises(Unavailable):
        open_case(FILES, {"lifecycle": "0xsecured"})


def test_measurements_of_a_realm_may_be_listed_under_either_name() -> None:
    for name in ("rem", "rems"):
        (bound,) = open_case(FILES, {name: ["0x" + "20" * 32]}).bound
        assert bound.got == bound.want == b"\x20" * 32


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_a_public_key_is_one_in_every_form(curve: ec.EllipticCurve, form: str) -> None:
    public = ec.generate_private_key(curve).public_key()
    data = public.public_bytes(*FORMS[form])
    data = {"pem after text": b"# device 1\n" + data, "coordinates": data[1:]}.get(form, data)
    found = parse_key(data)
    assert isinstance(found, ec.EllipticCurvePublicKey)
    assert found == public


@pytest.mark.parametrize("form", ["der", "point", "coordinates"])
def test_nobody_makes_a_secret_of_a_public_key(form: str) -> None:
    """Whoever knows the public key could make the tag of a COSE_Mac0."""
    data = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(*FORMS[form])
    data = data[1:] if form == "coordinates" else data
    forged = PsaDevice(data).token(PsaToken(nonce=bytes(32)))
    assert [reason.code for reason in judge(psa.open_case({"token": forged, "key": data}, {}), NOW).reasons] == [
        "signature_invalid"
    ]


def test_a_public_key_of_another_kind_is_no_secret_either() -> None:
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    with pytest.raises(Malformed, match="elliptic curve"):
        parse_key(public.public_bytes(*FORMS["der"]))


@pytest.mark.parametrize(
    "data", [b"\x04" + bytes(64), b"\x02" + b"\xff" * 32, b"\x30" * 63 + b"\x80", bytes(range(32))]
)
def test_other_bytes_are_a_secret(data: bytes) -> None:
    assert parse_key(data) == data
