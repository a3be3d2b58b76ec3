"""Several custodians over one PostgreSQL: any may die, none may lie (T38, T39, T45, T93)."""

from __future__ import annotations

import json
import shutil
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from custodian_kit import CHEAP, PASSPHRASE, Bench, Clock, Toy

from cloister.attest.verifier import Verifier
from cloister.custodian.config_file import load_config, read_config
from cloister.custodian.restoring import migrate_database, move_database, restore_database
from cloister.custodian.service.audit_log import Batch
from cloister.custodian.service.rotation import rotate_due
from cloister.custodian.setup import init_custodian, open_custodian, recover_custodian
from cloister.custodian.store.faults import Contended
from cloister.custodian.store.migrations import MIGRATIONS
from cloister.custodian.store.postgres import PostgresStore, parse_database_url
from cloister.custodian.store.tables import TABLES
from cloister.custodian.tokens import SYSTEM
from cloister.custodian.vaults.encrypted_file import Passphrase
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.lending.audit import verify_checkpoint, verify_log
from cloister.lending.events import Event, EventKind
from cloister.lending.messages import Lease
from cloister.testing.simulated import SimulatedScheme

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloister.custodian.service import CustodianService
    from cloister.custodian.service.context import Transaction
    from postgres_kit import PostgresServer


@dataclass
class Pair:
    """Two custodians over one database: the bench's own, and a second process of the same home."""

    bench: Bench
    server: PostgresServer
    url: str
    second: CustodianService

    @contextmanager
    def at_second(self) -> Iterator[None]:
        """Let staff and enclaves call the second custodian."""
        from starlette.testclient import TestClient  # noqa: PLC0415 - a custodian of its own

        from cloister.custodian.app import create_app  # noqa: PLC0415

        first = self.bench.client
        self.bench.client = TestClient(create_app(self.second), raise_server_exceptions=False)
        try:
            yield
        finally:
            self.bench.client.close()
            self.bench.client = first


def another(bench: Bench, name: str = "checkpoint-2.json") -> CustodianService:
    """Start one more custodian process of the bench's home."""
    return open_custodian(
        bench.home,
        bench.unlock,
        make_verifier=lambda _: Verifier([SimulatedScheme(bench.root.public)]),
        environment={"CLOISTER_CUSTODIAN_CHECKPOINT": name},
        clock=bench.clock,
    )


@pytest.fixture
def pair(tmp_path: Path, postgres: PostgresServer) -> Iterator[Pair]:
    bench = Bench(tmp_path / "a", postgres=postgres)
    second = another(bench)
    opened = Pair(bench=bench, server=postgres, url=bench.service.config.database, second=second)
    yield opened
    bench.client.close()
    bench.service.abandon()
    second.abandon()
    postgres.drop(opened.url)


def whole_log(service: CustodianService) -> list[bytes]:
    """Return the log, proven whole up to the custodian's own checkpoint."""
    from cloister.custodian.service.logbook import signed_checkpoint  # noqa: PLC0415
    from cloister.custodian.store.log import entries_after  # noqa: PLC0415

    with service.context.reading() as connection:
        lines = list(entries_after(connection, 0, limit=100_000))
    checkpoint = verify_checkpoint(signed_checkpoint(service.context), service.key)
    assert verify_log(lines, checkpoint).checked == len(lines)
    return lines


def kinds(service: CustodianService) -> list[str]:
    return [json.loads(line)["kind"] for line in whole_log(service)]


def test_what_one_custodian_does_the_other_knows_and_logs_behind_it(pair: Pair) -> None:
    lent = pair.bench.lend(allowance=20, max_ceiling=4)
    toy = lent.boot()
    assert isinstance(toy.renew(), Lease)
    toy.serve(3)
    pair.bench.clock.advance(20)
    with pair.at_second():
        assert isinstance(toy.renew(), Lease)
        assert lent.balance() == 13
        assert pair.bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 5}).json()["balance"] == 18
    assert lent.balance() == 18
    pair.bench.service.context.refresh()
    assert whole_log(pair.bench.service) == whole_log(pair.second)


