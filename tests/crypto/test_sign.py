"""Signed statements: RFC 8032 vectors, DSSE encoding, and every label offered as every other (T91)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cloister.crypto.sign import MAX_STATEMENT_BYTES, KeyId, Label, SigningKey, Statement, VerifyKey, pae
from cloister.errors import Malformed, Rejected
from cloister.wire import Fields, dump_b64u, dump_json, parse_json
from mutations import mutated

KEY = SigningKey(bytes(range(32)))
OTHER = SigningKey(bytes(range(1, 33)))
PAYLOAD = b'{"v":1}'

_VECTORS = Path(os.environ.get("CLOISTER_VECTORS", Path(__file__).parents[2] / ".." / "shared" / "vectors"))

# RFC 8032 section 7.1: seed, public key, message, signature
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
]


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032)
def test_keys_and_signatures_of_rfc_8032(seed: str, public: str, message: str, signature: str) -> None:
    assert SigningKey(bytes.fromhex(seed)).verify_key.raw.hex() == public
    primitive = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed))
    assert primitive.sign(bytes.fromhex(message)).hex() == signature


def test_the_primitive_agrees_with_wycheproof() -> None:
    path = _VECTORS / "wycheproof" / "ed25519_test.json"
    if not path.exists():
        pytest.skip(f"wycheproof vectors are not at {path}")
    for group in json.loads(path.read_text())["testGroups"]:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(group["publicKey"]["pk"]))
        for test in group["tests"]:
            try:
                key.verify(bytes.fromhex(test["sig"]), bytes.fromhex(test["msg"]))
                result = "valid"
            except InvalidSignature:
                result = "invalid"
            assert result == test["result"], test["tcId"]


def test_the_encoding_is_that_of_dsse() -> None:
    # DSSE v1.0 protocol, with a label of ours
    label = Label.RECEIPT
    assert pae(label, b"hello world") == b"DSSEv1 33 application/vnd.cloister.receipt+json 11 hello world".replace(
        b" 33 ", b" %d " % len(label.value)
    )
    assert pae(label, b"") == b"DSSEv1 %d %b 0 " % (len(label.value), label.value.encode())


def test_a_signature_is_over_label_and_payload_and_repeats() -> None:
    signature = KEY.sign(Label.LEASE, PAYLOAD)
    assert signature == KEY.sign(Label.LEASE, PAYLOAD)
    Ed25519PublicKey.from_public_bytes(KEY.verify_key.raw).verify(signature, pae(Label.LEASE, PAYLOAD))


def test_labels_are_apart_and_none_begins_another_payload() -> None:
    assert len({label.value for label in Label}) == len(Label)
    assert len({pae(label, PAYLOAD) for label in Label}) == len(Label)


@pytest.mark.parametrize("signed", Label, ids=lambda label: label.name)
def test_t91_a_statement_offered_as_any_other_is_refused(signed: Label) -> None:
    honest = Statement.sign(KEY, signed, PAYLOAD)
    for offered in Label:
        if offered is signed:
            assert Statement.parse(honest.dump(), label=offered).verify([KEY.verify_key]) == PAYLOAD
            continue
        # as it is
        with pytest.raises(Rejected) as refused:
            Statement.parse(honest.dump(), label=offered)
        assert refused.value.code == "wrong_statement"
        # with its label rewritten
        relabelled = Statement(label=offered, payload=PAYLOAD, key_id=KEY.key_id, signature=honest.signature)
        with pytest.raises(Rejected) as refused:
            Statement.parse(relabelled.dump(), label=offered).verify([KEY.verify_key])
        assert refused.value.code == "signature_invalid"


def test_t1_a_key_that_is_not_trusted_proves_nothing() -> None:
    statement = Statement.sign(OTHER, Label.LEASE, PAYLOAD)
    for keys in ([], [KEY.verify_key]):
        with pytest.raises(Rejected) as refused:
            statement.verify(keys)
        assert refused.value.code == "unknown_key"


def test_a_key_id_claimed_by_another_key_proves_nothing() -> None:
    forged = Statement(
        label=Label.LEASE, payload=PAYLOAD, key_id=KEY.key_id, signature=OTHER.sign(Label.LEASE, PAYLOAD)
    )
    with pytest.raises(Rejected) as refused:
        forged.verify([OTHER.verify_key, KEY.verify_key])
    assert refused.value.code == "signature_invalid"


def test_every_flipped_bit_of_a_signature_or_a_payload_is_refused() -> None:
    signature = KEY.sign(Label.LEASE, PAYLOAD)
    for bit in range(8 * len(signature)):
        damaged = bytearray(signature)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Rejected):
            KEY.verify_key.verify(Label.LEASE, PAYLOAD, bytes(damaged))
    for bit in range(8 * len(PAYLOAD)):
        other = bytearray(PAYLOAD)
        other[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Rejected):
            KEY.verify_key.verify(Label.LEASE, bytes(other), signature)


@pytest.mark.parametrize("size", [0, 1, 63, 65, 128])
def test_a_signature_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(Rejected):
        KEY.verify_key.verify(Label.LEASE, PAYLOAD, bytes(size))


def test_a_second_signature_by_adding_the_order_is_refused() -> None:
    # RFC 8032 section 5.1.7 step 1: S below L, else whoever sees a signature can make another
    order = 2**252 + 27742317777372353535851937790883648493
    signature = KEY.sign(Label.LEASE, PAYLOAD)
    second = (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    with pytest.raises(Rejected):
        KEY.verify_key.verify(Label.LEASE, PAYLOAD, signature[:32] + second)


# The field of curve25519 and the Edwards curve's d (RFC 8032 section 5.1), to check the list of small points by hand.
_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
_SMALL = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


def _double(x: int, y: int) -> tuple[int, int]:
    product = _D * x * x * y * y
    return (
        2 * x * y * pow(1 + product, -1, _P) % _P,
        (y * y + x * x) * pow(1 - product, -1, _P) % _P,
    )


@pytest.mark.parametrize("encoded", _SMALL)
def test_the_listed_points_have_an_order_that_divides_eight(encoded: str) -> None:
    y = int.from_bytes(bytes.fromhex(encoded), "little") % _P
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if x * x % _P != square:
        x = x * pow(2, (_P - 1) // 4, _P) % _P
    assert x * x % _P == square
    point = (x, y)
    for _ in range(3):
        point = _double(*point)
    assert point == (0, 1)


@pytest.mark.parametrize("encoded", _SMALL)
@pytest.mark.parametrize("sign", [0, 0x80])
def test_a_key_of_small_order_under_which_one_signature_fits_all_is_refused(encoded: str, sign: int) -> None:
    raw = bytearray.fromhex(encoded)
    raw[31] |= sign
    key = VerifyKey(bytes(raw))
    universal = (1).to_bytes(32, "little") + bytes(32)
    for number in range(16):
        with pytest.raises(Rejected):
            key.verify(Label.RECEIPT, b"%d" % number, universal)
    with pytest.raises(Malformed, match="small order"):
        VerifyKey.take(Fields({"key": key.dump()}, what="x"), "key")


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_key_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(Malformed):
        SigningKey(b"k" * size)
    with pytest.raises(Malformed):
        VerifyKey.take(Fields({"key": dump_b64u(b"k" * size)}, what="x"), "key")
    with pytest.raises(Rejected):
        VerifyKey(b"k" * size).verify(Label.LEASE, PAYLOAD, bytes(64))


def test_a_signing_key_never_prints_itself() -> None:
    key = SigningKey.generate()
    for text in (repr(key), str(key), f"{key}"):
        assert text == f"SigningKey({key.key_id})"
    assert SigningKey(key.seed()).verify_key == key.verify_key
    assert not hasattr(key, "__dict__")


def test_generated_keys_differ() -> None:
    assert len({SigningKey.generate().key_id for _ in range(64)}) == 64


def _envelope() -> dict[str, object]:
    value = parse_json(Statement.sign(KEY, Label.LEASE, PAYLOAD).dump(), what="x")
    assert isinstance(value, dict)
    return dict(value)


def _bad_envelopes() -> dict[str, object]:
    good = _envelope()
    signature = {"keyid": KEY.key_id, "sig": dump_b64u(bytes(64))}
    return {
        "no payload": {k: v for k, v in good.items() if k != "payload"},
        "no type": {k: v for k, v in good.items() if k != "payloadType"},
        "no signatures": {k: v for k, v in good.items() if k != "signatures"},
        "unknown member": {**good, "x": 1},
        "zero signatures": {**good, "signatures": []},
        "two signatures": {**good, "signatures": [signature, signature]},
        "signature is text": {**good, "signatures": ["x"]},
        "short signature": {**good, "signatures": [{**signature, "sig": dump_b64u(bytes(63))}]},
        "upper-case key id": {**good, "signatures": [{**signature, "keyid": "A" * 32}]},
        "long key id": {**good, "signatures": [{**signature, "keyid": "a" * 64}]},
        "brings a key": {**good, "signatures": [{**signature, "jwk": {}}]},
        "payload padded": {**good, "payload": "eyJ2IjoxfQ=="},
        "payload is an object": {**good, "payload": {"v": 1}},
        "type is a number": {**good, "payloadType": 1},
        "array": [good],
    }


@pytest.mark.parametrize("name", _bad_envelopes())
def test_an_envelope_out_of_form_is_malformed(name: str) -> None:
    with pytest.raises(Malformed):
        Statement.parse(
            json.dumps(_bad_envelopes()[name], separators=(",", ":"), sort_keys=True).encode(), label=Label.LEASE
        )


def test_an_envelope_with_a_second_spelling_is_malformed() -> None:
    honest = Statement.sign(KEY, Label.LEASE, PAYLOAD).dump()
    for data in (b" " + honest, honest + b"\n", honest.replace(b":", b": ", 1)):
        with pytest.raises(Malformed, match="canonical"):
            Statement.parse(data, label=Label.LEASE)


def test_an_envelope_over_the_cap_is_refused_unread() -> None:
    with pytest.raises(Malformed, match="want at most"):
        Statement.parse(b"[" * (MAX_STATEMENT_BYTES + 1), label=Label.LEASE)


def test_a_statement_round_trips() -> None:
    statement = Statement.sign(KEY, Label.CLOSE, b"\x00any bytes\xff")
    assert Statement.parse(statement.dump(), label=Label.CLOSE) == statement
    assert statement.key_id == KeyId(KEY.verify_key.key_id)
    assert statement.dump() == dump_json(parse_json(statement.dump(), what="x"))


def test_ten_thousand_mutations_are_malformed_or_refused() -> None:
    honest = Statement.sign(KEY, Label.LEASE, PAYLOAD).dump()
    for data in mutated(honest):
        try:
            payload = Statement.parse(data, label=Label.LEASE).verify([KEY.verify_key])
        except (Malformed, Rejected):
            continue
        assert (data, payload) == (honest, PAYLOAD)
