"""Attacks on who signed: algorithms, headers, keys, chains, and every bit and byte of a genuine token."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence, TeeKind, Verdict
from cloister.attest.rules import NotChecked
from cloister.attest.schemes.token import Issuer, JwksAt, PinnedKeys, TokenScheme
from cloister.attest.tokens.jws import MAX_TOKEN_BYTES, Jws
from cloister.attest.tokens.keyset import MAX_KEYSET_BYTES, KeySet
from cloister.errors import Malformed, Rejected
from cloister.testing.vendors.tokens import Faults, TokenVendor
from cloister.wire import dump_b64u, dump_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloister.attest.rats import VerifiedClaims

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
MAA = TokenVendor.generate(TeeKind("maa"))
SPACE = TokenVendor.generate(TeeKind("confidential-space"))
OTHER = TokenVendor.generate(TeeKind("maa"))
EAR = TokenVendor.generate(TeeKind("ear"))
REPORT_DATA = {"maa": bytes(range(64)), "confidential-space": bytes(range(32)), "ear": bytes(range(64))}


def payload(vendor: TokenVendor) -> dict[str, Any]:
    return vendor.claims(REPORT_DATA[vendor.kind.profile.tee], NOW)


def verified(vendor: TokenVendor, token: bytes, keys: bytes | None = None, now: datetime = NOW) -> VerifiedClaims:
    evidence = Evidence(tee=vendor.kind.profile.tee, payload=dump_parts({"token": token}))
    if keys is None:
        return vendor.scheme().verify(evidence, vendor.endorsements, now)
    issuer = Issuer(name=vendor.issuer, keys=PinnedKeys(KeySet.parse(keys)))
    return TokenScheme(vendor.kind.profile, [issuer], audiences=NotChecked("none")).verify(evidence, {}, now)


def refusal(vendor: TokenVendor, token: bytes, keys: bytes | None = None, now: datetime = NOW) -> set[str]:
    with pytest.raises(Rejected) as caught:
        verified(vendor, token, keys, now)
    return {reason.code for reason in caught.value.reasons}


def prepared(vendor: TokenVendor) -> Callable[[bytes], VerifiedClaims]:
    """Return the verification alone: making a synthetic chain takes longer than walking it."""
    scheme, endorsements, tee = vendor.scheme(), vendor.endorsements, vendor.kind.profile.tee
    return lambda token: scheme.verify(Evidence(tee=tee, payload=dump_parts({"token": token})), endorsements, NOW)


def pem(vendor: TokenVendor) -> bytes:
    return vendor.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def test_a_token_without_a_signature_is_refused() -> None:
    assert refusal(MAA, MAA.sign(payload(MAA), algorithm="none")) == {"algorithm_not_allowed"}


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_the_public_key_is_no_shared_secret(algorithm: str) -> None:
    for secret in (pem(MAA), MAA.jwks(), pem(MAA).strip()):
        forged = MAA.sign(payload(MAA), algorithm=algorithm, key=secret)
        assert refusal(MAA, forged) == {"algorithm_not_allowed"}
        assert refusal(MAA, forged, pem(MAA)) == {"algorithm_not_allowed"}


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256", "PS384", "PS512"])
def test_the_header_chooses_no_algorithm(algorithm: str) -> None:
    assert refusal(MAA, MAA.sign(payload(MAA), algorithm=algorithm)) == {"algorithm_not_allowed"}


def test_a_header_without_an_algorithm_is_refused() -> None:
    assert refusal(MAA, MAA.sign(payload(MAA), header=b'{"typ":"JWT"}')) == {"algorithm_not_allowed"}


def test_a_key_signs_with_its_own_algorithm_only() -> None:
    jwk = {**MAA.jwk(certified=False), "alg": "PS256"}
    assert refusal(MAA, MAA.sign(payload(MAA)), dump_json({"keys": [jwk]})) == {"algorithm_not_allowed"}


def test_a_curve_signs_with_its_own_hash_only() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    forged = EAR.sign(payload(EAR), algorithm="ES256", key=key)
    spki = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert refusal(EAR, forged, spki) == {"algorithm_not_allowed"}


@pytest.mark.parametrize(
    "extension", [{"crit": ["exp"]}, {"crit": []}, {"b64": False}, {"crit": ["b64"], "b64": False}]
)
def test_a_header_that_demands_extensions_is_refused(extension: dict[str, Any]) -> None:
    assert refusal(MAA, MAA.sign(payload(MAA), header=extension)) == {"unsupported_format"}


def test_a_key_that_the_token_brings_along_is_never_used() -> None:
    header: dict[str, Any] = {
        "jwk": OTHER.jwk(certified=False),
        "jku": "https://attacker.example/keys",
        "x5u": "https://a.example/c",
    }
    forged = OTHER.sign({**payload(MAA), "jwk": OTHER.jwk(certified=False)}, header=header)
    assert refusal(MAA, forged) == {"signature_invalid"}
    assert refusal(MAA, OTHER.sign(payload(MAA), header={**header, "kid": "theirs"})) == {"unknown_key"}


def test_a_chain_that_the_token_brings_along_is_nothing_to_a_set_of_keys() -> None:
    forged = OTHER.sign(payload(MAA), header={"x5c": OTHER.x5c})
    assert refusal(MAA, forged, MAA.jwks(certified=False)) == {"signature_invalid"}
    assert refusal(MAA, forged) == {"untrusted_root"}


def test_a_key_is_found_by_its_id_or_tried_where_there_is_none() -> None:
    keys = {"keys": [{**OTHER.jwk(certified=False), "kid": "first"}, MAA.jwk(certified=False)]}
    assert verified(MAA, MAA.sign(payload(MAA)), dump_json(keys)).tee == "maa"
    assert verified(MAA, MAA.sign(payload(MAA), header=b'{"alg":"RS256"}'), dump_json(keys)).tee == "maa"
    assert refusal(MAA, MAA.sign(payload(MAA), header={"kid": "first"}), dump_json(keys)) == {"signature_invalid"}
    assert refusal(MAA, MAA.sign(payload(MAA), header={"kid": "gone"}), dump_json(keys)) == {"unknown_key"}


def test_a_key_without_an_id_may_be_the_one_meant() -> None:
    bare = {name: value for name, value in MAA.jwk(certified=False).items() if name != "kid"}
    assert verified(MAA, MAA.sign(payload(MAA)), dump_json(bare)).tee == "maa"
    assert verified(MAA, MAA.sign(payload(MAA)), pem(OTHER) + pem(MAA)).tee == "maa"
    assert refusal(MAA, MAA.sign(payload(MAA)), pem(OTHER)) == {"signature_invalid"}


def test_keys_of_every_form_verify() -> None:
    token = MAA.sign(payload(MAA))
    leaf = MAA.chain[0]
    forms = [
        MAA.jwks(),
        MAA.jwks(certified=False),
        dump_json(MAA.jwk()),
        dump_json({"keys": [MAA.jwk(bare=True)]}),
        pem(MAA),
        leaf.pem,
        leaf.der,
        OTHER.chain[0].pem + leaf.pem,
    ]
    for form in forms:
        assert verified(MAA, token, form).tee == "maa"
    assert verified(SPACE, SPACE.sign(payload(SPACE)), SPACE.root.pem).tee == "confidential-space"
    assert verified(EAR, EAR.sign(payload(EAR)), EAR.jwks(certified=False)).tee == "ear"


def test_a_result_signed_with_edwards_curves_verifies() -> None:
    key = Ed25519PrivateKey.generate()
    raw = key.public_key().public_bytes_raw()
    jwk = dump_json({"kty": "OKP", "crv": "Ed25519", "x": dump_b64u(raw)})
    signed = EAR.sign(payload(EAR), header=b'{"alg":"EdDSA"}', algorithm="ES256").rsplit(b".", 1)[0]
    token = signed + b"." + dump_b64u(key.sign(signed)).encode()
    assert verified(EAR, token, jwk).tee == "ear"
    assert refusal(EAR, token[:-8] + b"AAAAAAAA", jwk) == {"signature_invalid"}


def test_keys_of_other_kinds_and_uses_are_left_out_of_a_set() -> None:
    others: list[Any] = [
        {"kty": "oct", "k": "AAAA"},
        {"kty": "EC", "crv": "secp256k1"},
        {**MAA.jwk(), "use": "enc"},
        {"kty": 5},
    ]
    token = MAA.sign(payload(MAA))
    assert verified(MAA, token, dump_json({"keys": [*others, MAA.jwk()]})).tee == "maa"
    with pytest.raises(Malformed):
        KeySet.parse(dump_json({"keys": others}))


def test_a_weak_key_is_left_out_of_a_set() -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()  # noqa: S505 - to be refused
    numbers = weak.public_numbers()
    with pytest.raises(Malformed):
        KeySet.parse(dump_json({"e": "AQAB", "kty": "RSA", "n": dump_b64u(numbers.n.to_bytes(128))}))
    with pytest.raises(Malformed):
        KeySet.parse(weak.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))


def test_a_pem_key_of_another_kind_is_malformed() -> None:
    public = ed448.Ed448PrivateKey.generate().public_key()
    with pytest.raises(Malformed):
        KeySet.parse(public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))


BAD_KEYS: Mapping[str, Any] = {
    "no array": {"keys": {}},
    "no objects": {"keys": ["a"]},
    "none": {"keys": []},
    "too many": {"keys": [MAA.jwk(certified=False)] * 65},
    "kid": {**MAA.jwk(), "kid": 5},
    "alg": {**MAA.jwk(), "alg": ["RS256"]},
    "x5c": {**MAA.jwk(), "x5c": "MII"},
    "x5c of none": {**MAA.jwk(), "x5c": []},
    "x5c of numbers": {**MAA.jwk(), "x5c": [5]},
    "x5c too long": {**MAA.jwk(), "x5c": MAA.x5c * 3},
    "n padded": {**MAA.jwk(), "n": str(MAA.jwk()["n"]) + "=="},
    "n missing but e": {"kty": "RSA", "e": "AQAB"},
    "e too long": {**MAA.jwk(), "e": "AQABAQAB"},
    "e even": {**MAA.jwk(), "e": "Ag"},
    "off the curve": {**EAR.jwk(), "x": dump_b64u(bytes(32))},
    "short x": {**EAR.jwk(), "x": dump_b64u(bytes(31))},
    "no x": {"kty": "OKP", "crv": "Ed25519"},
}


@pytest.mark.parametrize("name", BAD_KEYS)
def test_keys_out_of_form_are_malformed(name: str) -> None:
    with pytest.raises(Malformed):
        KeySet.parse(dump_json(BAD_KEYS[name]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'{"keys":[],"keys":[]}',
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        b" " * (MAX_KEYSET_BYTES + 1),
    ],
)
def test_files_that_hold_no_keys_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        KeySet.parse(data)


CHAIN_FAULTS: Mapping[str, tuple[Faults, set[str]]] = {
    "leaf expired": (Faults(leaf_not_after=NOW - timedelta(seconds=1)), {"cert_expired"}),
    "leaf of tomorrow": (Faults(leaf_not_before=NOW + timedelta(days=1)), {"cert_not_yet_valid"}),
    "authority expired": (Faults(authority_not_after=NOW - timedelta(seconds=1)), {"cert_expired"}),
    "authority is none": (Faults(authority_is_ca=False, authority_may_sign=False), {"chain_invalid"}),
    "authority may not sign": (Faults(authority_may_sign=False), {"chain_invalid"}),
    "issuer by another name": (Faults(issuer_name="Somebody"), {"untrusted_root"}),
}


@pytest.mark.parametrize("name", CHAIN_FAULTS)
def test_a_chain_with_a_fault_is_refused_in_a_header_and_in_a_set(name: str) -> None:
    faults, want = CHAIN_FAULTS[name]
    space = SPACE.broken(faults)
    assert refusal(space, space.sign(payload(space))) == want
    maa = MAA.broken(faults)
    assert refusal(maa, maa.sign(payload(maa))) == want
    unpinned = {"chain_invalid" if code == "untrusted_root" else code for code in want}
    assert refusal(maa, maa.sign(payload(maa)), maa.jwks()) == unpinned


def test_the_leaf_in_a_set_is_the_key_that_signed() -> None:
    maa = MAA.broken(Faults(leaf_is_another=True))
    assert refusal(maa, maa.sign(payload(maa)), maa.jwks()) == {"chain_invalid"}


def test_the_leaf_in_a_header_signed_the_token() -> None:
    assert refusal(SPACE, SPACE.sign(payload(SPACE), key=OTHER.key)) == {"signature_invalid"}
    space = SPACE.broken(Faults(leaf_is_another=True))
    assert refusal(space, space.sign(payload(space))) == {"algorithm_not_allowed"}


def test_a_chain_to_another_root_is_refused() -> None:
    stranger = TokenVendor.generate(TeeKind("confidential-space"))
    assert refusal(SPACE, stranger.sign(payload(SPACE))) == {"untrusted_root"}
    assert refusal(SPACE, SPACE.sign(payload(SPACE)), stranger.root.pem) == {"untrusted_root"}


def test_a_chain_out_of_place_is_refused() -> None:
    leaf, authority, root = SPACE.x5c
    assert refusal(SPACE, SPACE.sign(payload(SPACE), header={"x5c": [leaf]})) == {"untrusted_root"}
    assert verified(SPACE, SPACE.sign(payload(SPACE), header={"x5c": [leaf, authority]})).tee == "confidential-space"
    assert refusal(SPACE, SPACE.sign(payload(SPACE), header={"x5c": [authority, leaf, root]})) == {
        "algorithm_not_allowed"
    }
    for x5c in ([leaf, "AAAA"], ["AAAA"], ["not base64!"], [str(leaf) + "\n"]):
        assert refusal(SPACE, SPACE.sign(payload(SPACE), header={"x5c": x5c})) == {"chain_invalid"}


def test_a_set_whose_certificates_are_none_is_refused() -> None:
    private = base64.b64encode(
        MAA.key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    ).decode()
    for x5c in ([private, *MAA.x5c[1:]], [MAA.x5c[0], "AAAA"]):
        keys = dump_json({"keys": [{**MAA.jwk(), "x5c": x5c}]})
        assert refusal(MAA, MAA.sign(payload(MAA)), keys) == {"chain_invalid"}
    bare = dump_json({"keys": [{**MAA.jwk(bare=True), "x5c": ["AAAA"]}]})
    assert refusal(MAA, MAA.sign(payload(MAA)), bare) == {"algorithm_not_allowed"}


def test_one_certificate_in_a_set_has_its_window() -> None:
    maa = MAA.broken(Faults(leaf_not_after=NOW))
    keys = dump_json({"keys": [{**maa.jwk(), "x5c": maa.x5c[:1]}]})
    token = maa.sign(payload(maa))
    assert verified(maa, token, keys).tee == "maa"
    assert refusal(maa, token, keys, NOW + timedelta(seconds=1)) == {"cert_expired"}
    assert refusal(maa, token, maa.chain[0].pem, NOW + timedelta(seconds=1)) == {"cert_expired"}


def test_where_roots_are_pinned_a_key_without_certificates_is_refused() -> None:
    issuer = Issuer(name=MAA.issuer, keys=JwksAt(host="h", roots=(MAA.root,)))
    scheme = TokenScheme(MAA.kind.profile, [issuer], audiences=NotChecked("none"))
    evidence = Evidence(tee=MAA.kind.profile.tee, payload=dump_parts({"token": MAA.sign(payload(MAA))}))
    with pytest.raises(Rejected, match="chain_invalid"):
        scheme.verify(evidence, {"tokens/jwks/h": MAA.jwks(certified=False)}, NOW)
    assert scheme.verify(evidence, {"tokens/jwks/h": MAA.jwks()}, NOW).tee == "maa"


def test_a_result_says_that_lists_of_revoked_certificates_were_not_read() -> None:
    checks = verified(SPACE, SPACE.sign(payload(SPACE))).checks
    assert [check.verdict for check in checks if check.code == "revocation_unknown"] == [Verdict.NOT_CHECKED]


def test_every_fault_is_named_not_only_the_first() -> None:
    space = SPACE.broken(Faults(leaf_not_after=NOW))
    token = space.sign({**payload(space), "aud": "https://other.example"})
    got = refusal(space, token, now=NOW + timedelta(days=1))
    assert got == {"cert_expired", "token_expired", "audience_mismatch"}


def test_every_bit_of_a_genuine_token_counts() -> None:
    token = EAR.sign(payload(EAR))
    verify = prepared(EAR)
    assert verify(token).tee == "ear"
    for position in range(len(token)):
        for bit in range(8):
            damaged = bytearray(token)
            damaged[position] ^= 1 << bit
            with pytest.raises((Malformed, Rejected)):
                verify(bytes(damaged))


def test_every_byte_of_a_genuine_token_counts() -> None:
    token = SPACE.sign(payload(SPACE))
    verify = prepared(SPACE)
    assert verify(token).tee == "confidential-space"
    for size in range(len(token)):
        with pytest.raises((Malformed, Rejected)):
            verify(token[:size])
    for tail in (b"\n", b" ", b"=", b"A", b".", b"\x00"):
        with pytest.raises((Malformed, Rejected)):
            verify(token + tail)


TOKEN = MAA.sign(payload(MAA))
HEAD, BODY, SIGNATURE = TOKEN.split(b".")
BAD_TOKENS: Mapping[str, bytes] = {
    "empty": b"",
    "two parts": b"a.b",
    "encrypted": b"a.b.c.d.e",
    "flattened": dump_json({"payload": BODY.decode(), "protected": HEAD.decode(), "signature": SIGNATURE.decode()}),
    "general": dump_json({"payload": BODY.decode(), "signatures": [{"signature": SIGNATURE.decode()}]}),
    "detached payload": HEAD + b".." + SIGNATURE,
    "padded": HEAD + b"=." + BODY + b"." + SIGNATURE,
    "standard alphabet": HEAD + b"." + BODY.replace(b"_", b"/")[:-1] + b"+." + SIGNATURE,
    "stray bits": TOKEN[:-1] + bytes((TOKEN[-1] ^ 1,)),
    "not ascii": "\u00e9.b.c".encode(),
    "too long": b"a" * (MAX_TOKEN_BYTES + 1),
    "header too long": dump_b64u(b" " * 49153).encode() + b"." + BODY + b"." + SIGNATURE,
    "signature too long": HEAD + b"." + BODY + b"." + dump_b64u(bytes(1025)).encode(),
    "double key in the header": MAA.sign(payload(MAA), header=b'{"alg":"RS256","alg":"none"}'),
    "header no object": MAA.sign(payload(MAA), header=b'["RS256"]'),
    "header no json": MAA.sign(payload(MAA), header=b"RS256"),
    "algorithm no text": MAA.sign(payload(MAA), header=b'{"alg":5}'),
    "empty key id": MAA.sign(payload(MAA), header={"kid": ""}),
    "key id that steers": MAA.sign(payload(MAA), header={"kid": "a\u202eb"}),
    "x5c no array": MAA.sign(payload(MAA), header={"x5c": "MII"}),
    "double key": MAA.sign(b'{"iss":"a","iss":"b"}'),
    "not a number": MAA.sign(b'{"iss":"a","exp":NaN}'),
    "infinite": MAA.sign(b'{"iss":"a","exp":1e999}'),
    "number too long": MAA.sign(b'{"iss":"a","n":' + b"9" * 41 + b"}"),
    "lone surrogate": MAA.sign(b'{"iss":"\\ud800"}'),
    "deep": MAA.sign(b'{"iss":"a","d":' + b"[" * 32 + b"]" * 32 + b"}"),
    "very deep": MAA.sign(b'{"iss":"a","d":' + b"[" * 30000 + b"]" * 30000 + b"}"),
    "no object": MAA.sign(b'"iss"'),
    "not utf-8": MAA.sign(b'{"iss":"\xff"}'),
    "nested token": MAA.sign(TOKEN),
    "bundle of no gpu": dump_json([["JWT", TOKEN.decode()], {"GPU-0": TOKEN.decode()}]),
}


@pytest.mark.parametrize("name", BAD_TOKENS)
def test_a_token_out_of_form_is_malformed(name: str) -> None:
    with pytest.raises(Malformed):
        verified(MAA, BAD_TOKENS[name])


def test_what_is_signed_is_what_was_sent() -> None:
    spaced = json.dumps(payload(MAA), indent=1).encode()
    assert verified(MAA, MAA.sign(spaced)).tee == "maa"
    parsed = Jws.parse(TOKEN, what="token")
    assert parsed.signed == HEAD + b"." + BODY
    assert replace(parsed, kid=None).text == TOKEN
