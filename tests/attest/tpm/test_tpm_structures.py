"""TPM structures: what parses dumps to the same bytes; what is off by a bit is refused."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloister.attest.tpm.algorithms import Alg, digest, hash_of
from cloister.attest.tpm.structures import (
    Attribute,
    PcrSelection,
    Public,
    Quote,
    dump_selections,
    parse_signature,
    take_selections,
)
from cloister.errors import Malformed, UsageError
from cloister.wire import Reader
from tpm_kit import RSA_KEYS, SoftTpm, ak_public, ek_public

P256, P384 = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())
PUBLICS = {
    "ak rsa": ak_public(RSA_KEYS[0]),
    "ak p256": ak_public(P256),
    "ak p384": ak_public(P384, scheme=(Alg.ECDSA, Alg.SHA384), name_alg=Alg.SHA384),
    "ek rsa": ek_public(RSA_KEYS[1]),
    "ek p256": ek_public(P256),
    "ek p384": ek_public(P384),
}
TPM = SoftTpm(ak_key=RSA_KEYS[0])
QUOTE = TPM.quote(bytes(32)).dump()


@pytest.mark.parametrize("public", PUBLICS.values(), ids=PUBLICS)
def test_public_areas_of_every_kind_come_back(public: Public) -> None:
    data = public.dump()
    assert Public.parse(data) == public
    assert Public.parse(data).dump() == data
    assert public.name[:2] == public.name_alg.to_bytes(2, "big")
    assert public.name[2:] == digest(public.name_alg, data)
    assert public.public_key().key_size in (256, 384, 2048)


def test_an_rsa_public_area_has_the_layout_of_part_2() -> None:
    public = PUBLICS["ak rsa"]
    want = struct.pack(">HHIHHHHHI", 1, 0x0B, 0x50072, 0, 0x10, 0x14, 0x0B, 2048, 0) + b"\x01\x00" + public.key.modulus
    assert public.dump() == want


@pytest.mark.parametrize(
    "data", [QUOTE, TPM.sign(QUOTE).dump(), SoftTpm().sign(QUOTE).dump()], ids=["quote", "rsa", "ecdsa"]
)
def test_structures_come_back_and_end_where_they_end(data: bytes) -> None:
    parse = Quote.parse if data == QUOTE else parse_signature
    assert parse(data).dump() == data
    for bad in (data + b"\0", data[:-1], b"", data[:4]):
        with pytest.raises(Malformed):
            parse(bad)


@pytest.mark.parametrize(
    ("at", "value", "word"),
    [
        (0, b"\x00\x08", "algorithm 0x0008"),  # a data object is no key
        (2, b"\x00\x04", "algorithm 0x0004"),  # names over SHA-1
        (4, b"\x80\x05\x00\x72", "reserved"),
        (4, b"\x00\x05\x00\x73", "reserved"),
        (8, b"\x00\x10", "policy"),
        (8, b"\x00\x40", "at most"),
        (10, b"\x00\x06", "aes key"),
        (12, b"\x00\x18", "algorithm"),  # ECDSA with an RSA key
        (14, b"\x00\x12", "algorithm"),
        (16, b"\x04\x00", "rsa key of 1024"),
        (22, b"\xff\xff", "at most"),
    ],
)
def test_public_areas_out_of_form_are_refused(at: int, value: bytes, word: str) -> None:
    data = bytearray(PUBLICS["ak rsa"].dump())
    data[at : at + len(value)] = value
    with pytest.raises(Malformed, match=word):
        Public.parse(bytes(data))


def test_a_curve_we_do_not_know_is_refused() -> None:
    data = bytearray(PUBLICS["ak p256"].dump())
    data[16:18] = b"\x00\x05"  # P-521
    with pytest.raises(Malformed, match="curve"):
        Public.parse(bytes(data))


def test_a_point_off_the_curve_is_no_key() -> None:
    data = bytearray(PUBLICS["ak p256"].dump())
    data[-1] ^= 1
    with pytest.raises(Malformed, match="no key"):
        Public.parse(bytes(data)).public_key()


@pytest.mark.parametrize("modulus", [b"", bytes(256), b"\x01" * 256, b"\xff" * 128])
def test_a_modulus_of_another_size_is_no_key(modulus: bytes) -> None:
    key = PUBLICS["ak rsa"].key
    short = Public.parse(replace(PUBLICS["ak rsa"], key=replace(key, modulus=modulus)).dump())
    with pytest.raises(Malformed):
        short.public_key()


@pytest.mark.parametrize("exponent", [1, 2, 4])
def test_an_exponent_that_signs_nothing_is_no_key(exponent: int) -> None:
    key = PUBLICS["ak rsa"].key
    odd = replace(PUBLICS["ak rsa"], key=replace(key, exponent=exponent))
    with pytest.raises(Malformed, match="no key"):
        odd.public_key()


@pytest.mark.parametrize("magic", [b"\xff\x54\x43\x48", b"\x00\x00\x00\x00"])
def test_bytes_without_the_tpms_magic_are_no_quote(magic: bytes) -> None:
    with pytest.raises(Malformed, match="ff544347"):
        Quote.parse(magic + QUOTE[4:])


@pytest.mark.parametrize("kind", [0x8014, 0x8015, 0x8016, 0x8017, 0x8019, 0x801A, 0x801C])
def test_other_attestations_are_no_quote(kind: int) -> None:
    with pytest.raises(Malformed, match="want a quote"):
        Quote.parse(QUOTE[:4] + kind.to_bytes(2, "big") + QUOTE[6:])


def test_a_yes_that_is_no_yes_is_refused() -> None:
    at = QUOTE.index(b"\x01" + (0x2019102300163636).to_bytes(8, "big"))
    with pytest.raises(Malformed, match="yes or no"):
        Quote.parse(QUOTE[:at] + b"\x02" + QUOTE[at + 1 :])


def test_too_large_structures_are_refused_before_reading() -> None:
    for parse in (Public.parse, Quote.parse, parse_signature):
        with pytest.raises(Malformed, match="at most 4096"):
            parse(bytes(4097))


def test_pcr_selections_are_little_endian_bit_maps() -> None:
    data = dump_selections([PcrSelection(bank=Alg.SHA256, pcrs=(0, 7, 8, 23))])
    assert data == bytes.fromhex("00000001 000b 03 810180")
    assert take_selections(Reader(data, what="selection")) == (PcrSelection(bank=Alg.SHA256, pcrs=(0, 7, 8, 23)),)
    for bad in ("00000005", "00000001 000b 02 8101", "00000001 000b 04 81018001", "00000001 0010 03 810180"):
        with pytest.raises(Malformed):
            take_selections(Reader(bytes.fromhex(bad), what="selection"))


def test_attributes_are_those_of_part_2() -> None:
    assert Attribute.RESTRICTED == 0x10000
    assert Attribute.SIGN == 0x40000
    assert Attribute.FIXED_TPM == 0x2


def test_sha1_is_no_hash_to_trust() -> None:
    with pytest.raises(UsageError, match="SHA1"):
        hash_of(Alg.SHA1)
