"""A generic OpenID Connect relying party accepts results by the issuer's URL alone; and what it refuses."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from verifier_kit import AUDIENCE, SIMULATED, Clock, Desk, desk

from cloister.attest.rats import TrustTier
from cloister.errors import CloisterError, Malformed, Rejected, Unavailable, UsageError
from cloister.identity import Issuer, IssuerKind, Issuers, Trusted, parse_keys, verify_bearer
from cloister.identity.discovery import parse_discovery
from cloister.verifier.reader import Reader, fetch_keys
from cloister.verifier.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DAY = timedelta(days=1)
NOW = datetime(2026, 11, 29, tzinfo=UTC)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    policies = {SIMULATED: f'audiences = ["{AUDIENCE}", "other.example"]\nleast_tier = "warning"'}
    with desk(tmp_path_factory.mktemp("home"), service="requests_per_minute = 100000", policies=policies) as found:
        yield found


def relying_party(issuer: str, token: str, *, audience: str = AUDIENCE) -> dict[str, Any]:
    """Do what any OpenID Connect relying party does that was configured with an issuer's URL and its own name."""
    metadata = httpx2.get(f"{issuer}/.well-known/openid-configuration", trust_env=False).json()
    assert metadata["issuer"] == issuer
    keys = jwt.PyJWKClient(metadata["jwks_uri"])
    key = keys.get_signing_key_from_jwt(token)
    found: dict[str, Any] = jwt.decode(
        token,
        key.key,
        algorithms=metadata["id_token_signing_alg_values_supported"],
        audience=audience,
        issuer=issuer,
        options={"require": ["aud", "exp", "iat", "iss", "jti", "nbf", "sub"]},
    )
    return found


def test_a_relying_party_that_knows_the_issuers_url_alone_accepts_a_result(served: Desk) -> None:
    claims = relying_party(served.url, served.token(audience=AUDIENCE))
    assert claims["sub"].startswith(f"{SIMULATED}:{SIMULATED}:")
    assert claims["submods"]["cloister"]["ear_status"] == "warning"


def test_our_own_identity_room_takes_it_for_a_caller(served: Desk) -> None:
    """The room that knows who callers are (docs/spec/identity.md), with an issuer document and what discovery says."""
    document = {
        "algorithms": ["ES256"],
        "audiences": [AUDIENCE],
        "authorized_parties": {"not_checked": "an attestation service issues to the attester itself"},
        "issuer": served.url,
        "kind": "oidc",
        "rules": [{"claims": {"/submods/cloister/ear_status": "warning"}, "grants": {"role": "auditor"}}],
        "types": ["eat+jwt"],
    }
    url = parse_discovery(served.get("/.well-known/openid-configuration").content, issuer=served.url)
    keys = parse_keys(IssuerKind.OIDC, httpx2.get(url, trust_env=False).content)
    issuers = Issuers([Trusted(issuer=Issuer.parse(json.dumps(document).encode()), keys=keys)])
    now, token = datetime.now(UTC), served.token(audience=AUDIENCE)
    identity = verify_bearer(token.encode(), issuers, now)
    assert identity.subject.startswith(f"{SIMULATED}:{SIMULATED}:")
    refused = {}
    for name, wrong, moment in (
        ("audience", served.token(audience="other.example"), now),
        ("nobody", served.token(), now),
        ("late", token, now + timedelta(minutes=10)),
    ):
        with pytest.raises(Rejected) as caught:
            verify_bearer(wrong.encode(), issuers, moment)
        refused[name] = caught.value.code
    assert refused == {"audience": "audience_mismatch", "nobody": "audience_mismatch", "late": "token_expired"}


def test_rs256_for_who_takes_nothing_else(tmp_path: Path) -> None:
    policies = {SIMULATED: f'audiences = ["{AUDIENCE}"]\nleast_tier = "warning"\nalgorithm = "RS256"'}
    with desk(tmp_path, policies=policies) as found:
        token = found.token(audience=AUDIENCE)
        assert jwt.get_unverified_header(token)["alg"] == "RS256"
        assert relying_party(found.url, token)["aud"] == AUDIENCE
        assert {key["alg"] for key in found.get("/.well-known/jwks.json").json()["keys"]} == {"ES256", "RS256"}


