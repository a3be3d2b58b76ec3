"""One list of events, several custodians: the real service on every store, and the pure decisions in memory.

After every event all of them must stand alike: balances, instances, usage reports, the sums of every account, epoch,
block version, what was answered, and what the log says of it. Three differences are wanted and left out: only the
service logs its own starts, its tokens and challenges, requests that it refused without an answer; only the
service names the blocker and his reason; and it lays the blocks of a recovery as blocks of their own.
"""

from __future__ import annotations

import random
import re
import shutil
import tomllib
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from custodian_fake import MemoryCustodian, attest_statement
from custodian_kit import SOFTWARE, Bench, Lent, Toy

from cloister.custodian.setup import recover_custodian
from cloister.custodian.store.book import read_epoch
from cloister.custodian.store.instances import list_instances
from cloister.custodian.store.loans import balances_of, postings_of
from cloister.custodian.store.log import entries_after
from cloister.custodian.store.usage import find_reported
from cloister.errors import Rejected, Unavailable
from cloister.lending.audit import AuditEntry
from cloister.lending.lease import LeaseHolder, parse_answer
from cloister.lending.release import verify_grant
from cloister.lending.terms import MAX_TTL_S, ConsumerId, InstanceId, Meter, ModelDigest, Terms, meters_in
from cloister.testing.simulated import simulated_policy

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable
    from pathlib import Path

    from cloister.lending.ledger import Posting
    from cloister.lending.state import InstanceState
    from cloister.lending.usage_report import Reported
    from postgres_kit import PostgresServer

EVENTS = 150
KINDS = (
    *("launch", "launch", "ask", "ask", "ask", "ask", "retry", "old", "report_again", "serve", "serve"),
    *("close", "wait", "wait", "sweep", "top_up", "set", "block", "unblock", "unblock", "instance", "fork"),
    *("crash", "keep", "restore", "recover"),
)
COMPARED = {
    "allowance_added": ("units",),
    "allowance_set": ("units",),
    "allowance_written_off": ("meter", "units"),
    "blocked": ("block_version",),
    "custodian_recovered": ("epoch", "ledger_size", "units"),
    "fork_detected": None,
    "instance_closed": None,
    "instance_written_off": None,
    "lease_granted": None,
    "lease_refused": None,
    "overdraft_detected": None,
    "unblocked": ("block_version",),
    "usage_reported": None,
}
"""What of an entry all custodians say; None for all of it."""


@pytest.fixture(params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest) -> PostgresServer | None:
    """Return the server that the custodian's database is on; None where it is a file."""
    if request.param == "sqlite":
        return None
    postgres: PostgresServer = request.getfixturevalue("postgres")
    return postgres


class Pair:
    """One enclave, lent to by both: the same key, and a lease of each custodian."""

    def __init__(self, toy: Toy, memory: LeaseHolder) -> None:
        self.toy, self.memory = toy, memory
        assert toy.holder is not None
        self.real = toy.holder
        self.sent: list[bytes] = []
        self.reports: list[bytes] = []
        self.answers: tuple[bytes, bytes] | None = None


