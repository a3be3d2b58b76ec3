"""Two tenants in one process, over real sockets: equal names, an enclave each; killed under load, secrets sought."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from disk import read_home
from drill_house import row
from load import Asker, until_served
from tenant_house import HostProcess, TenantHouse
from test_kill import adding, demand_no_more_than_granted, demand_sound, until_quiet

from cloister.client import Client
from cloister.errors import CloisterError, Rejected
from cloister.testing.simulated import SimulatedScheme

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from disk import OnDisk

pytestmark = [
    pytest.mark.timeout(280),
    # A kill in the middle of a TLS handshake leaves the HTTP library's socket to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning"),
]
KILLS = 3


@contextmanager
def two_tenants(folder: Path, *, ttl_s: int = 6) -> Iterator[tuple[HostProcess, TenantHouse, TenantHouse]]:
    """Yield a host, and two tenants whose models, loans and consumers are called alike, an enclave each."""
    with ExitStack() as stack:
        host = stack.enter_context(HostProcess(folder / "operator"))
        houses = [
            stack.enter_context(
                TenantHouse(folder / name, host, name, ttl_s=ttl_s, max_ceiling=16, allowance=400, consumers=1)
            )
            for name in ("acme", "zenith")
        ]
        for house in houses:
            house.start_enclave()
        yield host, houses[0], houses[1]


def ask(house: TenantHouse, url: str | None = None, token: str | None = None) -> Any:
    """Verify an enclave as a consumer of this tenant does, and ask it once."""
    schemes = [SimulatedScheme(house.simulated.public)]
    asker = house.tokens["clinic-0"] if token is None else token
    with Client.verify(url or house.url, house.trust(), token=asker, schemes=schemes) as client:
        return client.infer("digits", row(1))


def raw(house: TenantHouse, path: str, token: str) -> tuple[int, bytes]:
    """Send a path exactly as it is spelled, over TLS."""
    context = ssl.create_default_context(cafile=str(house.authority))
    connection = http.client.HTTPSConnection("localhost", house.host.port, context=context, timeout=20)
    connection.putrequest("GET", path, skip_accept_encoding=True)
    connection.putheader("Authorization", f"Bearer {token}")
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def test_two_tenants_with_equal_names_are_served_and_metered_apart(tmp_path: Path) -> None:
    with two_tenants(tmp_path) as (host, acme, zenith):
        assert acme.loan_file["custodian_url"] == f"https://localhost:{host.port}/t/acme"
        for house, times in ((acme, 3), (zenith, 1)):
            for _ in range(times):
                answer = ask(house)
                assert answer.outputs["label"].tolist() == [1]
                assert answer.receipt.receipt.loan == house.loan
        until_spent(acme, 3)
        until_spent(zenith, 1)

        # A consumer of the one is nobody at the other's enclave, and an enclave of the other's is not believed.
        with pytest.raises(Rejected):
            ask(zenith, token=acme.tokens["clinic-0"])
        with pytest.raises(CloisterError):
            ask(acme, url=zenith.url)

        for path in (
            f"/t/acme/../zenith/v1/loans/{zenith.loan}", f"/t/acme/%2e%2e/zenith/v1/loans/{zenith.loan}",
            f"/t/acme//v1/loans/{zenith.loan}", f"/t/ACME/v1/loans/{zenith.loan}", f"/t/acme/v1/loans/{zenith.loan}",
            f"/t/zenith/v1/loans/{zenith.loan}", f"/t/zenith%2fv1/loans/{zenith.loan}",
            f"//t/zenith/v1/loans/{zenith.loan}",
        ):  # fmt: skip
            status, body = raw(acme, path, acme.made.admin_token)
            assert status in {401, 404}, (path, body)
            assert zenith.digest.encode() not in body
        assert raw(acme, f"/t/acme/v1/loans/{acme.loan}", acme.made.admin_token)[0] == 200

        shown = {item["name"]: item["totals"] for item in host.command("tenant", "list")["tenants"]}
        assert {name: found["units_served"] for name, found in shown.items()} == {"acme": 3, "zenith": 1}
        assert {found["live_instances"] for found in shown.values()} == {1}

        # The stop of one stops it alone.
        acme.call("POST", "/v1/blocks", {"kind": "loan", "subject": acme.loan, "reason": ""})
        assert acme.enclave is not None
        acme.enclave.wait(within_s=30)
        assert ask(zenith).units == 1


def test_each_tenant_is_an_issuer_of_its_own_and_watches_itself(tmp_path: Path) -> None:
    with HostProcess(tmp_path) as host:
        base = f"https://localhost:{host.port}/t"
        for name, more in (("acme", ["--discoverable"]), ("zenith", [])):
            home = host.home / "tenants" / name
            host.command("tenant", "create", name, *more)
            (home / "attest.toml").write_text(f'[service]\nissuer = "{base}/{name}/attest"\n')
            text = (home / "config.toml").read_text()
            (home / "config.toml").write_text(text.replace("# attest_service = false", "attest_service = true"))
            host.command("attest", "caller", "one", "--home", str(home), "--out", str(home / "one.token"))
            assert host.command("tenant", "resume", name)["health"] == "ready"
        tokens = {name: (host.home / "tenants" / name / "one.token").read_text().strip() for name in ("acme", "zenith")}
        context = ssl.create_default_context(cafile=str(host.home / "tls" / "ca.pem"))
        with httpx2.Client(verify=context, timeout=60, trust_env=False) as client:

            def status(method: str, path: str, token: str | None = None) -> int:
                headers = {} if token is None else {"authorization": f"Bearer {token}"}
                return client.request(method, f"{base}{path}", headers=headers).status_code

            found = client.get(f"{base}/acme/attest/.well-known/openid-configuration").json()
            assert found["issuer"] == f"{base}/acme/attest"
            assert client.get(found["jwks_uri"]).json()["keys"]
            for name, stranger in (("acme", 401), ("zenith", 404)):
                other = tokens["zenith" if name == "acme" else "acme"]
                assert status("POST", f"/{name}/attest/v1/challenge", tokens[name]) == 200
                assert status("POST", f"/{name}/attest/v1/challenge", other) == stranger
                admin = (host.home / "tenants" / name / "admin.token").read_text().strip()
                assert status("GET", f"/{name}/v1/metrics", admin) == 200
                assert status("GET", f"/{name}/v1/metrics", tokens[name]) == 401
            assert status("GET", "/zenith/attest/.well-known/openid-configuration") == 404
        host.stop()


def until_spent(house: TenantHouse, units: int) -> None:
    """Wait until the enclave's renewal has reported what it served."""
    end = time.monotonic() + 30
    while house.meter()["spent"] != units:
        assert time.monotonic() < end, house.meter()
        time.sleep(0.2)


