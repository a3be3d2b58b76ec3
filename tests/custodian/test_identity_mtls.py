"""Callers who show a site's own certificates, on real TLS sockets: by themselves, and beside tokens bound to them."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from identity_kit import Authority, Provider, b64u, dns, jwk
from mtls_kit import SERVER, Door, Identity, forge, mtls_bench, now, send

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from custodian_kit import Bench

DOMAIN = "spiffe://hospital.example"
ROOT, STRANGER, SPIRE = (forge(None, ca=True, uses=(), common_name=name) for name in ("Site CA", "Site CA", "SPIRE"))
SITE = Provider()
API = forge(ROOT, dns=["api.example"])
SVID = forge(SPIRE, uris=[f"{DOMAIN}/models/publisher"])


def pem(identity: Identity) -> str:
    return identity.certificate.public_bytes(Encoding.PEM).decode()


def digest(identity: Identity) -> str:
    return b64u(hashlib.sha256(identity.certificate.public_bytes(Encoding.DER)).digest())


CERTIFICATES = {
    "authorities": pem(ROOT),
    "issuer": "x509:site",
    "kind": "certificates",
    "rules": [{"grants": {"role": "lender"}, "subject": "dns:api.example"}],
}
BUNDLE = {
    "keys": [
        jwk(SPIRE.key, use="x509-svid", x5c=[base64.b64encode(SPIRE.certificate.public_bytes(Encoding.DER)).decode()])
    ]
}
SPIFFE = {
    "algorithms": ["ES256"],
    "audiences": ["https://custodian.example"],
    "issuer": DOMAIN,
    "keys": BUNDLE,
    "kind": "spiffe",
    "rules": [{"claims": {"/spiffe/below": "/models"}, "grants": {"role": "auditor"}}],
}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with mtls_bench(tmp_path, mtls="off", failures_per_minute=10_000) as made:
        for document in (CERTIFICATES, SPIFFE, SITE.document()):
            assert made.post("/v1/issuers", document).status_code == 201
        yield made


@pytest.fixture
def door(bench: Bench) -> Iterator[Door]:
    with Door(bench).listening() as made:
        yield made


def token(bench: Bench, **claims: Any) -> dict[str, str]:
    now = int(bench.clock().timestamp())
    return {"authorization": f"Bearer {SITE.token(now=now, **claims).decode()}"}


def codes(answer: Any) -> list[str]:
    return [reason["code"] for reason in answer["reasons"]]


def test_a_certificate_of_the_sites_authority_is_a_login(door: Door) -> None:
    assert door.get("/v1/loans", {}, API)[0] == 200
    assert door.get("/v1/tokens", {}, API)[0] == 403
    assert door.get("/v1/loans", {})[0] == 401


def test_an_svid_is_a_login_and_the_log_names_neither_it_nor_its_path(door: Door, bench: Bench) -> None:
    assert door.get("/v1/audit", {}, SVID)[0] == 200
    assert door.get("/v1/tokens", {}, SVID)[0] == 403  # which is logged
    text = bench.get("/v1/audit?limit=1000").text
    assert "auditor:p:" in text
    assert "idn-" not in text
    assert "publisher" not in text


def test_a_certificate_below_another_authority_of_the_same_name_does_not_get_through_the_handshake(door: Door) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        door.get("/v1/loans", {}, forge(STRANGER, dns=["api.example"]))


def test_a_servers_certificate_is_no_login(door: Door) -> None:
    with contextlib.suppress(ssl.SSLError, ConnectionError):  # TLS looks at the usage too
        status, answer = door.get("/v1/loans", {}, forge(ROOT, dns=["api.example"], uses=(SERVER,)))
        assert (status, codes(answer)) == (401, ["unauthenticated", "usage_not_allowed"])


def test_a_name_of_no_rule_is_nobody(door: Door) -> None:
    for names in ({"dns": ["web.example"]}, {"common_name": "api.example"}):
        status, answer = door.get("/v1/loans", {}, forge(ROOT, **names))
        assert status == 401
        assert codes(answer)[1] in {"identity_not_mapped", "name_missing"}


def test_an_authority_of_one_kind_speaks_for_no_name_of_the_other(door: Door) -> None:
    status, answer = door.get("/v1/audit", {}, forge(ROOT, uris=[f"{DOMAIN}/models/publisher"]))
    assert (status, codes(answer)) == (401, ["unauthenticated", "untrusted_root"])
    status, answer = door.get("/v1/loans", {}, forge(SPIRE, dns=["api.example"]))
    assert (status, codes(answer)) == (401, ["unauthenticated", "untrusted_root"])


def test_a_certificate_below_an_authority_in_between_brings_it_along(door: Door, tmp_path: Path) -> None:
    wide = Authority("Wide CA", now=now())
    below = Authority("Issuing CA", wide, now=now())
    der, key = below.client(dns("api.example"))
    assert door.bench.post("/v1/issuers", CERTIFICATES | {"authorities": wide.pem}).status_code == 201
    assert door.tls is not None
    door.tls.refresh()
    chain = tmp_path / "chain.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain.write_bytes(ssl.DER_cert_to_PEM_cert(der).encode() + below.pem.encode() + private)
    connection = door.connect()
    connection._context.load_cert_chain(chain)  # type: ignore[attr-defined]  # http.client's own
    with contextlib.closing(connection):
        status, answer = send(connection, "GET", "/v1/loans", b"", {})
    assert status == 200, answer


def test_a_certificate_that_ends_while_its_connection_stays_open_opens_nothing_more(door: Door, bench: Bench) -> None:
    with contextlib.closing(door.connect(API)) as connection:
        assert send(connection, "GET", "/v1/loans", b"", {})[0] == 200
        bench.clock.advance(3700)
        status, answer = send(connection, "GET", "/v1/loans", b"", {})
    assert (status, codes(answer)) == (401, ["unauthenticated", "cert_expired"])


def test_an_issuer_that_is_removed_ends_open_connections_too(door: Door, bench: Bench) -> None:
    listed = bench.get("/v1/issuers").json()["issuers"]
    name = next(item["id"] for item in listed if item["kind"] == "certificates")
    with contextlib.closing(door.connect(API)) as connection:
        assert send(connection, "GET", "/v1/loans", b"", {})[0] == 200
        assert bench.client.delete(f"/v1/issuers/{name}", headers=bench.admin).status_code == 200
        assert send(connection, "GET", "/v1/loans", b"", {})[0] == 401


def test_an_authority_that_is_added_is_believed_without_a_restart(door: Door, bench: Bench) -> None:
    fresh = forge(None, ca=True, uses=(), common_name="Fresh CA")
    client = forge(fresh, dns=["api.example"])
    with pytest.raises((ssl.SSLError, ConnectionError)):
        door.get("/v1/loans", {}, client)
    assert bench.post("/v1/issuers", CERTIFICATES | {"authorities": pem(fresh), "issuer": "x509:fresh"}).is_success
    assert door.tls is not None
    assert door.tls.refresh()
    assert door.get("/v1/loans", {}, client)[0] == 200


def test_a_token_bound_to_a_certificate_counts_on_its_connection_alone(door: Door, bench: Bench) -> None:
    """RFC 8705 section 3: a stolen one is worthless."""
    bound = token(bench, cnf={"x5t#S256": digest(API)})
    assert door.get("/v1/loans", bound, API)[0] == 200
    status, answer = door.get("/v1/loans", bound)
    assert (status, codes(answer)) == (401, ["unauthenticated", "confirmation_missing"])
    status, answer = door.get("/v1/loans", bound, forge(ROOT, dns=["api.example"]))
    assert (status, codes(answer)) == (401, ["unauthenticated", "confirmation_mismatch"])


def test_a_token_counts_for_itself_whatever_certificate_comes_with_it(door: Door, bench: Bench) -> None:
    assert door.get("/v1/audit", token(bench), API)[0] == 200
    assert door.get("/v1/audit", token(bench, sub="nobody"), API)[0] == 401
    assert door.get("/v1/loans", bench.admin, API)[0] == 200


def test_who_is_proven_by_a_certificate_needs_no_second_one_where_tokens_want_theirs(door: Door, bench: Bench) -> None:
    bound = token(bench, cnf={"x5t#S256": digest(API)})
    bench.service.config = replace(bench.service.config, mtls_tokens="require")
    assert door.get("/v1/loans", {}, API)[0] == 200
    assert door.get("/v1/loans", bound, API)[0] == 200
    assert door.get("/v1/loans", token(bench))[1]["code"] == "certificate_wanted"
    assert door.get("/v1/loans", bench.admin, API)[1]["code"] == "wrong_peer"
