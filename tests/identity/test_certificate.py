"""Client certificates and X.509-SVIDs: whom they name, and every way in which they do not count."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store
from identity_kit import DOMAIN, NOW, Authority, Domain, dns, email, uri, usage

from cloister.errors import Malformed, Rejected
from cloister.identity import Identity, IdentityKind, Issuer, Issuers, Trusted, parse_keys, verify_client_certificate

if TYPE_CHECKING:
    from collections.abc import Callable

SITE, SPIFFE, STRANGER = Authority(), Domain(), Authority("Site CA")
BELOW = Authority("Issuing CA", SITE)
API = uri(f"{DOMAIN}/ns/prod/api")


def trusted(document: Any) -> Trusted:
    issuer = Issuer.parse(json.dumps(document).encode())
    return Trusted(issuer=issuer, keys=parse_keys(issuer.kind, issuer.keys or b""))


ASK = {"claims": {"/san/dns": "b.example"}, "grants": {"role": "auditor"}}
ISSUERS = Issuers([trusted(SITE.document(rules=[ASK])), trusted(SPIFFE.document())])


def proven(*chain: bytes, now: datetime = NOW) -> Identity:
    return verify_client_certificate(chain, ISSUERS, now)


def refused(*chain: bytes, now: datetime = NOW) -> str:
    with pytest.raises(Rejected) as caught:
        proven(*chain, now=now)
    return caught.value.code


def test_a_host_is_proven_with_all_its_names_until_its_certificate_ends() -> None:
    found = proven(SITE.client(dns("a.example"), dns("b.example"))[0])
    assert (found.kind, found.issuer, found.subject) == (IdentityKind.CERTIFICATE, "x509:site", "dns:a.example")
    assert found.claims == {"/san/dns": ("a.example", "b.example")}
    assert found.expires_at == NOW + timedelta(hours=1)


def test_a_uri_comes_before_an_address_before_a_host() -> None:
    names = (dns("a.example"), email("a@b.example"), uri("urn:x"))
    assert proven(SITE.client(*names)[0]).subject == "uri:urn:x"
    assert proven(SITE.client(*names[:2])[0]).subject == "email:a@b.example"


def test_authorities_between_are_walked_and_the_first_end_counts() -> None:
    leaf = BELOW.client(dns("a.example"), life=timedelta(days=900))[0]
    assert proven(leaf, BELOW.der).expires_at == NOW + timedelta(days=365)
    assert refused(leaf) == "untrusted_root"


def test_an_svid_is_its_spiffe_id() -> None:
    found = proven(SPIFFE.authority.client(API, eku=None, names_critical=True)[0])
    assert (found.kind, found.issuer, found.subject) == (IdentityKind.X509_SVID, DOMAIN, f"{DOMAIN}/ns/prod/api")
    assert found.claims == {"/spiffe/below": ("/ns", "/ns/prod", "/ns/prod/api")}


def test_a_known_trust_domain_is_spoken_for_by_its_own_bundle_alone() -> None:
    assert refused(SITE.client(API)[0]) == "untrusted_root"


def test_an_id_of_an_unknown_trust_domain_is_a_name_of_the_sites_own() -> None:
    assert proven(SITE.client(uri("spiffe://elsewhere/api"))[0]).issuer == "x509:site"
    assert refused(SPIFFE.authority.client(uri("spiffe://elsewhere/api"))[0]) == "untrusted_root"


def test_a_stranger_of_the_same_name_is_refused() -> None:
    assert refused(STRANGER.client(dns("a.example"))[0]) == "untrusted_root"
    assert refused(STRANGER.client(dns("a.example"))[0], STRANGER.der) == "untrusted_root"


USAGE: dict[str, Callable[[], bytes]] = {
    "a server's": lambda: SITE.client(dns("a"), eku=(ExtendedKeyUsageOID.SERVER_AUTH,))[0],
    "of no extended usage": lambda: SITE.client(dns("a"), eku=None)[0],
    "of any usage": lambda: SITE.client(dns("a"), eku=(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,))[0],
    "an authority's": lambda: SITE.client(dns("a"), ca=True)[0],
    "one that may sign certificates": lambda: SITE.client(dns("a"), key_usage=usage(cert_sign=True))[0],
    "one that may sign nothing": lambda: SITE.client(dns("a"), key_usage=usage(signature=False))[0],
    "an svid of a server": lambda: SPIFFE.authority.client(API, eku=(ExtendedKeyUsageOID.SERVER_AUTH,))[0],
}


@pytest.mark.parametrize("name", USAGE)
def test_a_certificate_that_is_no_clients_is_refused(name: str) -> None:
    assert refused(USAGE[name]()) == "usage_not_allowed"


def test_a_certificate_without_a_name_is_refused_and_its_common_name_is_none() -> None:
    assert refused(SITE.client()[0]) == "name_missing"


def test_an_svid_with_two_uris_is_refused() -> None:
    assert refused(SPIFFE.authority.client(API, uri("spiffe://example.org/admin"))[0]) == "name_missing"


@pytest.mark.parametrize("text", ["spiffe://example.org", "spiffe://example.org/a/../b", "spiffe://EXAMPLE.org/a"])
def test_an_svid_of_no_workload_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        proven(SPIFFE.authority.client(uri(text))[0])


def test_before_and_after_its_time_a_certificate_is_nobodys() -> None:
    leaf = SITE.client(dns("a.example"))[0]
    assert refused(leaf, now=NOW - timedelta(days=2)) == "cert_not_yet_valid"
    assert refused(leaf, now=NOW + timedelta(hours=2)) == "cert_expired"


def test_a_path_with_name_constraints_is_refused_whether_they_are_critical_or_not() -> None:
    limits = x509.NameConstraints(permitted_subtrees=[dns("b.example")], excluded_subtrees=None)
    for critical in (False, True):
        narrow = Authority("Narrow CA", SITE, extensions=(limits,), critical=critical)
        assert refused(narrow.client(dns("a.example"))[0], narrow.der) == "chain_invalid"


def test_a_leaf_issued_by_a_leaf_is_refused() -> None:
    der, key = SITE.client(dns("a.example"))
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    fake = Authority("client")
    fake.key = key
    assert refused(fake.client(dns("root.example"))[0], der) == "chain_invalid"


def test_nothing_too_much_and_rubbish_are_malformed() -> None:
    leaf = SITE.client(dns("a.example"))[0]
    for chain in ((), (leaf,) * 7, (b"",), (leaf[:-1],), (leaf + b"\0",), (leaf, b"x")):
        with pytest.raises(Malformed):
            proven(*chain)


def test_65_names_and_a_name_with_a_line_end_are_malformed() -> None:
    for names in ([dns(f"h{number}") for number in range(65)], [uri("urn:a\nb")]):
        with pytest.raises(Malformed):
            proven(SITE.client(*names)[0])


def test_another_verifier_takes_and_refuses_the_same() -> None:
    peer = PolicyBuilder().store(Store([SITE.certificate])).time(NOW.astimezone(UTC)).build_client_verifier()
    between = [x509.load_der_x509_certificate(BELOW.der)]
    good = BELOW.client(dns("a.example"), uri("urn:x"))[0]
    assert peer.verify(x509.load_der_x509_certificate(good), between).subjects == [dns("a.example"), uri("urn:x")]
    assert proven(good, BELOW.der).subject == "uri:urn:x"
    late, server = timedelta(hours=-1), (ExtendedKeyUsageOID.SERVER_AUTH,)
    bad = [BELOW.client(dns("a"), life=late)[0], BELOW.client(dns("a"), eku=server)[0], STRANGER.client(dns("a"))[0]]
    for leaf in (*bad, BELOW.client(dns("a"), ca=True)[0]):
        with pytest.raises(x509.verification.VerificationError):
            peer.verify(x509.load_der_x509_certificate(leaf), between)
        refused(leaf, BELOW.der)