@pytest.mark.drill
def test_a_suspended_tenants_enclave_stops_and_the_others_goes_on(tmp_path: Path) -> None:
    with two_tenants(tmp_path, ttl_s=4) as (host, acme, zenith):
        assert host.command("tenant", "suspend", "acme")["health"] == "stopped"
        assert raw(acme, f"/t/acme/v1/loans/{acme.loan}", acme.made.admin_token)[0] == 401
        end = time.monotonic() + 40
        while True:
            try:
                ask(acme)
            except CloisterError:
                break
            assert time.monotonic() < end
            time.sleep(0.5)
        assert ask(zenith).units == 1
        assert host.command("tenant", "resume", "acme")["health"] == "ready"
        assert acme.meter()["granted"] == 400
        host.command("tenant", "remove", "nobody", expect=4)
        host.stop()


@pytest.mark.drill
def test_kill_9_of_a_host_with_several_tenants_under_load(tmp_path: Path) -> None:
    """R3 for tenants: what was acknowledged to each is on its disk, every unit is somewhere, and all come back."""
    with two_tenants(tmp_path, ttl_s=30) as (host, *houses), ExitStack() as stack:
        askers = {house.name: [Asker(house, name) for name in house.tokens] for house in houses}
        for group in askers.values():
            for asker in group:
                stack.callback(asker.stop)
                asker.start()
        staff = {house.name: stack.enter_context(adding(house)) for house in houses}
        before: dict[str, OnDisk | None] = {house.name: None for house in houses}
        for house in houses:
            until_served(house, askers[house.name], more=1, within_s=60)
        for _ in range(KILLS):
            time.sleep(0.4)
            host.kill()
            down = time.monotonic()
            for house in houses:
                scratch = tmp_path / f"scratch-{house.name}"
                before[house.name] = now = demand_sound(house, scratch, before[house.name], staff[house.name])
                demand_no_more_than_granted(now, house, askers[house.name])
            host.start()
            for house in houses:
                until_served(house, askers[house.name], more=2, within_s=60, down_s=time.monotonic() - down)
        for house in houses:
            until_quiet(staff[house.name])
            assert house.call("GET", f"/v1/loans/{house.loan}")["loan"] == house.loan
        shown = host.command("tenant", "list")["tenants"]
        assert [(item["name"], item["health"]) for item in shown] == [("acme", "ready"), ("zenith", "ready")]


