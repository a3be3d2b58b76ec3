"""A custodian with a loan and an enclave, on which every operation can be run with a fault on its way."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from books import Books
from custodian_kit import Bench, Toy

from cloister.crypto.sign import Statement
from cloister.custodian.checkpoint import read_checkpoint
from cloister.custodian.service.blocks import block
from cloister.custodian.service.context import OnceKey
from cloister.custodian.service.models import publish
from cloister.custodian.store.book import read_epoch
from cloister.custodian.store.instances import list_instances
from cloister.custodian.store.loans import balances_of, postings_of
from cloister.custodian.store.log import entries_after
from cloister.custodian.tokens import Actor, Role
from cloister.errors import CloisterError, Unavailable
from cloister.lending.audit import verify_log
from cloister.lending.lease import parse_answer
from cloister.lending.messages import Challenge, Lease
from cloister.lending.state import LoanState
from cloister.lending.terms import LOAN_METER, Terms
from cloister.wire import Fields
from fail_points import FailPoints, Fault, ProcessEnded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STAFF = Actor(id="staff", role=Role.ADMIN, name="staff")
KNOWN = {"config.toml", "vault.json", "custodian.db", "custodian.db-wal", "custodian.db-shm", "checkpoint.json"}
KNOWN |= {"lock", "tls", "devices", "checkpoint.json.new"}


class Ground:
    """A custodian with a loan and an enclave that holds a lease, to be copied for every point."""

    def __init__(self, folder: Path) -> None:
        self.bench = Bench(folder)
        self.lent = self.bench.lend(max_ceiling=4)
        self.toy = self.lent.boot()
        self.toy.renew()
        self.other = self.bench.seal("other")
        (self.bench.home / "tls" / "server.pem").unlink()
        self.borrower = Actor(id="b", role=Role.BORROWER, name="b", loan=self.lent.id)

    def start_anew(self) -> None:
        """Open everything from the disk, whatever state the process was in."""
        self.bench.client.close()
        with suppress(CloisterError):
            self.bench.service.abandon()
        self.bench.open()

    # --- the operations; each is what the HTTP face calls, and returns what there is to see of it ---

    def grant(self) -> int:
        """Let a new enclave attest: a grant that was lost is not given again."""
        toy, service = Toy(self.lent), self.bench.service
        asked = Statement.parse(service.challenge(self.borrower, self.lent.id), label=Challenge.LABEL)
        challenge = Challenge.parse(asked.verify([self.bench.init.key]))
        toy.accept(service.attest(self.borrower, self.lent.id, toy.attest_statement(challenge)))
        return 0

    def renew(self) -> int:
        holder = self.toy.holder
        assert holder is not None
        answer = self.bench.service.lease(self.toy.id, holder.request(self.bench.clock(), bytes(16)))
        lease = parse_answer(answer, self.bench.init.key)
        assert isinstance(lease, Lease)
        return lease.limits[LOAN_METER]

    def close(self) -> int:
        assert self.toy.holder is not None
        self.bench.service.close_instance(self.toy.id, self.toy.holder.close(self.bench.clock()))
        return 0

    def block(self) -> int:
        body = {"kind": "loan", "subject": self.lent.id, "reason": "drill"}
        key = OnceKey(actor=STAFF.id, key="block", digest=b"d" * 32)
        work = lambda transaction: block(transaction, STAFF, Fields(dict(body), what="body"))  # noqa: E731 - one use
        answer: Any = self.bench.service.run(work, key)
        return int(answer["block_version"])

    def publish(self) -> int:
        body = {name: self.other[name] for name in ("manifest", "signature", "envelope")}
        key = OnceKey(actor=STAFF.id, key="publish", digest=b"p" * 32)
        work = lambda transaction: publish(transaction, STAFF, Fields(dict(body), what="body"))  # noqa: E731 - one use
        self.bench.service.run(work, key)
        return 0

    def start(self) -> int:
        """Start, with a server certificate to be renewed on the way: it was lost."""
        self.start_anew()
        return 0

    # --- what must hold ---

    def demand_whole(self) -> None:
        """Prove the books (I1, I2, I4, I5), the log against the checkpoint outside (I7), and no half files."""
        with self.bench.service.context.store.reading() as connection:
            epoch = read_epoch(connection)
            lines = list(entries_after(connection, 0, limit=100_000))
            postings = list(postings_of(connection, self.lent.id))
            rows = list_instances(connection, loan=self.lent.id)
            balances = balances_of(connection, self.lent.id)
        terms = Terms.from_json(self.lent.made["terms"])
        loan = LoanState(terms=terms, balances=balances, policy_digest="", block_version=epoch.block_version)
        db: Any = _Rows(postings, {row.state.id: row.state for row in rows}, {self.lent.id: loan}, epoch)
        Books.of(db)
        checkpoint = read_checkpoint(self.bench.home / "checkpoint.json", self.bench.init.key)
        assert checkpoint is not None
        assert verify_log(lines, checkpoint).checked == len(lines)
        logged = b"\n".join(lines)
        assert all(row.state.id.encode() in logged for row in rows), "a key was released without an entry"
        digests = [row.state.req_digest for row in rows if row.state.req_digest is not None]
        assert all(digest.hex().encode() in logged for digest in digests), "an answer without an entry"
        assert {place.name for place in self.bench.home.iterdir()} <= KNOWN


class _Rows:
    """What ``Books`` reads of a database."""

    def __init__(self, postings: Any, instances: Any, loans: Any, epoch: Any) -> None:
        self.postings, self.instances, self.loans = postings, instances, loans
        self.epoch, self.block_version = epoch.epoch, epoch.block_version


def meet(operation: Callable[[], int], at: int, fault: Fault) -> tuple[FailPoints, bool]:
    """Run ``operation`` with a fault at its ``at``-th point; tell whether it ended as if nothing had happened."""
    points = FailPoints(at, fault)
    try:
        with points.standing():
            operation()
    except Unavailable:
        return points, False
    except ProcessEnded:
        assert fault is Fault.CRASH
        return points, False
    return points, True