def test_a_reply_stored_by_one_custodian_is_given_again_by_the_other(pair: Pair) -> None:
    """T40: the first died behind its commit; the enclave asks whoever answers."""
    toy = pair.bench.lend().boot()
    statement = toy.request()
    first = toy.send(statement).content
    with pair.at_second():
        assert toy.send(statement).content == first


def test_entries_of_a_custodian_that_died_before_ordering_them_are_ordered_by_another(pair: Pair) -> None:
    """I7: what was committed is in the log before anybody is answered, whoever comes."""
    context = pair.bench.service.context
    context.sequence = lambda: (_ for _ in ()).throw(Unavailable("died"))  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="died"):
        context.transact(lambda work: work.record(EventKind.MODEL_WITHDRAWN, SYSTEM, "lost"))
    assert "model_withdrawn" not in kinds(pair.second)
    pair.second.sweep()
    assert kinds(pair.second)[-1] == "model_withdrawn"


def test_an_older_batch_that_comes_late_does_not_turn_the_log_s_time_back(pair: Pair) -> None:
    bench = pair.bench
    pair.second.context.transact(lambda work: work.record(EventKind.MODEL_WITHDRAWN, SYSTEM, "now"))
    late = Batch(
        at=bench.clock.now - bench.clock.now.resolution * 10**6,
        events=[Event(kind=EventKind.MODEL_WITHDRAWN, actor="custodian", subject="late")],
    )
    with bench.service.context.store.writing() as connection:
        from cloister.custodian.service.audit_log import leave_pending  # noqa: PLC0415

        leave_pending(connection, late)
    bench.service.context.sequence()
    whole_log(bench.service)


