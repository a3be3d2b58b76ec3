"""An attestation service for each tenant of a host: none signs, knows or answers for another (T79)."""

from __future__ import annotations

import json
import shutil
import threading
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from custodian_kit import SOFTWARE, bearer
from tenant_kit import ROOT, HostBench, answer_of

from cloister.attest.binding import ServiceBinding
from cloister.custodian.service.access import issue_token
from cloister.custodian.tokens import Role
from cloister.testing.simulated import SimulatedAttester, simulated_policy
from cloister.verifier.callers import Callers, add_caller
from cloister.wire import dump_b64u, parse_b64u

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx
    from tenant_kit import Answer

HOST = "https://localhost:8443"
SETTINGS = """[service]
issuer = "{issuer}"
default_policy = "simulated"
{more}
[policies.simulated]
file = "{file}"
audiences = ["me"]
least_tier = "warning"
"""
DISCOVERY, KEYS = "/attest/.well-known/openid-configuration", "/attest/.well-known/jwks.json"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[HostBench]:
    with HostBench(tmp_path) as made:
        yield made


class Attesting:
    """A tenant with a service, and a caller of it."""

    def __init__(self, host: HostBench, name: str, *, discoverable: bool = True) -> None:
        self.host, self.name = host, name
        host.make(name, discoverable=discoverable)
        self.home = host.home / "tenants" / name
        self.issuer = f"{HOST}/t/{name}/attest"
        config = self.home / "config.toml"
        config.write_text(config.read_text().replace("# attest_service = false", "attest_service = true"))
        (self.home / "simulated.json").write_bytes(simulated_policy(SOFTWARE).dump())
        self.caller = bearer(
            add_caller(self.home / "callers", f"of-{name}", rng=lambda size: name.encode().ljust(size))
        )
        self.settle()

    def settle(self, more: str = "", *, issuer: str | None = None, file: str = "simulated.json") -> str:
        """Write the service's settings, start the tenant anew and return its health and cause."""
        text = SETTINGS.format(issuer=issuer or self.issuer, more=more, file=file)
        (self.home / "attest.toml").write_text(text)
        self.host.change(self.name, "resume")
        shown = self.host.shown(self.name)
        return f"{shown['health']} {shown['cause']}".strip()

    def get(self, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        return self.host.client.get(f"/t/{self.name}{path}", headers=headers)

    def post(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> httpx.Response:
        return self.host.client.post(f"/t/{self.name}{path}", json=body, headers=headers or self.caller)

    def nonce(self) -> bytes:
        answer = self.post("/attest/v1/challenge")
        assert answer.status_code == 200, answer.text
        return parse_b64u(answer.json()["nonce"], what="nonce")

    def attest(self, nonce: bytes) -> httpx.Response:
        evidence = SimulatedAttester(ROOT, SOFTWARE, b"c" * 32).collect(ServiceBinding(nonce=nonce).field(64))
        asked = {"payload": dump_b64u(evidence.payload), "tee": "simulated"}
        return self.post("/attest/v1/attest", {"audience": "me", "evidence": asked, "nonce": dump_b64u(nonce)})

    def keys(self) -> dict[str, Any]:
        return {key["kid"]: key for key in self.get(KEYS, self.caller).json()["keys"]}


@pytest.fixture
def both(host: HostBench) -> tuple[Attesting, Attesting]:
    return Attesting(host, "acme"), Attesting(host, "zenith")


def test_each_tenant_is_an_issuer_of_its_own_and_discovery_names_only_it(both: tuple[Attesting, Attesting]) -> None:
    for tenant, other in (both, both[::-1]):
        found = tenant.get(DISCOVERY)
        assert (found.json()["issuer"], found.json()["jwks_uri"]) == (
            tenant.issuer, f"{HOST}/t/{tenant.name}{KEYS}",
        )  # fmt: skip
        elsewhere = {"host": f"{other.name}.example", "x-forwarded-prefix": f"/t/{other.name}"}
        assert tenant.get(DISCOVERY, elsewhere).json() == found.json()
        for path in (DISCOVERY, KEYS, "/attest/openapi.json", "/attest/", "/attest/readyz"):
            answer = tenant.get(path)
            assert answer.status_code == 200, path
            assert other.name not in answer.text
        assert f'action="/t/{tenant.name}/attest/explain"' in tenant.get("/attest/").text
    assert not both[0].keys().keys() & both[1].keys().keys()


def test_no_service_signs_for_another_and_a_result_is_its_own_issuers(both: tuple[Attesting, Attesting]) -> None:
    for tenant, other in (both, both[::-1]):
        said = tenant.attest(tenant.nonce())
        assert said.status_code == 200, said.text
        token = said.json()["token"]
        kid = jwt.get_unverified_header(token)["kid"]
        assert kid not in set(other.keys())
        public = jwt.PyJWK(tenant.keys()[kid])
        claims = jwt.decode(
            token, public, algorithms=["ES256"], audience="me", issuer=tenant.issuer, options={"verify_exp": False}
        )
        assert claims["iss"] == tenant.issuer
        assert other.name not in json.dumps(claims)
        assert tenant.get(f"/attest/results/{said.json()['id']}").status_code == 200
        assert other.get(f"/attest/results/{said.json()['id']}").status_code == 404


def test_a_caller_of_one_tenant_is_nobody_at_anothers_service(both: tuple[Attesting, Attesting]) -> None:
    acme, zenith = both
    admin = bearer((acme.host.make("third"))["token"])
    for headers in (acme.caller, admin, acme.host.operator, bearer("clsa_" + "A" * 43)):
        for path in ("/attest/v1/challenge", "/attest/v1/attest", "/attest/v1/verify"):
            assert zenith.post(path, {}, headers).status_code == 401, path
    assert zenith.get("/v1/loans", zenith.caller).status_code == 401  # nor does a caller's token open a custodian


def test_a_challenge_of_one_tenant_is_unknown_to_another(both: tuple[Attesting, Attesting]) -> None:
    acme, zenith = both
    answer = zenith.attest(acme.nonce())
    assert (answer.status_code, answer.json()["code"]) == (403, "nonce_unknown")


@pytest.mark.parametrize("issuer", [f"{HOST}/t/zenith/attest", f"{HOST}/attest", "https://elsewhere.example/t/acme/attest",
                                    f"{HOST}/t/acme/attest2", f"{HOST}/t/acme"])  # fmt: skip
def test_a_tenant_that_calls_itself_another_issuer_does_not_come_up(host: HostBench, issuer: str) -> None:
    acme, zenith = Attesting(host, "acme"), Attesting(host, "zenith")
    assert acme.settle(issuer=issuer) == "failed usageerror"
    assert acme.get(DISCOVERY).status_code == 503
    assert zenith.get(DISCOVERY).status_code == 200
    assert acme.settle() == "ready"


def test_a_key_file_of_another_tenants_opens_nothing_here(both: tuple[Attesting, Attesting]) -> None:
    acme, zenith = both
    shutil.copy(zenith.home / "signing-keys.json", acme.home / "signing-keys.json")
    assert acme.settle().startswith("failed")
    (acme.home / "signing-keys.json").write_bytes(b'{"keys":[],"v":1}')
    assert acme.settle() == "failed malformed"
    assert set(json.loads((zenith.home / "signing-keys.json").read_bytes())) == {"v", "wrapped"}
    assert zenith.get(KEYS).status_code == 200


@pytest.mark.parametrize(
    ("more", "file"),
    [
        ('callers = "../zenith/callers"', "simulated.json"),
        ('keys = "../zenith/signing-keys.json"', "simulated.json"),
        ('tpm_authorities = ["../../host.toml"]', "simulated.json"),
        ('arm_anchors = ["/etc/hostname"]', "simulated.json"),
        ("", "../zenith/simulated.json"),
        ("", "linked.json"),
    ],
)
def test_no_setting_of_a_tenants_service_reads_or_writes_beyond_its_home(host: HostBench, more: str, file: str) -> None:
    acme, zenith = Attesting(host, "acme"), Attesting(host, "zenith")
    (acme.home / "linked.json").symlink_to(zenith.home / "simulated.json")
    before = (zenith.home / "signing-keys.json").read_bytes(), (zenith.home / "callers").read_bytes()
    assert acme.settle(more, file=file) == "failed usageerror"
    assert before == ((zenith.home / "signing-keys.json").read_bytes(), (zenith.home / "callers").read_bytes())


def test_one_tenants_rates_are_not_anothers(both: tuple[Attesting, Attesting]) -> None:
    acme, zenith = both
    assert acme.settle("challenges_per_minute = 2\nall_per_minute = 1") == "ready"
    assert [acme.post("/attest/v1/challenge").status_code for _ in range(3)] == [200, 200, 429]
    assert [acme.post("/attest/v1/verify", {}).status_code for _ in range(2)] == [400, 429]
    for _ in range(3):
        assert zenith.attest(zenith.nonce()).status_code == 200


def test_what_a_service_takes_of_the_process_is_bounded_by_the_host(tmp_path: Path) -> None:
    with HostBench(tmp_path, bounds={"threads": 2, "body_memory_mib": 2}) as host:
        acme = Attesting(host, "acme")
        assert acme.settle("verifications = 200\nrequest_timeout_s = 3600\nwaiting = 0") == "ready"
        roster = host.host._roster
        assert roster is not None
        running = roster._tenants[b"acme"].running
        assert running is not None
        assert running._beside is not None
        limits: Any = running._beside.close.__self__  # type: ignore[attr-defined]  # whose closing it is
        assert limits.places._most == 2
        huge = {"content": b"x" * (3 << 20), "headers": {**acme.caller, "content-type": "application/json"}}
        assert host.client.post("/t/acme/attest/v1/verify", **huge).status_code == 413


def test_a_tenant_whose_disk_hangs_holds_no_thread_and_no_answer_of_another(
    both: tuple[Attesting, Attesting], monkeypatch: pytest.MonkeyPatch
) -> None:
    acme, zenith = both
    hangs, asked = threading.Event(), threading.Event()
    true_known = Callers.known

    def known(callers: Callers, authorization: str | None, address: str) -> str:
        if callers._path.parent == acme.home:
            asked.set()
            hangs.wait(60)
            hangs.set()  # held once: where the others wait for it too, that is seen without twelve times the wait
        return true_known(callers, authorization, address)

    monkeypatch.setattr(Callers, "known", known)
    statuses: list[int] = []
    waiting = [threading.Thread(target=lambda: statuses.append(acme.post("/attest/v1/challenge").status_code))
               for _ in range(12)]  # fmt: skip
    for thread in waiting:
        thread.start()
    assert asked.wait(60)
    try:
        assert zenith.post("/attest/v1/challenge").status_code == 200
        assert zenith.get(KEYS).status_code == 200
        assert not statuses
    finally:
        hangs.set()
        for thread in waiting:
            thread.join(60)
    assert statuses == [200] * 12


ASKED = [
    ("GET", DISCOVERY), ("GET", KEYS), ("GET", "/attest/"), ("GET", "/attest"), ("GET", "/attest/healthz"),
    ("GET", "/attest/readyz"), ("GET", "/attest/openapi.json"), ("GET", "/attest/results/abc"), ("GET", "/attest/x"),
    ("POST", "/attest/explain"), ("POST", "/attest/v1/challenge"), ("POST", "/attest/v1/attest"),
    ("POST", "/attest/v1/verify"), ("DELETE", "/attest/v1/verify"), ("OPTIONS", "/attest/v1/challenge"),
]  # fmt: skip


def test_a_hidden_tenants_service_is_there_for_its_callers_alone(host: HostBench) -> None:
    hidden, other = Attesting(host, "hidden", discoverable=False), Attesting(host, "acme")
    plain = host.make("plain")
    host.make("open", discoverable=True)

    def ask(name: str, method: str, path: str, headers: dict[str, str]) -> Answer:
        return answer_of(host.client.request(method, f"/t/{name}{path}", headers=headers))

    strangers = ({}, other.caller, host.operator, bearer(plain["token"]), bearer("clsa_" + "A" * 43),
                 {"Authorization": "Basic YTpi"})  # fmt: skip
    for method, path in ASKED:
        for headers in strangers:
            nobody = ask("nobody-at-all", method, path, headers)
            assert nobody[0] == 404, path
            for name in ("hidden", "plain", "open"):
                assert ask(name, method, path, headers) == nobody, (name, path)
        assert ask("nobody-at-all", method, path, hidden.caller)[0] == 404
        assert ask("plain", method, path, hidden.caller)[0] == 404
    assert hidden.attest(hidden.nonce()).status_code == 200
    assert hidden.get(DISCOVERY, hidden.caller).json()["issuer"] == hidden.issuer


def test_a_hidden_tenants_service_is_open_to_nobody(host: HostBench) -> None:
    hidden = Attesting(host, "hidden", discoverable=False)
    assert hidden.settle("open = true") == "failed usageerror"
    shown = Attesting(host, "shown")
    assert shown.settle("open = true") == "ready"
    assert host.client.post("/t/shown/attest/v1/challenge").status_code == 200


def test_a_suspended_tenants_service_is_gone_and_comes_back_with_its_keys(host: HostBench) -> None:
    acme = Attesting(host, "acme")
    before = acme.keys()
    host.change("acme", "suspend")
    nobody = answer_of(host.client.get(f"/t/nobody{DISCOVERY}", headers=acme.caller))
    assert answer_of(acme.get(DISCOVERY, acme.caller)) == nobody
    host.change("acme", "resume")
    assert acme.keys() == before


def test_a_line_taken_out_of_the_callers_shuts_one_out_at_once(host: HostBench) -> None:
    hidden = Attesting(host, "hidden", discoverable=False)
    assert hidden.post("/attest/v1/challenge").status_code == 200
    (hidden.home / "callers").write_text("# none\n")
    assert hidden.post("/attest/v1/challenge").status_code == 404


def test_a_tenants_metrics_tell_of_its_service_and_of_no_other(both: tuple[Attesting, Attesting]) -> None:
    acme, zenith = both
    viewers = [bearer(_token(tenant)) for tenant in both]
    assert acme.attest(acme.nonce()).status_code == 200
    line = 'cloister_attestation_results_total{model="attest",outcome="warning"} '
    assert f"{line}1\n" in acme.get("/v1/metrics", viewers[0]).text
    assert f"{line}0\n" in zenith.get("/v1/metrics", viewers[1]).text
    assert zenith.get("/v1/metrics", acme.caller).status_code == 401


def _token(tenant: Attesting) -> str:
    context = tenant.host.service(tenant.name).context
    return context.transact(lambda work: issue_token(work, "t", role=Role.VIEWER, name="scraper"))


def test_it_is_off_by_default_whatever_lies_in_the_home(host: HostBench) -> None:
    host.make("acme", discoverable=True)
    (host.home / "tenants" / "acme" / "attest.toml").write_text(SETTINGS.format(issuer="x", more="", file="y"))
    host.change("acme", "resume")
    assert host.client.get(f"/t/acme{DISCOVERY}").status_code == 404
    assert not (host.home / "tenants" / "acme" / "signing-keys.json").exists()


def test_a_service_that_cannot_be_opened_keeps_no_other_tenant_back(both: tuple[Attesting, Attesting]) -> None:
    acme, zenith = both
    (acme.home / "simulated.json").write_bytes(b"{")
    assert acme.settle() == "failed malformed"
    (acme.home / "attest.toml").unlink()
    acme.host.restart()
    assert zenith.get(DISCOVERY).status_code == 200
    assert acme.get(DISCOVERY).status_code == 503
    assert acme.settle() == "failed malformed"
