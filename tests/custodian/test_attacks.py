"""What an insider with a lender's token, a borrower, an instance of its own making and a lying disk try."""

from __future__ import annotations

import asyncio
import resource
import shutil
import sqlite3
import threading
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from custodian_kit import CHEAP, Bench, Toy
from starlette.testclient import TestClient

from cloister.crypto.sign import Label, SigningKey, Statement
from cloister.custodian.app import create_app
from cloister.custodian.checkpoint import read_checkpoint, sign_checkpoint, write_checkpoint
from cloister.custodian.setup import init_custodian, recover_custodian
from cloister.custodian.store.sqlite import SqliteStore
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.lending.messages import Close, Lease, LeaseRequest
from cloister.lending.receipt import GENESIS
from cloister.lending.terms import LOAN_METER, MAX_UNITS, Meter
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path


def _request(toy: Toy, **changes: Any) -> bytes:
    """Return a lease request as an instance that lies would sign it."""
    request = LeaseRequest(
        instance=toy.id, epoch=1, seq=1, req_nonce=bytes(16), used={}, reserved={}, want={LOAN_METER: MAX_UNITS},
        served=0, chain_head=GENESIS,
    )  # fmt: skip
    return Statement.sign(toy.key, Label.LEASE_REQUEST, replace(request, **changes).dump()).dump()


def _close(toy: Toy, *, seq: int, used: dict[Meter, int]) -> Any:
    message = Close(instance=toy.id, epoch=1, seq=seq, used=used, served=0, chain_head=GENESIS)
    statement = Statement.sign(toy.key, Label.CLOSE, message.dump()).dump()
    media = {"content-type": "application/vnd.dsse.envelope.v1+json"}
    return toy.bench.client.post(f"/v1/instances/{toy.id}/close", content=statement, headers=media)


# An insider with a lender's token


def test_a_lender_cannot_silence_the_custodian_by_setting_an_allowance_up_and_down(bench: Bench) -> None:
    """The count of units ever debited grows without end; the checkpoint that carries it must still be written."""
    lent, lender = bench.lend(), bench.token("lender")
    for _ in range(3):
        for units in (MAX_UNITS, 0):
            answer = bench.post(f"/v1/loans/{lent.id}/set", {"units": units}, token=lender)
            assert answer.status_code == 200, answer.text
    assert bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 5}).json()["balance"] == 5
    bench.restart()
    assert bench.get("/readyz").status_code == 200
    assert lent.boot().renew().limits[LOAN_METER] == 5


def test_a_loan_granted_more_than_can_be_counted_is_refused_and_still_shown(bench: Bench) -> None:
    """Not the balance alone is bounded but all that was granted: the views add it up."""
    lent = bench.lend()
    toy = lent.boot()
    toy.renew()
    toy.serve()
    toy.renew()
    answer = bench.post(f"/v1/loans/{lent.id}/set", {"units": MAX_UNITS})
    assert (answer.status_code, answer.json()["code"]) == (422, "too_many_units")
    assert bench.get(f"/v1/loans/{lent.id}").status_code == 200
    assert bench.get(f"/v1/loans/{lent.id}/summary", lent.token).status_code == 200


def test_a_consumers_unblocking_says_of_which_loan(bench: Bench) -> None:
    """Ids of consumers mean nothing without their loan, in the log too."""
    lent = bench.lend(consumers=[{"id": "alice"}])
    bench.post("/v1/blocks", {"kind": "consumer", "subject": "alice", "loan": lent.id, "reason": ""})
    assert bench.client.delete(f"/v1/blocks/consumer/alice?loan={lent.id}", headers=bench.admin).status_code == 200
    assert bench.audit()[-1]["details"]["loan"] == lent.id


# An instance that lies