def test_a_rotation_that_is_due_is_done_by_one_of_two_custodians_and_known_to_both(pair: Pair) -> None:
    lent = pair.bench.lend(max_instances=8)
    assert pair.bench.post("/v1/keys/schedule", {"every_s": 3600}).json()["every_s"] == 3600
    pair.bench.clock.advance(3601)
    together = threading.Barrier(2)

    def sweep(service: CustodianService) -> None:
        together.wait()
        rotate_due(service.context)

    threads = [threading.Thread(target=sweep, args=(service,)) for service in (pair.bench.service, pair.second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pair.bench.service.context.sequence()
    assert kinds(pair.bench.service).count("keys_rotated") == 1
    with pair.at_second():
        assert lent.boot().released_dek() == pair.bench.dek
    assert lent.boot().released_dek() == pair.bench.dek


def test_the_last_unit_goes_to_one_of_sixteen_enclaves_at_two_custodians(pair: Pair) -> None:
    """T45, list 91."""
    lent = pair.bench.lend(allowance=1, max_instances=32)
    toys = []
    for _ in range(16):
        toys.append(Toy(lent))
        toys[-1].accept(lent.attest(toys[-1].attest_statement(toys[-1].take_challenge())).content)
    granted: list[int] = []

    def ask(toy: Toy, service: CustodianService) -> None:
        reply = service.lease(toy.id, toy.request())
        assert toy.holder is not None
        answer = toy.holder.receive(reply, pair.bench.clock())
        granted.append(answer.limits["loan"] if isinstance(answer, Lease) else 0)  # type: ignore[index]

    services = (pair.bench.service, pair.second)
    threads = [threading.Thread(target=ask, args=(toy, services[n % 2])) for n, toy in enumerate(toys)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(granted) == 16
    assert sum(granted) == 1
    assert lent.balance() == 0
    pair.bench.service.context.sequence()
    whole_log(pair.bench.service)


def test_a_block_gets_through_while_others_renew_without_end(pair: Pair) -> None:
    """The kill switch is never starved: after a few tries it runs alone."""
    lent = pair.bench.lend(allowance=100_000, max_ceiling=100_000)
    toys = [lent.boot() for _ in range(4)]
    stop = threading.Event()

    def renew(toy: Toy, service: CustodianService) -> None:
        assert toy.holder is not None
        while not stop.is_set():
            answer = toy.holder.receive(service.lease(toy.id, toy.request()), pair.bench.clock())
            if not isinstance(answer, Lease):
                return
            time.sleep(0.005)

    services = (pair.bench.service, pair.second)
    threads = [threading.Thread(target=renew, args=(toy, services[n % 2])) for n, toy in enumerate(toys)]
    for thread in threads:
        thread.start()
    answer = pair.bench.post("/v1/blocks", {"kind": "loan", "subject": lent.id, "reason": ""})
    for thread in threads:
        thread.join(30)
    stop.set()
    assert answer.status_code == 201
    assert not any(thread.is_alive() for thread in threads), "somebody renews behind the block"


def test_a_use_case_that_met_another_is_run_again_and_alone_in_the_end(pair: Pair) -> None:
    tries: list[bool] = []
    store = pair.bench.service.context.store
    writing = store.writing

    def watched(*, fenced: bool = True, alone: bool = False) -> Any:
        tries.append(alone)
        return writing(fenced=fenced, alone=alone)

    store.writing = watched  # type: ignore[method-assign]

    def work(_: Transaction) -> int:
        if len(tries) < 5:
            raise Contended("met another")
        return 7

    assert pair.bench.service.context.transact(work, beside=True) == 7
    assert tries == [False, False, False, True, True]


def test_a_request_whose_use_case_is_run_again_is_read_again(pair: Pair) -> None:
    """What a first try took out of the body is there for the second."""
    lent = pair.bench.lend()
    store = pair.bench.service.context.store
    writing, left = store.writing, [2]

    @contextmanager
    def unlucky(*, fenced: bool = True, alone: bool = False) -> Iterator[Any]:
        with writing(fenced=fenced, alone=alone) as connection:
            yield connection
            left[0] -= 1
            if left[0] >= 0:
                raise Contended("met another")

    store.writing = unlucky  # type: ignore[method-assign]
    assert pair.bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 7}).json()["balance"] == 17
    assert left == [-1]


def test_a_use_case_that_always_meets_another_ends_as_unavailable(pair: Pair) -> None:
    def work(_: Transaction) -> None:
        raise Contended("met another")

    with pytest.raises(Unavailable):
        pair.bench.service.context.transact(work)


def test_a_second_process_with_the_first_one_s_checkpoint_is_told_who_holds_it(pair: Pair) -> None:
    """T39: two that wrote one checkpoint could set it back."""
    with pytest.raises(Unavailable, match="held by process"):
        another(pair.bench)


def test_a_custodian_without_a_checkpoint_of_its_own_counts_on_the_others(pair: Pair) -> None:
    third = another(pair.bench, "checkpoint-3.json")
    assert (pair.bench.home / "checkpoint-3.json").exists()
    third.abandon()
    for path in pair.bench.home.glob("checkpoint*.json"):
        path.unlink()
    with pytest.raises(Rejected) as refused:
        another(pair.bench, "checkpoint-3.json")
    assert refused.value.code == "checkpoint_missing"


def test_a_database_of_another_custodian_is_refused(pair: Pair, tmp_path: Path) -> None:
    """T39: one database, one custodian."""
    with pytest.raises(UsageError, match="another custodian"):
        PostgresStore(pair.url, fence=bytes(32))
    with pytest.raises(UsageError, match="another custodian"):
        init_custodian(
            tmp_path / "other", Passphrase(PASSPHRASE), settings={"database": pair.url}, clock=Clock(), kdf=CHEAP
        )


def _rolled_back(pair: Pair) -> str:
    """Return a copy of the database as it is now, to be put back later."""
    pair.bench.close()
    pair.second.abandon()
    return pair.server.create(pair.url)


def _put_back(pair: Pair, older: str) -> None:
    config = pair.bench.home / "config.toml"
    config.write_text(config.read_text().replace(pair.url, older))


def test_an_older_database_is_refused_and_recovery_fences_everybody(pair: Pair) -> None:
    """T38, C10, C11."""
    lent = pair.bench.lend(allowance=10, max_ceiling=4)
    toy = lent.boot()
    older = _rolled_back(pair)
    pair.bench.open()
    toy.renew()
    pair.bench.close()
    _put_back(pair, older)
    with pytest.raises(Rejected) as refused:
        pair.bench.open()
    assert "database_older" in {reason.code for reason in refused.value.reasons}
    recovery = recover_custodian(pair.bench.home, pair.bench.unlock, clock=pair.bench.clock)
    assert recovery.epoch == 2
    pair.bench.open()
    shown = lent.show()["meters"]["loan"]
    assert (shown["balance"], shown["written_off"]) == (6, 4)
    pair.server.drop(pair.url)
    pair.url = older


def test_a_running_custodian_notices_that_its_log_was_cut_under_it(pair: Pair) -> None:
    """T38, T83: an older database under running custodians answers nobody."""
    lent = pair.bench.lend()
    pair.server.sql(
        "ALTER TABLE audit DISABLE TRIGGER ALL; DELETE FROM audit WHERE idx = (SELECT max(idx) FROM audit);"
        "UPDATE log_head SET size = size - 1",
        pair.url,
    )
    answer = pair.bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 1})
    assert (answer.status_code, answer.json()["code"]) == (403, "database_older")


