"""Results as tokens: what other systems read, and the attacks on JWT of list 54 to 58."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cloister.attest.ear import EAR_PROFILE, MAX_TOKEN_CHARS, SUBMOD, issue_ear, verify_ear
from cloister.attest.rats import AttestationResult, Check, Submodule, TeeKind, TrustTier, Verdict
from cloister.crypto.sign import Label, SigningKey, Statement
from cloister.errors import Malformed, Rejected, UsageError
from mutations import mutated

KEY = SigningKey(b"\x05" * 32)
OTHER = SigningKey(b"\x06" * 32)
NOW = datetime(2026, 7, 1, tzinfo=UTC)
TTL = timedelta(minutes=5)
RESULT = AttestationResult(
    tee=TeeKind("snp"),
    claims={"chip_id": "d1", "measurement": "ab" * 48, "svn": 3, "debug": False, "advisory_ids": ()},
    checks=(
        Check(code="signature_invalid", subject="report", verdict=Verdict.PASSED),
        Check(
            code="measurement_mismatch", subject="measurement", verdict=Verdict.PASSED, got="ab" * 48, want="ab" * 48
        ),
        Check(code="host_data_mismatch", subject="host_data", verdict=Verdict.PASSED, got="aa", want="aa"),
        Check(code="chip_id_mismatch", subject="chip_id", verdict=Verdict.PASSED, got="d1", want="d1 or d2"),
        Check(code="family_id_mismatch", subject="family_id", verdict=Verdict.NOT_CHECKED, got="cc", note="no rule"),
    ),
    bound={"kem_pub": b"k" * 1216, "instance_pub": b"i" * 32},
    tier=TrustTier.AFFIRMING,
    policy_digest="cd" * 32,
    verified_at=NOW,
    nonce=b"n" * 32,
    submodules=(
        Submodule(
            name="nvidia-gpu0",
            tee=TeeKind("nvidia-gpu"),
            claims={"device": "g1"},
            checks=(Check(code="device_mismatch", subject="device", verdict=Verdict.PASSED, got="g1", want="g1"),),
            tier=TrustTier.WARNING,
        ),
    ),
)
TOKEN = issue_ear(RESULT, key=KEY, issuer="custodian.example", now=NOW, ttl=TTL)
HONEST_HEADER = {"alg": "EdDSA", "kid": KEY.key_id, "typ": "eat+jwt"}


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _payload() -> dict[str, Any]:
    part = TOKEN.split(".")[1]
    value: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return value


def _signed(header: dict[str, Any], payload: dict[str, Any] | bytes, key: SigningKey = KEY) -> str:
    """Sign anything, the way an attacker with a key of its own would."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    signing_input = f"{_b64(json.dumps(header).encode())}.{_b64(body)}"
    signature = Ed25519PrivateKey.from_private_bytes(key.seed()).sign(signing_input.encode())
    return f"{signing_input}.{_b64(signature)}"


def _code(token: str, now: datetime = NOW) -> str:
    with pytest.raises(Rejected) as refused:
        verify_ear(token, [OTHER.verify_key, KEY.verify_key], now)
    return refused.value.code


def test_a_token_says_what_the_result_says() -> None:
    ear = verify_ear(TOKEN, [KEY.verify_key], NOW)
    assert (ear.issuer, ear.key_id, ear.issued_at, ear.expires_at) == ("custodian.example", KEY.key_id, NOW, NOW + TTL)
    assert (ear.tee, ear.tier, ear.policy_digest) == (RESULT.tee, RESULT.tier, RESULT.policy_digest)
    assert (ear.claims, ear.checks, ear.nonce) == (RESULT.claims, RESULT.checks, RESULT.nonce)
    device, said = RESULT.submodules[0], ear.submodules["nvidia-gpu0"]
    assert list(ear.submodules) == ["nvidia-gpu0"]
    assert (said.tee, said.tier, said.claims, said.checks) == (device.tee, device.tier, device.claims, device.checks)
    assert ear.bound_sha256 == {name: hashlib.sha256(value).digest() for name, value in RESULT.bound.items()}


def test_the_same_result_gives_the_same_token() -> None:
    assert issue_ear(RESULT, key=KEY, issuer="custodian.example", now=NOW, ttl=TTL) == TOKEN


