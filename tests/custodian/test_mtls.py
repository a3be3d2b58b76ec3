"""Certificates of peers on real sockets: whom the custodian lets near an instance's routes, and whom not (T7, T78)."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from custodian_kit import STATEMENT
from mtls_kit import (
    CLIENT,
    SERVER,
    Door,
    Identity,
    ask,
    certified,
    csr_for,
    forge,
    mtls_bench,
    new_key,
    request_certificate,
    send,
)

from cloister.crypto.sign import Label, SigningKey, Statement
from cloister.custodian.certificates.signing_request import verify_signing_request
from cloister.custodian.peer_certificate import peer_certificate
from cloister.custodian.peers import demand_peer
from cloister.custodian.routes import ROUTES
from cloister.custodian.tokens import Actor, Role
from cloister.errors import Malformed, Rejected
from cloister.lending.messages import CertificateRequest, InstanceCertificate
from cloister.lending.peer import verify_peer
from cloister.lending.terms import InstanceId
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptography.hazmat.primitives.asymmetric import ec
    from custodian_kit import Bench, Toy

REFUSED = (ssl.SSLError, ConnectionError)  # TLS 1.3 tells the client after its own handshake is over


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with mtls_bench(tmp_path_factory.mktemp("mtls")) as made:
        yield made


@pytest.fixture(scope="module")
def door(bench: Bench) -> Iterator[Door]:
    with Door(bench).listening() as made:
        yield made


@pytest.fixture
def toy(bench: Bench) -> Toy:
    """Return an attested enclave of a loan of its own."""
    return bench.lend().boot()


def _lease(door: Door, toy: Toy, identity: Identity | None, *, of: Toy | None = None) -> tuple[int, str]:
    """Ask for a lease; return the status and the code, if any."""
    status, answer = door.post(f"/v1/instances/{(of or toy).id}/lease", (of or toy).request(), identity=identity)
    return status, answer.get("code", "") if isinstance(answer, dict) else ""


def test_an_attested_enclave_gets_a_certificate_and_a_lease_with_it(door: Door, toy: Toy) -> None:
    own = certified(toy)
    found = own.certificate.extensions
    names = found.get_extension_for_class(x509.SubjectAlternativeName)
    assert [item.value for item in names.value] == [
        f"spiffe://{door.bench.service.certificates.domain}/enclave/{toy.id}"
    ]
    assert names.critical
    assert list(found.get_extension_for_class(x509.ExtendedKeyUsage).value) == [CLIENT]
    assert not found.get_extension_for_class(x509.BasicConstraints).value.ca
    life = own.certificate.not_valid_after_utc - own.certificate.not_valid_before_utc
    assert life == timedelta(seconds=3600 + 60)
    assert _lease(door, toy, own) == (200, "")


def test_a_lease_without_a_certificate_is_refused_and_nothing_is_granted(door: Door, toy: Toy) -> None:
    assert _lease(door, toy, None) == (403, "certificate_wanted")
    assert toy.bench.get("/v1/instances").status_code == 200  # staff needs none here


@pytest.mark.parametrize("route", ["lease", "renewal", "ticket", "usage", "close"])
def test_every_route_of_an_instance_wants_its_certificate(door: Door, toy: Toy, route: str) -> None:
    headers = {"content-type": "application/json"} if route == "renewal" else STATEMENT
    status, answer = door.post(f"/v1/instances/{toy.id}/{route}", b"{}", headers=headers)
    assert (status, answer["code"]) == (403, "certificate_wanted")


def test_a_certificate_of_another_instance_is_refused_and_logged(door: Door, toy: Toy) -> None:
    """A genuine enclave, attested and certified, that asks in another one's name."""
    other = toy.bench.lend().boot()
    assert _lease(door, toy, certified(other), of=toy) == (403, "wrong_peer")
    last = toy.bench.audit()[-1]
    assert (last["kind"], last["details"]["codes"]) == ("access_denied", "wrong_peer")