def test_a_running_custodian_notices_another_log_of_the_same_length(pair: Pair) -> None:
    lent = pair.bench.lend()
    pair.server.sql("UPDATE log_head SET root = sha256('x')", pair.url)
    answer = pair.bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 1})
    assert answer.json()["code"] == "audit_changed"
    with pytest.raises(Rejected) as refused:
        another(pair.bench, "checkpoint-3.json")
    assert refused.value.code == "audit_changed"


def test_a_ledger_with_a_posting_too_many_or_too_few_refuses_the_start(pair: Pair) -> None:
    pair.bench.lend()
    pair.bench.service.context.refresh()
    columns = "at, loan, meter, debit, credit, units"
    pair.server.sql(f"INSERT INTO ledger ({columns}) SELECT {columns} FROM ledger", pair.url)  # noqa: S608
    with pytest.raises(Rejected) as refused:
        another(pair.bench, "checkpoint-3.json")
    assert refused.value.code == "ledger_changed"


def test_a_recovered_database_fences_those_who_still_run(pair: Pair) -> None:
    """C2."""
    lent = pair.bench.lend()
    shutil.copy(pair.bench.home / "checkpoint-2.json", pair.bench.home / "checkpoint-4.json")
    recover_custodian(
        pair.bench.home,
        pair.bench.unlock,
        environment={"CLOISTER_CUSTODIAN_CHECKPOINT": "checkpoint-4.json"},
        clock=pair.bench.clock,
    )
    answer = pair.bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 1})
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")


def test_a_newer_schema_is_refused(pair: Pair) -> None:
    """T93."""
    pair.server.sql("UPDATE schema_version SET version = 99", pair.url)
    with pytest.raises(UsageError, match="99"):
        another(pair.bench, "checkpoint-3.json")


def test_a_server_that_is_restarted_is_used_again(pair: Pair) -> None:
    lent = pair.bench.lend()
    pair.server.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cloister'", pair.url
    )
    answers = {pair.bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 1}).status_code for _ in range(5)}
    assert 200 in answers
    assert answers <= {200, 503}


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM ledger",
        "UPDATE ledger SET units = 1",
        "TRUNCATE ledger",
        "DELETE FROM audit",
        "UPDATE audit SET at = 0",
        "TRUNCATE audit",
        "UPDATE allowance SET balance = -1",
        "UPDATE instance_meter SET used = ceiling + 1",
        "INSERT INTO token VALUES ('t', '\\x00', 'borrower', 'n', NULL, 0, NULL, NULL)",
    ],
)
def test_the_database_itself_refuses_what_must_not_be(pair: Pair, statement: str) -> None:
    pair.bench.lend().boot().renew()
    with pytest.raises(Unavailable), pair.bench.service.context.store.writing() as connection:
        connection.exec_driver_sql(statement)


def test_readers_cannot_write(pair: Pair) -> None:
    with pytest.raises(Unavailable), pair.bench.service.context.reading() as connection:
        connection.exec_driver_sql("UPDATE epoch SET epoch = 7")


