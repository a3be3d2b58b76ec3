"""Mutual TLS from a relay into the enclave, on real sockets: who passes, and every stranger at the door (T7)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import ssl
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flow_house import row
from hop_kit import REFUSED, OpenHouse, asked, hop, relay, shown_on, uri_of, write_identity
from mtls_kit import SERVER, Identity, certified, forge, mtls_bench, new_key, now
from strict_house import events

from cloister.attest.rules import NotChecked
from cloister.channel.keyset import GATEWAY_PATH, KEYSET_PATH, EvidenceDocument, Keyset
from cloister.client import AsyncClient, CustodianPin
from cloister.client.trust_file import SystemTls
from cloister.client.way import Way
from cloister.relay.renewal import Renewal
from loops import asynchronous

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hop_kit import Hop


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hop]:
    """Yield an enclave that wants a relay's certificate."""
    with hop(tmp_path_factory.mktemp("strict"), certificate_life_s=3600) as made:
        yield made


def _pin(certificate: x509.Certificate) -> bytes:
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).digest()


def test_the_listener_shows_the_custodians_certificate_of_the_attested_key(strict: Hop) -> None:
    with contextlib.closing(strict.connect(strict.host())) as connection:
        connection.request("GET", KEYSET_PATH)
        keyset = Keyset.parse(EvidenceDocument.parse(connection.getresponse().read()).keyset)
        shown = shown_on(connection)
    assert uri_of(shown) == strict.name
    assert keyset.tls_spki_sha256 == (_pin(shown),)
    assert shown.issuer != shown.subject
    assert "listener_certified" in events(strict.log)


def test_a_relay_with_its_certificate_is_let_in_and_counted_as_nobody_refused(strict: Hop) -> None:
    before = strict.instance.metrics.value("cloister_exchanges_total", "peer_refused")
    assert strict.knock(strict.host()) == 200
    assert strict.instance.metrics.value("cloister_exchanges_total", "peer_refused") == before


@pytest.mark.parametrize("path", [KEYSET_PATH, GATEWAY_PATH, "/v2", "/v2/health/ready", "/none"])
def test_nobody_without_a_certificate_gets_near_what_consumers_ask(strict: Hop, path: str) -> None:
    before = strict.instance.metrics.value("cloister_exchanges_total", "peer_refused")
    assert strict.knock(None, path) == 403
    assert strict.instance.metrics.value("cloister_exchanges_total", "peer_refused") == before + 1


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_a_health_checker_needs_none(strict: Hop, path: str) -> None:
    assert strict.knock(None, path) == 200


@pytest.mark.parametrize("kind", ["proxy", "operator", "borrower"])
def test_a_certificate_of_the_wrong_kind_is_refused(strict: Hop, kind: str) -> None:
    name = {"proxy": "relay-1", "operator": None, "borrower": strict.house.loan}[kind]
    assert strict.knock(strict.host(kind, name)) == 403


def test_an_enclaves_own_certificate_does_not_make_a_relay(strict: Hop) -> None:
    """The one that it shows to its custodian, genuine in all."""
    key = new_key()
    issued = strict.run(strict.instance._certifier.certify(key, within=timedelta(seconds=10)))
    theirs = Identity(certificate=x509.load_der_x509_certificate(issued.certificate), key=key)
    assert strict.knock(theirs) == 403


