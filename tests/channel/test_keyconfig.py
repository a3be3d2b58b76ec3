"""Key configurations: the collection is exact or nothing, and strangers in it are skipped, not guessed."""

from __future__ import annotations

import pytest

from cloister.channel.keyconfig import KeyConfig, dump_key_configs, parse_key_configs, strongest
from cloister.channel.ohttp import GatewayKeys
from cloister.crypto.hpke import Aead, Kdf, Kem
from cloister.errors import Malformed, Rejected
from mutations import mutated

ONE = KeyConfig(
    key_id=7, kem=Kem.X25519, public_key=bytes(range(32)), algorithms=((Kdf.HKDF_SHA256, Aead.AES_256_GCM),)
)


def _entry(encoding: bytes) -> bytes:
    return len(encoding).to_bytes(2, "big") + encoding


def test_a_collection_comes_back_as_it_went() -> None:
    configs = GatewayKeys.generate().configs
    assert parse_key_configs(dump_key_configs(configs)) == configs


def test_configs_of_unknown_kems_and_algorithms_are_skipped() -> None:
    p256 = b"\x01\x00\x10" + b"\x04" + bytes(64) + b"\x00\x04\x00\x01\x00\x01"
    strange = b"\x02\x00\x20" + bytes(32) + b"\x00\x04\x00\x03\x00\x01"
    mixed = b"\x03\x00\x20" + bytes(32) + b"\x00\x08\x00\x03\x00\x01\x00\x01\x00\x03"
    got = parse_key_configs(b"".join(map(_entry, (p256, strange, mixed, ONE.dump()))))
    assert [config.key_id for config in got] == [3, 7]
    assert got[0].algorithms == ((Kdf.HKDF_SHA256, Aead.CHACHA20_POLY1305),)


def test_export_only_is_no_algorithm_of_ours() -> None:
    assert KeyConfig.parse(b"\x01\x00\x20" + bytes(32) + b"\x00\x04\x00\x01\xff\xff") is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\x00\x00",
        _entry(ONE.dump())[:-1],
        _entry(ONE.dump()) + b"\x00",
        _entry(ONE.dump() + b"\x00"),
        _entry(ONE.dump()[:-1]),
        _entry(ONE.dump()) + _entry(ONE.dump()),
        _entry(ONE.dump()[:35] + b"\x00\x00"),
        _entry(ONE.dump()[:35] + b"\x00\x03\x00\x01\x00"),
        _entry(ONE.dump()[:35] + b"\x00\x06\x00\x01\x00\x01\x00\x01"),
        _entry(ONE.dump()[:35] + b"\x02\x00" + bytes(512)),
        _entry(b"\x07\x64\x7a" + bytes(1215) + b"\x00\x04\x00\x01\x00\x02"),
        b"".join(_entry(bytes((number,)) + ONE.dump()[1:]) for number in range(17)),
        bytes(40_000),
    ],
)
def test_a_collection_that_is_not_exact_is_malformed_as_a_whole(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_key_configs(data)


def test_a_collection_of_strangers_only_offers_nothing() -> None:
    configs = parse_key_configs(_entry(b"\x01\x00\x10" + bytes(65)))
    assert configs == ()
    with pytest.raises(Rejected, match="suite_too_weak"):
        strongest(configs, accept=set(Kem))


def test_mutated_collections_are_malformed_or_collections() -> None:
    seen = 0
    for data in mutated(GatewayKeys.generate().dump()):
        try:
            parse_key_configs(data)
        except Malformed:
            seen += 1
    assert 0 < seen < 10_000
