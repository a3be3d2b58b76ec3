"""The list of attacks on bearer tokens (80-bad-inputs 7.4, T78), by number, over HTTP against an open custodian."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from custodian_kit import START, Bench
from identity_kit import Cluster, Domain, Provider, b64u, jwk, raw_token

from cloister.identity.dpop import make_proof

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import httpx

NOW = int(START.timestamp())
YEAR = 365 * 86_400
SITE, RSA, THIEF = Provider(), Provider("https://rsa.example", "RS256", "rsa-1"), Provider("https://thief.example")
CLUSTER, SPIFFE = Cluster(), Domain()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Yield one custodian for the whole list, with an issuer of each kind: nothing here changes it."""
    folder: Path = tmp_path_factory.mktemp("jwt")
    with Bench(folder, settings={"failures_per_minute": 100_000}) as opened:
        for document in (SITE.document(), RSA.document(), CLUSTER.document(), SPIFFE.document()):
            assert opened.post("/v1/issuers", document).status_code == 201
        yield opened


def call(bench: Bench, token: bytes | None) -> httpx.Response:
    headers = {} if token is None else {b"authorization": b"Bearer " + token}
    return bench.client.get("/v1/loans", headers=headers)


def reasons(answer: httpx.Response) -> list[str]:
    return [reason["code"] for reason in answer.json()["reasons"]]


def public(provider: Provider) -> bytes:
    return provider.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def by_hmac(secret: bytes) -> bytes:
    body = raw_token({"alg": "HS256", "kid": RSA.kid, "typ": "at+jwt"}, RSA.claims(NOW), b"").rstrip(b".")
    return body + b"." + b64u(hmac.new(secret, body, hashlib.sha256).digest()).encode()


def unsigned(algorithm: str) -> bytes:
    return raw_token({"alg": algorithm, "kid": SITE.kid, "typ": "at+jwt"}, SITE.claims(NOW), b"")


def site(**claims: Any) -> Callable[[], bytes]:
    return lambda: SITE.token(now=NOW, **claims)


def kid(name: str) -> Callable[[], bytes]:
    return lambda: SITE.token(now=NOW, header={"kid": name})


def stolen(**header: Any) -> Callable[[], bytes]:
    """Return a token that a thief signed and that leads to the thief's key."""
    return lambda: THIEF.token(now=NOW, iss=SITE.name, header={"kid": SITE.kid, **header})


