"""The public half of synthetic vendors: whole in one file, without a key, and refused where it is out of form."""

from __future__ import annotations

import base64
import json
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cloister.attest.binding import ReleaseBinding
from cloister.attest.chain import MAX_CERTIFICATE_BYTES
from cloister.attest.endorse import MAX_NAMES
from cloister.attest.rats import Nonce
from cloister.attest.schemes.nitro import NITRO
from cloister.attest.schemes.nvidia import NVIDIA_GPU
from cloister.attest.schemes.sgx import SGX
from cloister.attest.schemes.snp import SNP
from cloister.attest.schemes.tdx import TDX
from cloister.attest.verifier import Verifier
from cloister.enclave.evidence import EvidenceSource
from cloister.errors import Malformed, Rejected, UsageError
from cloister.testing.vendors.fleet import MACHINES, Machine
from cloister.testing.vendors.public import WARNING, PublicVendors
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloister.attest.rats import AttestationResult

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
KINDS = ("nitro", "sgx", "snp+gpu", "tdx")
NAME = "amd/turin/crl"


@cache
def machine(kind: str) -> Machine:
    return MACHINES[kind](bytes(32), lambda: NOW)


def public(*kinds: str) -> PublicVendors:
    return PublicVendors.of(machine(kind) for kind in kinds or KINDS)


def small() -> PublicVendors:
    """Return the vendors of one kind with one short endorsement."""
    return replace(public("nitro"), endorsements={NAME: b"a list"})


def judged(vendors: PublicVendors, shown: Machine) -> AttestationResult:
    """Judge fresh evidence of a machine by nothing but the public file."""
    unbound = ReleaseBinding(
        nonce=Nonce(bytes(32)), custodian=b"c" * 32, instance_pub=b"i" * 32, kem_pub=b"k" * 1216, software=b"{}"
    )
    evidence, binding = EvidenceSource(attester=shown.attester, devices=shown.devices).collect(unbound)
    return Verifier(vendors.schemes()).verify(evidence, binding, shown.policy, NOW, vendors.endorsements)


