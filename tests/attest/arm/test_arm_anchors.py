"""Trust anchors of Arm's tokens: in which forms they come, and which device each is for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloister.attest.arm.anchors import Anchor, find_anchor, parse_anchors, parse_key
from cloister.attest.arm.lifecycle import Lifecycle
from cloister.errors import Malformed, UsageError
from cloister.wire import dump_b64u
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Mapping

KEYS = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
INSTANCE, OTHER = b"\x01" + bytes(32), b"\x01" + b"\x02" * 32
KIND, OTHER_KIND = bytes(32), b"\x03" * 32
SECRET = bytes(32)


def jwk(name: str = "P-256", **changes: Any) -> dict[str, Any]:
    public = ec.generate_private_key(KEYS[name]).public_key()
    size = (public.curve.key_size + 7) // 8
    numbers = public.public_numbers()
    x, y = (dump_b64u(value.to_bytes(size, "big")) for value in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": name, "x": x, "y": y, **changes}


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def entry(**changes: Any) -> Mapping[str, Any]:
    return {"pkey": jwk("P-384"), "implementation-id": KIND.hex(), "instance-id": INSTANCE.hex().upper(), **changes}


@pytest.mark.parametrize("name", KEYS)
def test_a_key_may_be_pem_or_jwk(name: str) -> None:
    key = ec.generate_private_key(KEYS[name])
    assert parse_key(pem(key)) == key.public_key()
    found = parse_key(json.dumps(jwk(name, kid="1", alg="ES256", use="sig")).encode())
    assert isinstance(found, ec.EllipticCurvePublicKey)
    assert found.curve.name == KEYS[name].name


def test_a_secret_may_be_bytes_or_jwk() -> None:
    assert parse_key(SECRET) == SECRET
    assert parse_key(json.dumps({"kty": "oct", "k": dump_b64u(SECRET)}).encode()) == SECRET


BAD_KEYS = {
    "nothing": b"",
    "a secret one can guess": bytes(15),
    "a secret too long": bytes(129),
    "a file too long": bytes(9000),
    "pem of nothing": b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    "an rsa key": pem(rsa.generate_private_key(65537, 2048)),
    "an edwards key": pem(ed25519.Ed25519PrivateKey.generate()),
    "jwk of another type": json.dumps({"kty": "RSA"}).encode(),
    "jwk on another curve": json.dumps(jwk(crv="secp256k1")).encode(),
    "jwk off its curve": json.dumps(jwk(y=dump_b64u(bytes(32)))).encode(),
    "jwk of another size": json.dumps(jwk(x=dump_b64u(bytes(31)))).encode(),
    "jwk with its private part": json.dumps(jwk(d=dump_b64u(bytes(32)))).encode(),
    "json that is no key": b"{}",
    "json cut short": b'{"kty":',
}


@pytest.mark.parametrize("data", BAD_KEYS.values(), ids=BAD_KEYS)
def test_what_is_no_key_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_key(data)


def test_anchors_come_as_a_json_array() -> None:
    anchors = parse_anchors(json.dumps([entry(), entry(**{"instance-id": OTHER.hex()})]).encode())
    assert [anchor.instance_id for anchor in anchors] == [INSTANCE, OTHER]
    assert {anchor.implementation_id for anchor in anchors} == {KIND}


BAD_ANCHORS: dict[str, Any] = {
    "an object": entry(),
    "an empty array": [],
    "an array of words": ["x"],
    "no key": [{"instance-id": INSTANCE.hex()}],
    "for nobody": [{"pkey": jwk()}],
    "an instance id of another type": [entry(**{"instance-id": "02" + "00" * 32})],
    "an instance id too short": [entry(**{"instance-id": "01"})],
    "half a byte": [entry(**{"instance-id": "010"})],
    "an instance id that is no hex": [entry(**{"instance-id": "zz" * 33})],
    "an implementation id too long": [entry(**{"implementation-id": "00" * 33})],
    "an unknown member": [entry(trusted=True)],
    "a secret one can guess": [entry(pkey={"kty": "oct", "k": dump_b64u(b"1234")})],
}


@pytest.mark.parametrize("value", BAD_ANCHORS.values(), ids=BAD_ANCHORS)
def test_what_are_no_anchors_is_malformed(value: Any) -> None:
    with pytest.raises(Malformed):
        parse_anchors(json.dumps(value).encode())


def test_an_anchor_is_for_somebody_and_in_form() -> None:
    for ids in ({}, {"instance_id": KIND}, {"instance_id": b"\x02" + KIND}, {"implementation_id": b""}):
        with pytest.raises(UsageError):
            Anchor(key=SECRET, **ids)
    with pytest.raises(UsageError):
        Anchor(key=b"", instance_id=INSTANCE)


def test_every_id_that_an_anchor_names_has_to_be_the_devices() -> None:
    both = Anchor(key=SECRET, instance_id=INSTANCE, implementation_id=KIND)
    assert both.is_for(INSTANCE, KIND)
    assert not both.is_for(OTHER, KIND)
    assert not both.is_for(INSTANCE, OTHER_KIND)
    kind = Anchor(key=SECRET, implementation_id=KIND)
    assert kind.is_for(OTHER, KIND)
    assert find_anchor([kind, both], INSTANCE, KIND) is both
    assert find_anchor([kind, both], OTHER, KIND) is kind
    assert find_anchor([kind, both], OTHER, OTHER_KIND) is None


def test_only_malformed_comes_out() -> None:
    good = json.dumps([entry()]).encode()
    for damaged in mutated(good):
        try:
            parse_anchors(damaged)
        except Malformed:
            continue
    for damaged in mutated(pem(ec.generate_private_key(ec.SECP256R1())), count=3000):
        try:
            parse_key(damaged)
        except Malformed:
            continue


@pytest.mark.parametrize("value", [0x1100, 0x2FFF, 0x3100, 0x6100, 0x7000, 0xFFFF])
def test_a_lifecycle_outside_all_ranges_is_malformed(value: int) -> None:
    with pytest.raises(Malformed):
        Lifecycle.of(value)


@pytest.mark.parametrize("value", range(0, 0x7000, 0x1000))
def test_the_lower_byte_of_a_lifecycle_is_the_makers(value: int) -> None:
    assert Lifecycle.of(value) is Lifecycle.of(value | 0xFF)
    assert Lifecycle.of(value).secured == (value == 0x3000)
    assert Lifecycle.of(value).debug == (value in {0x4000, 0x5000})