def test_an_eager_instance_does_not_round_its_way_past_the_rate_cap(bench: Bench) -> None:
    """A thousand requests in ten seconds at one unit a second are ten units, not a thousand."""
    lent = bench.lend(allowance=100_000, rate_cap=1, ttl_s=5, max_ceiling=1000)
    toy = lent.boot()
    used = 0
    for seq in range(1, 201):
        answer = toy.send(_request(toy, seq=seq, **toy.itemise(used)))
        assert answer.status_code == 200, answer.text
        lease = Lease.parse(Statement.parse(answer.content, label=Label.LEASE).verify([bench.init.key]))
        used = lease.limits[LOAN_METER]
        bench.clock.advance(0.05)
    assert used <= 5 + 10


def test_an_instance_does_not_fill_the_database_with_meters_nobody_has(bench: Bench) -> None:
    lent = bench.lend()
    toy = lent.boot()
    for seq in range(1, 4):
        nobodys = {Meter(f"consumer:c{seq}-{number}"): 0 for number in range(500)}
        assert toy.send(_request(toy, seq=seq, used=nobodys)).status_code == 200
    shown = bench.get("/v1/instances").json()["instances"][0]
    assert set(shown["used"]) <= {LOAN_METER}


def test_a_fork_that_shows_at_the_close_is_in_the_log_as_a_fork(bench: Bench) -> None:
    lent = bench.lend()
    toy = lent.boot()
    limit = toy.renew().limits[LOAN_METER]
    toy.serve()
    toy.renew()
    assert _close(toy, seq=3, used={}).status_code == 200
    assert "fork_detected" in bench.kinds()
    other = lent.boot()
    other.renew()
    assert _close(other, seq=2, used={LOAN_METER: limit + 100}).status_code == 200
    assert "overdraft_detected" in bench.kinds()


def test_a_forked_instance_does_not_close_itself_clean(bench: Bench) -> None:
    """All states but active are final: what was found out stays to be seen."""
    lent = bench.lend()
    toy = lent.boot()
    toy.renew()
    toy.send(_request(toy, seq=1, req_nonce=b"another copy ..."))
    assert bench.get("/v1/instances").json()["instances"][0]["state"] == "forked"
    for _ in range(3):
        assert _close(toy, seq=2, used={}).status_code == 200
    assert bench.get("/v1/instances").json()["instances"][0]["state"] == "forked"
    assert bench.kinds().count("instance_closed") == 1


# A borrower


def test_the_kill_switch_works_however_many_instances_a_borrower_had(bench: Bench) -> None:
    """A bound over every instance there ever was is one statement too large some day; only the live ones count."""
    lent = bench.lend(allowance=100)
    toy = lent.boot()
    toy.renew()
    with bench.service.context.store.writing() as connection:
        driver: Any = connection.connection.driver_connection
        driver.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 1000)  # others allow more; all have a limit
        connection.exec_driver_sql(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) "
            "INSERT INTO instance SELECT printf('%064x', i), loan, pub, kem_digest, tee, tier, result, policy_digest, "
            "epoch, seq, req_digest, reply, chain_head, attested_at, committed_at, dead_at, 'closed', 1, clone_proof, "
            "clock_trusted, clock, voucher_until, key_epoch, '' FROM instance, n WHERE written_off = 0"
        )
    answer = bench.post("/v1/blocks", {"kind": "loan", "subject": lent.id, "reason": ""})
    assert answer.json()["bound"]["units"] == 10
    shown = bench.get(f"/v1/loans/{lent.id}").json()
    assert len(shown["instances"]) <= 1000
    assert shown["instances"][0]["id"] == toy.id
    assert len(bench.get("/v1/instances").json()["instances"]) <= 1000


def test_one_enclave_key_for_two_loans_is_refused_and_logged(bench: Bench) -> None:
    first, second = bench.lend(), bench.lend()
    toy = first.boot()
    twin = Toy(second)
    twin.key, twin.id = toy.key, toy.id
    answer = second.attest(twin.attest_statement(twin.take_challenge()))
    assert (answer.status_code, answer.json()["code"]) == (403, "instance_known")
    assert bench.kinds()[-1] == "attestation_refused"


