"""Device certificates: five to a pinned root, a leaf that signs, one chip from top to bottom."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from cloister.attest.nvidia.devicechain import Arch, DeviceChain, verify_device_chain
from cloister.attest.nvidia.dice import fwid_of
from cloister.attest.nvidia.report import Report, verify_signature
from cloister.errors import Malformed, Rejected
from cloister.testing.vendors.nvidia import Issuer, NvidiaVendor
from cloister.testing.vendors.nvidia.device import FWID, attestation_key
from cloister.testing.vendors.nvidia.issuing import usage

if TYPE_CHECKING:
    from cloister.attest.chain import Certificate

VENDOR = NvidiaVendor.generate()
NOW = datetime(2026, 6, 1, tzinfo=UTC)
ROOTS = (VENDOR.device_root.certificate,)
HOPPER = VENDOR.device()
EARLY, LATE = datetime(2020, 10, 16, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)


def path_of(*certificates: Certificate, now: datetime = NOW) -> tuple[Certificate, ...]:
    return verify_device_chain(DeviceChain(certificates=certificates), ROOTS, now)


def code_of(*certificates: Certificate, now: datetime = NOW) -> str:
    with pytest.raises(Rejected) as refused:
        path_of(*certificates, now=now)
    return refused.value.code


@pytest.mark.parametrize("arch", Arch)
def test_five_certificates_lead_to_the_pinned_root(arch: Arch) -> None:
    device = VENDOR.device(arch)
    chain = DeviceChain.parse(device.chain_pem)
    assert chain.arch is arch
    assert verify_device_chain(chain, ROOTS, NOW) == device.chain
    assert fwid_of(chain.leaf) == FWID


def test_der_certificates_one_after_another_are_the_same_chain() -> None:
    data = b"".join(item.der for item in HOPPER.chain)
    assert DeviceChain.parse(data) == DeviceChain.parse(HOPPER.chain_pem)


def test_a_buffer_padded_with_zeros_is_still_pem() -> None:
    assert DeviceChain.parse(HOPPER.chain_pem + bytes(100)) == DeviceChain.parse(HOPPER.chain_pem)


def test_the_root_need_not_be_sent_along() -> None:
    assert path_of(*HOPPER.chain[:-1]) == HOPPER.chain


def test_a_chain_of_another_root_is_refused() -> None:
    assert code_of(*NvidiaVendor.generate().device().chain) == "untrusted_root"


@pytest.mark.parametrize("absent", [1, 2, 3])
def test_a_gap_in_the_chain_is_refused(absent: int) -> None:
    assert code_of(*HOPPER.chain[:absent], *HOPPER.chain[absent + 1 :]) == "untrusted_root"


def test_the_leaf_comes_first() -> None:
    assert code_of(*reversed(HOPPER.chain)) == "chain_invalid"
    assert code_of(HOPPER.chain[1], HOPPER.chain[0], *HOPPER.chain[2:]) == "chain_invalid"


def test_nothing_is_valid_before_it_is() -> None:
    assert code_of(*HOPPER.chain, now=EARLY) == "cert_not_yet_valid"


def test_an_attestation_key_that_ended_is_refused() -> None:
    leaf = attestation_key(HOPPER.issuer, Arch.HOPPER, window=(EARLY, NOW))
    assert path_of(leaf.certificate, *HOPPER.chain[1:])
    assert code_of(leaf.certificate, *HOPPER.chain[1:], now=LATE) == "cert_expired"


def test_a_leaf_that_may_not_sign_is_refused() -> None:
    leaf = attestation_key(HOPPER.issuer, Arch.HOPPER, signs=False)
    assert code_of(leaf.certificate, *HOPPER.chain[1:]) == "chain_invalid"


def test_a_leaf_that_issues_is_refused() -> None:
    leaf = attestation_key(HOPPER.issuer, Arch.HOPPER, issues=True)
    assert code_of(leaf.certificate, *HOPPER.chain[1:]) == "chain_invalid"


def test_a_leaf_of_another_chip_than_its_rom_is_refused() -> None:
    leaf = attestation_key(HOPPER.issuer, Arch.BLACKWELL)
    assert code_of(leaf.certificate, *HOPPER.chain[1:]) == "chain_invalid"


def test_a_device_name_of_another_chip_is_refused() -> None:
    leaf = attestation_key(HOPPER.issuer, Arch.HOPPER, device_name="NVIDIA:GB100:48B02D0000000001")
    assert code_of(leaf.certificate, *HOPPER.chain[1:]) == "chain_invalid"


def test_a_chip_below_an_attestation_key_is_refused() -> None:
    below = attestation_key(HOPPER.leaf, Arch.HOPPER)
    assert code_of(below.certificate, *HOPPER.chain) == "chain_invalid"


@pytest.mark.parametrize("name", ["CX7 A01 FW", "GV100 A01 GSP FMC LF", "GH1000 A01", "", "gh100 A01"])
def test_another_product_of_the_vendor_is_no_gpu(name: str) -> None:
    leaf = attestation_key(HOPPER.issuer, Arch.HOPPER, name=name or " ")
    with pytest.raises(Rejected) as refused:
        _ = DeviceChain(certificates=(leaf.certificate, *HOPPER.chain[1:])).arch
    assert refused.value.code == "unsupported_format"


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP521R1()])
def test_a_key_of_another_curve_signs_no_report(curve: ec.EllipticCurve) -> None:
    leaf = attestation_key(HOPPER.issuer, Arch.HOPPER, curve=curve)
    with pytest.raises(Rejected) as refused:
        verify_signature(Report.parse(HOPPER.report(bytes(32))), leaf.certificate)
    assert refused.value.code == "algorithm_not_allowed"


def test_a_leaf_without_the_extension_has_no_firmware_digest() -> None:
    assert fwid_of(attestation_key(HOPPER.issuer, Arch.HOPPER, fwid=None).certificate) is None


@pytest.mark.parametrize("size", [0, 47, 49])
@pytest.mark.parametrize("arch", [Arch.HOPPER, Arch.BLACKWELL])
def test_a_firmware_digest_of_another_size_is_malformed(arch: Arch, size: int) -> None:
    with pytest.raises(Malformed):
        fwid_of(attestation_key(HOPPER.issuer, arch, fwid=bytes(size)).certificate)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30",
        b"\x30\x80" + bytes(64),
        HOPPER.chain[0].der,
        HOPPER.chain[0].pem,
        HOPPER.chain[0].der + b"\x00",
        b"".join(item.der for item in HOPPER.chain)[:-1],
        HOPPER.chain_pem.replace(b"-----END", b"-----ENDE"),
        HOPPER.chain_pem * 2,
        HOPPER.chain[0].der * 9,
        bytes(32 * 1024 + 1),
    ],
)
def test_what_is_no_chain_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        DeviceChain.parse(data)


def test_a_root_that_issues_itself_an_attestation_key_is_pinned_or_nothing() -> None:
    root = Issuer.root("NVIDIA Device Identity CA")
    rom = root.authority("GH100 A01 GSP BROM")
    leaf = attestation_key(rom, Arch.HOPPER)
    assert code_of(leaf.certificate, rom.certificate, root.certificate) == "untrusted_root"


FWIDS = bytes.fromhex("a63f303d06096086480165030402020430") + FWID


@pytest.mark.parametrize(
    ("value", "good"),
    [
        (b"\x30\x41" + FWIDS, True),
        (b"\x30\x81\x41" + FWIDS, False),  # not the shortest length
        (b"\x30\x80" + FWIDS + b"\0\0", False),  # no length
        (b"\x30\x84\0\0\0\x41" + FWIDS, False),
        (b"\x30\x42" + FWIDS, False),
        (b"\x30\x41" + FWIDS + b"\0", False),
        (b"\x31\x41" + FWIDS, False),
        (b"\x30\x05\x80\x03abc", False),  # a vendor and no digest
        (b"\x30\x02\xa6\x00", False),
        (b"", False),
        (FWID, False),
    ],
)
@pytest.mark.parametrize("oid", ["2.23.133.5.4.1", "2.23.133.5.4.1.1"])
def test_the_firmware_extension_is_read_to_its_last_byte(oid: str, value: bytes, *, good: bool) -> None:
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
    leaf = HOPPER.issuer.issue("GH100 A01", extensions=[(usage(signs=True), True), (extension, False)])
    assert path_of(leaf.certificate, *HOPPER.chain[1:])  # a leaf need not have a device name
    if good:
        assert fwid_of(leaf.certificate) == FWID
    else:
        with pytest.raises(Malformed):
            fwid_of(leaf.certificate)
