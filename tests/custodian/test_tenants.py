"""Tenants of one process: what each has to itself, and that the fault or the greed of one is nobody else's."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from custodian_kit import PASSPHRASE, STATEMENT
from tenant_kit import ROOT, HostBench

from cloister import custodian
from cloister.attest.verifier import Verifier
from cloister.custodian.setup import backup_custodian, open_custodian, restore_custodian
from cloister.custodian.tenants.names import split_path
from cloister.custodian.vaults.encrypted_file import KeyFile
from cloister.errors import Unavailable
from cloister.testing.simulated import SimulatedScheme

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from tenant_kit import TenantBench


@pytest.fixture
def host(place: Path) -> Iterator[HostBench]:
    """Yield a host without tenants."""
    with HostBench(place) as opened:
        yield opened


def test_equal_names_in_two_tenants_are_two_things(host: HostBench) -> None:
    acme, zenith = host.tenant("acme"), host.tenant("zenith")
    assert acme.init.key != zenith.init.key
    ours, theirs = acme.lend(allowance=10), zenith.lend(allowance=7)
    assert ours.made["loan_file"]["custodian_url"] == "https://localhost:8443/t/acme"
    assert ours.made["loan_file"]["ca_pem"] == theirs.made["loan_file"]["ca_pem"] == host.init.ca_pem
    ours.boot().renew()
    assert ours.balance() < 10
    assert theirs.balance() == 7
    assert len(acme.audit()) > len(zenith.audit())
    assert host.shown("acme")["totals"]["live_instances"] == 1
    assert host.shown("zenith")["totals"]["live_instances"] == 0


def test_what_one_tenant_blocks_or_rotates_is_its_own(host: HostBench) -> None:
    acme, zenith = host.tenant("acme"), host.tenant("zenith")
    ours, theirs = acme.lend(), zenith.lend()
    assert acme.post("/v1/blocks", {"kind": "loan", "subject": ours.id, "reason": ""}).status_code == 201
    assert acme.post("/v1/keys/rotate", {}).status_code == 201
    assert theirs.boot().released_dek()
    assert zenith.get("/v1/blocks").json()["blocks"] == []
    assert zenith.get("/v1/keys").json() != acme.get("/v1/keys").json()


def test_a_grant_and_a_lease_of_one_tenant_are_nothing_to_the_other(host: HostBench) -> None:
    acme, zenith = host.tenant("acme"), host.tenant("zenith")
    toy = acme.lend().boot()
    theirs = zenith.lend()
    challenge = toy.take_challenge()
    statement = toy.attest_statement(challenge, loan=theirs.id)
    assert theirs.attest(statement).json()["code"] != "internal"
    assert theirs.attest(statement).status_code in {400, 403}
    for path in ("lease", "renewal", "ticket", "close", "usage"):
        answer = zenith.client.post(f"/v1/instances/{toy.id}/{path}", content=toy.request(), headers=STATEMENT)
        assert answer.status_code in {400, 404, 415}


def test_a_tenant_whose_vault_is_locked_keeps_no_other_back(host: HostBench) -> None:
    acme, zenith = host.tenant("acme"), host.tenant("zenith")
    key = host.home / "keys" / "acme.key"
    away = key.rename(key.with_suffix(".away"))
    host.restart()
    assert zenith.get("/v1/loans").status_code == 200
    assert acme.get("/v1/loans").status_code == 503
    shown = host.shown("acme")
    assert (shown["state"], shown["health"], shown["cause"]) == ("active", "locked", "usageerror")
    assert host.change("acme", "resume")["health"] == "locked"
    away.write_bytes(bytes(32))
    away.rename(key)
    assert host.change("acme", "resume")["cause"] == "wrong_key"
    assert zenith.get("/v1/loans").status_code == 200


def test_a_tenant_whose_vault_was_locked_comes_back(host: HostBench) -> None:
    acme = host.tenant("acme")
    key = host.home / "keys" / "acme.key"
    away = key.rename(key.with_suffix(".away"))
    host.restart()
    assert acme.get("/v1/loans").status_code == 503
    away.rename(key)
    assert host.change("acme", "resume")["health"] == "ready"
    assert acme.get("/v1/loans").status_code == 200


@pytest.mark.parametrize("harm", ["garbage", "older", "gone", "other"])
def test_a_tenant_whose_database_is_not_right_keeps_no_other_back(host: HostBench, tmp_path: Path, harm: str) -> None:
    acme, zenith = host.tenant("acme"), host.tenant("zenith")
    database = acme.home / "custodian.db"
    backup_custodian(acme.home, tmp_path / "older.db")
    acme.lend()
    host.close()
    match harm:
        case "garbage":
            database.write_bytes(b"no database" * 1000)
        case "older":
            database.write_bytes((tmp_path / "older.db").read_bytes())
        case "gone":
            database.unlink()
        case _:
            database.write_bytes((zenith.home / "custodian.db").read_bytes())
    host.open()
    assert zenith.get("/v1/loans").status_code == 200
    assert acme.get("/v1/loans").status_code == 503
    shown = host.shown("acme")
    assert shown["health"] == "failed"
    assert shown["cause"] == {"older": "database_older", "gone": "usageerror"}.get(harm, shown["cause"])


def test_a_tenant_of_a_full_disk_leaves_the_others_serving(place: Path) -> None:
    """T86 for one of several: its file may grow no more; what writes is 503, no key is released, reads go on."""
    with HostBench(place, bounds={"database_mib": 2}) as host:
        acme, zenith = host.tenant("acme"), host.tenant("zenith")
        ours, theirs = acme.lend(), zenith.lend()
        while True:
            answer = acme.post("/v1/loans", acme.loan_body(borrower="x" * 200))
            if answer.status_code != 201:
                break
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        toy_answers = [ours.challenge().status_code for _ in range(3)]
        assert set(toy_answers) <= {200, 503}
        assert acme.get("/v1/loans").status_code == 200
        assert theirs.boot().released_dek()
        assert zenith.post("/v1/loans", zenith.loan_body()).status_code == 201
        assert host.shown("zenith")["health"] == "ready"


def test_a_bug_in_one_tenants_answer_is_500_there_and_nothing_elsewhere(host: HostBench) -> None:
    acme, zenith = host.tenant("acme"), host.tenant("zenith")
    acme.service.context.store = None  # type: ignore[assignment]  # as no code of ours would
    assert acme.get("/v1/loans").json()["code"] == "internal"
    assert host.shown("acme")["health"] == "failed"
    assert zenith.get("/v1/loans").status_code == 200
    host.restart()
    assert acme.get("/v1/loans").status_code == 503  # its database was never closed: this process still holds it
    assert zenith.get("/v1/loans").status_code == 200


def test_a_tenants_home_is_a_custodians_home(host: HostBench) -> None:
    """It serves by itself, once the host has let it go: nobody is locked in."""
    acme = host.tenant("acme")
    lent = acme.lend(allowance=10)
    size = acme.service.context.size
    unlock = KeyFile(host.home / "keys" / "acme.key")

    def scheme(_site: object) -> Verifier:
        return Verifier([SimulatedScheme(ROOT.public)])

    with pytest.raises(Unavailable, match="held by process"):
        open_custodian(acme.home, unlock, make_verifier=scheme, clock=host.clock)
    host.change("acme", "suspend")
    with contextlib.closing(open_custodian(acme.home, unlock, make_verifier=scheme, clock=host.clock)) as alone:
        assert alone.key == acme.init.key
        assert alone.context.size > size
    host.change("acme", "resume")
    assert lent.balance() == 10


def test_a_tenant_is_backed_up_while_it_serves_and_restored_while_it_is_suspended(
    host: HostBench, tmp_path: Path
) -> None:
    acme, zenith = host.tenant("acme"), host.tenant("zenith")
    theirs = zenith.lend()
    acme.lend(consumers=[{"id": "canary-of-acme"}])
    backup_custodian(acme.home, tmp_path / "acme.backup")
    data = (tmp_path / "acme.backup").read_bytes()
    assert b"canary-of-acme" in data
    for foreign in (theirs.id, zenith.digest, zenith.init.admin_token):
        assert str(foreign).encode() not in data
    host.change("acme", "suspend")
    done = restore_custodian(acme.home, KeyFile(host.home / "keys" / "acme.key"), tmp_path / "acme.backup")
    assert done.older  # the stop was logged behind the backup
    assert host.change("acme", "resume")["cause"] == "database_older"
    assert zenith.get("/v1/loans").status_code == 200


def test_one_tenants_rate_is_not_anothers(place: Path) -> None:
    with HostBench(place, bounds={"requests_per_minute": 30}) as host:
        host.make("acme")
        host.make("zenith")
        answers = [host.client.get("/t/acme/healthz").status_code for _ in range(40)]
        assert answers == [200] * 30 + [429] * 10
        assert host.client.get("/t/zenith/healthz").status_code == 200
        assert [host.client.get("/t/nobody/healthz").status_code for _ in range(40)] == answers
        assert host.shown("acme")["health"] == "ready"


def test_failed_logins_are_counted_alike_whether_there_is_such_a_tenant_or_not(place: Path) -> None:
    with HostBench(place, failures_per_minute=5) as host:
        host.make("acme")

        def tries(name: str) -> list[int]:
            return [host.client.get(f"/t/{name}/v1/loans").status_code for _ in range(8)]

        assert tries("acme") == tries("nobody") == tries("another") == [401] * 5 + [429] * 3
        assert host.client.get("/t/third/v1/loans").status_code == 401


@contextlib.asynccontextmanager
async def served(host: HostBench) -> AsyncIterator[Callable[[str, str], Awaitable[httpx2.Response]]]:
    """Serve a host that is closed on this event loop, many requests at once; yield what asks."""
    host.close()
    host.open_only()
    received: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    sent: asyncio.Queue[Any] = asyncio.Queue()
    life = asyncio.create_task(host.host({"type": "lifespan"}, received.get, sent.put))
    await received.put({"type": "lifespan.startup"})
    assert (await sent.get())["type"] == "lifespan.startup.complete"
    transport = httpx2.ASGITransport(app=host.host)
    async with httpx2.AsyncClient(transport=transport, base_url="https://localhost:8443", timeout=60) as client:

        async def ask(path: str, token: str) -> httpx2.Response:
            return await client.get(path, headers={"authorization": f"Bearer {token}"})

        yield ask
    await received.put({"type": "lifespan.shutdown"})
    await life


def _bench_of(host: HostBench, *names: str) -> list[TenantBench]:
    return [host.tenant(name) for name in names]


def test_a_tenant_whose_database_hangs_holds_no_thread_of_another(place: Path) -> None:
    """T82: the noisy neighbour. All of one's threads wait for a disk; the other one answers at once."""
    host = HostBench(place, bounds={"threads": 2, "requests": 50})
    acme, zenith = _bench_of(host, "acme", "zenith")
    body = acme.loan_body()

    async def story() -> None:
        async with served(host) as ask:
            assert (await ask("/t/acme/v1/loans", acme.init.admin_token)).status_code == 200
            transport = httpx2.ASGITransport(app=host.host)
            headers = {"authorization": f"Bearer {acme.init.admin_token}"}
            with contextlib.closing(sqlite3.connect(acme.home / "custodian.db")) as hog:
                hog.execute("BEGIN IMMEDIATE")  # whoever writes waits for five seconds, and fails
                async with httpx2.AsyncClient(
                    transport=transport, base_url="https://localhost:8443", headers=headers, timeout=60
                ) as client:
                    stuck = [asyncio.create_task(client.post("/t/acme/v1/loans", json=body)) for _ in range(60)]
                    await asyncio.sleep(0.3)
                    before = time.monotonic()
                    for _ in range(20):
                        assert (await ask("/t/zenith/v1/loans", zenith.init.admin_token)).status_code == 200
                    operator = await ask("/operator/tokens", host.init.admin_token)
                    took = time.monotonic() - before
                    assert operator.status_code == 200
                    assert sum(not task.done() for task in stuck) >= 40
                    hog.rollback()
                    answers = [answer.status_code for answer in await asyncio.gather(*stuck)]
            assert answers.count(429) == 10  # 60 less the places
            assert took < 3

    asyncio.run(story())