class Both:
    """The real custodian and the one in memory, told the same at the same time."""

    def __init__(self, folder: Path, server: PostgresServer | None, seed: int) -> None:
        self.rng = random.Random(seed)
        self.folder = folder
        self.server = server
        self.bench = Bench(folder / "custodian", postgres=server)
        body = {"consumers": [{"id": "ann"}, {"id": "bob", "allowance": 60}], "allowance": 60, "ttl_s": 60}
        models = [{"digest": self.bench.digest, "name": "digits", "allowance": 60}]
        self.lent: Lent = self.bench.lend(**body, models=models, max_ceiling=5, max_instances=12)
        self.terms = Terms.from_json(self.lent.made["terms"])
        self.memory = MemoryCustodian(seed)
        self.memory.longest_ttl = timedelta(seconds=MAX_TTL_S)
        self.memory.policy = simulated_policy(SOFTWARE).digest
        self.memory.create_loan(self.terms, dict.fromkeys(meters_in(self.terms), 60), self.bench.clock())
        self.pairs: list[Pair] = []
        self.reports_taken = 0
        self.blocks: set[tuple[str, str]] = set()
        self.backup: tuple[Path | str, Any] | None = None
        self._read = {"real": len(self._lines()), "memory": len(self.memory.db.lines)}

    # --- events ---

    def event(self) -> str:
        name = self.rng.choice(KINDS)
        getattr(self, name)()
        return name

    def _pair(self) -> Pair | None:
        return self.rng.choice(self.pairs[-6:]) if self.pairs else None

    def launch(self) -> None:
        toy, now = Toy(self.lent), self.bench.clock()
        answer = self.lent.attest(toy.attest_statement(toy.take_challenge()))
        statement, digest = attest_statement(toy.key, self.lent.id, self.rng.randbytes(32))
        try:
            granted = self.memory.attest(statement, now)
        except Rejected:
            assert answer.status_code >= 400, "only one of them released a key"
            return
        assert answer.status_code == 200, answer.text
        toy.accept(answer.content)
        key = self.memory.key.verify_key
        grant = verify_grant(granted, custodian=key, request_digest=digest, instance=toy.id)
        self.pairs.append(Pair(toy, LeaseHolder(key=toy.key, grant=grant, custodian=key)))
        for _ in range(3):
            self._ask(self.pairs[-1])

    def ask(self) -> None:
        pair = self._pair()
        if pair is not None:
            for _ in range(self.rng.randint(1, 3)):
                self._ask(pair)

    def _ask(self, pair: Pair) -> None:
        nonce, now = self.rng.randbytes(16), self.bench.clock()
        with suppress(Rejected):
            statement = pair.real.request(now, nonce)
            assert statement == pair.memory.request(now, nonce)
            pair.sent.append(statement)
            if self.rng.random() < 0.8:
                self._report(pair)
            self._bring(pair, statement)
            if pair.answers is not None and self.rng.random() < 0.8:
                for holder, answer in zip((pair.real, pair.memory), pair.answers, strict=True):
                    with suppress(Rejected):
                        holder.receive(answer, now)
                self._serve(pair)

    def _bring(self, pair: Pair, statement: bytes) -> None:
        answer, now = pair.toy.send(statement), self.bench.clock()
        try:
            told = self.memory.lease(pair.toy.id, statement, now)
        except Rejected:
            assert answer.status_code >= 400, "only one of them answered"
            return
        assert answer.status_code == 200, answer.text
        pair.answers = (answer.content, told)
        real = parse_answer(answer.content, self.bench.init.key)
        assert real == parse_answer(told, self.memory.key.verify_key)

    def _report(self, pair: Pair) -> None:
        """Bring the reports that are due; half of the acknowledgements get lost."""
        while (statement := pair.real.report()) is not None:
            assert statement == pair.memory.report()
            heard = self._bring_report(pair, statement)
            if heard is None or self.rng.random() < 0.5:
                return
            for holder, ack in zip((pair.real, pair.memory), heard, strict=True):
                holder.acknowledge(ack)

    def _bring_report(self, pair: Pair, statement: bytes) -> tuple[bytes, bytes] | None:
        pair.reports.append(statement)
        answer = pair.toy.send_report(statement)
        try:
            told = self.memory.report(pair.toy.id, statement, self.bench.clock())
        except Rejected:
            assert answer.status_code >= 400, "only one of them took a report"
            return None
        assert answer.status_code == 200, answer.text
        self.reports_taken += 1
        return answer.content, told

    def report_again(self) -> None:
        pair = self._pair()
        if pair is not None and pair.reports:
            self._bring_report(pair, self.rng.choice(pair.reports))

    def retry(self) -> None:
        pair = self._pair()
        if pair is not None and pair.sent:
            self._bring(pair, pair.sent[-1])

    def old(self) -> None:
        pair = self._pair()
        if pair is not None and pair.sent:
            self._bring(pair, self.rng.choice(pair.sent))

    def serve(self) -> None:
        pair = self._pair()
        if pair is not None:
            self._serve(pair)

    def _serve(self, pair: Pair) -> None:
        now, units = self.bench.clock(), self.rng.randint(1, 3)
        token = self.lent.made["consumer_tokens"][self.rng.choice(("ann", "bob"))].encode()
        for holder in (pair.real, pair.memory):
            with suppress(Rejected):
                holder.settle(holder.reserve("digits", token, units, now), units, bytes(32), bytes(32), now)

    def close(self) -> None:
        pair, now = self._pair(), self.bench.clock()
        if pair is None or self.rng.random() < 0.7:
            return
        statement = pair.real.close(now)
        assert statement == pair.memory.close(now)
        if self.rng.random() < 0.7:
            self._report(pair)
        answer = pair.toy.send_close(statement)
        try:
            self.memory.close(pair.toy.id, statement, now)
        except Rejected:
            assert answer.status_code >= 400, "only one of them took a close"

    def wait(self) -> None:
        self.bench.clock.advance(self.rng.choice((1, 10, 20, 62)))

    def sweep(self) -> None:
        self.bench.service.sweep()
        self.memory.sweep(self.bench.clock())

    def top_up(self) -> None:
        meter, units = self._meter(), self.rng.randint(1, 9)
        assert self.bench.post(f"/v1/loans/{self.lent.id}/top-up", {"meter": meter, "units": units}).status_code == 200
        self.memory.top_up(self.lent.id, meter, units, self.bench.clock())

    def set(self) -> None:
        meter, units = self._meter(), self.rng.randint(0, 40)
        answer = self.bench.post(f"/v1/loans/{self.lent.id}/set", {"meter": meter, "units": units})
        assert answer.status_code == 200, answer.text
        self.memory.set_allowance(self.lent.id, meter, units, self.bench.clock())

    def _meter(self) -> Meter:
        return self.rng.choice(meters_in(self.terms))

    def block(self) -> None:
        kind = self.rng.choice(("loan", "model", "consumer"))
        subject = {"loan": self.lent.id, "model": self.bench.digest, "consumer": "bob"}[kind]
        if (kind, subject) not in self.blocks and self.rng.random() < 0.5:
            self.blocks.add((kind, subject))
            body = {"kind": kind, "subject": subject, "reason": "why not"}
            answer = self.bench.post("/v1/blocks", body | ({"loan": self.lent.id} if kind == "consumer" else {}))
            assert answer.status_code in (200, 201), answer.text
            self._block(kind, blocked=True)

    def unblock(self) -> None:
        for kind, subject in sorted(self.blocks):
            query = f"?loan={self.lent.id}" if kind == "consumer" else ""
            answer = self.bench.client.delete(f"/v1/blocks/{kind}/{subject}{query}", headers=self.bench.admin)
            assert answer.status_code == 200, answer.text
            self._block(kind, blocked=False)
        self.blocks.clear()

    def _block(self, kind: str, *, blocked: bool) -> None:
        now = self.bench.clock()
        match kind:
            case "loan":
                self.memory.block_loan(self.lent.id, now, blocked=blocked)
            case "model":
                self.memory.block_model(ModelDigest(self.bench.digest), now, blocked=blocked)
            case _:
                self.memory.block_consumer(self.lent.id, ConsumerId("bob"), now, blocked=blocked)

    def instance(self) -> None:
        """Block an instance that stands; of others the memory would forget how they ended."""
        standing = [item for item in self.memory.db.instances.values() if item.status.value == "active"]
        if standing and self.rng.random() < 0.4:
            chosen = self.rng.choice(standing)
            body = {"kind": "instance", "subject": chosen.id, "reason": "why not"}
            assert self.bench.post("/v1/blocks", body).status_code in (200, 201)
            self.memory.block_instance(chosen.id, self.bench.clock())

    def fork(self) -> None:
        """Ask with the number of the last request and other bytes, as a copy of the memory does."""
        pair = self._pair()
        if pair is not None and pair.sent and self.rng.random() < 0.3:
            copied, nonce = pair.toy, self.rng.randbytes(16)
            twin = LeaseHolder(key=copied.key, grant=copied.grant, custodian=self.bench.init.key)  # type: ignore[arg-type]  # it has one
            twin._seq = pair.real._seq - 1
            self._bring(pair, twin.request(self.bench.clock(), nonce))

    # --- the machine ---

    def crash(self) -> None:
        """End the process without a word, and start again."""
        self._end()
        self.bench.open()
        self.memory.running = False
        self.memory.start()

    def keep(self) -> None:
        """Copy the database. A server copies one that nobody is connected to: there the custodian starts again."""
        if self.server is None:
            path = self.folder / f"backup-{self.rng.getrandbits(64)}.db"
            self.bench.service.context.store.backup(path)
            self.backup = (path, self.memory.db.copy())
            return
        self._end()
        self.backup = (self.server.create(self._database()), self.memory.db.copy())
        self.bench.open()

    def restore(self) -> None:
        """Put the last backup in place. Who restores one twice finds blocks that he has lifted since."""
        if self.backup is None or self.rng.random() < 0.5:
            return
        kept, db = self.backup
        self._end()
        if isinstance(kept, str):
            config = self.bench.home / "config.toml"
            config.write_text(config.read_text().replace(self._database(), kept))
        else:
            database = self.bench.home / "custodian.db"
            for suffix in ("-wal", "-shm"):
                database.with_name(database.name + suffix).unlink(missing_ok=True)
            shutil.copyfile(kept, database)
        self.memory.restore(db)
        self._come_back()
        self.backup = None

    def _database(self) -> str:
        return str(tomllib.loads((self.bench.home / "config.toml").read_text())["custodian"]["database"])

    def _end(self) -> None:
        """End the process without a word."""
        self.bench.client.close()
        self.bench.service.abandon()

    def recover(self) -> None:
        """Recover a database that is whole: what a careful person does once too often."""
        if self.rng.random() < 0.1:
            self._end()
            self._come_back()

    def _come_back(self) -> None:
        clock = self.bench.clock
        recover_custodian(self.bench.home, self.bench.unlock, clock=clock, rng=self.bench.rng)
        self.memory.recover(clock())
        self.bench.open()
        state = self.memory.db.loans[self.lent.id]
        self.blocks = {("loan", self.lent.id)} if state.blocked else set()
        self.blocks |= {("model", digest) for digest in state.blocked_models}
        self.blocks |= {("consumer", name) for name in state.blocked_consumers}
        self._read = {"real": len(self._lines()), "memory": len(self.memory.db.lines)}
        clock.advance(MAX_TTL_S * 1.002)  # the quiet time; during it there is nothing to compare

    # --- how they stand ---

    def demand_alike(self) -> None:
        """Prove that both stand alike, and that both logs say the same of what was new."""
        real, memory = self._real(), self._memory()
        for name, value in real.items():
            assert value == memory[name], name
        said = {"real": self._news("real", self._lines()), "memory": self._news("memory", self.memory.db.lines)}
        assert said["real"] == said["memory"]

    def _real(self) -> dict[str, Any]:
        with self.bench.service.context.store.reading() as connection:
            epoch = read_epoch(connection)
            return {
                "epoch": (epoch.epoch, epoch.block_version),
                "balances": balances_of(connection, self.lent.id),
                "accounts": accounts(postings_of(connection, self.lent.id)),
                "instances": {row.state.id: told(row.state) for row in list_instances(connection, loan=self.lent.id)},
                "reported": {pair.toy.id: standing(find_reported(connection, pair.toy.id)) for pair in self.pairs},
            }

    def _memory(self) -> dict[str, Any]:
        db = self.memory.db
        return {
            "epoch": (db.epoch, db.block_version),
            "balances": db.loans[self.lent.id].balances,
            "accounts": accounts(db.postings),
            "instances": {item.id: told(item) for item in db.instances.values()},
            "reported": {pair.toy.id: standing(db.reported(pair.toy.id)) for pair in self.pairs},
        }

    def _lines(self) -> list[bytes]:
        with self.bench.service.context.store.reading() as connection:
            return list(entries_after(connection, 0, limit=100_000))

    def _news(self, whose: str, lines: list[bytes]) -> list[tuple[Any, ...]]:
        fresh = [AuditEntry.parse(line) for line in lines[self._read[whose] :]]
        self._read[whose] = len(lines)
        told = [entry for entry in map(compared, fresh) if entry is not None]
        ended = [entry for entry in told if entry[0] == "instance_written_off"]  # in no order of their own
        return [entry for entry in told if entry not in ended] + sorted(ended)

    def end(self) -> None:
        with suppress(Unavailable):
            self.bench.close()


