"""Certification paths: one good way up, and the mistakes of T14."""

from __future__ import annotations

import warnings
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, ObjectIdentifier

from cloister.attest.chain import MAX_CERTIFICATE_BYTES, Certificate, parse_certificates, verify_chain
from cloister.errors import Malformed, Rejected
from mutations import mutated
from tpm_kit import EK_EXTENSIONS, NOW, RSA_KEYS, Issuer, ca_extensions

ROOT, MIDDLE = Issuer("Root"), Issuer("Middle")
ROOT_DER, MIDDLE_DER = ROOT.authority(), MIDDLE.authority(ROOT)
KEY = ec.generate_private_key(ec.SECP256R1()).public_key()
SAN = frozenset({ExtensionOID.SUBJECT_ALTERNATIVE_NAME})
DAY = timedelta(days=1)


def verify(
    leaf: bytes,
    *between: bytes,
    roots: tuple[bytes, ...] = (ROOT_DER,),
    now: datetime = NOW,
    looked_at: frozenset[ObjectIdentifier] = SAN,
) -> tuple[Certificate, ...]:
    return verify_chain(
        Certificate.parse(leaf),
        [Certificate.parse(item) for item in between],
        [Certificate.parse(item) for item in roots],
        now,
        looked_at=looked_at,
    )


def test_a_leaf_below_an_intermediate_below_a_pinned_root() -> None:
    leaf = MIDDLE.issue("leaf", KEY)
    path = verify(leaf, MIDDLE_DER)
    assert [item.der for item in path] == [leaf, MIDDLE_DER, ROOT_DER]


def test_order_and_strangers_among_the_intermediates_do_not_matter() -> None:
    low = Issuer("Low")
    leaf = low.issue("leaf", KEY)
    strangers = (Issuer("Stranger").authority(), Issuer("Middle").authority())
    assert len(verify(leaf, *strangers, MIDDLE_DER, low.authority(MIDDLE))) == 4


def test_a_pinned_intermediate_is_root_enough() -> None:
    assert len(verify(MIDDLE.issue("leaf", KEY), roots=(MIDDLE_DER,))) == 2


def test_rsa_chains_hold() -> None:
    root = Issuer("RSA", RSA_KEYS[0])
    assert len(verify(root.issue("leaf", KEY), roots=(root.authority(),))) == 2