def test_a_commit_waits_for_the_disk(pair: Pair) -> None:
    with pair.bench.service.context.store.writing() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on"
        assert connection.exec_driver_sql("SHOW transaction_isolation").scalar_one() == "serializable"


def test_no_plan_is_compiled(pair: Pair) -> None:
    """A scan that cannot be avoided looks dear where scans are off: compiling one took 40 ms for a table of one row."""
    with pair.bench.service.context.store.reading() as connection:
        plan = connection.exec_driver_sql("EXPLAIN ANALYZE SELECT fence FROM epoch").scalars().all()
        assert not [line for line in plan if "JIT" in line]
        assert connection.exec_driver_sql("SHOW jit").scalar_one() == "off"


def test_production_refuses_a_server_that_forgets(pair: Pair) -> None:
    with pytest.raises(UsageError, match="fsync and full_page_writes off"):
        PostgresStore(pair.url, fence=pair.bench.init.key.raw, production=True)


def test_an_error_of_the_database_carries_no_value(pair: Pair) -> None:
    with pytest.raises(Unavailable) as refused, pair.bench.service.context.store.writing() as connection:
        connection.exec_driver_sql("INSERT INTO token VALUES ('SECRET-CANARY', NULL, 'a', 'n', NULL, 0, NULL, NULL)")
    assert "CANARY" not in refused.value.message
    assert "INSERT" not in refused.value.message


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://cloister:hunter2@db.example/cloister",
        "postgresql://cloister@db.example/cloister?password=hunter2",
        "mysql://db.example/cloister",
        "postgresql://db.example",
        "postgresql://db.example:port/x",
        "sqlite:///x",
    ],
)
def test_a_url_with_a_password_or_of_another_kind_is_refused_and_not_repeated(url: str) -> None:
    """List 115."""
    with pytest.raises(UsageError) as refused:
        parse_database_url(url)
    assert "hunter2" not in f"{refused.value.message} {refused.value.hint}"
    if "hunter2" in url or not url.startswith("postgresql"):
        with pytest.raises(UsageError) as by_settings:
            load_config(f'[custodian]\ndatabase = "{url}"\n', environment={}, now=Clock().now)
        assert "hunter2" not in f"{by_settings.value.message} {by_settings.value.hint}"


def test_a_database_that_is_not_there_is_unavailable_and_names_nothing(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as refused:
        PostgresStore(f"postgresql://somebody@/nothing?host={tmp_path}", fence=bytes(32))
    assert str(tmp_path) not in refused.value.message
    assert "somebody" not in refused.value.message


def _counts(service: CustodianService) -> dict[str, int]:
    with service.context.reading() as connection:
        return {
            table.name: connection.exec_driver_sql(f"SELECT count(*) FROM {table.name}").scalar_one()  # noqa: S608
            for table in TABLES
        }


def test_a_backup_taken_while_both_run_is_restored_into_an_empty_database(pair: Pair, tmp_path: Path) -> None:
    lent = pair.bench.lend(allowance=10)
    lent.boot().renew()
    pair.bench.close()
    vault = pair.second.context.vault
    pair.second.context.store.backup(tmp_path / "backup.db")
    counts = _counts(pair.second)
    pair.second.abandon()
    fresh = pair.server.create()
    _put_back(pair, fresh)
    config = read_config(pair.bench.home, environment={}, now=pair.bench.clock())
    done = restore_database(pair.bench.home, config, tmp_path / "backup.db", vault=vault)
    assert (done.older, done.kept) == ("", None)
    pair.bench.open()
    after = _counts(pair.bench.service)
    assert {name: after[name] - counts[name] for name in counts if after[name] != counts[name]} == {"audit": 1}
    assert lent.balance() == 5
    # Numbers go on behind those that were carried over.
    assert pair.bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 1}).status_code == 200
    pair.server.drop(pair.url)
    pair.url = fresh
    with pytest.raises(UsageError, match="not empty"):
        restore_database(pair.bench.home, _under(config, "checkpoint-9.json"), tmp_path / "backup.db",
                         vault=vault)  # fmt: skip


def _under(config: Any, checkpoint: str) -> Any:
    from dataclasses import replace  # noqa: PLC0415

    return replace(config, checkpoint=checkpoint)