def test_who_is_asked_for_first_comes_up_first_and_waits_for_nobody(place: Path) -> None:
    host = HostBench(place, bounds={"start_together": 1})
    benches = _bench_of(host, "a", "b", "c", "d")

    async def story() -> None:
        async with served(host) as ask:
            answers = await asyncio.gather(
                *(ask(f"/t/{bench.name}/v1/loans", bench.init.admin_token) for bench in reversed(benches))
            )
            assert [answer.status_code for answer in answers] == [200] * 4

    asyncio.run(story())


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (b"/t/acme/v1/loans", (b"acme", b"/v1/loans")),
        (b"/t/acme", (b"acme", b"")),
        (b"/t/acme/", (b"acme", b"/")),
        (b"/t/acme//t/zenith/", (b"acme", b"//t/zenith/")),
        (b"/t/%61cme/x", (b"%61cme", b"/x")),
        (b"/t//x", (b"", b"/x")),
        (b"/t", None),
        (b"//t/acme/x", None),
        (b"/T/acme/x", None),
        (b"/operator/tenants", None),
        (b"", None),
    ],
)
def test_a_path_is_split_as_it_was_sent(path: bytes, found: tuple[bytes, bytes] | None) -> None:
    assert split_path(path) == found


def test_the_passphrase_of_the_host_opens_no_tenant(host: HostBench) -> None:
    acme = host.tenant("acme")
    assert PASSPHRASE not in (acme.home / "unlock.toml").read_bytes()
    assert acme.service.key != host.host._book.key


def test_nothing_of_a_custodian_takes_threads_that_are_not_its_tenants() -> None:
    """Whoever waits for a disk in another pool would share it with every tenant."""
    source = Path(custodian.__file__).parent
    taking = re.compile(r"starlette\.concurrency|asyncio\.to_thread|run_in_executor|to_thread\.run_sync")
    found = {path.name for path in source.rglob("*.py") if taking.search(path.read_text(encoding="utf-8"))}
    assert found == {"threads.py"}