def test_another_library_reads_it_and_finds_the_claims_of_the_draft() -> None:
    claims = jwt.decode(
        TOKEN,
        Ed25519PublicKey.from_public_bytes(KEY.verify_key.raw),
        algorithms=["EdDSA"],
        options={"verify_exp": False, "verify_iat": False},
    )
    # draft-ietf-rats-ear-04 section 3: mandatory claims, integer times
    assert claims["eat_profile"] == EAR_PROFILE
    assert type(claims["iat"]) is int
    assert type(claims["exp"]) is int
    assert set(claims["ear_verifier_id"]) == {"build", "developer"}
    appraisal = claims["submods"][SUBMOD]
    assert appraisal["ear_status"] == "affirming"
    assert appraisal["ear_appraisal_policy_ids"] == [f"sha256:{RESULT.policy_digest}"]
    assert appraisal["ear_trustworthiness_vector"] == {
        "configuration": 2,
        "executables": 3,
        "hardware": 2,
        "instance-identity": 2,
        "runtime-opaque": 2,
    }
    device = claims["submods"]["nvidia-gpu0"]
    assert device["ear_status"] == "warning"
    assert device["ear_trustworthiness_vector"] == {"hardware": 2, "instance-identity": 2, "runtime-opaque": 2}
    assert claims["eat_nonce"] == _b64(b"n" * 32)
    assert jwt.get_unverified_header(TOKEN) == HONEST_HEADER


def test_keys_that_are_bound_are_not_in_the_token() -> None:
    assert _b64(b"k" * 30) not in TOKEN
    assert "kkkk" not in json.dumps(_payload())


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(seconds=-1), timedelta(days=2)])
def test_a_token_for_ever_is_not_issued(ttl: timedelta) -> None:
    with pytest.raises(UsageError):
        issue_ear(RESULT, key=KEY, issuer="i", now=NOW, ttl=ttl)


def test_a_token_too_large_for_a_grant_is_not_issued() -> None:
    with pytest.raises(UsageError, match="characters"):
        issue_ear(replace(RESULT, claims={"x": "y" * MAX_TOKEN_CHARS}), key=KEY, issuer="i", now=NOW, ttl=TTL)


@pytest.mark.parametrize(
    ("offset", "code"),
    [
        (timedelta(seconds=-6), "token_not_yet_valid"),
        (timedelta(days=-365), "token_not_yet_valid"),
        (TTL, "token_expired"),
        (timedelta(days=365), "token_expired"),
    ],
)
def test_a_token_out_of_its_time_is_refused(offset: timedelta, code: str) -> None:
    assert _code(TOKEN, NOW + offset) == code


def test_a_token_is_good_within_its_time() -> None:
    for offset in (timedelta(seconds=-5), timedelta(0), TTL - timedelta(seconds=1)):
        verify_ear(TOKEN, [KEY.verify_key], NOW + offset)


# The header (RFC 8725).


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "HS256", "RS256", "ES256", "Ed25519", "eddsa", ""])
def test_any_other_algorithm_is_refused(algorithm: str) -> None:
    assert _code(_signed({**HONEST_HEADER, "alg": algorithm}, _payload())) == "algorithm_not_allowed"


def test_an_unsigned_token_is_refused() -> None:
    header = _b64(json.dumps({**HONEST_HEADER, "alg": "none"}).encode())
    assert _code(f"{header}.{TOKEN.split('.')[1]}.") == "algorithm_not_allowed"
    assert _code(f"{TOKEN.rpartition('.')[0]}.") == "signature_invalid"


def test_hs256_with_the_public_key_as_secret_is_refused() -> None:
    header = _b64(json.dumps({**HONEST_HEADER, "alg": "HS256"}).encode())
    signing_input = f"{header}.{TOKEN.split('.')[1]}"
    mac = hmac.new(KEY.verify_key.raw, signing_input.encode(), hashlib.sha256).digest()
    assert _code(f"{signing_input}.{_b64(mac)}") == "algorithm_not_allowed"
    disguised = f"{TOKEN.rpartition('.')[0]}.{_b64(mac)}"
    assert _code(disguised) == "signature_invalid"


