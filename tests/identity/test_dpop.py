"""Proofs of possession (RFC 9449), each wrong in one way."""

from __future__ import annotations

import contextlib
import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister.errors import Malformed, Rejected
from cloister.identity.dpop import make_proof, thumbprint, verify_proof
from cloister.wire import dump_b64u, dump_json
from mutations import mutated

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
ADDRESS = "https://custodian.example:8443/v1/loans"
TOKEN = "clss_" + "A" * 43
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
JWK = {"crv": "Ed25519", "kty": "OKP", "x": dump_b64u(KEY.public_key().public_bytes_raw())}

EXAMPLE = (
    "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQy"
    "VVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJ"
    "lMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsIml"
    "hdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71E"
    "OptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
)
"""RFC 9449 section 7.1; the key is that of section 6.1."""


def proof(header: dict[str, Any] | None = None, key: Ed25519PrivateKey = KEY, **claims: Any) -> str:
    """Return a proof, with members replaced (None: left out)."""
    head = {"alg": "EdDSA", "jwk": JWK, "typ": "dpop+jwt", **(header or {})}
    said = {
        "ath": dump_b64u(hashlib.sha256(TOKEN.encode()).digest()), "htm": "GET", "htu": ADDRESS,
        "iat": int(NOW.timestamp()), "jti": "one", **claims,
    }  # fmt: skip
    parts = (
        dump_b64u(json.dumps({name: value for name, value in part.items() if value is not None}).encode())
        for part in (head, said)
    )
    signed = ".".join(parts)
    return f"{signed}.{dump_b64u(key.sign(signed.encode()))}"


def verify(text: str, **changes: Any) -> Any:
    """Verify a proof for the request that they are all for."""
    asked: dict[str, Any] = {"method": "GET", "addresses": [ADDRESS], "token": TOKEN, "now": NOW, **changes}
    return verify_proof(text, **asked)


def test_the_example_of_the_rfc() -> None:
    token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"  # noqa: S105 - of the RFC
    proven = verify(
        EXAMPLE, addresses=["https://resource.example.org/protectedresource"], token=token,
        now=datetime.fromtimestamp(1562262618, UTC),
    )  # fmt: skip
    assert dump_b64u(proven.thumbprint) == "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


def test_a_proof_of_our_own_is_one() -> None:
    made = make_proof(
        KEY.public_key(), KEY.sign, identity="one", method="GET", address=f"{ADDRESS}?after=1", token=TOKEN, now=NOW,
    )  # fmt: skip
    proven = verify(made)
    assert proven.thumbprint == thumbprint(JWK)
    assert proven.over_at == NOW + timedelta(seconds=60)
    assert verify(proof(jti="two")).id != proven.id == verify(proof()).id


def test_an_address_is_compared_as_an_address() -> None:
    for said in ("HTTPS://Custodian.Example:8443/v1/loans", f"{ADDRESS}?a=b#c", ADDRESS.replace("loans", "%6coans")):
        verify(proof(htu=said))
    verify(proof(htu="https://custodian.example/v1/loans"), addresses=["https://custodian.example:443/v1/loans"])


def test_an_elliptic_key_signs_too_and_what_else_a_jwk_says_is_not_read() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    numbers = key.public_key().public_numbers()
    jwk = {"crv": "P-256", "kty": "EC", **{n: dump_b64u(getattr(numbers, n).to_bytes(32, "big")) for n in ("x", "y")}}
    signed = proof({"alg": "ES256", "jwk": {**jwk, "kid": "mine", "use": "sig"}}).rpartition(".")[0]
    r, s = utils.decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    text = f"{signed}.{dump_b64u(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"
    assert verify(text).thumbprint == thumbprint(jwk)


@pytest.mark.parametrize(
    ("header", "claims"),
    [
        ({"typ": "JWT"}, {}),
        ({"typ": None}, {}),
        ({"alg": "none"}, {}),
        ({"alg": "HS256"}, {}),
        ({"alg": "ES256"}, {}),
        ({"alg": "RS256"}, {}),
        ({"jwk": None}, {}),
        ({"jwk": "x"}, {}),
        ({"jwk": {"kty": "oct", "k": "AAAA"}}, {}),
        ({"jwk": {**JWK, "d": JWK["x"]}}, {}),
        ({"jwk": {**JWK, "x": JWK["x"] + "AA"}}, {}),
        ({"jwk": {**JWK, "crv": "X25519"}}, {}),
        ({"jku": "https://evil.example/keys"}, {}),
        ({"kid": "../../x"}, {}),
        ({"crit": ["b64"], "b64": False}, {}),
        ({}, {"htm": "POST"}),
        ({}, {"htm": "get"}),
        ({}, {"htu": "https://evil.example/v1/loans"}),
        ({}, {"htu": ADDRESS + "/"}),
        ({}, {"htu": ADDRESS.replace("https", "http")}),
        ({}, {"htu": ADDRESS.replace("8443", "8444")}),
        ({}, {"htu": "https://[::1/v1/loans"}),
        ({}, {"htu": 7}),
        ({}, {"iat": int(NOW.timestamp()) - 61}),
        ({}, {"iat": int(NOW.timestamp()) + 61}),
        ({}, {"iat": "now"}),
        ({}, {"iat": True}),
        ({}, {"iat": 1e300}),
        ({}, {"jti": ""}),
        ({}, {"jti": "x" * 129}),
        ({}, {"jti": 1}),
        ({}, {"ath": None}),
        ({}, {"ath": dump_b64u(hashlib.sha256(b"another token").digest())}),
        ({}, {"jti": None}),
        ({}, {"htm": None}),
        ({}, {"htu": None}),
        ({}, {"iat": None}),
    ],
    ids=repr,
)
def test_a_proof_that_is_wrong_in_one_way_proves_nothing(header: dict[str, Any], claims: dict[str, Any]) -> None:
    with pytest.raises(Rejected) as refused:
        verify(proof(header, **claims))
    assert refused.value.code == "dpop_invalid"


def test_somebody_elses_signature_under_this_key_proves_nothing() -> None:
    with pytest.raises(Rejected):
        verify(proof(key=Ed25519PrivateKey.from_private_bytes(bytes(32))))


def test_a_nonce_is_demanded_where_there_is_one() -> None:
    for said in (None, "old", 7):
        with pytest.raises(Rejected) as refused:
            verify(proof(nonce=said), nonces=["new"])
        assert refused.value.code == "dpop_nonce_wanted"
    verify(proof(nonce="new"), nonces=["new"])
    verify(proof(nonce="any"))


def test_damaged_proofs_are_refused_by_one_error() -> None:
    whole = proof().encode()
    for damaged in mutated(whole, count=3000, seed=3):
        with contextlib.suppress(Rejected):
            verify(damaged.decode("latin-1"))
    for text in ("", ".", "..", "a.b.c", "x" * 5000, "\u2028", dump_b64u(b"{}") * 3):
        with pytest.raises(Rejected):
            verify(text)


@pytest.mark.parametrize(
    "jwk", [{}, {"kty": "RSA", "n": "AA", "e": "AQAB"}, {**JWK, "x": 7}, {"kty": "EC", "crv": "P-256"}]
)
def test_a_key_of_another_kind_has_no_thumbprint(jwk: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        thumbprint(jwk)


def test_the_thumbprint_of_rfc_8037() -> None:
    """RFC 8037 appendix A.3."""
    jwk = {"crv": "Ed25519", "kty": "OKP", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    assert dump_b64u(thumbprint(jwk)) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    assert dump_json(jwk) == json.dumps(jwk, separators=(",", ":")).encode()