def test_no_secret_of_one_tenant_is_found_at_another_or_at_the_operators(tmp_path: Path) -> None:
    """R19 for tenants: unique strings of the one in every place that belongs to somebody else."""
    with two_tenants(tmp_path) as (host, acme, zenith):
        acme.call("POST", "/v1/tokens", {"role": "auditor", "name": "canary-of-acme-5d1e"})
        more = {"consumers": [{"id": "canary-consumer-77"}]}
        acme.call("POST", f"/v1/loans/{acme.loan}/consumers", more)
        stop = {"kind": "consumer", "subject": "canary-consumer-77", "loan": acme.loan, "reason": "canary-reason-9f3a"}
        acme.call("POST", "/v1/blocks", stop)
        ask(acme)
        ask(zenith)
        until_spent(acme, 1)
        backup = tmp_path / "zenith.backup"
        host.command("custodian", "backup", "--home", str(zenith.home), "--out", str(backup))
        listed = json.dumps([host.command("tenant", "list"), host.command("tenant", "show", "acme")])
        audit = zenith.call("GET", "/v1/audit?limit=1000")
        host.stop()
        key = read_home(acme.home, acme.made.key, tmp_path / "scratch")
        secrets = {
            "admin's token": acme.made.admin_token, "borrower's token": acme.loan_file["token"],
            "consumer's token": acme.tokens["clinic-0"], "loan": acme.loan, "model": acme.digest,
            "instance": acme.instances[0], "name": "canary-of-acme-5d1e", "consumer": "canary-consumer-77",
            "reason": "canary-reason-9f3a", "log root": key.tree.root().hex(), "public key": acme.made.key.raw.hex(),
        }  # fmt: skip
        binary = {
            "vault": (acme.home / "vault.json").read_bytes(), "key": acme.made.key.raw,
            "key file": (host.home / "keys" / "acme.key").read_bytes(),
        }  # fmt: skip
        places: dict[str, bytes] = {
            "backup": backup.read_bytes(),
            "list": listed.encode(),
            "audit": json.dumps(audit).encode(),
        }
        assert host.process is not None
        places["host's journal"] = host.process.said().encode()
        for folder in (zenith.home, zenith.world.root, host.home, host.world.root):
            for path in folder.rglob("*"):
                theirs = acme.home in path.parents or path == host.home / "keys" / "acme.key"
                if path.is_file() and not theirs:
                    places[str(path.relative_to(tmp_path))] = path.read_bytes()
        assert {"operator/host/custodian.db", "operator/host/tenants/zenith/custodian.db"} <= set(places)
        wanted = {what: text.encode() for what, text in secrets.items()} | binary
        assert any(b"acme" in data for data in places.values())  # its name is the operator's to know
        found = [(what, place) for what, secret in wanted.items() for place, data in places.items() if secret in data]
        assert found == []