FRESH = Issuer("Root")  # the same name, another key
TWO = ca_extensions()
BAD = {
    "home-made root of the same name": (FRESH.issue("leaf", KEY), (FRESH.authority(),), "untrusted_root"),
    "self-signed leaf": (Issuer("leaf").issue("leaf", KEY), (), "untrusted_root"),
    "intermediate left out": (MIDDLE.issue("leaf", KEY), (), "untrusted_root"),
    "intermediate of the same name, another key": (
        MIDDLE.issue("leaf", KEY),
        (Issuer("Middle").authority(ROOT),),
        "untrusted_root",
    ),
    "intermediate expired": (
        MIDDLE.issue("leaf", KEY),
        (MIDDLE.authority(ROOT, since=-9 * DAY, until=-DAY),),
        "cert_expired",
    ),
    "intermediate not yet valid": (
        MIDDLE.issue("leaf", KEY),
        (MIDDLE.authority(ROOT, since=DAY),),
        "cert_not_yet_valid",
    ),
    "intermediate without the ca flag": (
        MIDDLE.issue("leaf", KEY),
        (MIDDLE.authority(ROOT, ca_extensions(ca=False)),),
        "chain_invalid",
    ),
    "intermediate without constraints": (
        MIDDLE.issue("leaf", KEY),
        (MIDDLE.authority(ROOT, TWO[1:]),),
        "chain_invalid",
    ),
    "intermediate that may not sign certificates": (
        MIDDLE.issue("leaf", KEY),
        (MIDDLE.authority(ROOT, ca_extensions(sign=False)),),
        "chain_invalid",
    ),
    "intermediate without key usage": (MIDDLE.issue("leaf", KEY), (MIDDLE.authority(ROOT, TWO[:1]),), "chain_invalid"),
    "leaf expired": (ROOT.issue("leaf", KEY, since=-9 * DAY, until=-DAY), (), "cert_expired"),
    "leaf not yet valid": (ROOT.issue("leaf", KEY, since=DAY), (), "cert_not_yet_valid"),
    "weak rsa key": (
        ROOT.issue("leaf", rsa.generate_private_key(65537, 1024).public_key()),  # noqa: S505 - it is refused
        (),
        "algorithm_not_allowed",
    ),
    "key of a kind nobody makes": (
        ROOT.issue("leaf", ed25519.Ed25519PrivateKey.generate().public_key()),
        (),
        "algorithm_not_allowed",
    ),
    "curve nobody uses": (
        ROOT.issue("leaf", ec.generate_private_key(ec.SECP256K1()).public_key()),
        (),
        "algorithm_not_allowed",
    ),
    "signature over SHA-224": (ROOT.issue("leaf", KEY, algorithm=hashes.SHA224()), (), "algorithm_not_allowed"),
    "critical extension nobody looks at": (
        ROOT.issue(
            "leaf",
            KEY,
            (*EK_EXTENSIONS, (x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\0"), True)),
        ),
        (),
        "chain_invalid",
    ),
    "name constraints on the way": (
        MIDDLE.issue("leaf", KEY),
        (MIDDLE.authority(ROOT, (*TWO, (x509.NameConstraints([x509.DNSName("a.example")], None), True))),),
        "chain_invalid",
    ),
}


@pytest.mark.parametrize(("leaf", "between", "code"), BAD.values(), ids=BAD)
def test_bad_chains_are_refused(leaf: bytes, between: tuple[bytes, ...], code: str) -> None:
    with pytest.raises(Rejected) as refused:
        verify(leaf, *between)
    assert refused.value.code == code


def test_a_pinned_root_that_expired_is_refused() -> None:
    with pytest.raises(Rejected) as refused:
        verify(ROOT.issue("leaf", KEY, until=900 * DAY), now=NOW + 400 * DAY)
    assert refused.value.code == "cert_expired"


def test_a_path_longer_than_its_authority_allows_is_refused() -> None:
    narrow = ROOT.authority(None, ca_extensions(0))
    assert len(verify(ROOT.issue("leaf", KEY), roots=(narrow,))) == 2
    with pytest.raises(Rejected, match="chain_invalid"):
        verify(MIDDLE.issue("leaf", KEY), MIDDLE_DER, roots=(narrow,))


def test_fifty_certificates_are_too_many() -> None:
    issuers = [ROOT, *(Issuer(f"Level {index}") for index in range(6))]
    between = [lower.authority(upper) for upper, lower in pairwise(issuers)]
    with pytest.raises(Rejected) as refused:
        verify(issuers[-1].issue("leaf", KEY), *between)
    assert refused.value.code == "chain_invalid"


def test_two_authorities_that_vouch_for_each_other_lead_nowhere() -> None:
    a, b = Issuer("A"), Issuer("B")
    with pytest.raises(Rejected) as refused:
        verify(a.issue("leaf", KEY), a.authority(b), b.authority(a))
    assert refused.value.code == "untrusted_root"


def test_a_critical_name_is_refused_unless_somebody_looks_at_it() -> None:
    with pytest.raises(Rejected, match=r"critical extension 2\.5\.29\.17"):
        verify(ROOT.issue("leaf", KEY), looked_at=frozenset())


def test_every_flipped_byte_of_a_leaf_is_refused() -> None:
    # A signature that ends in a zero bit: only then the count of unused bits may be one, and DER still holds.
    leaf = next(leaf for leaf in (ROOT.issue("leaf", KEY) for _ in range(200)) if leaf[-1] & 1 == 0)
    for at in range(len(leaf)):
        with pytest.raises((Malformed, Rejected)):
            verify(leaf[:at] + bytes((leaf[at] ^ 1,)) + leaf[at + 1 :])


def test_pem_and_der_say_the_same() -> None:
    pem = b"".join(x509.load_der_x509_certificate(item).public_bytes(Encoding.PEM) for item in (MIDDLE_DER, ROOT_DER))
    assert [item.der for item in parse_certificates(pem)] == [MIDDLE_DER, ROOT_DER]
    assert [item.der for item in parse_certificates(ROOT_DER)] == [ROOT_DER]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        ROOT_DER + b"\0",
        bytes(MAX_CERTIFICATE_BYTES + 1),
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----" + bytes(64 * 1024),
    ],
)
def test_what_is_no_certificate_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_certificates(data)


@pytest.mark.parametrize("action", ["error", "ignore"])
def test_a_negative_serial_number_is_malformed(action: str) -> None:
    at = ROOT_DER.index(bytes.fromhex("a003020102 02")) + 7  # behind the version: the serial number and its length
    with warnings.catch_warnings():
        warnings.simplefilter(action)  # type: ignore[arg-type]  # two of the five words
        with pytest.raises(Malformed):
            Certificate.parse(ROOT_DER[:at] + b"\xfe" + ROOT_DER[at + 1 :])


def test_only_malformed_comes_out_of_ten_thousand_damaged_certificates() -> None:
    root = Certificate.parse(ROOT_DER)
    for data in mutated(MIDDLE.authority(ROOT, (*TWO, EK_EXTENSIONS[3]))):
        try:
            certificate = Certificate.parse(data)
        except Malformed:
            continue
        try:
            verify_chain(certificate, [], [root], NOW)
        except Rejected:
            continue