def test_an_attestation_its_instance_did_not_sign_is_in_the_log(bench: Bench) -> None:
    lent = bench.lend()
    toy = Toy(lent)
    challenge = toy.take_challenge()
    toy.key = SigningKey(bytes(range(32)))
    statement = bytearray(toy.attest_statement(challenge, instance_pub=SigningKey(bytes(32)).verify_key))
    assert lent.attest(bytes(statement)).status_code == 403
    assert bench.kinds()[-1] == "attestation_refused"


def _follow(bench: Bench, authorization: str, receive: Any, send: Any) -> Any:
    """Ask for the event stream as a server of ASGI 2.3 does."""
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET",
        "scheme": "https", "path": "/v1/events", "raw_path": b"/v1/events", "root_path": "",
        "query_string": b"after=-1", "headers": [(b"authorization", authorization.encode())],
        "client": ("127.0.0.1", 1), "server": ("localhost", 443),
    }  # fmt: skip
    return asyncio.wait_for(bench.client.app(scope, receive, send), 10)


def _then(last: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
    """Return a ``receive`` that gives the request and then what ``last`` gives."""
    asked = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Any:
        for message in asked:
            return message
        return await last()

    return receive


def test_streams_that_are_left_at_once_leave_room_for_others(bench: Bench) -> None:
    """Whoever is gone before the first event must not hold a place for ever."""
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)
        await asyncio.sleep(0)  # the server's buffer is full: here it learns that the reader is gone

    async def gone() -> Any:
        return {"type": "http.disconnect"}

    for _ in range(bench.service.config.event_streams + 1):
        asyncio.run(_follow(bench, bench.admin["Authorization"], _then(gone), send))
    assert [item["status"] for item in messages if item["type"] == "http.response.start"].count(429) == 0


def test_a_revoked_token_follows_no_longer(bench: Bench) -> None:
    """A stream lives on; what its token was good for may not."""
    made = bench.post("/v1/tokens", {"role": "auditor", "name": "an auditor"}).json()
    token = next(item["id"] for item in bench.get("/v1/tokens").json()["tokens"] if item["name"] == "an auditor")
    seen: list[bytes] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body" and message["body"]:
            seen.append(message["body"])
            if len(seen) == 1:
                await asyncio.to_thread(bench.client.delete, f"/v1/tokens/{token}", headers=bench.admin)
                await asyncio.to_thread(bench.lend)

    asyncio.run(_follow(bench, f"Bearer {made['token']}", _then(asyncio.Event().wait), send))
    assert len(seen) == 1
    assert b"loan_created" not in seen[0]


# A stranger


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "fe80::1%eth0", "2001:db8::1"])
def test_failed_logins_are_logged_from_whatever_address(place: Path, address: str) -> None:
    with Bench(place, settings={"failures_per_minute": 1}) as bench:
        stranger = TestClient(create_app(bench.service), raise_server_exceptions=False, client=(address, 1))
        assert stranger.get("/v1/loans").status_code == 401
        assert bench.kinds()[-1] == "access_denied"


# A disk that lies


@contextmanager
def _room_for(size: int) -> Iterator[None]:
    """Let files grow to ``size`` bytes and no further: a write that is cut short, as on a disk that fills up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_checkpoint_cut_short_by_the_disk_does_not_replace_the_whole_one(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.json"
    vault = bench.service.context.vault
    statement = sign_checkpoint(bench.service.context.checkpoint(), vault.signing_key)
    write_checkpoint(path, statement)
    with _room_for(100), pytest.raises(Unavailable):
        write_checkpoint(path, statement)
    assert path.read_bytes() == statement


def test_a_link_planted_where_the_checkpoint_goes_is_not_followed(bench: Bench, tmp_path: Path) -> None:
    """The second disk may be somebody else's folder too."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = tmp_path / "checkpoint.json"
    (tmp_path / "checkpoint.json.new").symlink_to(victim)
    vault = bench.service.context.vault
    with pytest.raises(Unavailable):
        write_checkpoint(path, sign_checkpoint(bench.service.context.checkpoint(), vault.signing_key))
    assert victim.read_text() == "precious"