def test_discovery_says_what_systems_of_workload_identity_read(served: Desk) -> None:
    answer = served.get("/.well-known/openid-configuration")
    said = answer.json()
    assert said["issuer"] == served.url
    assert said["jwks_uri"] == f"{served.url}/.well-known/jwks.json"
    assert said["response_types_supported"] == ["id_token"]
    assert said["subject_types_supported"] == ["public"]
    assert answer.headers["cache-control"] == "public, max-age=300"


def test_a_token_for_one_audience_is_worth_nothing_to_another(served: Desk) -> None:
    with pytest.raises(jwt.InvalidAudienceError):
        relying_party(served.url, served.token(audience="other.example"))


def test_a_result_that_nobody_asked_an_audience_for_is_nobodys_identity(served: Desk) -> None:
    with pytest.raises(jwt.MissingRequiredClaimError):
        relying_party(served.url, served.token())


def test_an_audience_that_the_policy_does_not_list_is_not_given(served: Desk) -> None:
    answer = served.post("/v1/attest", {**served.asked(), "audience": "evil.example"})
    assert (answer.status_code, answer.json()["code"]) == (403, "audience_not_allowed")
    challenge = served.asked(nonce=b"a nonce of ours")
    answer = served.post("/v1/verify", {**challenge, "audience": f"{AUDIENCE}/"})
    assert answer.json()["code"] == "audience_not_allowed"


def test_a_result_that_left_something_unchecked_is_no_identity_unless_the_policy_says_so(tmp_path: Path) -> None:
    with desk(tmp_path, policies={SIMULATED: f'audiences = ["{AUDIENCE}"]'}) as found:
        answer = found.post("/v1/attest", {**found.asked(), "audience": AUDIENCE})
        assert (answer.status_code, answer.json()["code"]) == (403, "tier_too_low")
        assert found.post("/v1/attest", found.asked()).json()["status"] == "warning"


def test_a_token_of_another_issuer_with_a_key_of_this_name_is_refused(served: Desk) -> None:
    token = served.token(audience=AUDIENCE)
    header, claims = jwt.get_unverified_header(token), jwt.decode(token, options={"verify_signature": False})
    forged = jwt.encode(claims, ec.generate_private_key(ec.SECP256R1()), algorithm="ES256", headers=header)
    with pytest.raises(jwt.InvalidSignatureError):
        relying_party(served.url, forged)


@pytest.mark.parametrize(
    "header", [{"alg": "none"}, {"alg": "HS256"}, {"jku": "https://evil.example"}, {"crit": ["b64"]}]
)
def test_a_header_that_says_how_it_wants_to_be_verified_decides_nothing(served: Desk, header: dict[str, Any]) -> None:
    token = served.token(audience=AUDIENCE)
    parts, honest = token.split("."), jwt.get_unverified_header(token)
    forged = f"{jwt.utils.base64url_encode(json.dumps({**honest, **header}).encode()).decode()}.{parts[1]}.{parts[2]}"
    reader = Reader(issuer=served.url, keys=fetch_keys(served.url), audience=AUDIENCE)
    with pytest.raises(Rejected) as refused:
        reader.verify(forged, datetime.now(UTC))
    assert refused.value.code in {"algorithm_not_allowed", "signature_invalid", "unsupported_format"}


def test_our_own_reader_accepts_and_refuses_the_same(served: Desk) -> None:
    now, token = datetime.now(UTC), served.token(audience=AUDIENCE)
    keys = fetch_keys(served.url)
    honest = Reader(issuer=served.url, keys=keys, audience=AUDIENCE)
    assert honest.verify(token, now).tier is TrustTier.WARNING
    wrong = Reader(issuer="https://other.example", keys=keys, audience="other.example", nonce="AAAA")
    with pytest.raises(Rejected) as refused:
        wrong.verify(token, now)
    codes = {reason.code for reason in refused.value.reasons}
    assert codes == {"issuer_mismatch", "audience_mismatch", "nonce_mismatch"}
    for moment, code in ((now + timedelta(minutes=6), "token_expired"), (now - DAY, "token_not_yet_valid")):
        with pytest.raises(Rejected) as refused:
            honest.verify(token, moment)
        assert refused.value.code == code