def test_a_certificate_of_another_custodian_ends_in_the_handshake(
    door: Door, toy: Toy, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also one that has this custodian's trust domain: what counts is whose signature it is."""
    domain = door.bench.service.certificates.domain
    with mtls_bench(tmp_path_factory.mktemp("other"), trust_domain=domain) as other:
        theirs = certified(other.lend().boot())
    with pytest.raises(REFUSED):
        _lease(door, toy, theirs)


def _uri(door: Door, toy: Toy) -> str:
    return f"spiffe://{door.bench.service.certificates.domain}/enclave/{toy.id}"


def test_a_self_signed_root_of_the_same_name_ends_in_the_handshake(door: Door, toy: Toy) -> None:
    real = door.bench.service.certificates.certificates[0]
    name = real.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value
    root = forge(None, common_name=str(name), ca=True, uses=())
    assert root.certificate.subject == real.subject
    with pytest.raises(REFUSED):
        _lease(door, toy, forge(root, uris=[_uri(door, toy)]))


def test_a_certificate_that_signs_itself_ends_in_the_handshake(door: Door, toy: Toy) -> None:
    with pytest.raises(REFUSED):
        _lease(door, toy, forge(None, uris=[_uri(door, toy)]))


def test_a_certificate_signed_by_a_certified_enclave_ends_in_the_handshake(door: Door, toy: Toy) -> None:
    """An enclave that plays authority: it has no right to sign, and the path has no room for it."""
    with pytest.raises(REFUSED):
        _lease(door, toy, forge(certified(toy), uris=[_uri(door, toy)]))


def _authority_key(bench: Bench) -> ec.EllipticCurvePrivateKey:
    return _authority(bench).key


def _authority(bench: Bench) -> Identity:
    """Return the custodian's own authority with its key, for certificates that it would never issue."""
    from cloister.custodian.service.authorities import _aad  # noqa: PLC0415 - to get at the key
    from cloister.custodian.store.certificates import authorities  # noqa: PLC0415 - likewise
    from cloister.custodian.tls import load_authority  # noqa: PLC0415 - likewise

    context = bench.service.context
    with context.reading() as connection:
        row = authorities(connection)[-1]
    key = load_authority(context.vault.unwrap(row.wrapped, aad=_aad(row.number)))
    return Identity(certificate=x509.load_der_x509_certificate(row.certificate), key=key)


def test_what_the_authority_would_never_issue_is_refused_too(door: Door, toy: Toy) -> None:
    """Wrong use, expired, foreign domain, a host's name: in the handshake, by OpenSSL, below the real authority."""
    own, uri = _authority(door.bench), _uri(door, toy)
    assert _lease(door, toy, forge(own, uris=[uri])) == (200, "")  # the forgery itself is good
    for bad in (
        forge(own, uris=[uri], uses=(SERVER,)),
        forge(own, uris=[uri], age=timedelta(hours=2)),
        forge(own, uris=[f"spiffe://elsewhere.example/enclave/{toy.id}"]),
        forge(own, uris=[uri], dns=["custodian.example"]),
        forge(own, dns=["localhost"], common_name="localhost"),
        forge(own, uris=[uri], age=timedelta(hours=-1)),
    ):
        with pytest.raises(REFUSED):
            _lease(door, toy, bad)


def test_a_name_that_is_not_the_instances_is_refused(door: Door, toy: Toy) -> None:
    """Names that the handshake lets pass: of another kind, of another form, two of them, none, for any use."""
    own, uri, domain = _authority(door.bench), _uri(door, toy), door.bench.service.certificates.domain
    for bad in (
        forge(own, uris=[f"spiffe://{domain}/borrower/{toy.lent.id}"]),
        forge(own, uris=[f"spiffe://{domain}/relay/{toy.id}"]),
        forge(own, uris=[f"https://{domain}/enclave/{toy.id}"]),
        forge(own, uris=[uri.replace("enclave", "Enclave")]),
        forge(own, uris=[f"{uri}/"]),
        forge(own, uris=[uri.replace("/enclave/", "/x/../enclave/")]),
        forge(own, uris=[uri, uri]),
        forge(own, common_name=toy.id),
        forge(own, uris=[uri], uses=()),
    ):
        assert _lease(door, toy, bad) == (403, "wrong_peer")


@pytest.mark.parametrize(
    "wish",
    [
        x509.SubjectAlternativeName([x509.DNSName("custodian.example")]),
        x509.BasicConstraints(ca=True, path_length=None),
        x509.ExtendedKeyUsage([SERVER]),
    ],
    ids=["another name", "an authority", "another use"],
)
def test_a_request_that_asks_for_more_than_a_key_is_refused(toy: Toy, wish: x509.ExtensionType) -> None:
    """CSR with extra SANs, or CA:true: refused as a whole, and logged."""
    answer = ask(toy, request_certificate(toy, csr_for(new_key(), wish)))
    assert (answer.status_code, answer.json()["code"]) == (403, "csr_extension")
    last = toy.bench.audit()[-1]
    assert (last["kind"], last["details"]) == ("certificate_refused", {"codes": "csr_extension"})


def test_a_subject_in_a_request_goes_into_no_certificate(toy: Toy) -> None:
    answer = ask(toy, request_certificate(toy, csr_for(new_key(), subject="custodian.example")))
    assert answer.status_code == 200
    assert b"custodian.example" not in answer.content


def test_a_key_of_another_kind_and_a_request_for_somebody_elses_key_are_refused(toy: Toy) -> None:
    theirs = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(theirs, SHA256())
    answer = ask(toy, request_certificate(toy, request.public_bytes(Encoding.DER)))
    assert answer.json()["code"] == "key_unsuitable"
    forged = bytearray(csr_for(new_key()))
    forged[-1] ^= 1
    answer = ask(toy, request_certificate(toy, bytes(forged)))
    assert answer.json()["code"] in {"signature_invalid", "malformed"}
    assert ask(toy, request_certificate(toy, b"no request")).status_code == 400


def test_a_replayed_request_gets_no_second_certificate(toy: Toy) -> None:
    statement = request_certificate(toy, csr_for(new_key()))
    assert ask(toy, statement).status_code == 200
    again = ask(toy, statement)
    assert (again.status_code, again.json()["code"]) == (409, "key_certified")


def test_a_key_certified_for_one_instance_is_not_certified_for_another(toy: Toy) -> None:
    csr, other = csr_for(new_key()), toy.bench.lend().boot()
    assert ask(toy, request_certificate(toy, csr)).status_code == 200
    assert ask(other, request_certificate(other, csr)).json()["code"] == "key_certified"


def test_a_listeners_key_keeps_its_certificate_for_half_its_life_and_then_gets_the_next(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Consumers pin the key, so it stays; a request that is replayed gets what everybody is shown."""
    with mtls_bench(tmp_path_factory.mktemp("listener"), certificate_life_s=600) as bench:
        toy, csr = bench.lend(ttl_s=3600).boot(), csr_for(new_key())
        statement = request_certificate(toy, csr, server=True)
        first = _leaf(bench, ask(toy, statement))
        assert list(first.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [CLIENT, SERVER]
        entries = len(bench.audit())
        assert _leaf(bench, ask(toy, statement)) == first
        assert _leaf(bench, ask(toy, request_certificate(toy, csr, server=True))) == first
        assert len(bench.audit()) == entries, "nothing was issued, so nothing is logged"
        bench.clock.advance(301)
        second = _leaf(bench, ask(toy, statement))
        assert second.serial_number != first.serial_number
        assert second.public_key() == first.public_key()
        assert second.not_valid_after_utc > first.not_valid_after_utc
        assert bench.post("/v1/certificates/authorities").status_code == 201
        third = _leaf(bench, ask(toy, statement))
        assert third.issuer != second.issuer, "of an authority that is believed"
        assert bench.post("/v1/blocks", {"kind": "instance", "subject": toy.id, "reason": ""}).status_code == 201
        assert ask(toy, statement).json()["code"] == "blocked"


def _leaf(bench: Bench, answer: Any) -> x509.Certificate:
    """Return the certificate in the custodian's answer to an instance."""
    assert answer.status_code == 200, answer.text
    payload = Statement.parse(answer.content, label=Label.CERTIFICATE).verify([bench.init.key])
    return x509.load_der_x509_certificate(InstanceCertificate.parse(payload).certificate)


def test_a_listeners_key_is_no_other_instances_and_a_clients_key_is_no_listeners(toy: Toy) -> None:
    csr, other, clients = csr_for(new_key()), toy.bench.lend().boot(), csr_for(new_key())
    assert ask(toy, request_certificate(toy, csr, server=True)).status_code == 200
    assert ask(other, request_certificate(other, csr, server=True)).json()["code"] == "key_certified"
    assert ask(toy, request_certificate(toy, csr)).json()["code"] == "key_certified"
    assert ask(toy, request_certificate(toy, clients)).status_code == 200
    assert ask(toy, request_certificate(toy, clients, server=True)).json()["code"] == "key_certified"


def test_no_certificate_is_issued_before_attestation(toy: Toy) -> None:
    """An enclave that has shown no evidence: its id is unknown, whoever signs for it."""
    stranger = SigningKey.generate()
    name = InstanceId(hashlib.sha256(stranger.verify_key.raw).hexdigest())
    before = len(toy.bench.get("/v1/certificates").json()["certificates"])
    for server in (False, True):
        payload = CertificateRequest(instance=name, csr=csr_for(new_key()), server=server).dump()
        for key, path in ((stranger, name), (toy.key, name), (stranger, toy.id)):
            statement = Statement.sign(key, CertificateRequest.LABEL, payload).dump()
            answer = toy.bench.client.post(f"/v1/instances/{path}/certificate", content=statement, headers=STATEMENT)
            assert answer.status_code in {403, 404}, answer.text
    assert len(toy.bench.get("/v1/certificates").json()["certificates"]) == before


def test_a_request_signed_by_another_instance_or_for_another_path_is_refused(toy: Toy) -> None:
    other, csr = toy.bench.lend().boot(), csr_for(new_key())
    assert ask(toy, request_certificate(toy, csr, signed_by=other)).json()["code"] == "unknown_key"
    assert ask(other, request_certificate(other, csr), path_of=toy).json()["code"] == "unknown_key"
    assert ask(toy, request_certificate(toy, csr, instance=other.id)).json()["code"] == "wrong_instance"
    lease = toy.request()
    assert ask(toy, lease).json()["code"] == "wrong_statement"


def test_a_blocked_a_closed_and_a_dead_instance_get_none(tmp_path_factory: pytest.TempPathFactory) -> None:
    with mtls_bench(tmp_path_factory.mktemp("ends"), mtls="accept") as bench:
        blocked, closed, dead, loan = (bench.lend().boot() for _ in range(4))
        assert bench.post("/v1/blocks", {"kind": "instance", "subject": blocked.id, "reason": ""}).status_code == 201
        assert bench.post("/v1/blocks", {"kind": "loan", "subject": loan.lent.id, "reason": ""}).status_code == 201
        assert closed.close().status_code == 200
        before = len(bench.get("/v1/certificates").json()["certificates"])
        found = [
            ask(toy, request_certificate(toy, csr_for(new_key()))).json()["code"] for toy in (blocked, closed, loan)
        ]
        assert found == ["blocked", "instance_closed", "blocked"]
        bench.clock.advance(3600)
        assert ask(dead, request_certificate(dead, csr_for(new_key()))).json()["code"] == "instance_dead"
        assert len(bench.get("/v1/certificates").json()["certificates"]) == before


def test_a_kept_alive_connection_is_refused_once_its_certificate_has_ended(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The handshake was good; what is asked after the end of the certificate is not answered."""
    bench = mtls_bench(tmp_path_factory.mktemp("kept"), certificate_life_s=60)
    with bench, Door(bench).listening() as door:
        toy = bench.lend(ttl_s=3600).boot()
        with contextlib.closing(door.connect(certified(toy))) as connection:
            path = f"/v1/instances/{toy.id}/lease"
            assert send(connection, "POST", path, toy.request(), STATEMENT)[0] == 200
            before = connection.sock
            bench.clock.advance(61)
            status, answer = send(connection, "POST", path, toy.request(), STATEMENT)
            assert (status, answer["code"]) == (403, "certificate_expired")
            assert connection.sock is before  # it was the very same connection


def test_tls_1_1_and_tls_1_2_are_refused(door: Door) -> None:
    """List 51. OpenSSL here does not even speak TLS 1.1 unless it is forced to, so the hello is written by hand too."""
    with pytest.raises(REFUSED), contextlib.closing(door.connect(maximum_version=ssl.TLSVersion.TLSv1_2)) as connection:
        connection.request("GET", "/healthz")
    with socket.create_connection(("localhost", door.port), timeout=10) as plain:
        random = bytes(32)
        body = b"\x03\x02" + random + b"\0" + b"\0\x02\xc0\x09" + b"\x01\0"  # TLS 1.1, one suite, no extension
        hello = b"\x01" + len(body).to_bytes(3, "big") + body
        plain.sendall(b"\x16\x03\x01" + len(hello).to_bytes(2, "big") + hello)
        answer = plain.recv(7)
        assert answer[:1] != b"\x16", "no handshake: an alert, or the end of the connection without one"


def test_whoever_has_no_certificate_still_attests_and_reads_what_is_public(door: Door) -> None:
    lent = door.bench.lend()
    for path in ("/healthz", "/v1/custodian", "/v1/certificates/authorities", "/log/checkpoint"):
        assert door.get(path, {})[0] == 200
    assert door.post(f"/v1/loans/{lent.id}/challenge", b"", headers=lent.token)[0] == 200


def test_the_log_has_every_certificate_by_fingerprint_and_end_and_no_more(toy: Toy) -> None:
    own = certified(toy)
    entry = toy.bench.audit()[-1]
    assert entry["kind"] == "certificate_issued"
    assert entry["subject"] == f"enclave/{toy.id}"
    assert entry["details"] == {
        "ends_at": int(own.certificate.not_valid_after_utc.timestamp()),
        "fingerprint": own.certificate.fingerprint(SHA256()).hex(),
    }


def test_with_mtls_off_nobody_is_asked_and_with_accept_only_the_wrong_are_refused(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    bench = mtls_bench(tmp_path_factory.mktemp("accept"), mtls="accept")
    with bench, Door(bench).listening() as door:
        toy, other = bench.lend().boot(), bench.lend().boot()
        assert _lease(door, toy, None) == (200, "")
        assert _lease(door, toy, certified(toy)) == (200, "")
        assert _lease(door, toy, certified(other), of=toy) == (403, "wrong_peer")
    bench = mtls_bench(tmp_path_factory.mktemp("off"), mtls="off")
    with bench, Door(bench).listening() as door:
        toy, other = bench.lend().boot(), bench.lend().boot()
        assert _lease(door, toy, certified(other), of=toy) == (200, "")  # nobody looks, and leases are signed


def test_an_identity_of_a_sites_issuer_is_held_to_its_own_certificate_and_not_to_ours(bench: Bench) -> None:
    """Who comes by an issuer's certificate or a token bound to one has shown it; a bare bearer has not."""
    service, before = bench.service, bench.service.config
    listing = next(route for route in ROUTES if (route.method, route.path) == ("GET", "/v1/loans"))
    caller = Actor(id="sub-0123456789abcdef", role=Role.AUDITOR, name="somebody")
    service.config = replace(before, mtls_tokens="require")
    try:
        demand_peer(service, listing, replace(caller, certified=True), {}, None)
        with pytest.raises(Rejected) as refused:
            demand_peer(service, listing, caller, {}, None)
        assert refused.value.code == "certificate_wanted"
    finally:
        service.config = before


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_mutated_requests_and_certificates_are_refused_and_nothing_else() -> None:
    """Every byte of both is a stranger's: no other error may come of them."""
    for data in mutated(csr_for(new_key()), count=2000):
        with contextlib.suppress(Malformed, Rejected):
            verify_signing_request(data)
    authority = forge(None, common_name="x", ca=True, uses=())
    honest = forge(authority, uris=["spiffe://a.example/relay/r"]).certificate.public_bytes(Encoding.DER)
    parsed = 0
    for data in mutated(honest, count=4000):
        pem = ssl.DER_cert_to_PEM_cert(data)
        with contextlib.suppress(Malformed, Rejected):
            found = peer_certificate({"extensions": {"tls": {"client_cert_chain": (pem,)}}})
            assert found is not None
            parsed += 1
            verify_peer(found, [authority.certificate], domain="a.example")
    assert parsed > 100, "many mutations parse, and are looked at"


def test_an_authoritys_key_is_nowhere_in_the_clear(bench: Bench, toy: Toy) -> None:
    certified(toy)
    key = _authority_key(bench).private_numbers().private_value.to_bytes(32)
    for path in bench.home.rglob("*"):
        if path.is_file():
            assert key not in path.read_bytes(), path