def test_a_damaged_checkpoint_is_malformed_or_nobodys(bench: Bench, tmp_path: Path) -> None:
    key = bench.service.context.vault.signing_key
    path = tmp_path / "checkpoint.json"
    for damaged in mutated(sign_checkpoint(bench.service.context.checkpoint(), key)):
        path.write_bytes(damaged)
        try:
            read_checkpoint(path, key.verify_key)
        except (Malformed, Rejected):
            continue


# An operator who restores


def test_recovery_without_a_checkpoint_gives_back_nothing_that_may_be_spent(bench: Bench) -> None:
    """T38: delete the checkpoint, restore yesterday, recover, unblock, and nothing may be served twice."""
    lent = bench.lend(max_ceiling=10)
    bench.close()
    yesterday = (bench.home / "custodian.db").read_bytes()
    bench.open()
    toy = lent.boot()
    assert toy.renew().limits[LOAN_METER] == 10
    toy.serve(10)
    bench.close()
    for name in ("custodian.db-wal", "custodian.db-shm", "checkpoint.json"):
        (bench.home / name).unlink(missing_ok=True)
    (bench.home / "custodian.db").write_bytes(yesterday)
    recover_custodian(bench.home, bench.unlock, clock=bench.clock, rng=bench.rng)
    bench.open()
    assert lent.balance() == 0


def test_a_torn_checkpoint_says_how_to_go_on(bench: Bench) -> None:
    bench.close()
    path = bench.home / "checkpoint.json"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(Malformed) as refused:
        recover_custodian(bench.home, bench.unlock, clock=bench.clock, rng=bench.rng)
    assert "remove it" in str(refused.value.hint)
    path.unlink()
    recover_custodian(bench.home, bench.unlock, clock=bench.clock, rng=bench.rng)
    bench.open()


def test_init_takes_over_nobody_elses_database(bench: Bench, tmp_path: Path) -> None:
    """Opening it would fence the running custodian off."""
    theirs = {"database": str(bench.home / "custodian.db")}
    with pytest.raises(UsageError):
        init_custodian(tmp_path / "new", bench.unlock, settings=theirs, clock=bench.clock, rng=bench.rng, kdf=CHEAP)
    assert bench.lend().balance() == 10


def test_recovery_logs_each_blocked_loan_and_each_allowance_it_takes(bench: Bench) -> None:
    lent = bench.lend()
    bench.close()
    (bench.home / "checkpoint.json").unlink()
    recover_custodian(bench.home, bench.unlock, clock=bench.clock, rng=bench.rng)
    bench.open()
    mine = {entry["kind"] for entry in bench.audit() if entry["subject"] == lent.id}
    assert {"blocked", "allowance_written_off"} <= mine


def test_a_home_with_a_question_mark_in_its_name_is_that_home(bench: Bench, tmp_path: Path) -> None:
    """A path is a path, never part of a database URL."""
    bench.close()
    odd = tmp_path / "what?mode=ro&x=%41"
    shutil.copytree(bench.home, odd)
    bench.home = odd
    bench.open()
    assert len(bench.kinds()) > 3


def test_a_store_is_closed_after_the_transaction_under_way_and_writes_nothing_more(tmp_path: Path) -> None:
    """T86: a connection closed under another thread's statement ends the process without a word."""
    store = SqliteStore(tmp_path / "store.db", fence=bytes(16))
    with store.writing(fenced=False) as connection:
        closing = threading.Thread(target=store.close)
        closing.start()
        closing.join(timeout=0.3)
        assert closing.is_alive()
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
    closing.join(timeout=5)
    assert not closing.is_alive()
    with pytest.raises(Unavailable, match="closed"), store.writing():
        pass
