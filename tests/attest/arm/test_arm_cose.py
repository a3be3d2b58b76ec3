"""COSE messages: headers, algorithms and keys that go together, and keys as COSE has them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloister.attest.cose import (
    COSE_MAC0,
    COSE_SIGN1,
    CURVES,
    ES256,
    ES384,
    ES512,
    HMAC_256,
    HMAC_384,
    HMAC_512,
    CoseKey,
    CoseMessage,
    dump_cose_key,
    parse_cose_key,
    verify_message,
)
from cloister.errors import Malformed, Rejected
from cloister.testing.vendors.arm import Envelope, sign_message
from mutations import mutated

if TYPE_CHECKING:
    from cloister.attest.cbor import Cbor

ALL = (ES256, ES384, ES512, HMAC_256, HMAC_384, HMAC_512)
SECRET = bytes(range(32))
P256, P384, P521 = (ec.generate_private_key(curve) for curve in CURVES.values())
PAYLOAD = b"payload"


def message(data: bytes) -> CoseMessage:
    return CoseMessage.parse(data, what="test", kinds=(COSE_MAC0, COSE_SIGN1), cap=1024)


def refused(data: bytes, key: CoseKey, algorithms: tuple[int, ...] = ALL) -> str:
    with pytest.raises(Rejected) as caught:
        verify_message(message(data), key, algorithms=algorithms, subject="test")
    return caught.value.code


@pytest.mark.parametrize("key", [P256, P384, P521], ids=["es256", "es384", "es512"])
def test_a_signature_by_the_right_key_is_proven(key: ec.EllipticCurvePrivateKey) -> None:
    found = message(sign_message(PAYLOAD, key))
    verify_message(found, key.public_key(), algorithms=ALL, subject="test")
    assert found.payload == PAYLOAD


@pytest.mark.parametrize("algorithm", [HMAC_256, HMAC_384, HMAC_512])
def test_a_tag_by_the_right_secret_is_proven(algorithm: int) -> None:
    found = message(sign_message(PAYLOAD, SECRET, Envelope(algorithm=algorithm)))
    verify_message(found, SECRET, algorithms=ALL, subject="test")


def test_another_key_of_the_same_curve_is_refused() -> None:
    assert (
        refused(sign_message(PAYLOAD, P256), ec.generate_private_key(ec.SECP256R1()).public_key())
        == "signature_invalid"
    )
    assert refused(sign_message(PAYLOAD, SECRET), bytes(32)) == "signature_invalid"


def test_a_key_on_another_curve_signed_nothing() -> None:
    assert refused(sign_message(PAYLOAD, P256), P384.public_key()) == "signature_invalid"


def test_a_secret_is_no_public_key_and_the_other_way_round() -> None:
    assert refused(sign_message(PAYLOAD, P256), SECRET) == "signature_invalid"
    assert refused(sign_message(PAYLOAD, SECRET), P256.public_key()) == "signature_invalid"


def test_a_public_key_used_as_a_secret_does_not_pass() -> None:
    point = dump_cose_key(P256.public_key())
    forged = sign_message(PAYLOAD, point)
    assert refused(forged, P256.public_key()) == "signature_invalid"


@pytest.mark.parametrize("algorithm", [4, -257, -37, 0, -8])
def test_an_algorithm_nobody_allowed_is_refused(algorithm: int) -> None:
    for key in (P256, SECRET):
        data = sign_message(PAYLOAD, key, Envelope(algorithm=algorithm))
        assert refused(data, SECRET) == "algorithm_not_allowed"


def test_an_allowed_algorithm_of_the_other_kind_is_refused() -> None:
    assert refused(sign_message(PAYLOAD, P256, Envelope(algorithm=HMAC_256)), SECRET) == "algorithm_not_allowed"
    assert refused(sign_message(PAYLOAD, SECRET, Envelope(algorithm=ES256)), SECRET) == "algorithm_not_allowed"
    assert refused(sign_message(PAYLOAD, P256), P256.public_key(), (ES384,)) == "algorithm_not_allowed"


@pytest.mark.parametrize("size", [0, 63, 65, 96])
def test_a_signature_of_another_size_is_refused(size: int) -> None:
    parts = list(cbor2.loads(sign_message(PAYLOAD, P256)).value)
    parts[3] = parts[3].ljust(size, b"\x00")[:size]
    assert refused(cbor2.dumps(cbor2.CBORTag(18, parts)), P256.public_key()) == "signature_invalid"


def test_a_signature_of_zeros_is_refused() -> None:
    parts = list(cbor2.loads(sign_message(PAYLOAD, P256)).value)
    parts[3] = bytes(64)
    assert refused(cbor2.dumps(cbor2.CBORTag(18, parts)), P256.public_key()) == "signature_invalid"


def test_a_signature_is_not_a_tag_over_the_same_bytes() -> None:
    found = message(sign_message(PAYLOAD, P256))
    assert replace(found, kind=COSE_MAC0).covered != found.covered


HEADERS: dict[str, Envelope] = {
    "crit": Envelope(protected={2: [1]}),
    "an unknown label": Envelope(protected={99: 1}),
    "a key id that is text": Envelope(protected={4: "kid"}),
    "a content type of bytes": Envelope(protected={3: b"x"}),
    "a key id too long": Envelope(unprotected={4: bytes(65)}),
    "an algorithm outside the protection": Envelope(unprotected={1: -7}),
    "a certificate chain outside the protection": Envelope(unprotected={33: b""}),
    "no tag": Envelope(tagged=False),
    "the tag of a multi-signer message": Envelope(tag=98),
}


@pytest.mark.parametrize("envelope", HEADERS.values(), ids=HEADERS)
def test_an_envelope_out_of_form_is_malformed(envelope: Envelope) -> None:
    with pytest.raises(Malformed):
        message(sign_message(PAYLOAD, P256, envelope))


def test_a_key_id_and_a_content_type_may_be_there() -> None:
    envelope = Envelope(protected={3: "application/eat+cwt", 4: b"kid", 16: 263}, unprotected={4: b"kid"})
    verify_message(message(sign_message(PAYLOAD, P256, envelope)), P256.public_key(), algorithms=ALL, subject="test")


@pytest.mark.parametrize(
    "protected", [b"", b"\x80", cbor2.dumps({1: "ES256"}), cbor2.dumps({}), b"\xa1\x01\x26\x00", bytes(300)]
)
def test_a_protected_header_out_of_form_is_malformed(protected: bytes) -> None:
    with pytest.raises(Malformed):
        message(cbor2.dumps(cbor2.CBORTag(18, [protected, {}, PAYLOAD, bytes(64)])))


@pytest.mark.parametrize("key", [P256, P384, P521])
def test_a_cose_key_comes_back(key: ec.EllipticCurvePrivateKey) -> None:
    assert parse_cose_key(dump_cose_key(key.public_key()), what="test") == key.public_key()


GOOD_KEY: dict[int | str, Cbor] = cbor2.loads(dump_cose_key(P256.public_key()))
KEYS: dict[str, dict[int | str, Cbor]] = {
    "an octet key": {1: 1},
    "a symmetric key": {1: 4},
    "no type": {1: None},
    "curve 4": {-1: 4},
    "curve 0": {-1: 0},
    "an x too short": {-2: bytes(31)},
    "a y that is a sign": {-3: True},
    "a private key": {-4: bytes(32)},
    "a point off its curve": {-3: bytes(32)},
    "another curve's point": {-1: 2},
}


@pytest.mark.parametrize("changes", KEYS.values(), ids=KEYS)
def test_a_cose_key_out_of_form_is_malformed(changes: dict[int | str, Cbor]) -> None:
    with pytest.raises(Malformed):
        parse_cose_key(cbor2.dumps({**GOOD_KEY, **changes}), what="test")


def test_a_cose_key_may_say_its_id_and_algorithm() -> None:
    assert parse_cose_key(cbor2.dumps({**GOOD_KEY, 2: b"kid", 3: -7}), what="test") == P256.public_key()


def test_only_malformed_comes_out_of_the_parsers() -> None:
    data = sign_message(PAYLOAD, P256)
    for damaged in mutated(data, count=4000):
        try:
            message(damaged)
        except Malformed:
            continue
    for damaged in mutated(dump_cose_key(P256.public_key()), count=4000):
        try:
            parse_cose_key(damaged, what="test")
        except Malformed:
            continue
