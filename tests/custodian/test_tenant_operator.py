"""The operator: sees health and totals and no content; makes, suspends, resumes and erases; all of it logged (T89)."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from custodian_kit import CHEAP, PASSPHRASE, START, bearer
from tenant_kit import HostBench, answer_of

from cloister.cli import app
from cloister.custodian.setup import open_vault
from cloister.custodian.store.tenants import TenantRow, TenantState, insert_tenant, move_tenant
from cloister.custodian.tenants.config import read_host_config
from cloister.custodian.tenants.names import TenantName
from cloister.custodian.tenants.operator_http import operator_routes
from cloister.custodian.tokens import hash_token
from cloister.custodian.vaults.encrypted_file import EncryptedFileVault, KeyFile, Passphrase
from cloister.errors import CloisterError, Rejected, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloister.custodian.service import Transaction


@pytest.fixture
def host(place: Path) -> Iterator[HostBench]:
    """Yield a host without tenants."""
    with HostBench(place) as opened:
        yield opened


def _second(host: HostBench) -> dict[str, str]:
    answer = host.call("POST", "/operator/tokens", {"name": "another"})
    assert answer.status_code == 201, answer.text
    return bearer(answer.json()["token"])


def test_an_operator_sees_health_and_totals(host: HostBench) -> None:
    acme = host.tenant("acme")
    lent = acme.lend(allowance=100)
    toy = lent.boot()
    toy.renew()
    toy.serve(3)
    host.clock.advance(20)
    toy.renew()
    shown = host.shown("acme")
    assert (shown["state"], shown["health"], shown["cause"]) == ("active", "ready", "")
    assert shown["totals"] == {
        "live_instances": 1, "loans": 1, "log_entries": acme.service.context.size, "units_served": 3
    }  # fmt: skip
    assert shown["disk_bytes"] > 100_000
    assert host.call("GET", "/operator/tenants").json() == {"tenants": [shown]}
    host.change("acme", "suspend")
    assert host.shown("acme")["totals"] is None
    assert host.shown("acme")["health"] == "stopped"


def test_no_answer_of_the_operators_holds_anything_of_a_tenants(host: HostBench) -> None:
    """By construction: every route of the table that reads is read, once the tenant has one of everything."""
    acme = host.tenant("acme")
    lent = acme.lend(consumers=[{"id": "canary-consumer"}], borrower="Canary Borrower")
    toy = lent.boot()
    acme.post("/v1/blocks", {"kind": "loan", "subject": lent.id, "reason": "canary-reason"})
    content = {
        lent.id, toy.id, acme.digest, "digits", "canary-consumer", "Canary Borrower", "canary-reason",
        acme.init.admin_token,
        lent.made["loan_file"]["token"], acme.init.key.raw.hex(), acme.init.key.dump(),
    }  # fmt: skip
    keeping: Any = host.host._keeping
    reads = [route for route in operator_routes(keeping) if route.method == "GET"]
    assert len(reads) > 6
    told = "".join(
        host.call("GET", route.path.replace("{tenant}", "acme")).text
        for route in reads
        if route.path != "/openapi.json"
    )
    host.change("acme", "suspend")
    told += str(host.change("acme", "remove")) + str(host.change("acme", "resume"))
    assert [item for item in content if str(item) in told] == []


def test_every_change_is_in_the_operators_log_and_in_no_tenants(host: HostBench) -> None:
    acme = host.tenant("acme")
    second = _second(host)
    before = acme.service.context.size
    host.change("acme", "suspend")
    host.change("acme", "resume")
    host.change("acme", "suspend")
    phrase = host.change("acme", "remove")["phrase"]
    assert host.call("POST", "/operator/tenants/acme/remove", {"phrase": phrase}, second).status_code == 200
    entries = host.call("GET", "/operator/audit?limit=1000").json()["entries"]
    told = [(entry["kind"], entry["subject"]) for entry in entries if entry["kind"].startswith("tenant")]
    kinds = ("created", "suspended", "resumed", "suspended", "removal_asked", "erased")
    assert told == [(f"tenant_{kind}", "acme") for kind in kinds]
    actors = {entry["actor"] for entry in entries if entry["kind"].startswith("tenant")}
    assert len(actors) == 2
    assert all(actor.startswith("operator:tok-") for actor in actors)
    assert before > 0


def test_the_operators_api_knows_no_token_but_its_own(host: HostBench) -> None:
    acme = host.tenant("acme")
    strange = [acme.admin, acme.token("auditor"), acme.lend().token, {}, bearer("clst_" + "A" * 43)]
    for route in operator_routes(host.host._keeping):
        if route.roles is None:
            continue
        path = route.path.replace("{tenant}", "acme").replace("{token}", "tok-0000000000000000")
        for headers in strange:
            answer = host.client.request(route.method, path, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), path
    assert host.shown("acme")["state"] == "active"


def test_nobody_makes_an_operator_inside_a_tenant_or_a_member_inside_the_host(host: HostBench) -> None:
    acme = host.tenant("acme")
    assert acme.post("/v1/tokens", {"role": "operator", "name": "x"}).status_code == 400
    assert host.call("POST", "/operator/tokens", {"role": "admin", "name": "x"}).status_code == 400


def test_the_last_operator_stays(host: HostBench) -> None:
    first = host.call("GET", "/operator/tokens").json()["tokens"][0]["id"]
    assert host.call("DELETE", f"/operator/tokens/{first}").json()["code"] == "last_admin"
    second = _second(host)
    assert host.call("DELETE", f"/operator/tokens/{first}", token=second).status_code == 200
    assert host.call("GET", "/operator/tenants").status_code == 401


@pytest.mark.parametrize(
    "name", ["", "A", "a_b", "-a", "a-", "a" * 33, "..", "a/b", "acme ", "ä", "a\u0000", "operator\n", 7, None]
)
def test_a_name_that_is_none_is_refused(host: HostBench, name: Any) -> None:
    answer = host.call("POST", "/operator/tenants", {"name": name})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
    assert list((host.home / "tenants").iterdir()) == []


@pytest.mark.parametrize(
    "more",
    [
        {"key_file": "../escape.key"}, {"key_file": "/etc/passwd"}, {"passphrase_file": "none-such"},
        {"service": "nonsense"},
        {"key_file": "a", "passphrase_file": "b"}, {"settings": {"port": 1}}, {"settings": {"tls": False}},
        {"settings": {"no_such": 1}}, {"settings": {"lease_ttl_s": 0}}, {"settings": {"name": ["x", 7]}}, {"more": 1},
        {"settings": {"database": "postgresql://u:secret@h/d"}},
    ],
)  # fmt: skip
def test_a_tenant_that_cannot_be_made_leaves_nothing(host: HostBench, more: dict[str, Any]) -> None:
    answer = host.call("POST", "/operator/tenants", {"name": "acme", **more})
    assert answer.status_code in {400, 403}, answer.text
    assert "secret" not in answer.text
    assert host.call("GET", "/operator/tenants").json() == {"tenants": []}
    assert list((host.home / "tenants").iterdir()) == []
    assert host.make("acme")["name"] == "acme"


def test_tenants_are_bounded_in_number_and_names_are_given_once(place: Path) -> None:
    with HostBench(place, bounds={"tenants": 2}) as host:
        host.make("one")
        host.make("two")
        assert host.call("POST", "/operator/tenants", {"name": "one"}).json()["code"] == "already_exists"
        assert host.call("POST", "/operator/tenants", {"name": "three"}).json()["code"] == "too_many_tenants"
        host.change("one", "suspend")
        host.change("one", "remove", {"phrase": host.change("one", "remove")["phrase"]})
        host.make("three")
        host.change("two", "suspend")
        host.change("two", "remove", {"phrase": host.change("two", "remove")["phrase"]})
        assert host.call("POST", "/operator/tenants", {"name": "one"}).json()["code"] == "already_exists"


def test_a_suspended_tenant_is_as_if_it_were_not_there_and_comes_back_as_it_was(host: HostBench) -> None:
    acme = host.tenant("acme")
    lent = acme.lend(allowance=10)
    toy = lent.boot()
    host.change("acme", "suspend")
    for path in ("/v1/loans", "/healthz", "/v1/custodian", f"/v1/loans/{lent.id}/summary"):
        there = answer_of(host.client.get(f"/t/acme{path}", headers=acme.admin))
        assert there == answer_of(host.client.get(f"/t/nobody{path}", headers=acme.admin))
    assert toy.send(toy.request()).status_code == 404
    for body in ({}, {"phrase": "x"}):
        assert host.call("POST", "/operator/tenants/nobody/resume", body).status_code in {400, 404}
    assert host.call("POST", "/operator/tenants/acme/suspend", {}).json()["code"] == "tenant_state"
    host.restart()
    assert host.shown("acme")["health"] == "stopped"
    assert host.change("acme", "resume")["health"] == "ready"
    answer = acme.get(f"/v1/loans/{lent.id}")
    assert answer.status_code == 200, answer.text
    toy.renew()
    assert acme.kinds()[-4:].count("custodian_started") <= 1


def test_removal_wants_two_steps_the_phrase_and_a_suspended_tenant(place: Path) -> None:
    with HostBench(place, bounds={"two_operators": True, "phrase_ttl_s": 60}) as host:
        host.tenant("acme")
        second = _second(host)

        def remove(body: dict[str, Any], token: dict[str, str] | None = None) -> Any:
            answer = host.call("POST", "/operator/tenants/acme/remove", body, token)
            return answer.json().get("code", answer.json())

        assert remove({}) == "tenant_state"
        host.change("acme", "suspend")
        assert remove({"phrase": "erase acme 0000-0000"}) == "phrase_wanted"
        phrase = remove({})["phrase"]
        assert remove({"phrase": phrase}) == "second_operator_wanted"
        assert remove({"phrase": phrase + " "}, second) == "phrase_wrong"
        host.clock.advance(60)
        assert remove({"phrase": phrase}, second) == "phrase_wanted"
        assert host.shown("acme")["state"] == "suspended"
        phrase = remove({})["phrase"]
        assert remove({"phrase": phrase}, second)["state"] == "erased"
        assert remove({"phrase": phrase}, second) == "tenant_state"


def test_an_erased_tenant_opens_nothing_not_even_from_a_backup(host: HostBench, tmp_path: Path) -> None:
    acme, zenith = host.tenant("acme"), host.tenant("zenith")
    acme.lend()
    kept = tmp_path / "kept"
    shutil.copytree(acme.home, kept, ignore=shutil.ignore_patterns("vault.json", "lock"))  # as a backup has it
    vault, key = (acme.home / "vault.json").read_bytes(), (host.home / "keys" / "acme.key").read_bytes()
    host.change("acme", "suspend")
    shown = host.change("acme", "remove", {"phrase": host.change("acme", "remove")["phrase"]})
    assert (shown["state"], shown["disk_bytes"], shown["totals"]) == ("erased", 0, None)
    assert not acme.home.exists()
    assert not (host.home / "keys" / "acme.key").exists()
    everything = b"".join(path.read_bytes() for path in host.home.rglob("*") if path.is_file())
    assert vault not in everything
    assert key not in everything
    with pytest.raises(CloisterError):
        open_vault(kept, Passphrase(PASSPHRASE))
    EncryptedFileVault.create(kept / "vault.json", Passphrase(PASSPHRASE), kdf=CHEAP)
    with pytest.raises(Rejected):  # another vault signs with another key, and opens no model key
        _open(kept)
    assert zenith.get("/v1/loans").status_code == 200
    assert host.client.get("/t/acme/v1/loans", headers=acme.admin).status_code == 401


def _open(home: Path) -> None:
    from cloister.attest.verifier import Verifier  # noqa: PLC0415 - here only
    from cloister.custodian.setup import open_custodian  # noqa: PLC0415 - here only

    shutil.rmtree(home / "tls")
    (home / "tls").mkdir()
    vault = open_vault(home, Passphrase(PASSPHRASE))
    from cloister.custodian.tls import authority_certificate  # noqa: PLC0415 - here only

    pem = authority_certificate(vault.tls_authority_key, name="x", now=START)
    (home / "tls" / "ca.pem").write_bytes(pem)
    open_custodian(home, vault, make_verifier=lambda _site: Verifier([]), clock=lambda: START).close()


def test_a_host_that_died_while_making_or_erasing_goes_on_at_its_next_start(host: HostBench) -> None:
    acme = host.tenant("acme")
    host.change("acme", "suspend")

    def die(work: Transaction) -> None:
        move_tenant(work.connection, TenantName("acme"), TenantState.ERASING, work.now)
        row = TenantRow(
            name=TenantName("half"), state=TenantState.MAKING, discoverable=False, created_at=work.now,
            changed_at=work.now,
        )  # fmt: skip
        insert_tenant(work.connection, row)

    host.host._book.context.transact(die)
    (host.home / "tenants" / "half").mkdir()
    (host.home / "tenants" / "half" / "config.toml").write_text("")
    (acme.home / "vault.json").unlink()  # the first step was done
    host.restart()
    assert not acme.home.exists()
    assert not (host.home / "tenants" / "half").exists()
    assert {item["name"]: item["state"] for item in host.call("GET", "/operator/tenants").json()["tenants"]} == {
        "acme": "erased"
    }
    assert host.make("half")["name"] == "half"


def test_a_tenants_settings_are_its_own_within_the_hosts_bounds(place: Path) -> None:
    bounds = {"streams": 3, "body_memory_mib": 4, "database_mib": 100}
    with HostBench(place, bounds=bounds) as host:
        acme = host.tenant(
            "acme", settings={"lease_ttl_s": 7, "event_streams": 2, "body_memory_mib": 64, "name": "Acme"}
        )
        zenith = host.tenant("zenith", settings={"database_mib": 10, "event_streams": 1000})
        ours, theirs = acme.service.config, zenith.service.config
        assert (ours.lease_ttl_s, theirs.lease_ttl_s) == (7, 60)
        assert (ours.event_streams, theirs.event_streams) == (2, 3)
        assert (ours.body_memory_mib, theirs.body_memory_mib) == (4, 4)
        assert (ours.database_mib, theirs.database_mib) == (100, 10)
        assert (ours.name, theirs.name) == ("Acme", "zenith")


def test_a_passphrase_file_opens_a_tenant_and_is_not_kept(host: HostBench) -> None:
    keys = host.home / "keys"
    keys.mkdir(mode=0o700, exist_ok=True)
    (keys / "acme.txt").touch(mode=0o600)
    (keys / "acme.txt").write_bytes(b"canary passphrase of acme\n")
    file = {"passphrase_file": "acme.txt"}
    made = host.make("acme", **file)
    assert host.shown("acme")["health"] in {"ready", "waiting", "starting"}
    assert open_vault(host.home / "tenants" / "acme", Passphrase(b"canary passphrase of acme")).signing_key
    assert "canary passphrase" not in repr(host.host._ground) + repr(made)
    with pytest.raises(CloisterError):
        open_vault(host.home / "tenants" / "acme", KeyFile(keys / "acme.key"))


def test_the_first_admin_makes_a_token_that_no_operator_ever_sees(host: HostBench) -> None:
    own = "clst_" + "B" * 43
    made = host.make("acme", sha256=hash_token(own).hex())
    assert "token" not in made
    assert host.client.get("/t/acme/v1/loans", headers=bearer(own)).status_code == 200
    entries = host.client.get("/t/acme/v1/audit?limit=10", headers=bearer(own)).json()["entries"]
    assert next(entry for entry in entries if entry["kind"] == "token_created")["details"]["own"] is True


def test_what_answers_for_tenants_that_are_not_there_starts_anew_once_strangers_have_filled_it(
    host: HostBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloister.custodian.tenants.roster._LOOK_EVERY_S", 0.05)
    monkeypatch.setattr("cloister.custodian.tenants.roster._NOBODYS_ENTRIES", 0)
    host.restart()
    roster: Any = host.host._roster
    first = roster.nobody.service
    end = time.monotonic() + 30
    while roster.nobody.service is first:
        assert host.client.get("/t/nobody/v1/loans").status_code == 401
        assert time.monotonic() < end
    assert host.client.get("/t/nobody/v1/loans").status_code == 401


def test_serving_a_host_as_a_custodian_is_refused(host: HostBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOISTER_CUSTODIAN_HOME", str(host.home))
    told = CliRunner().invoke(app, ["custodian", "serve"])
    assert isinstance(told.exception, UsageError)
    assert "host" in told.exception.message


def test_the_command_line_makes_a_host(tmp_path: Path) -> None:
    home = tmp_path / "host"
    words = ["custodian", "host", "init", "--home", str(home), "--key-file", str(tmp_path / "k"), "--keys", "/mnt/keys"]
    told = CliRunner().invoke(app, [*words, "--two-operators", "--dns", "lend.example", "--json"])
    assert told.exit_code == 0, told.output
    assert (home / "operator.token").stat().st_mode & 0o777 == 0o600
    config = read_host_config(home)
    assert (config.keys, config.two_operators) == ("/mnt/keys", True)


def test_erasing_destroys_no_key_that_the_host_did_not_make_or_that_opens_another(host: HostBench) -> None:
    keys = host.home / "keys"
    keys.mkdir(mode=0o700, exist_ok=True)
    KeyFile.create(keys / "brought.key")
    host.make("brought", key_file="brought.key")
    host.make("first")
    host.make("second", key_file="first.key")
    host.make("third")
    for name, kept in (("brought", True), ("first", True), ("third", False)):
        host.change(name, "suspend")
        host.change(name, "remove", {"phrase": host.change(name, "remove")["phrase"]})
        assert (keys / f"{name}.key").exists() is kept
    host.restart()
    assert host.client.get("/t/second/v1/loans").status_code == 401
    assert host.shown("second")["health"] == "ready"