@pytest.mark.parametrize(
    "extra",
    [
        {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": _b64(OTHER.verify_key.raw)}},
        {"jku": "https://evil.example/jwks"},
        {"x5u": "https://evil.example/cert"},
        {"x5c": ["AA=="]},
        {"crit": ["exp"], "exp": 1},
        {"b64": False, "crit": ["b64"]},
        {"zip": "DEF"},
        {"cty": "JWT"},
    ],
)
def test_a_header_that_brings_a_key_or_an_extension_is_malformed(extra: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        verify_ear(_signed({**HONEST_HEADER, **extra}, _payload()), [KEY.verify_key], NOW)


@pytest.mark.parametrize(
    "header",
    [
        {**HONEST_HEADER, "kid": "../../x"},
        {**HONEST_HEADER, "kid": "' OR 1=1"},
        {**HONEST_HEADER, "kid": 1},
        {**HONEST_HEADER, "kid": KEY.key_id.upper()},
        {**HONEST_HEADER, "typ": "JWT"},
        {**HONEST_HEADER, "alg": 1},
        {"alg": "EdDSA", "typ": "eat+jwt"},
        {"alg": "EdDSA", "kid": KEY.key_id},
        {},
    ],
)
def test_a_header_out_of_form_is_malformed(header: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        verify_ear(_signed(header, _payload()), [KEY.verify_key], NOW)


def test_a_token_of_an_unknown_key_or_by_another_key_is_refused() -> None:
    unknown = SigningKey(b"\x07" * 32)
    assert _code(_signed({**HONEST_HEADER, "kid": unknown.key_id}, _payload(), unknown)) == "unknown_key"
    assert _code(_signed(HONEST_HEADER, _payload(), unknown)) == "signature_invalid"
    with pytest.raises(Rejected) as refused:
        verify_ear(TOKEN, [], NOW)
    assert refused.value.code == "unknown_key"


def test_t91_a_statement_is_no_token_and_a_token_is_no_statement() -> None:
    statement = Statement.sign(KEY, Label.LEASE, TOKEN.rpartition(".")[0].encode())
    assert _code(f"{TOKEN.rpartition('.')[0]}.{_b64(statement.signature)}") == "signature_invalid"
    signing_input, _, signature = TOKEN.rpartition(".")
    for label in Label:
        with pytest.raises(Rejected):
            KEY.verify_key.verify(label, signing_input.encode(), base64.urlsafe_b64decode(signature + "=="))


# The payload.


def _changed(**change: Any) -> dict[str, Any]:
    payload = {**_payload(), **change}
    return {name: value for name, value in payload.items() if value != "absent"}


def _appraisal(**change: Any) -> dict[str, Any]:
    appraisal = {**_payload()["submods"][SUBMOD], **change}
    return _changed(submods={SUBMOD: {name: value for name, value in appraisal.items() if value != "absent"}})


def _ours(**change: Any) -> dict[str, Any]:
    return _appraisal(ear_verifier_claims={**_payload()["submods"][SUBMOD]["ear_verifier_claims"], **change})


@pytest.mark.parametrize(
    "payload",
    [
        _changed(eat_profile="tag:github.com,2023:veraison/ear"),
        _changed(eat_profile="absent"),
        _changed(iat="absent"),
        _changed(iat=1.5),
        _changed(iat="1"),
        _changed(iat=-1),
        _changed(iat=2**50),
        _changed(exp="absent"),
        _changed(exp=True),
        _changed(iss="absent"),
        _changed(iss=""),
        _changed(iss="a\nb"),
        _changed(submods={}),
        _changed(submods=[]),
        _appraisal(ear_status="absent"),
        _appraisal(ear_status="trusted"),
        _appraisal(ear_status=2),
        _appraisal(ear_appraisal_policy_ids=[]),
        _appraisal(ear_appraisal_policy_ids=["a", "b"]),
        _appraisal(ear_appraisal_policy_ids="absent"),
        _appraisal(ear_attester_claims={"x": None}),
        _appraisal(ear_attester_claims={"x": 1.5}),
        _appraisal(ear_attester_claims=[]),
        _appraisal(ear_verifier_claims="absent"),
        _ours(checks=[{"code": "a", "subject": "b", "verdict": "maybe"}]),
        _ours(checks=[{"code": "a", "verdict": "passed"}]),
        _ours(checks="none"),
        _ours(bound_sha256={"kem_pub": "ab"}),
        _ours(tee=5),
    ],
)
def test_a_payload_out_of_form_is_malformed_even_well_signed(payload: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        verify_ear(_signed(HONEST_HEADER, payload), [KEY.verify_key], NOW)


def test_double_keys_and_non_json_are_malformed_even_well_signed() -> None:
    honest = json.dumps(_payload()).encode()
    for body in (honest[:-1] + b',"exp":9999999999}', b"", b"\xff", b"[]", b"NaN"):
        with pytest.raises(Malformed):
            verify_ear(_signed(HONEST_HEADER, body), [KEY.verify_key], NOW)


def test_unknown_claims_are_ignored_as_the_draft_demands() -> None:
    payload = {**_appraisal(eat_nonce="AAAA", extension={"a": 1}), "eat_nonce": "AAAA"}
    assert verify_ear(_signed(HONEST_HEADER, payload), [KEY.verify_key], NOW).tier is TrustTier.AFFIRMING


@pytest.mark.parametrize(
    "token", ["", ".", "..", "a.b", "a.b.c.d", TOKEN + ".", TOKEN + "=", " " + TOKEN, TOKEN + "\n", "é.é.é"]
)
def test_what_is_no_compact_token_is_malformed(token: str) -> None:
    with pytest.raises(Malformed):
        verify_ear(token, [KEY.verify_key], NOW)


def test_a_token_over_the_cap_is_malformed_unread() -> None:
    with pytest.raises(Malformed, match="want at most"):
        verify_ear("a" * (MAX_TOKEN_CHARS + 1), [KEY.verify_key], NOW)


def test_ten_thousand_mutations_are_malformed_or_refused() -> None:
    for data in mutated(TOKEN.encode()):
        token = data.decode("latin-1")
        try:
            verify_ear(token, [KEY.verify_key], NOW)
        except (Malformed, Rejected):
            continue
        assert token == TOKEN