def test_a_relays_certificate_of_another_custodian_ends_in_the_handshake(
    strict: Hop, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also one under this custodian's trust domain."""
    with mtls_bench(tmp_path_factory.mktemp("other"), trust_domain=strict.domain) as other:
        theirs = certified(other.lend().boot())
    with pytest.raises(REFUSED):
        strict.knock(theirs)


def test_a_self_made_authority_of_the_same_name_ends_in_the_handshake(strict: Hop) -> None:
    real = strict.house.service.certificates.certificates[0]
    root = forge(None, common_name=str(next(iter(real.subject)).value), ca=True, uses=())
    with pytest.raises(REFUSED):
        strict.knock(forge(root, uris=[f"spiffe://{strict.domain}/relay/relay-1"]))


def test_a_certificate_signed_by_a_certified_relay_ends_in_the_handshake(strict: Hop) -> None:
    with pytest.raises(REFUSED):
        strict.knock(forge(strict.host(), uris=[f"spiffe://{strict.domain}/relay/relay-2"]))


def test_a_downgrade_to_plaintext_or_to_older_tls_is_answered_nothing(strict: Hop) -> None:
    place = urlsplit(strict.url)
    with socket.create_connection((str(place.hostname), place.port or 0), timeout=10) as plain:
        plain.sendall(f"GET {KEYSET_PATH} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        answer = b""
        with contextlib.suppress(ConnectionError):
            while part := plain.recv(4096):
                answer += part
    assert b"HTTP/" not in answer
    assert b"keyset" not in answer
    with pytest.raises(REFUSED):
        strict.knock(strict.host(), maximum_version=ssl.TLSVersion.TLSv1_2)


def test_a_relay_on_an_open_connection_is_refused_once_its_certificate_has_ended(strict: Hop) -> None:
    """The handshake was good; what is asked behind the end is not answered, by the time that leases are judged by."""
    rule = strict.instance.relays
    with contextlib.closing(strict.connect(strict.host(life_s=60))) as connection:
        assert asked(connection) == 200
        before, clock = connection.sock, rule._now
        try:
            rule._now = lambda: now() + timedelta(seconds=61)
            assert asked(connection) == 403
        finally:
            rule._now = clock
        assert connection.sock is before, "it was the very same connection"
        assert asked(connection) == 200


def test_a_renewal_while_serving_shows_another_certificate_of_the_same_key_and_cuts_nobody(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with hop(tmp_path_factory.mktemp("renewal"), certificate_life_s=100) as made:
        own, listener = made.host(), made.instance.listener
        assert listener is not None
        with contextlib.closing(made.connect(own)) as connection:
            assert asked(connection) == 200
            first, before = shown_on(connection), connection.sock
            made.house.clock.advance(51)
            _due(made)
            _until(made, "listener_certified", 2)
            assert asked(connection) == 200
            assert connection.sock is before
        second = made.shown(own)
        assert (second.serial_number, uri_of(second)) != (first.serial_number, "")
        assert uri_of(second) == uri_of(first)
        assert _pin(second) == _pin(first), "consumers pin the key"
        assert made.knock(made.host()) == 200


def _due(made: Hop) -> None:
    """Let the enclave look now: half a life has gone by."""
    listener = made.instance.listener
    assert listener is not None
    listener._next = listener._not_before = listener._clock.monotonic()


def _until(made: Hop, event: str, count: int) -> None:
    async def wait() -> None:
        async with asyncio.timeout(20):
            while events(made.log).count(event) < count:  # noqa: ASYNC110 - a log tells nobody
                await asyncio.sleep(0.05)

    made.run(wait())


def test_a_blocked_instance_gets_no_other_and_nothing_that_has_ended_is_shown(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Fail closed: hosts that know the authority alone turn away, no relay is believed, and pins hold."""
    with hop(tmp_path_factory.mktemp("blocked"), certificate_life_s=100) as made:
        own, listener = made.host(), made.instance.listener
        assert listener is not None
        first = made.shown(own)
        made.house.clock.advance(51)
        subject = made.instance.metering.instance
        made.run(made.house.post("/v1/blocks", {"kind": "instance", "subject": subject, "reason": ""}))
        _due(made)
        _until(made, "certificate_failed", 1)
        assert made.shown(own) == first, "until its end it is what it was"
        with contextlib.closing(made.connect(own)) as connection:
            assert asked(connection) == 200
            held = listener._held
            assert held is not None
            object.__setattr__(held, "until", listener._clock.monotonic())
            assert asked(connection) == 403, "on open connections too, at once"
            _until(made, "listener_uncertified", 1)
        last = made.shown()
        assert last.issuer == last.subject, "what it signed itself"
        assert _pin(last) == _pin(first)
        with pytest.raises(REFUSED):
            made.knock(None)
        with pytest.raises(REFUSED):  # no authority is left that a relay could be of
            made.knock(own, verify_mode=ssl.CERT_NONE)


def test_an_authority_that_is_believed_no_more_ends_its_relays_at_the_enclave_too(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with hop(tmp_path_factory.mktemp("replaced"), certificate_life_s=3600, mtls_tokens="off") as made:
        own = made.host()
        assert made.knock(own) == 200
        made.run(made.house.post("/v1/certificates/authorities", {}))
        shown = dict(made.house.admin.headers)
        made.house.admin = httpx2.AsyncClient(  # the admin's own certificate has ended with all others
            base_url=made.house.service.url, headers=shown, verify=ssl.create_default_context(cadata=made.door.ca_pem)
        )
        made.run(made.instance.renewal.once())  # its certificate for the custodian ends with it, and it gets another
        _until(made, "listener_certified", 2)
        fresh = made.host(name="relay-2")
        assert made.knock(fresh) == 200
        with pytest.raises(REFUSED):
            made.knock(own)
        made.run(made.house.admin.aclose())


def test_under_accept_consumers_come_straight_with_a_pin_and_strangers_certificates_are_refused(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with hop(tmp_path_factory.mktemp("open"), kind=OpenHouse, certificate_life_s=3600) as made:
        assert made.knock(None) == 200
        assert made.knock(made.host()) == 200
        assert made.knock(made.host("proxy", "p")) == 403

        async def ask() -> list[int]:
            house = made.house
            pin = CustodianPin(key=house.key, url=house.service.url, ca_pem=house.loan_file["ca_pem"])
            trust = house.trust(custodian=pin, tls=NotChecked("the key is pinned"))
            found = []
            for way in (Way.PINNED, Way.OHTTP):
                async with await AsyncClient.verify(
                    made.url, trust, token=house.tokens["clinic"], schemes=house.schemes(), way=way
                ) as client:
                    found += (await client.infer("digits", {"image": row(1)})).outputs["label"].tolist()
            return found

        assert made.run(ask()) == [1, 1]


@pytest.mark.timeout(180)
@asynchronous
async def test_a_consumer_asks_through_a_relay_and_every_hop_proves_both_its_ends(tmp_path: Path) -> None:
    with hop(tmp_path, certificate_life_s=3600) as made:
        (tmp_path / "peers.pem").write_text(made.authorities)
        own = write_identity(tmp_path / "relay.pem", made.host(renewable=True))
        authority = forge(None, common_name="a public authority", ca=True, uses=())
        public = forge(authority, dns=["localhost"], uses=(SERVER,), common_name="localhost")
        shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        public.load(shown)
        ca_pem = authority.certificate.public_bytes(Encoding.PEM).decode()
        async with relay(made.url, (f"spiffe://{made.domain}/enclave",), tmp_path, certificate=own, tls=shown) as url:
            house = made.house
            pin = CustodianPin(key=house.key, url=house.service.url, ca_pem=house.loan_file["ca_pem"])
            async with await AsyncClient.verify(
                url.replace("127.0.0.1", "localhost"), house.trust(custodian=pin, tls=SystemTls(ca_pem)),
                token=house.tokens["clinic"], schemes=house.schemes(),
            ) as client:  # fmt: skip
                for index in (2, 3):
                    answer = await client.infer("digits", {"image": row(index)})
                    assert answer.outputs["label"].tolist() == [index]
                # The relay renews its certificate, and the key with it, while consumers ask.
                (tmp_path / "ca.pem").write_text(made.door.ca_pem)
                before = own.read_bytes()
                renewal = Renewal(
                    custodian=house.service.url, ca=tmp_path / "ca.pem", certificate=own,
                    authorities=tmp_path / "peers.pem",
                )  # fmt: skip
                await renewal.tick(now() + timedelta(hours=7))
                assert own.read_bytes() != before
                assert (await client.infer("digits", {"image": row(0)})).units == 1
        assert made.instance.metering.snapshot().served == 3