def accounts(postings: Iterable[Posting]) -> dict[tuple[str, str], int]:
    """Return what stands on every account of every meter."""
    sums: dict[tuple[str, str], int] = {}
    for item in postings:
        for account, sign in ((item.credit_account, 1), (item.debit_account, -1)):
            sums[item.meter, account] = sums.get((item.meter, account), 0) + sign * item.units
    return {key: units for key, units in sums.items() if units}


def told(item: InstanceState) -> InstanceState:
    """Return an instance without the reply's bytes, which each custodian signs for itself, and empty counts."""
    limits = {meter: units for meter, units in item.limits.items() if units}
    used = {meter: units for meter, units in item.used.items() if units}
    return replace(item, reply=None, limits=limits, used=used)


def standing(reported: Reported) -> Hashable:
    """Return what stands of an instance's usage."""
    return (reported.index, reported.head, frozenset(reported.totals.items()))


def compared(entry: AuditEntry) -> tuple[Any, ...] | None:
    """Return what every custodian says of this event; None for what only the service logs."""
    kind = entry.kind.value
    if kind not in COMPARED or (kind == "lease_refused" and "reply_digest" not in entry.details):
        return None
    names = COMPARED[kind]
    details = {name: _impersonal(value) for name, value in entry.details.items() if names is None or name in names}
    return (kind, _impersonal(entry.subject), entry.at, tuple(sorted(details.items())))


def _impersonal(value: Any) -> Any:
    """Return a value without who it names: the service's log knows persons by pseudonyms of its own."""
    return (
        re.sub(r"^(consumer:)?(?:ann|bob|p:[0-9a-f]{32})$", r"\1somebody", value) if isinstance(value, str) else value
    )


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.drill) for seed in range(2, 21))])
def test_the_same_events_end_in_equal_states(place: Path, server: PostgresServer | None, seed: int) -> None:
    print(f"seed {seed}")  # noqa: T201 - what to run again
    both = Both(place, server, seed)
    try:
        for number in range(EVENTS):
            name = both.event()
            try:
                both.demand_alike()
            except AssertionError as difference:
                difference.add_note(f"seed {seed}, event {number}: {name}")
                raise
    finally:
        both.end()
    instances = both.memory.db.instances.values()
    assert both.reports_taken > 3
    assert len(both.pairs) > 3
    assert InstanceId(both.pairs[0].toy.id) in both.memory.db.instances
    assert len({item.status for item in instances}) > 1
