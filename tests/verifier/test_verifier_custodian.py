"""The same service inside a custodian: below one path, off by default, its keys wrapped by the vault."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from custodian_kit import Bench
from starlette.testclient import TestClient

from cloister.attest.binding import ServiceBinding
from cloister.attest.software import SoftwareManifest
from cloister.cli.custodian_attest import attestation_mount
from cloister.custodian.app import create_app
from cloister.errors import CloisterError, UsageError
from cloister.testing.simulated import SimulatedAttester, simulated_policy
from cloister.verifier.callers import add_caller
from cloister.wire import dump_b64u, parse_b64u

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ISSUER = "https://custodian.example/attest"
MANIFEST = SoftwareManifest(code="11" * 32, python="3.13", packages={}, settings={})
SETTINGS = f"""[service]
issuer = "{ISSUER}"
default_policy = "simulated"
[policies.simulated]
file = "simulated.json"
audiences = ["me"]
least_tier = "warning"
"""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Bench(tmp_path, settings={"attest_service": True}) as found:
        (found.home / "attest.toml").write_text(SETTINGS)
        (found.home / "simulated.json").write_bytes(simulated_policy(MANIFEST).dump())
        found.client = mounted(found)
        yield found


def mounted(bench: Bench) -> TestClient:
    """Return a client of the custodian as its command serves it."""
    mounts = attestation_mount(bench.service, bench.home)
    return TestClient(create_app(bench.service, mounts=mounts), raise_server_exceptions=False)


def attest(bench: Bench) -> Any:
    token = add_caller(bench.home / "callers", "one", rng=bench.rng)
    headers = {"authorization": f"Bearer {token}"}
    nonce = parse_b64u(bench.client.post("/attest/v1/challenge", headers=headers).json()["nonce"], what="nonce")
    evidence = SimulatedAttester(bench.root, MANIFEST, b"c" * 32).collect(ServiceBinding(nonce=nonce).field(64))
    body = {
        "audience": "me",
        "evidence": {"payload": dump_b64u(evidence.payload), "tee": "simulated"},
        "nonce": dump_b64u(nonce),
    }
    answer = bench.client.post("/attest/v1/attest", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_custodian_serves_results_below_one_path(bench: Bench) -> None:
    said = attest(bench)
    keys = bench.client.get("/attest/.well-known/jwks.json").json()["keys"]
    public = jwt.PyJWK(keys[0])
    claims = jwt.decode(
        said["token"], public, algorithms=["ES256"], audience="me", issuer=ISSUER, options={"verify_exp": False}
    )
    assert claims["sub"].startswith("simulated:simulated:")
    found = bench.client.get("/attest/.well-known/openid-configuration").json()
    assert (found["issuer"], found["jwks_uri"]) == (ISSUER, f"{ISSUER}/.well-known/jwks.json")
    page = bench.client.get(f"/attest/results/{said['id']}")
    assert page.status_code == 200
    assert 'action="/attest/explain"' in page.text
    policy = page.headers["content-security-policy"]
    assert policy.count("default-src") == 1
    assert "style-src 'sha256-" in policy


def test_the_custodians_own_routes_and_roles_stay_as_they_are(bench: Bench) -> None:
    said = attest(bench)
    assert bench.client.get("/v1/loans").status_code == 401
    assert bench.get("/v1/loans").status_code == 200
    assert bench.client.get("/healthz").status_code == 200
    bearer = {"authorization": f"Bearer {said['token']}"}
    assert bench.client.get("/v1/loans", headers=bearer).status_code == 401  # a result is nobody's login here
    caller = (bench.home / "callers").read_text().split()[0]
    assert caller == "one"
    admin = bench.client.post("/attest/v1/challenge", headers=bench.admin)
    assert admin.status_code == 401  # a custodian's token is no caller's


def test_the_custodians_vault_keeps_the_keys(bench: Bench) -> None:
    attest(bench)
    path = bench.home / "signing-keys.json"
    assert set(json.loads(path.read_bytes())) == {"v", "wrapped"}
    assert path.stat().st_mode & 0o777 == 0o600
    before = bench.client.get("/attest/.well-known/jwks.json").json()
    bench.restart()
    bench.client = mounted(bench)
    assert bench.client.get("/attest/.well-known/jwks.json").json() == before
    plain = path.read_bytes()
    path.write_bytes(plain[:-20] + b"A" * 18 + plain[-2:])
    with pytest.raises(CloisterError):
        mounted(bench)
    path.write_bytes(b'{"keys":[],"v":1}')
    with pytest.raises(CloisterError, match="not wrapped"):
        mounted(bench)


def test_it_is_off_by_default(tmp_path: Path) -> None:
    with Bench(tmp_path) as found:
        (found.home / "attest.toml").write_text(SETTINGS)
        found.client = mounted(found)
        assert found.client.get("/attest/.well-known/openid-configuration").status_code == 404
        assert not (found.home / "signing-keys.json").exists()


def test_an_issuer_that_is_not_below_the_custodian_is_refused(bench: Bench) -> None:
    (bench.home / "attest.toml").write_text(SETTINGS.replace('/attest"', '"', 1))
    with pytest.raises(UsageError, match="issuer"):
        attestation_mount(bench.service, bench.home)
