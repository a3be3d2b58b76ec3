"""The extension of PCK certificates, and the members of collateral: each out of form is malformed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import ClassVar

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from cloister.attest.intel.chain import is_signed
from cloister.attest.intel.collateral import Collateral
from cloister.attest.intel.der import INTEGER, OCTETS, take, take_integer, take_pairs
from cloister.attest.intel.pck import Pck
from cloister.errors import Malformed
from cloister.testing.vendors.intel import SyntheticIntel
from cloister.testing.vendors.intel.pki import PlatformSpec
from cloister.wire import Reader

NOW = datetime(2026, 6, 1, tzinfo=UTC)
VENDOR = SyntheticIntel.generate()
EXTENSION = PlatformSpec().extension()
ARC = bytes.fromhex("2a864886f84d010d01")


class AnySpec(PlatformSpec):
    """A platform with the extension put here."""

    __slots__ = ()
    bytes_: ClassVar[list[bytes]] = [EXTENSION]

    def extension(self) -> bytes:
        return self.bytes_[-1]


def parsed(extension: bytes) -> Pck:
    AnySpec.bytes_.append(extension)
    return Pck.parse(VENDOR.issuer.issue("Intel SGX PCK Certificate", platform=AnySpec()).certificate)


def test_the_platform_is_read_from_its_certificate() -> None:
    spec = PlatformSpec(pcesvn=300, components=(255, *range(15)), fmspc=b"\xff" * 6, sgx_type=2)
    found = parsed(spec.extension())
    assert found.components == spec.components
    assert found.pcesvn == 300
    assert found.fmspc == spec.fmspc
    assert found.flags == {"pck.dynamic": True, "pck.cached_keys": False, "pck.smt": True}


def test_a_certificate_without_the_extension_is_of_no_platform() -> None:
    with pytest.raises(Malformed, match="missing"):
        Pck.parse(VENDOR.issuer.certificate)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (ARC + b"\x04\x04\x06", ARC + b"\x08\x04\x06", "no field 4"),
        (ARC + b"\x03\x04\x02", ARC + b"\x04\x04\x02", "twice"),
        (b"\x0a\x01\x01", b"\x0a\x01\x03", "sgx type"),
        (ARC + b"\x03\x04\x02", ARC + b"\x03\x05\x02", "tag"),
        (ARC + b"\x02\x11\x02\x01\x0b", ARC + b"\x02\x11\x02\x01\xff", "integer"),
    ],
    ids=["missing", "double", "type", "tag", "negative"],
)
def test_an_extension_out_of_form_is_malformed(old: bytes, new: bytes, said: str) -> None:
    assert EXTENSION.count(old) == 1
    with pytest.raises(Malformed, match=said):
        parsed(EXTENSION.replace(old, new))


def test_an_identity_of_another_size_is_malformed() -> None:
    with pytest.raises(Malformed, match="want 16"):
        parsed(PlatformSpec(ppid=bytes(15)).extension())


@pytest.mark.parametrize(
    "data", [b"\x04\x80", b"\x04\x83\0\0\1x", b"\x04\x81\x01x", b"\x04\x82\x00\x81" + bytes(129), b"\x04\x05x"]
)
def test_lengths_have_one_spelling(data: bytes) -> None:
    with pytest.raises(Malformed):
        take(Reader(data, what="test"), OCTETS)


@pytest.mark.parametrize("contents", [b"", b"\x00\x01", b"\xff", b"\x01\x00"])
def test_integers_are_short_and_bounded(contents: bytes) -> None:
    data = bytes((INTEGER, len(contents))) + contents
    with pytest.raises(Malformed):
        take_integer(Reader(data, what="test"), cap=255)


def test_pairs_end_with_their_container() -> None:
    with pytest.raises(Malformed):
        take_pairs(b"\x30\x03\x06\x01\x01\x30", what="test")


def collateral(**members: object) -> bytes:
    document = json.loads(VENDOR.published(tdx=False).dump())
    return json.dumps({**document, **members}).encode()


def test_collateral_may_bring_a_chain_that_nobody_uses() -> None:
    for chain in ("anything", None):
        Collateral.parse(collateral(pck_certificate_chain=chain))


@pytest.mark.parametrize(
    "members",
    [
        {"tcb_info": ""},
        {"tcb_info": 1},
        {"tcb_info": "\u00e4"},
        {"tcb_info_signature": "00" * 63},
        {"qe_identity_signature": "0"},
        {"root_ca_crl": "zz"},
        {"pck_crl": "00"},
        {"tcb_info_issuer_chain": "none"},
        {"extra": ""},
    ],
)
def test_collateral_out_of_form_is_malformed(members: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        Collateral.parse(collateral(**members))


def test_a_key_of_another_kind_signs_nothing_here() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    assert not is_signed(key, bytes(64), b"")