def test_a_custodian_moves_from_a_file_to_a_server_and_goes_on(tmp_path: Path, postgres: PostgresServer) -> None:
    with Bench(tmp_path / "a") as bench:
        lent = bench.lend(allowance=10, max_ceiling=4)
        toy = lent.boot()
        toy.renew()
        bench.close()
        config = read_config(bench.home, environment={}, now=bench.clock())
        url = postgres.create()
        reports: list[tuple[int, int]] = []
        rows = move_database(bench.home, config, url, progress=lambda done, total: reports.append((done, total)))
        assert reports[-1] == (rows, rows)
        text = (bench.home / "config.toml").read_text()
        line = next(line for line in text.splitlines() if "database =" in line)
        (bench.home / "config.toml").write_text(text.replace(line, f'database = "{url}"'))
        bench.open()
        toy.serve(1)
        bench.clock.advance(20)
        assert isinstance(toy.renew(), Lease)
        bench.close()
        # The old database is older now, and says so.
        (bench.home / "config.toml").write_text(text)
        with pytest.raises(Rejected) as refused:
            bench.open()
        assert "database_older" in {reason.code for reason in refused.value.reasons}
        (bench.home / "config.toml").write_text(text.replace(line, f'database = "{url}"'))
        bench.open()
    postgres.drop(url)


def test_migrating_says_from_which_version_to_which(pair: Pair) -> None:
    config = read_config(pair.bench.home, environment={}, now=pair.bench.clock())
    assert migrate_database(pair.bench.home, config, check=True) == (len(MIGRATIONS), len(MIGRATIONS))
    assert migrate_database(pair.bench.home, config) == (len(MIGRATIONS), len(MIGRATIONS))
    empty = _under(config, "x.json")
    fresh = pair.server.create()
    from dataclasses import replace  # noqa: PLC0415

    assert migrate_database(pair.bench.home, replace(empty, database=fresh), check=True) == (0, len(MIGRATIONS))
    assert migrate_database(pair.bench.home, replace(empty, database=fresh)) == (0, len(MIGRATIONS))
    pair.server.drop(fresh)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b'{"at":"2026-11-21T12:00:00Z","escrowed":0,"events":[],"ledger_rows":-1}',
        b'{"at":"2026-11-21T12:00:00Z","escrowed":0,"events":[{"kind":"nothing"}],"ledger_rows":0}',
        b'{"at":"2026-11-21T12:00:00Z","escrowed":0,"events":[{"details":{"reason":[]},"kind":"blocked"}],"ledger_rows":0}',
    ],
)
def test_a_batch_that_is_none_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        Batch.parse(data)


def test_two_custodians_over_one_database_believe_one_authority(tmp_path: Path, postgres: PostgresServer) -> None:
    """Certificates of either are good at both, a key is certified once, and a replaced authority ends at both."""
    from mtls_kit import ask, certified, csr_for, new_key, request_certificate  # noqa: PLC0415 - here only

    from cloister.errors import Rejected  # noqa: PLC0415 - here only

    bench = Bench(tmp_path / "a", postgres=postgres)
    second = another(bench)
    pair = Pair(bench=bench, server=postgres, url=bench.service.config.database, second=second)
    try:
        toy = bench.lend().boot()
        at_first = certified(toy).certificate
        second.certificates.refresh()
        csr = csr_for(new_key())
        with pair.at_second():
            at_second = certified(toy).certificate
            assert ask(toy, request_certificate(toy, csr)).status_code == 200
        assert at_first.issuer == at_second.issuer
        assert bench.service.certificates.peer(at_second).name == second.certificates.peer(at_first).name
        assert ask(toy, request_certificate(toy, csr)).json()["code"] == "key_certified"
        assert bench.post("/v1/certificates/authorities").status_code == 201
        second.keep_certificates()
        for service in (bench.service, second):
            with pytest.raises(Rejected):
                service.certificates.peer(at_second)
    finally:
        bench.client.close()
        bench.service.abandon()
        second.abandon()
        postgres.drop(pair.url)