@pytest.mark.parametrize("kind", KINDS)
def test_evidence_is_verified_by_what_the_file_says_alone(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "vendors.json"
    public().save(path)
    loaded = PublicVendors.load(path)
    assert loaded == public()
    assert {scheme.tee for scheme in loaded.schemes()} == {NITRO, NVIDIA_GPU, SGX, SNP, TDX}
    result = judged(loaded, machine(kind))
    assert result.tee == machine(kind).tee
    assert len(result.submodules) == len(machine(kind).devices)


@pytest.mark.parametrize("kind", ["nitro", "sgx", "tdx"])
def test_evidence_of_another_synthetic_vendor_is_refused(kind: str) -> None:
    stranger = MACHINES[kind](bytes(32), lambda: NOW)
    with pytest.raises(Rejected):
        judged(public(), replace(stranger, endorsements={}))


def keys_of(thing: object, seen: set[int]) -> Iterator[ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey]:
    """Yield every private key that can be reached from ``thing``."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        yield thing
    elif isinstance(thing, dict):
        yield from (key for item in thing.values() for key in keys_of(item, seen))
    elif isinstance(thing, list | tuple):
        yield from (key for item in thing for key in keys_of(item, seen))
    elif is_dataclass(thing):
        yield from (key for item in fields(thing) for key in keys_of(getattr(thing, item.name), seen))
    elif type(thing).__module__.startswith("cloister."):
        yield from keys_of(getattr(thing, "__dict__", {}), seen)


def secret_of(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> list[bytes]:
    """Return the numbers that make a key private, as bytes."""
    if isinstance(key, rsa.RSAPrivateKey):
        secret = key.private_numbers()
        return [number.to_bytes((number.bit_length() + 7) // 8) for number in (secret.d, secret.p, secret.q)]
    return [key.private_numbers().private_value.to_bytes((key.key_size + 7) // 8)]


def test_the_file_has_no_private_key() -> None:
    found = [key for kind in KINDS for key in keys_of(machine(kind), set())]
    assert sum(isinstance(key, rsa.RSAPrivateKey) for key in found) >= 3
    assert sum(isinstance(key, ec.EllipticCurvePrivateKey) for key in found) >= 20
    document = json.loads(public().dump())
    texts = [
        *document["endorsements"].values(),
        *(text for part in document["roots"].values() for text in part.values()),
    ]
    inside = b"\n".join(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) for text in texts)
    whole = public().dump() + inside
    for key in found:
        der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        for secret in (*secret_of(key), der):
            assert secret not in whole
            assert secret.hex().encode() not in whole
    assert b"PRIVATE" not in whole


def test_a_public_key_that_belongs_there_is_found_by_the_same_search() -> None:
    document = json.loads(public().dump())
    root = base64.urlsafe_b64decode(document["roots"]["sgx"]["root"] + "==")
    assert machine("sgx").roots[SGX]["root"].public_key_der[-65:] in root


def other_line(document: dict[str, Any]) -> None:
    document["roots"] = {"snp": {"rome": document["roots"]["nitro"]["root"]}}


def two_roots(document: dict[str, Any]) -> None:
    document["roots"]["nitro"]["second"] = document["roots"]["nitro"]["root"]


def half_a_vendor(document: dict[str, Any]) -> None:
    document["roots"] = {"nvidia-gpu": document["roots"]["nitro"]}


def no_root(document: dict[str, Any]) -> None:
    """Put the certificate of a chip, which somebody else signed, in place of a root."""
    vendor: Any = machine("sgx").attester
    leaf = vendor._vendor.pck.certificate.der
    document["roots"] = {"sgx": {"root": base64.urlsafe_b64encode(leaf).decode().rstrip("=")}}


def long_root(document: dict[str, Any]) -> None:
    document["roots"]["nitro"]["root"] = "A" * (2 * MAX_CERTIFICATE_BYTES)


def too_many(document: dict[str, Any]) -> None:
    document["endorsements"] = {f"nvidia/ocsp/{number:x}": "AAAA" for number in range(MAX_NAMES + 1)}


@pytest.mark.parametrize(
    "damage",
    [
        lambda document: document.update(kind="cloister-simulated-root"),
        lambda document: document.update(v=2),
        lambda document: document.update(warning="all is well"),
        lambda document: document.update(more=1),
        lambda document: document.pop("warning"),
        lambda document: document.pop("roots"),
        lambda document: document["roots"].update(psa={"root": "AAAA"}),
        lambda document: document["roots"].update(nitro={}),
        lambda document: document["roots"].update(nitro=["root"]),
        lambda document: document["roots"]["nitro"].update(root=1),
        lambda document: document["roots"]["nitro"].update(root="AAAA"),
        lambda document: document["endorsements"].update({"../../etc/passwd": "AAAA"}),
        lambda document: document["endorsements"].update({NAME: "no base64url!"}),
        other_line,
        two_roots,
        half_a_vendor,
        no_root,
        long_root,
        too_many,
    ],
)
def test_a_file_out_of_form_is_malformed(damage: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(small().dump())
    PublicVendors.parse(json.dumps(document).encode())
    damage(document)
    with pytest.raises(Malformed):
        PublicVendors.parse(json.dumps(document).encode())


def test_every_flipped_bit_of_a_root_is_malformed() -> None:
    """A root signs itself: what was altered in it shows before anything is believed."""
    document = json.loads(small().dump())
    der = small().roots[NITRO]["root"].der
    for bit in range(8 * len(der)):
        flipped = bytearray(der)
        flipped[bit // 8] ^= 1 << (bit % 8)
        document["roots"]["nitro"]["root"] = base64.urlsafe_b64encode(flipped).decode().rstrip("=")
        with pytest.raises(Malformed):
            PublicVendors.parse(json.dumps(document).encode())


@pytest.mark.parametrize("kind", ["sgx", "snp+gpu", "tdx"])
def test_tampered_endorsements_release_nothing(kind: str) -> None:
    shown = machine(kind)
    devices = [*shown.devices, shown.attester]
    needed = {
        name
        for scheme in shown.schemes
        for attester in devices
        if attester.tee == scheme.tee
        for name in scheme.needs(attester.collect(bytes(attester.report_data_bytes)))
    }
    assert needed
    for name in needed:
        data = bytearray(shown.endorsements[name])
        data[len(data) // 2] ^= 1
        altered = replace(public(kind), endorsements={**shown.endorsements, name: bytes(data)})
        with pytest.raises((Rejected, Malformed)):
            judged(PublicVendors.parse(altered.dump()), shown)


def test_ten_thousand_mutations_are_malformed_or_have_a_form() -> None:
    for data in mutated(small().dump()):
        try:
            PublicVendors.parse(data)
        except Malformed:
            continue


def test_two_vendors_of_one_kind_and_vendors_without_a_form_are_our_mistake() -> None:
    with pytest.raises(UsageError, match="one vendor"):
        PublicVendors.of([machine("sgx"), machine("sgx")])
    with pytest.raises(UsageError, match="one vendor"):
        PublicVendors.of([machine("psa")])


def test_a_file_is_never_overwritten_and_a_missing_one_is_our_mistake(tmp_path: Path) -> None:
    path = tmp_path / "vendors.json"
    small().save(path)
    with pytest.raises(UsageError, match="cannot write"):
        small().save(path)
    with pytest.raises(UsageError, match="cannot read"):
        PublicVendors.load(tmp_path / "nobody.json")
    with pytest.raises(UsageError, match="cannot read"):
        PublicVendors.load(tmp_path)


def test_an_endless_file_is_read_to_the_cap_only() -> None:
    with pytest.raises(Malformed, match="want at most"):
        PublicVendors.load(Path("/dev/zero"))


def test_the_file_says_to_whoever_opens_it_that_it_protects_nothing() -> None:
    assert json.loads(small().dump())["warning"] == WARNING
    assert "protects nothing" in WARNING