ATTACKS: dict[str, tuple[Callable[[], bytes], str]] = {
    "54 none": (lambda: unsigned("none"), "algorithm_not_allowed"),
    "54 None": (lambda: unsigned("None"), "algorithm_not_allowed"),
    "54 NONE": (lambda: unsigned("NONE"), "algorithm_not_allowed"),
    "54 a signature cut off": (lambda: SITE.token(now=NOW).rpartition(b".")[0] + b".", "signature_invalid"),
    "55 hs256 by the public key": (lambda: by_hmac(public(RSA)), "algorithm_not_allowed"),
    "55 hs256 by the public key without its last line end": (
        lambda: by_hmac(public(RSA).rstrip(b"\n")), "algorithm_not_allowed",
    ),
    "55 hs256 by the modulus": (lambda: by_hmac(jwk(RSA.key)["n"].encode()), "algorithm_not_allowed"),
    "55 hs256 by nothing": (lambda: by_hmac(b""), "algorithm_not_allowed"),
    "56 kid climbs": (kid("../../../../../../dev/null"), "unknown_key"),
    "56 kid is a url": (kid("https://thief.example/key"), "unknown_key"),
    "56 kid is a file": (kid("file:///etc/passwd"), "unknown_key"),
    "56 kid in sql": (kid("key-1' OR '1'='1"), "unknown_key"),
    "56 kid in a shell": (kid("key-1; touch /tmp/x"), "unknown_key"),
    "57 aud of another": (site(aud="https://other.example"), "audience_mismatch"),
    "57 aud missing": (site(aud=None), "audience_mismatch"),
    "57 iss of another": (lambda: THIEF.token(now=NOW), "issuer_unknown"),
    "57 iss of ours, key of another of ours": (
        lambda: RSA.token(now=NOW, iss=SITE.name), "algorithm_not_allowed",
    ),
    "57 iss of ours, key of nobody": (stolen(), "signature_invalid"),
    "57 azp of another": (site(azp="another-client"), "party_not_allowed"),
    "57 azp missing": (site(azp=None), "party_not_allowed"),
    "57 exp past": (site(exp=NOW - 1), "token_expired"),
    "57 exp now": (site(exp=NOW), "token_expired"),
    "57 exp missing": (site(exp=None), "claim_missing"),
    "57 nbf ahead": (site(nbf=NOW + 60), "token_not_yet_valid"),
    "57 iat ahead": (site(iat=NOW + 60), "token_not_yet_valid"),
    "57 iat a year ago": (site(iat=NOW - YEAR, exp=NOW + YEAR), "token_too_old"),
    "57 iat missing": (site(iat=None), "claim_missing"),
    "58 jwk": (stolen(jwk=jwk(THIEF.key)), "signature_invalid"),
    "58 jku": (stolen(jku="https://thief.example/jwks"), "signature_invalid"),
    "58 x5u": (stolen(x5u="https://thief.example/chain"), "signature_invalid"),
    "58 x5c": (stolen(x5c=["MIIB"]), "signature_invalid"),
    "58 crit": (lambda: SITE.token(now=NOW, header={"crit": ["jku"], "jku": "x"}), "unsupported_format"),
    "a login's token": (lambda: SITE.token(now=NOW, header={"typ": "logout+jwt"}), "token_type_wrong"),
    "a proof of possession": (lambda: SITE.token(now=NOW, header={"typ": "dpop+jwt"}), "token_type_wrong"),
    "a subject of no rule": (site(sub="user-8"), "identity_not_mapped"),
    "a subject in capitals": (site(sub="USER-7"), "identity_not_mapped"),
    "a service account of another namespace": (
        lambda: CLUSTER.token(
            now=NOW, sub="system:serviceaccount:test:api",
            **{"kubernetes.io": {"namespace": "test", "serviceaccount": {"name": "api"}}},
        ),
        "identity_not_mapped",
    ),
    "a service account that says it is another": (
        lambda: CLUSTER.token(now=NOW, sub="system:serviceaccount:kube-system:root"), "subject_invalid",
    ),
    "an svid of another folder": (lambda: SPIFFE.token(now=NOW, sub=f"{SPIFFE.name}/ns/test/api"),
                                  "identity_not_mapped"),
    "bound to a certificate, without one": (site(cnf={"x5t#S256": "A" * 43}), "confirmation_missing"),
    "bound to a key, without a proof": (site(cnf={"jkt": "A" * 43}), "confirmation_missing"),
    "bound to something else": (site(cnf={"kid": "x"}), "confirmation_unsupported"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_a_forged_token_is_401_and_says_why(bench: Bench, name: str) -> None:
    make, code = ATTACKS[name]
    answer = call(bench, make())
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["code"] == "unauthenticated"
    assert code in reasons(answer)


@pytest.mark.parametrize(
    "token",
    [
        b"a.b.c", b"." * 20, b"eyJhbGciOiJub25lIn0.e30.", b"x" * 20_000, b"A" * 16_000 + b".A.A", SITE.token()[:-30],
        b"eyJhbGciOiAiRVMyNTYifQ." + b"e30." + b"A" * 86, b".".join([b"e30"] * 5), b"\xff\xfe" + b"a" * 20,
    ],
)  # fmt: skip
def test_rubbish_is_401_not_400_and_never_500(bench: Bench, token: bytes) -> None:
    assert call(bench, token).status_code == 401


def test_53_no_token(bench: Bench) -> None:
    answer = call(bench, None)
    assert answer.status_code == 401
    assert answer.json()["code"] == "unauthenticated"


def test_an_honest_token_of_each_kind_opens_what_its_rule_grants(bench: Bench) -> None:
    assert call(bench, SITE.token(now=NOW)).status_code == 200
    assert call(bench, CLUSTER.token(now=NOW)).status_code == 200
    assert call(bench, SPIFFE.token(now=NOW)).status_code == 200
    auditor = {"authorization": f"Bearer {CLUSTER.token(now=NOW).decode()}"}
    assert bench.client.post("/v1/loans", json={}, headers=auditor).status_code == 403


def test_what_a_header_says_about_keys_is_not_asked_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """58, and 69: no token makes the custodian open a connection."""
    import socket  # noqa: PLC0415 - to forbid it

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    monkeypatch.setattr(socket, "create_connection", forbidden)
    for header in ({"jku": "http://169.254.169.254/x"}, {"x5u": "http://127.0.0.1/x"}, {"kid": "http://[::1]/x"}):
        assert call(bench, THIEF.token(now=NOW, iss=SITE.name, header=header)).status_code == 401


def test_a_token_that_ends_opens_nothing_a_second_later(bench: Bench) -> None:
    token = SITE.token(now=NOW, exp=NOW + 60)
    assert call(bench, token).status_code == 200
    bench.clock.advance(59)
    assert call(bench, token).status_code == 200
    bench.clock.advance(1)
    assert reasons(call(bench, token)) == ["unauthenticated", "token_expired"]
    bench.clock.advance(-60)


def test_tries_are_counted_and_then_429(tmp_path: Path) -> None:
    with Bench(tmp_path, settings={"failures_per_minute": 3}) as one:
        one.post("/v1/issuers", SITE.document())
        statuses = [call(one, SITE.token(now=NOW, aud="x")).status_code for _ in range(5)]
        assert statuses == [401, 401, 401, 429, 429]


def test_a_token_bound_to_a_key_counts_with_a_proof_of_that_key_alone(bench: Bench) -> None:
    """RFC 9449 section 7.1, for tokens that another issuer bound."""
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    said = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": b64u(key.public_key().public_bytes_raw())}, sort_keys=True)
    thumbprint = b64u(hashlib.sha256(said.replace(" ", "").encode()).digest())
    token = SITE.token(now=NOW, cnf={"jkt": thumbprint}).decode()

    def get(scheme: str, signer: Ed25519PrivateKey | None, identity: str) -> int:
        headers = {"authorization": f"{scheme} {token}"}
        if signer is not None:
            headers["dpop"] = make_proof(
                signer.public_key(), signer.sign, identity=identity, method="GET",
                address=f"{bench.service.url}/v1/loans", token=token, now=bench.clock(),
            )  # fmt: skip
        return bench.client.get("/v1/loans", headers=headers).status_code

    assert get("DPoP", key, "proof-a") == 200
    assert get("DPoP", key, "proof-a") == 401  # taken once
    assert get("DPoP", other, "proof-b") == 401
    assert get("DPoP", None, "") == 401
    assert get("Bearer", key, "proof-c") == 401


def test_an_identity_opens_no_session(bench: Bench) -> None:
    headers = {"authorization": f"Bearer {SITE.token(now=NOW).decode()}"}
    answer = bench.client.post("/v1/sessions", json={}, headers=headers)
    assert answer.json()["code"] == "token_wanted"