def test_a_token_of_another_type_by_the_same_key_is_no_result(served: Desk) -> None:
    """One key may come to sign other things: what is no ``eat+jwt`` is no result (RFC 8725 section 3.11)."""
    now, service = datetime.now(UTC), served.opened.service
    claims = jwt.decode(served.token(audience=AUDIENCE), options={"verify_signature": False})
    key = service.keys.signing("ES256", now)
    other = jwt.encode(claims, key.private, algorithm="ES256", headers={"kid": key.kid, "typ": "JWT"})
    with pytest.raises(Rejected) as refused:
        Reader(issuer=served.url, keys=fetch_keys(served.url), audience=AUDIENCE).verify(other, now)
    assert refused.value.code == "token_type_wrong"


def test_keys_turn_over_with_an_overlap(tmp_path: Path) -> None:
    """The next key is published before it signs; the old one stays until its last token has ended."""
    clock = Clock(stands_at=NOW)
    with desk(tmp_path, clock=clock, service="key_life_s = 864000\nkey_ahead_s = 86400\ntoken_ttl_s = 3600") as found:

        def published() -> list[str]:
            return [key["kid"] for key in found.get("/.well-known/jwks.json").json()["keys"]]

        def signer() -> str:
            return str(jwt.get_unverified_header(found.token(audience=AUDIENCE))["kid"])

        first = signer()
        assert published() == [first]
        clock.shift = 9 * DAY  # a day before its end the next one is there, and does not sign
        both = published()
        assert (both[0], len(both), signer()) == (first, 2, first)
        clock.shift = 10 * DAY - timedelta(seconds=1)
        last_of_the_old = found.token(audience=AUDIENCE)
        clock.shift = 10 * DAY  # it signs, and the old one is published for those who were given its tokens
        assert (published(), signer()) == (both, both[1])
        clock.shift = 10 * DAY + timedelta(seconds=3599)  # the last second of the last old token
        keys = fetch_keys(found.url)
        Reader(issuer=found.url, keys=keys, audience=AUDIENCE).verify(last_of_the_old, clock() - timedelta(seconds=1))
        clock.shift = 10 * DAY + timedelta(hours=2)
        assert published() == [both[1]]
        keys = fetch_keys(found.url)
        with pytest.raises(Rejected) as refused:
            Reader(issuer=found.url, keys=keys, audience=AUDIENCE).verify(last_of_the_old, NOW + 10 * DAY)
        assert refused.value.code == "unknown_key"


def test_keys_survive_a_restart_and_a_long_sleep_publishes_before_it_signs(tmp_path: Path) -> None:
    clock = Clock(stands_at=NOW)
    with desk(tmp_path, clock=clock) as found:
        first = found.get("/.well-known/jwks.json").json()
    clock.shift = 400 * DAY
    with desk(tmp_path, clock=clock) as found:
        now = found.get("/.well-known/jwks.json").json()
        assert now["keys"][0] == first["keys"][0]
        assert len(now["keys"]) == 2
        assert jwt.get_unverified_header(found.token(audience=AUDIENCE))["kid"] == first["keys"][0]["kid"]


def test_after_an_incident_no_token_of_before_is_believed(served: Desk) -> None:
    token, now = served.token(audience=AUDIENCE), datetime.now(UTC)
    ring = served.opened.service.keys.rotate(now, incident=True)
    fresh = served.token(audience=AUDIENCE)
    assert relying_party(served.url, fresh)["aud"] == AUDIENCE
    assert jwt.get_unverified_header(fresh)["kid"] == ring.keys[0].kid
    with pytest.raises(jwt.PyJWKClientError):
        relying_party(served.url, token)


