"""The certificate of a listener: which answers are shown, when the next is asked for, what counts behind the end."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import ssl
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from enclave_parties import FakeClock
from mtls_kit import forge

from cloister.crypto.sign import SigningKey, Statement
from cloister.custodian.certificates.issuing import issue, make_authority
from cloister.custodian.certificates.signing_request import verify_signing_request
from cloister.enclave.certificate import Certifier, pem_of_key
from cloister.enclave.config import Relays
from cloister.enclave.listener_identity import ListenerIdentity
from cloister.enclave.listener_tls import ListenerTls
from cloister.enclave.logs import EventLog
from cloister.enclave.metrics import Metrics
from cloister.enclave.relays import RelayRule
from cloister.enclave.tls import OuterTls
from cloister.enclave.web.exchange import Head
from cloister.errors import Unavailable, UsageError
from cloister.lending.messages import CertificateRequest, InstanceCertificate
from cloister.lending.peer_name import PeerKind, PeerName
from cloister.lending.terms import InstanceId

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.enclave.listener_identity import Shown

INSTANCE = InstanceId("a" * 64)
WITHIN = timedelta(seconds=5)
LIFE = timedelta(hours=1)


@dataclass
class Desk:
    """A custodian that certifies, honestly unless told otherwise, and an enclave that asks it."""

    clock: FakeClock = field(default_factory=FakeClock)
    key: SigningKey = field(default_factory=SigningKey.generate)
    own: SigningKey = field(default_factory=SigningKey.generate)
    listener: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    root: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    answers: list[bytes] = field(default_factory=list)
    shown: list[Shown | None] = field(default_factory=list)
    said: io.StringIO = field(default_factory=io.StringIO)
    name: PeerName = field(default_factory=lambda: PeerName.of("k.example", PeerKind.ENCLAVE, INSTANCE))
    server: bool = True
    change: Callable[[dict[str, Any]], None] = lambda _: None
    down: bool = False
    signer: SigningKey | None = None

    def __post_init__(self) -> None:
        self.authority = make_authority(
            self.root, domain="k.example", name="1", now=self.clock.wall(), life=timedelta(days=30)
        )
        certifier = Certifier(self, key=self.own, instance=INSTANCE, custodian=self.key.verify_key)  # type: ignore[arg-type] # as much of a link as it needs
        log = EventLog(self.clock.wall, self.said)
        self.identity = ListenerIdentity(
            certifier, self.listener, clock=self.clock, log=log, show=self.shown.append
        )  # fmt: skip

    async def certificate(self, instance: InstanceId, statement: bytes, *, within: timedelta) -> bytes:
        """Answer as a custodian."""
        assert within == WITHIN
        if self.down:
            msg = "custodian: no answer"
            raise Unavailable(msg)
        payload = Statement.parse(statement, label=CertificateRequest.LABEL).verify([self.own.verify_key])
        asked = CertificateRequest.parse(payload)
        assert (asked.instance, asked.server) == (instance, True)
        made = issue(
            self.authority, self.root, verify_signing_request(asked.csr), self.name,
            now=self.clock.wall(), life=LIFE, server=self.server,
        )  # fmt: skip
        members: dict[str, Any] = {
            "instance": instance,
            "req_digest": hashlib.sha256(payload).digest(),
            "certificate": made.public_bytes(Encoding.DER),
            "authorities": (self.authority.public_bytes(Encoding.DER),),
            "life": LIFE,
        }
        self.change(members)
        answer = InstanceCertificate(**members)
        self.answers.append(Statement.sign(self.signer or self.key, answer.LABEL, answer.dump()).dump())
        return self.answers[-1]

    def keep(self) -> Shown | None:
        """Look once; return what counts."""
        self.identity.drop_ended()
        asyncio.run(self.identity.keep(within=WITHIN))
        return self.identity.current

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.said.getvalue().splitlines()]


def test_it_asks_at_once_then_halfway_through_and_shows_each_certificate() -> None:
    desk = Desk()
    first = desk.keep()
    assert first is not None
    assert first.name == desk.name
    assert x509.load_der_x509_certificate(first.certificate).public_key() == desk.listener.public_key()
    desk.clock.advance(1799)
    assert desk.keep() is first
    desk.clock.advance(2)
    second = desk.keep()
    assert second is not first
    assert desk.shown == [first, second]
    assert desk.events() == ["listener_certified"] * 2


def test_behind_the_end_nothing_counts_and_it_comes_back_with_the_custodian() -> None:
    desk = Desk()
    assert desk.keep() is not None
    desk.down = True
    desk.clock.advance(3599)
    assert desk.keep() is not None, "until its end"
    desk.clock.advance(1)
    assert desk.identity.current is None, "before anybody has looked"
    assert desk.keep() is None
    assert desk.keep() is None
    assert desk.shown[1:] == [None]
    assert desk.events() == ["listener_certified", "certificate_failed", "listener_uncertified"]
    desk.down = False
    assert desk.keep() is None, "not in the seconds behind a failure"
    desk.clock.advance(5)
    assert desk.keep() is desk.shown[-1] is not None


def test_a_custodian_that_believes_others_by_now_is_asked_at_once() -> None:
    desk = Desk()
    first = desk.keep()
    desk.identity._certifier.authorities = (b"what an answer for another key brought",)
    assert desk.keep() is first, "not again in the same seconds"
    desk.clock.advance(5)
    assert desk.keep() is not first


def _other_name(desk: Desk) -> None:
    desk.name = PeerName.of("k.example", PeerKind.ENCLAVE, "b" * 64)


def _relays(desk: Desk) -> None:
    desk.name = PeerName.of("k.example", PeerKind.RELAY, "relay-1")


def _clients(desk: Desk) -> None:
    desk.server = False


def _other_authority(desk: Desk) -> None:
    other = forge(None, common_name="Cloister peers 1", ca=True, uses=()).certificate.public_bytes(Encoding.DER)
    desk.change = lambda members: members.update(authorities=(other,))


def _no_authority(desk: Desk) -> None:
    desk.change = lambda members: members.update(authorities=())


def _no_certificate(desk: Desk) -> None:
    desk.change = lambda members: members.update(certificate=b"no certificate")


def _no_authority_certificate(desk: Desk) -> None:
    desk.change = lambda members: members.update(authorities=(b"no certificate",))


def _other_key(desk: Desk) -> None:
    theirs = forge(None, uris=[desk.name.uri]).certificate.public_bytes(Encoding.DER)
    desk.change = lambda members: members.update(certificate=theirs)


def _other_request(desk: Desk) -> None:
    desk.change = lambda members: members.update(req_digest=bytes(32))


def _other_custodian(desk: Desk) -> None:
    desk.signer = SigningKey.generate()


@pytest.mark.parametrize(
    ("attack", "code"),
    [
        (_other_name, "wrong_certificate"),
        (_relays, "wrong_certificate"),
        (_clients, "wrong_certificate"),
        (_other_authority, "wrong_peer"),
        (_no_authority, "wrong_peer"),
        (_no_certificate, "malformed"),
        (_no_authority_certificate, "malformed"),
        (_other_key, "wrong_certificate"),
        (_other_request, "wrong_certificate"),
        (_other_custodian, "unknown_key"),
    ],
)
def test_an_answer_that_does_not_fit_is_shown_to_nobody(attack: Callable[[Desk], None], code: str) -> None:
    desk = Desk()
    attack(desk)
    assert desk.keep() is None
    assert desk.shown == []
    assert json.loads(desk.said.getvalue())["code"] == code


def test_what_the_library_does_not_show_changes_nothing_and_ends_nothing() -> None:
    desk = Desk()
    tls = ListenerTls(
        OuterTls(chain=desk.authority.public_bytes(Encoding.PEM), key=pem_of_key(desk.root), spki_sha256=b""),
        asks_certificates=True,
    )  # of another key than what is certified
    desk.identity._show = tls.show
    before = tls.context.current
    assert desk.keep() is None
    assert desk.events() == ["certificate_failed"]
    assert tls.context.current is before
    tls.believe(b"")
    assert tls.context.current is not before, "nor is it tried again at the next change"


def _head(*certificates: bytes) -> Head:
    return Head(method="GET", target="/", headers=(), certificates=certificates)


def _relay(desk: Desk, name: str = "relay-1", kind: PeerKind = PeerKind.RELAY, domain: str = "k.example") -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415 - here only

    certified = verify_signing_request(csr.sign(key, SHA256()).public_bytes(Encoding.DER))
    made = issue(
        desk.authority, desk.root, certified, PeerName.of(domain, kind, name), now=desk.clock.wall(), life=LIFE
    )
    return made.public_bytes(Encoding.DER)


def _rule(desk: Desk, mode: Relays) -> RelayRule:
    return RelayRule(mode, desk.identity, now=desk.clock.wall, metrics=Metrics())


@pytest.mark.parametrize(("mode", "bare"), [(Relays.OFF, None), (Relays.ACCEPT, None), (Relays.REQUIRE, 403)])
def test_who_shows_nothing_passes_unless_something_is_wanted(mode: Relays, bare: int | None) -> None:
    desk = Desk()
    desk.keep()
    refusal = _rule(desk, mode).refusal(_head())
    assert (refusal.status if refusal else None) == bare


@pytest.mark.parametrize("mode", [Relays.ACCEPT, Relays.REQUIRE])
def test_a_relay_passes_until_its_certificate_ends_and_no_other_kind_does(mode: Relays) -> None:
    desk = Desk()
    desk.keep()
    rule, relay = _rule(desk, mode), _relay(desk)
    assert rule.refusal(_head(relay)) is None
    assert rule.refusal(_head(relay)) is None
    for stranger in (
        _relay(desk, "p", PeerKind.PROXY), _relay(desk, INSTANCE, PeerKind.ENCLAVE),
        _relay(desk, domain="other.example"),
    ):  # fmt: skip
        refusal = rule.refusal(_head(stranger))
        assert refusal is not None
        assert refusal.status == 403
    desk.clock.advance(3599)
    desk.keep()
    assert rule.refusal(_head(relay)) is None
    desk.clock.advance(1)
    assert rule.refusal(_head(relay)) is not None, "though the authority still counts"
    assert desk.identity.current is not None


def test_under_require_a_consumers_certificate_of_an_issuer_makes_no_relay() -> None:
    """Its root is in the same listener; under accept it is left to those who judge consumers."""
    desk = Desk()
    desk.keep()
    theirs = forge(None, uris=["spiffe://k.example/relay/relay-1"]).certificate.public_bytes(Encoding.DER)
    assert _rule(desk, Relays.ACCEPT).refusal(_head(theirs)) is None
    for shown in (theirs, b"no certificate"):
        assert _rule(desk, Relays.REQUIRE).refusal(_head(shown)) is not None


def test_without_a_word_of_the_custodian_nobody_is_a_relay() -> None:
    """Before the first answer, and behind the end of the last: neither setting nor file adds an authority."""
    desk = Desk()
    rule = _rule(desk, Relays.REQUIRE)
    assert rule.refusal(_head(_relay(desk))) is not None
    assert RelayRule(
        Relays.REQUIRE, None, now=desk.clock.wall, metrics=Metrics()
    ).refusal(_head(_relay(desk))) is not None  # fmt: skip
    desk.keep()
    relay = _relay(desk)
    assert rule.refusal(_head(relay)) is None
    desk.down = True
    desk.clock.advance(3600)
    assert rule.refusal(_head(_relay(desk))) is not None
    assert rule.refusal(_head(relay)) is not None


def test_what_is_remembered_of_relays_is_bounded() -> None:
    desk = Desk()
    desk.keep()
    rule = _rule(desk, Relays.REQUIRE)
    for number in range(70):
        assert rule.refusal(_head(_relay(desk, f"r{number}"))) is None
    assert len(rule._peers) <= 64


def test_a_certificate_and_a_key_that_are_not_of_one_another_end_the_start() -> None:
    other = forge(None, common_name="x")
    pem = other.certificate.public_bytes(Encoding.PEM)
    key = pem_of_key(ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(UsageError, match="fit together"):
        ListenerTls(OuterTls(chain=pem, key=key, spki_sha256=b""), asks_certificates=False)


def test_a_certificate_whose_file_does_not_end_its_last_line_is_shown() -> None:
    own = forge(None, common_name="x")
    pem = own.certificate.public_bytes(Encoding.PEM).rstrip()
    assert ListenerTls(OuterTls(chain=pem, key=pem_of_key(own.key), spki_sha256=b""), asks_certificates=False).context


def test_a_root_that_an_issuer_was_taken_out_with_is_taken_by_no_handshake_any_more() -> None:
    own = forge(None, common_name="x")
    held = ListenerTls(
        OuterTls(chain=own.certificate.public_bytes(Encoding.PEM), key=pem_of_key(own.key), spki_sha256=b""),
        asks_certificates=True,
    )
    root = forge(None, common_name="issuer", ca=True, uses=()).certificate
    held.believe(root.public_bytes(Encoding.DER))
    assert len(held.context.current.get_ca_certs()) == 1
    held.believe(b"")
    assert held.context.current.get_ca_certs() == []
    assert held.context.current.verify_mode is ssl.CERT_OPTIONAL
