"""A relay renews its certificate with the one it has, while somebody of staff vouches for it, and nobody else does."""

from __future__ import annotations

import ssl
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from mtls_kit import Door, Identity, certified, csr_text, forge, mtls_bench, new_key

from cloister.wire import dump_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from custodian_kit import Bench

REFUSED = (ssl.SSLError, ConnectionError)
RENEWAL = "/v1/certificates/renewal"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with mtls_bench(tmp_path_factory.mktemp("renewal"), forks_per_minute=1000) as made:
        yield made


@pytest.fixture(scope="module")
def door(bench: Bench) -> Iterator[Door]:
    with Door(bench).listening() as made:
        yield made


def _host(bench: Bench, *, token: Any = None, name: str = "relay-1", **more: Any) -> Identity:
    key = new_key()
    body = {"csr": csr_text(key), "kind": "relay", "name": name, "renewable": True, **more}
    answer = bench.client.post("/v1/certificates", json=body, headers=token or bench.admin)
    assert answer.status_code == 201, answer.text
    return Identity(certificate=x509.load_pem_x509_certificate(answer.json()["certificate"].encode()), key=key)


def _renew(door: Door, identity: Identity | None, **more: Any) -> tuple[int, Any, Identity | None]:
    """Ask for the next one; return status, code or document, and the next identity."""
    key = new_key()
    body = dump_json({"csr": csr_text(key), **more})
    status, answer = door.post(RENEWAL, body, identity=identity, headers={"content-type": "application/json"})
    if status != 201:
        return status, answer["code"], None
    leaf = x509.load_pem_x509_certificate(answer["certificate"].encode())
    assert leaf.public_key() == key.public_key()
    return status, answer, Identity(certificate=leaf, key=key)


def test_a_relay_gets_the_next_certificate_by_showing_the_one_it_has_and_goes_on_so(bench: Bench, door: Door) -> None:
    first = _host(bench, server=True, life_s=600)
    held, documents = first, []
    for _ in range(3):
        status, document, fresh = _renew(door, held)
        assert status == 201
        assert fresh is not None
        assert document["name"].endswith("/relay/relay-1")
        assert document["authorities"] == bench.service.certificates.pem
        uses = fresh.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert ExtendedKeyUsageOID.SERVER_AUTH in uses, "what it was for it is for again"
        life = fresh.certificate.not_valid_after_utc - fresh.certificate.not_valid_before_utc
        assert life <= timedelta(seconds=660)
        held = fresh
        documents.append(document)
    last = bench.audit()[-1]
    assert (last["kind"], last["actor"], last["subject"]) == ("certificate_issued", "relay/relay-1", "relay/relay-1")
    assert len({item["fingerprint"] for item in documents}) == 3


def test_nobody_renews_without_a_certificate_or_with_a_token_alone(bench: Bench, door: Door) -> None:
    assert _renew(door, None)[:2] == (403, "certificate_wanted")
    answer = bench.client.post(RENEWAL, json={"csr": csr_text(new_key())}, headers=bench.admin)
    assert answer.json()["code"] == "certificate_wanted"


def test_a_certificate_that_nobody_vouched_for_just_ends(bench: Bench, door: Door) -> None:
    plain = _host(bench, renewable=False)
    assert _renew(door, plain)[:2] == (403, "forbidden")
    last = bench.audit()[-1]
    assert (last["kind"], last["details"]["codes"]) == ("certificate_refused", "forbidden")


def test_an_enclaves_or_a_persons_certificate_renews_nothing_here(bench: Bench, door: Door) -> None:
    assert _renew(door, certified(bench.lend().boot()))[:2] == (403, "wrong_peer")
    key = new_key()
    made = bench.client.post(
        "/v1/certificates", json={"csr": csr_text(key), "kind": "operator"}, headers=bench.admin
    ).json()
    person = Identity(certificate=x509.load_pem_x509_certificate(made["certificate"].encode()), key=key)
    assert _renew(door, person)[:2] == (403, "wrong_peer")


def test_a_revoked_token_ends_the_renewals_of_every_host_it_vouched_for(bench: Bench, door: Door) -> None:
    lender = bench.token("lender", name="for relays")
    held = _host(bench, token=lender, name="relay-2")
    status, _, fresh = _renew(door, held)
    assert status == 201
    token = next(item["id"] for item in bench.get("/v1/tokens").json()["tokens"] if item["name"] == "for relays")
    assert bench.client.delete(f"/v1/tokens/{token}", headers=bench.admin).status_code == 200
    assert _renew(door, held)[:2] == (403, "forbidden")
    assert _renew(door, fresh)[:2] == (403, "forbidden"), "nor by what was renewed before"


def test_a_renewal_lives_no_longer_than_the_token_behind_it(bench: Bench, door: Door) -> None:
    short = bench.token("lender", name="an hour", life_s=3600)
    held = _host(bench, token=short, name="relay-3")
    _, _, fresh = _renew(door, held)
    assert fresh is not None
    left = fresh.certificate.not_valid_after_utc - bench.service.context.now()
    assert left <= timedelta(seconds=3600)


def test_a_renewal_lives_no_longer_than_the_settings_allow_by_now(tmp_path_factory: pytest.TempPathFactory) -> None:
    with mtls_bench(tmp_path_factory.mktemp("shorter")) as bench, Door(bench).listening() as door:
        held = _host(bench, life_s=3600)
        context = bench.service.context
        context.config = replace(context.config, certificate_max_life_s=600)  # as after a start by other settings
        _, _, fresh = _renew(door, held)
        assert fresh is not None
        assert fresh.certificate.not_valid_after_utc - context.now() <= timedelta(seconds=600)


def test_a_key_is_certified_once_here_too(bench: Bench, door: Door) -> None:
    held = _host(bench, name="relay-4")
    body = dump_json({"csr": csr_text(held.key)})
    status, answer = door.post(RENEWAL, body, identity=held, headers={"content-type": "application/json"})
    assert (status, answer["code"]) == (409, "key_certified")


@pytest.mark.parametrize("more", [{"name": "relay-9"}, {"kind": "enclave"}, {"life_s": 604_800}, {"server": True}])
def test_a_renewal_that_asks_for_more_than_the_next_is_refused(bench: Bench, door: Door, more: dict[str, Any]) -> None:
    assert _renew(door, _host(bench, name="relay-5"), **more)[0] == 400


def test_a_forged_certificate_ends_in_the_handshake(door: Door) -> None:
    with pytest.raises(REFUSED):
        _renew(door, forge(None, uris=[f"spiffe://{door.bench.service.certificates.domain}/relay/relay-1"]))


@pytest.mark.parametrize("kind", ["operator", "borrower"])
def test_nobody_but_a_host_gets_one_that_renews(bench: Bench, kind: str) -> None:
    body = {"csr": csr_text(new_key()), "kind": kind, "renewable": True}
    token = bench.lend().token if kind == "borrower" else bench.admin
    answer = bench.client.post("/v1/certificates", json=body, headers=token)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_an_ended_certificate_renews_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A connection that outlived it, and a handshake for which it is too late."""
    with mtls_bench(tmp_path_factory.mktemp("ended")) as bench, Door(bench).listening() as door:
        held = _host(bench, life_s=60)
        bench.clock.advance(61)
        assert _renew(door, held)[:2] == (403, "certificate_expired")