def test_a_rotation_by_hand_publishes_first(tmp_path: Path) -> None:
    clock = Clock(stands_at=NOW)
    with desk(tmp_path, clock=clock) as found:
        keys = found.opened.service.keys
        keys.rotate(NOW)
        ring = keys.rotate(NOW)  # a second one waits for the first
        assert [key.signs_from for key in ring.keys] == [NOW, NOW + DAY]
        assert len(found.get("/.well-known/jwks.json").json()["keys"]) == 2


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{}",
        b'{"keys":[],"v":2}',
        b'{"keys":[{"algorithm":"ES256","pkcs8":"AAAA","signs_from":"2026-01-01T00:00:00Z"}],"v":1}',
        b'{"v":1,"wrapped":"AAAA"}',
    ],
)
def test_a_broken_file_of_keys_is_never_taken_for_none(tmp_path: Path, damage: bytes) -> None:
    with desk(tmp_path) as found:
        (found.home / "signing-keys.json").write_bytes(damage)
        assert found.get("/.well-known/jwks.json").status_code == 503
        assert found.get("/readyz").status_code == 503
        assert found.post("/v1/attest", found.asked()).status_code == 503
        assert found.get("/healthz").status_code == 200
        assert (found.home / "signing-keys.json").read_bytes() == damage


def test_a_file_of_keys_that_is_gone_is_not_made_anew_while_the_service_runs(tmp_path: Path) -> None:
    with desk(tmp_path) as found:
        before = found.get("/.well-known/jwks.json").json()
        path = found.home / "signing-keys.json"
        kept = path.read_bytes()
        path.unlink()
        assert found.get("/.well-known/jwks.json").status_code == 503
        assert found.post("/v1/attest", found.asked()).status_code == 503
        assert not path.exists()
        path.write_bytes(kept)
        path.chmod(0o600)
        assert found.get("/.well-known/jwks.json").json() == before


def test_a_ring_reads_back_as_it_was() -> None:
    from cloister.verifier.ring import KeyPlan  # noqa: PLC0415 - of this test alone

    plan = KeyPlan(life=10 * DAY, ahead=DAY, keep=DAY)
    ring = Ring().advance({"ES256", "RS256"}, plan, NOW)
    again = Ring.parse(ring.dump())
    assert again.jwks() == ring.jwks()
    assert [key.signs_from for key in again.keys] == [NOW, NOW]
    with pytest.raises(UsageError):
        Ring().signing("ES256", NOW)


class _Lying(BaseHTTPRequestHandler):
    """An issuer that says what a test wants it to."""

    answers: dict[str, tuple[int, bytes]]

    def do_GET(self) -> None:
        status, body = self.answers[self.path]
        self.send_response(status)
        if status == 302:
            self.send_header("location", "/elsewhere")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize(
    ("document", "status", "error"),
    [
        ({"issuer": "https://other.example", "jwks_uri": "SELF/jwks"}, 200, Rejected),
        ({"issuer": "SELF", "jwks_uri": "http://169.254.169.254/latest"}, 200, Malformed),
        ({"issuer": "SELF", "jwks_uri": "https://169.254.169.254/latest"}, 200, Rejected),
        ({"issuer": "SELF", "jwks_uri": "file:///etc/passwd"}, 200, Malformed),
        ({"issuer": "SELF"}, 200, Malformed),
        ({"issuer": "SELF", "jwks_uri": "SELF/huge"}, 200, Malformed),
        ({"issuer": "SELF", "jwks_uri": "SELF/jwks"}, 302, Unavailable),
        ({"issuer": "SELF", "jwks_uri": "SELF/jwks"}, 500, Unavailable),
        ([], 200, Malformed),
    ],
)
def test_discovery_that_leads_elsewhere_is_not_followed(document: Any, status: int, error: type[CloisterError]) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Lying", (_Lying,), {}))
    url = f"http://127.0.0.1:{server.server_port}"
    said = json.dumps(document).replace("SELF", url).encode()
    server.RequestHandlerClass.answers = {  # type: ignore[attr-defined]  # of the class above
        "/.well-known/openid-configuration": (status, said),
        "/huge": (200, b" " * (1 << 20)),
    }
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(error):
            fetch_keys(url)
    finally:
        server.shutdown()
        server.server_close()


def test_a_relying_party_that_cannot_ask_does_not_guess() -> None:
    with pytest.raises(Unavailable):
        fetch_keys("http://127.0.0.1:9")
    for url in (
        "http://issuer.example",
        "https://user@issuer.example",
        "https://issuer.example/?x",
        "ftp://x",
        "https://[",
    ):
        with pytest.raises(UsageError):
            fetch_keys(url)
